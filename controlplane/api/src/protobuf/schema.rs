//! The table of messages: for every field its tag, its name in JSON, its type, and whether it may be zero yet present.
//! It is unpacked once and kept: about 3,000 fields in some 200 KiB, and only in servers that meet such a client.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::OnceLock;

/// Made by `controlplane/api/schemas/protobuf`; zlib of lines: `m NAME` begins a message, `TAG NAME CODE` is a field of
/// it, `r APIVERSION KIND MESSAGE` a kind.
const PACKED_MESSAGES: &[u8] = include_bytes!("messages.z");

/// The number of a message in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MessageId(pub(super) u16);

/// What a field, or an element of it, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Int,
    Bool,
    Double,
    /// Base64 in JSON.
    Bytes,
    Message(MessageId),
    /// A message whose fields stand in the object around it.
    Inline(MessageId),
    /// A message around a list of texts; a list in JSON.
    Texts,
    Time,
    MicroTime,
    /// A message around nanoseconds; Go's text of a span of time in JSON.
    Duration,
    Quantity,
    IntOrString,
    /// A message around JSON as it is: `RawExtension`, `FieldsV1`, `JSON`.
    Json,
    /// `JSONSchemaPropsOrBool`; the schema's message.
    SchemaOrBool(MessageId),
    /// `JSONSchemaPropsOrArray`; the schema's message.
    SchemaOrSchemas(MessageId),
    /// `JSONSchemaPropsOrStringArray`; the schema's message.
    SchemaOrTexts(MessageId),
}

/// How many of it there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cardinality {
    One,
    List,
    /// By text.
    Map,
}

/// What it means that a field is there with its zero value. Kubernetes' own encoder always writes plain Go fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zero {
    /// As much as if it were absent: `omitempty`.
    Absent,
    /// That it is zero: a Go pointer, or a field that JSON always has.
    Present,
}

/// A field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) tag: u32,
    pub(super) name: &'static str,
    pub(super) cardinality: Cardinality,
    pub(super) zero: Zero,
    pub(super) ty: Type,
}

#[derive(Debug)]
struct Message {
    #[cfg(test)]
    name: &'static str,
    /// By tag.
    fields: Box<[Field]>,
}

/// The table.
#[derive(Debug)]
pub(super) struct Schema {
    messages: Vec<Message>,
    roots: HashMap<(&'static str, &'static str), MessageId>,
}

const META: &str = "meta.k8s.io/v1";

impl Schema {
    /// The fields of a message, by tag.
    pub(super) fn fields(&self, id: MessageId) -> &[Field] {
        &self.messages[usize::from(id.0)].fields
    }

    pub(super) fn field(&self, id: MessageId, tag: u32) -> Option<&Field> {
        let fields = self.fields(id);
        fields.binary_search_by_key(&tag, |f| f.tag).ok().map(|i| &fields[i])
    }

    /// The message of a kind. The kinds of `meta.k8s.io` are of every group, as `Status` is of `v1`.
    pub(super) fn root(&self, api_version: &str, kind: &str) -> Option<MessageId> {
        self.roots.get(&(api_version, kind)).or_else(|| self.roots.get(&(META, kind))).copied()
    }

    #[cfg(test)]
    pub(super) fn messages(&self) -> impl Iterator<Item = (MessageId, &'static str)> {
        (0_u16..).map(MessageId).zip(self.messages.iter().map(|m| m.name))
    }

    fn parse(text: &'static str) -> Option<Self> {
        let mut schema = Self { messages: Vec::new(), roots: HashMap::new() };
        let mut open: Option<(&'static str, Vec<Field>)> = None;
        for line in text.lines() {
            let mut words = line.split(' ');
            match words.next()? {
                "m" => {
                    schema.close(open.take());
                    open = Some((words.next()?, Vec::new()));
                }
                "r" => {
                    let root = (words.next()?, words.next()?);
                    schema.roots.insert(root, MessageId(words.next()?.parse().ok()?));
                }
                tag => open.as_mut()?.1.push(field(tag.parse().ok()?, words.next()?, words.next()?)?),
            }
        }
        schema.close(open);
        Some(schema)
    }

    fn close(&mut self, message: Option<(&'static str, Vec<Field>)>) {
        if let Some((_name, fields)) = message {
            self.messages.push(Message {
                #[cfg(test)]
                name: _name,
                fields: fields.into(),
            });
        }
    }
}

fn field(tag: u32, name: &'static str, code: &str) -> Option<Field> {
    let mut letters = code.chars();
    let cardinality = match letters.next()? {
        '.' => Cardinality::One,
        '*' => Cardinality::List,
        '%' => Cardinality::Map,
        _ => return None,
    };
    let zero = if letters.next()? == '0' { Zero::Absent } else { Zero::Present };
    let letter = letters.next()?;
    let message = || letters.as_str().parse().ok().map(MessageId);
    let ty = match letter {
        's' => Type::Text,
        'i' => Type::Int,
        'b' => Type::Bool,
        'd' => Type::Double,
        'y' => Type::Bytes,
        'm' => Type::Message(message()?),
        'I' => Type::Inline(message()?),
        'e' => Type::Texts,
        'T' => Type::Time,
        'U' => Type::MicroTime,
        'D' => Type::Duration,
        'Q' => Type::Quantity,
        'O' => Type::IntOrString,
        'J' => Type::Json,
        'P' => Type::SchemaOrBool(message()?),
        'A' => Type::SchemaOrSchemas(message()?),
        'S' => Type::SchemaOrTexts(message()?),
        _ => return None,
    };
    Some(Field { tag, name, cardinality, zero, ty })
}

/// The lines of the table, unpacked once for all that is made of them and kept: the names of fields are parts of them.
pub(crate) fn messages() -> &'static str {
    static MESSAGES: OnceLock<String> = OnceLock::new();
    MESSAGES.get_or_init(|| {
        let mut text = String::new();
        flate2::read::ZlibDecoder::new(PACKED_MESSAGES)
            .read_to_string(&mut text)
            .expect("the file is packed text, a test reads it");
        text
    })
}

/// The table, made on first use.
pub(super) fn schema() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| Schema::parse(messages()).expect("the file's lines are as described, a test reads them"))
}
