//! Messages to JSON values, by the table. Fields the table does not have are skipped, as Kubernetes does.

use serde_json::{Map, Value};

use super::schema::{Cardinality, Field, MessageId, Schema, Type, Zero};
use super::wire::{Fields, Piece, text, varint};
use super::{DecodeError, Envelope, MAGIC, MAX_DEPTH, MAX_VALUES, special};

/// Reads one object. It counts what it makes, so that few bytes cannot become much memory.
pub(super) struct Decoder {
    schema: &'static Schema,
    values: usize,
}

impl Decoder {
    pub(super) fn new(schema: &'static Schema) -> Self {
        Self { schema, values: 0 }
    }

    /// An object in its envelope.
    pub(super) fn object(&mut self, bytes: &[u8], depth: usize) -> Result<Value, DecodeError> {
        let envelope = Envelope::read(bytes)?;
        if !envelope.content_encoding.is_empty() {
            return Err(DecodeError::UnknownEncoding(envelope.content_encoding.to_owned()));
        }
        if envelope.content_type == "application/json" {
            return json(envelope.raw);
        }
        let unknown = || DecodeError::UnknownKind {
            api_version: envelope.api_version.to_owned(),
            kind: envelope.kind.to_owned(),
        };
        let root = self.schema.root(envelope.api_version, envelope.kind).ok_or_else(unknown)?;
        let mut fields = Map::new();
        fields.insert("apiVersion".to_owned(), envelope.api_version.into());
        fields.insert("kind".to_owned(), envelope.kind.into());
        self.message(root, envelope.raw, depth, &mut fields)?;
        Ok(Value::Object(fields))
    }

    /// Adds a message's fields to an object.
    pub(super) fn message(
        &mut self,
        id: MessageId,
        bytes: &[u8],
        depth: usize,
        out: &mut Map<String, Value>,
    ) -> Result<(), DecodeError> {
        if depth > MAX_DEPTH {
            return Err(DecodeError::TooLarge { limit: MAX_DEPTH, what: "levels" });
        }
        for piece in Fields::new(bytes) {
            let (tag, piece) = piece?;
            let Some(field) = self.schema.field(id, tag) else { continue };
            self.count()?;
            self.field(field, piece, depth, out)?;
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), DecodeError> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(DecodeError::TooLarge { limit: MAX_VALUES, what: "values" });
        }
        Ok(())
    }

    fn field(
        &mut self,
        field: &Field,
        piece: Piece<'_>,
        depth: usize,
        out: &mut Map<String, Value>,
    ) -> Result<(), DecodeError> {
        if let Type::Inline(id) = field.ty {
            return self.message(id, bytes_of(piece)?, depth + 1, out);
        }
        match field.cardinality {
            Cardinality::One => {
                let value = self.value(field.ty, piece, depth)?;
                if field.zero == Zero::Absent && is_zero(field.ty, &value) {
                    out.remove(field.name);
                } else {
                    out.insert(field.name.to_owned(), value);
                }
            }
            Cardinality::List => {
                let Value::Array(items) = out.entry(field.name).or_insert_with(|| Value::Array(Vec::new())) else {
                    return Err(WRONG_TYPE);
                };
                match (field.ty, piece) {
                    // Packed: many numbers in one field.
                    (Type::Int, Piece::Bytes(mut packed)) => {
                        while !packed.is_empty() {
                            self.count()?;
                            items.push(varint(&mut packed)?.cast_signed().into());
                        }
                    }
                    (ty, piece) => items.push(self.value(ty, piece, depth)?),
                }
            }
            Cardinality::Map => {
                let (key, value) = self.entry(field.ty, bytes_of(piece)?, depth)?;
                let Value::Object(entries) = out.entry(field.name).or_insert_with(|| Value::Object(Map::new())) else {
                    return Err(WRONG_TYPE);
                };
                entries.insert(key, value);
            }
        }
        Ok(())
    }

    /// Key and value of a map's entry; one that is absent is empty.
    fn entry(&mut self, ty: Type, bytes: &[u8], depth: usize) -> Result<(String, Value), DecodeError> {
        let mut key = String::new();
        let mut value = None;
        for piece in Fields::new(bytes) {
            match piece? {
                (1, piece) => text(bytes_of(piece)?)?.clone_into(&mut key),
                (2, piece) => value = Some(piece),
                _ => {}
            }
        }
        let absent = if matches!(ty, Type::Int | Type::Bool) { Piece::Varint(0) } else { Piece::Bytes(b"") };
        Ok((key, self.value(ty, value.unwrap_or(absent), depth)?))
    }

    pub(super) fn value(&mut self, ty: Type, piece: Piece<'_>, depth: usize) -> Result<Value, DecodeError> {
        Ok(match (ty, piece) {
            (Type::Int, Piece::Varint(n)) => n.cast_signed().into(),
            (Type::Bool, Piece::Varint(n)) => (n != 0).into(),
            (Type::Double, Piece::Fixed64(bits)) => f64::from_bits(bits).into(),
            (Type::Text, Piece::Bytes(bytes)) => text(bytes)?.into(),
            (Type::Bytes, Piece::Bytes(bytes)) => special::base64(bytes).into(),
            (Type::Message(id), Piece::Bytes(bytes)) => {
                let mut fields = Map::new();
                self.message(id, bytes, depth + 1, &mut fields)?;
                Value::Object(fields)
            }
            (Type::Texts, Piece::Bytes(bytes)) => self.texts(bytes, 1)?,
            (Type::Time, Piece::Bytes(bytes)) => special::time(bytes, special::Precision::Seconds)?,
            (Type::MicroTime, Piece::Bytes(bytes)) => special::time(bytes, special::Precision::Micros)?,
            (Type::Duration, Piece::Bytes(bytes)) => special::duration(bytes)?,
            (Type::Quantity, Piece::Bytes(bytes)) => special::quantity(bytes)?,
            (Type::IntOrString, Piece::Bytes(bytes)) => special::int_or_string(bytes)?,
            (Type::Json, Piece::Bytes(bytes)) => self.json(bytes, depth)?,
            (Type::SchemaOrBool(id), Piece::Bytes(bytes)) => self.schema_or(id, bytes, depth, Or::Bool)?,
            (Type::SchemaOrSchemas(id), Piece::Bytes(bytes)) => self.schema_or(id, bytes, depth, Or::Schemas)?,
            (Type::SchemaOrTexts(id), Piece::Bytes(bytes)) => self.schema_or(id, bytes, depth, Or::Texts)?,
            _ => return Err(WRONG_TYPE),
        })
    }

    /// The texts of a repeated field.
    fn texts(&mut self, bytes: &[u8], tag: u32) -> Result<Value, DecodeError> {
        let mut items = Vec::new();
        for piece in Fields::new(bytes) {
            let (found, piece) = piece?;
            if found == tag {
                self.count()?;
                items.push(text(bytes_of(piece)?)?.into());
            }
        }
        Ok(Value::Array(items))
    }

    /// JSON in field 1. `RawExtension` of another writer may hold an object in protobuf instead.
    fn json(&mut self, bytes: &[u8], depth: usize) -> Result<Value, DecodeError> {
        if depth > MAX_DEPTH {
            return Err(DecodeError::TooLarge { limit: MAX_DEPTH, what: "levels" });
        }
        match special::only(bytes, 1)? {
            None | Some(b"") => Ok(Value::Null),
            Some(raw) if raw.starts_with(MAGIC) => self.object(raw, depth + 1),
            Some(raw) => json(raw),
        }
    }

    /// `JSONSchemaPropsOr…`, whose JSON is the one or the other.
    fn schema_or(&mut self, id: MessageId, bytes: &[u8], depth: usize, or: Or) -> Result<Value, DecodeError> {
        let mut allows = false;
        let mut one = None;
        let mut many = Vec::new();
        for piece in Fields::new(bytes) {
            self.count()?;
            match (or, piece?) {
                (Or::Bool, (1, Piece::Varint(n))) => allows = n != 0,
                (Or::Bool, (2, piece)) | (Or::Schemas | Or::Texts, (1, piece)) => {
                    one = Some(self.value(Type::Message(id), piece, depth)?);
                }
                (Or::Schemas, (2, piece)) => many.push(self.value(Type::Message(id), piece, depth)?),
                (Or::Texts, (2, piece)) => many.push(text(bytes_of(piece)?)?.into()),
                _ => {}
            }
        }
        Ok(match (or, one) {
            // The list wins over a schema where both are given: `MarshalJSON` of these types.
            (Or::Schemas | Or::Texts, _) if !many.is_empty() => Value::Array(many),
            (_, Some(schema)) => schema,
            (Or::Bool, None) => allows.into(),
            (Or::Schemas | Or::Texts, None) => Value::Null,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Or {
    Bool,
    Schemas,
    Texts,
}

const WRONG_TYPE: DecodeError = DecodeError::Malformed("wrong wireType");

fn bytes_of(piece: Piece<'_>) -> Result<&[u8], DecodeError> {
    if let Piece::Bytes(bytes) = piece { Ok(bytes) } else { Err(WRONG_TYPE) }
}

fn json(raw: &[u8]) -> Result<Value, DecodeError> {
    serde_json::from_slice(raw).map_err(|e| DecodeError::EmbeddedJson(e.to_string()))
}

/// Whether `omitempty` would leave it out. Structs are never left out.
fn is_zero(ty: Type, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0) && ty != Type::IntOrString,
        _ => false,
    }
}
