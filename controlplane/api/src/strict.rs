//! Fields of a client's text that its kind does not have, and fields that stand twice: what `fieldValidation` is about.
//! The text is walked beside a table of the built-in types' fields, so that no type needs a reader of its own for it. A
//! text with nothing to tell of costs one pass and no memory.
//!
//! Semantics: `sigs.k8s.io/json`, `UnmarshalStrict`. What stands below an unknown field is not looked at, nor are parts
//! that are any JSON (`RawExtension`, `FieldsV1`) or have a reader of their own in Kubernetes (`JSONSchemaPropsOrBool`).

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::OnceLock;

use smallvec::SmallVec;

use crate::kind::Kind;
use crate::managed::{skip, unescape};

/// More are not told (`saveStrictError`).
const MAX_FOUND: usize = 100;
/// Names of a map are compared one with another up to this many, beyond it they are hashed.
const FEW_NAMES: usize = 32;

/// What a decoder that minds every field says of an object's text, in the order of the text: `unknown field "spec.foo"`,
/// `duplicate field "data.k"`. Nothing of a kind that is none of the built-in ones.
///
/// The text must have been decoded, so that it is JSON of bounded depth; of another text the answer means nothing.
#[must_use]
pub fn problems(kind: &Kind, json: &[u8]) -> Vec<String> {
    let fields = Fields::built_in();
    let mut walk = Walk { fields, text: json, at: 0, found: Vec::new() };
    if let Some(root) = fields.roots.get(&(kind.api_version, kind.kind)) {
        walk.value(Below::One(*root), None);
    }
    walk.found
}

/// The number of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TypeId(u16);

/// What is to be looked at below a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Below {
    Nothing,
    One(TypeId),
    List(TypeId),
    Map(Option<TypeId>),
}

#[derive(Debug, Clone, Copy)]
struct Field {
    name: &'static str,
    below: Below,
}

/// The fields of all built-in types.
#[derive(Debug)]
struct Fields {
    /// Each sorted by the length of the name and then the name: most comparisons end at the length.
    types: Vec<Box<[Field]>>,
    roots: HashMap<(&'static str, &'static str), TypeId>,
}

impl Fields {
    /// The table, made on first use from that of the messages.
    fn built_in() -> &'static Self {
        static FIELDS: OnceLock<Fields> = OnceLock::new();
        FIELDS.get_or_init(|| {
            Self::read(crate::protobuf::messages()).expect("the file's lines are as described, a test reads them")
        })
    }

    fn read(messages: &'static str) -> Option<Self> {
        let mut raw: Vec<Vec<(&'static str, &'static str)>> = Vec::new();
        let mut roots = HashMap::new();
        for line in messages.lines() {
            let mut words = line.split(' ');
            match words.next()? {
                "m" => raw.push(Vec::new()),
                "r" => {
                    let root = (words.next()?, words.next()?);
                    roots.insert(root, TypeId(words.next()?.parse().ok()?));
                }
                _tag => raw.last_mut()?.push((words.next()?, words.next()?)),
            }
        }
        // Objects stand in other objects too, as claims do in a StatefulSet, and each may say what it is.
        for root in roots.values() {
            raw[usize::from(root.0)].extend([("apiVersion", ".0s"), ("kind", ".0s")]);
        }
        let types = (0..raw.len()).map(|i| sorted(&raw, i)).collect::<Option<_>>()?;
        Some(Self { types, roots })
    }

    /// The place of a field in its type, and what is below it.
    fn find(&self, ty: TypeId, name: &[u8]) -> Option<(usize, Below)> {
        let fields = &self.types[usize::from(ty.0)];
        let order = |f: &Field| f.name.len().cmp(&name.len()).then_with(|| f.name.as_bytes().cmp(name));
        fields.binary_search_by(order).ok().map(|i| (i, fields[i].below))
    }
}

fn sorted(raw: &[Vec<(&'static str, &'static str)>], message: usize) -> Option<Box<[Field]>> {
    let mut fields = Vec::new();
    add(raw, message, &mut fields)?;
    fields.sort_unstable_by_key(|f| (f.name.len(), f.name));
    fields.dedup_by_key(|f| f.name);
    Some(fields.into())
}

/// The fields of a message and of those that stand in the object around them.
fn add(raw: &[Vec<(&'static str, &'static str)>], message: usize, out: &mut Vec<Field>) -> Option<()> {
    for (name, code) in raw.get(message)? {
        let (cardinality, ty) = (code.get(..1)?, code.get(2..)?);
        if let Some(inner) = ty.strip_prefix('I') {
            add(raw, inner.parse().ok()?, out)?;
            continue;
        }
        let message = ty.strip_prefix('m').and_then(|n| n.parse().ok()).map(TypeId);
        let below = match (cardinality, message) {
            (".", Some(id)) => Below::One(id),
            ("*", Some(id)) => Below::List(id),
            ("%", message) => Below::Map(message),
            _ => Below::Nothing,
        };
        out.push(Field { name, below });
    }
    Some(())
}

/// Where the walk is; made into text only for what is told.
#[derive(Clone, Copy)]
struct Path<'p> {
    parent: Option<&'p Self>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Name(&'p [u8]),
    Index(usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
        }
        match self.step {
            Step::Index(i) => write!(f, "[{i}]"),
            Step::Name(name) => {
                let dot = if self.parent.is_some() { "." } else { "" };
                write!(f, "{dot}{}", String::from_utf8_lossy(name))
            }
        }
    }
}

struct Walk<'a> {
    fields: &'static Fields,
    text: &'a [u8],
    at: usize,
    found: Vec<String>,
}

impl<'a> Walk<'a> {
    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Whether the next byte is this one, which is passed then.
    fn pass(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn skip(&mut self) {
        self.peek();
        self.at = skip(self.text, self.at);
    }

    /// The name of the next member of an object, whose value follows then.
    fn name(&mut self) -> Option<Cow<'a, [u8]>> {
        if self.peek()? != b'"' {
            return None;
        }
        let start = self.at;
        self.skip();
        let raw = self.text.get(start + 1..self.at.checked_sub(1)?)?;
        self.pass(b':').then(|| unescape(raw))
    }

    fn value(&mut self, below: Below, path: Option<&Path<'_>>) {
        match (below, self.peek()) {
            (Below::One(ty), Some(b'{')) => self.object(ty, path),
            (Below::List(ty), Some(b'[')) => self.list(ty, path),
            (Below::Map(item), Some(b'{')) => self.map(item, path),
            _ => self.skip(),
        }
    }

    fn object(&mut self, ty: TypeId, parent: Option<&Path<'_>>) {
        self.at += 1;
        // No type has more fields than bits here, a test counts them.
        let mut seen = 0_u128;
        while let Some(name) = self.name() {
            let path = Path { parent, step: Step::Name(&name) };
            match self.fields.find(ty, &name) {
                Some((place, below)) => {
                    if seen & (1 << place) != 0 {
                        self.tell("duplicate", &path);
                    }
                    seen |= 1 << place;
                    self.value(below, Some(&path));
                }
                None => {
                    self.tell("unknown", &path);
                    self.skip();
                }
            }
            if !self.pass(b',') {
                break;
            }
        }
        self.pass(b'}');
    }

    fn list(&mut self, ty: TypeId, parent: Option<&Path<'_>>) {
        self.at += 1;
        let mut index = 0;
        while !matches!(self.peek(), None | Some(b']')) {
            self.value(Below::One(ty), Some(&Path { parent, step: Step::Index(index) }));
            index += 1;
            if !self.pass(b',') {
                break;
            }
        }
        self.pass(b']');
    }

    fn map(&mut self, item: Option<TypeId>, parent: Option<&Path<'_>>) {
        self.at += 1;
        let mut names = Names::default();
        while let Some(name) = self.name() {
            let path = Path { parent, step: Step::Name(&name) };
            if !names.is_new(&name) {
                self.tell("duplicate", &path);
            }
            self.value(item.map_or(Below::Nothing, Below::One), Some(&path));
            names.add(name);
            if !self.pass(b',') {
                break;
            }
        }
        self.pass(b'}');
    }

    #[cold]
    fn tell(&mut self, what: &str, path: &Path<'_>) {
        let problem = format!("{what} field {:?}", path.to_string());
        if self.found.len() < MAX_FOUND && !self.found.contains(&problem) {
            self.found.push(problem);
        }
    }
}

/// The names a map has had so far.
#[derive(Default)]
struct Names<'a> {
    few: SmallVec<[Cow<'a, [u8]>; FEW_NAMES]>,
    many: HashSet<Cow<'a, [u8]>>,
}

impl<'a> Names<'a> {
    fn is_new(&self, name: &[u8]) -> bool {
        !self.few.iter().any(|n| **n == *name) && !self.many.contains(name)
    }

    fn add(&mut self, name: Cow<'a, [u8]>) {
        if self.few.len() < FEW_NAMES {
            self.few.push(name);
        } else {
            self.many.insert(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KINDS, kinds};

    fn found(api_version: &str, kind: &str, json: &str) -> Vec<String> {
        problems(kinds::find_by_kind(api_version, kind).unwrap(), json.as_bytes())
    }

    #[test]
    fn unknown_and_double_fields_are_named_by_path() {
        let check = |kind: &str, json: &str, expected: &[&str]| assert_eq!(found("v1", kind, json), expected, "{json}");
        check("ConfigMap", r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"data":{"k":"v"}}"#, &[]);
        check(
            "ConfigMap",
            "{ \"spec\" : {\"x\": 1, \"x\": [2]} ,\n \"data\":{\"k\":\"1\", \"k\" : \"2\"}, \"metadata\": {\"labels\": {}} }\n",
            &[r#"unknown field "spec""#, r#"duplicate field "data.k""#],
        );
        check(
            "Pod",
            r#"{"spec":{"containers":[{"name":"a"},{"name":"b","imagee":"x","name":"c"}],"volumes":[]},"spec":{}}"#,
            &[
                r#"unknown field "spec.containers[1].imagee""#,
                r#"duplicate field "spec.containers[1].name""#,
                r#"duplicate field "spec""#,
            ],
        );
        // Handlers of probes stand in the probe itself.
        let probe = r#"{"spec":{"containers":[{"livenessProbe":{"httpGet":{"port":1,"prt":2},"periodSeconds":1}}]}}"#;
        check("Pod", probe, &[r#"unknown field "spec.containers[0].livenessProbe.httpGet.prt""#]);
        // Names are compared as they are meant, and told once.
        check("ConfigMap", r#"{"d\u0061ta":{"\u006b":"","k":"","k":""}}"#, &[r#"duplicate field "data.k""#]);
        // Values of the wrong type are the decoder's to refuse.
        check("Pod", r#"{"spec":null,"status":[],"metadata":7}"#, &[]);
    }

    #[test]
    fn what_is_any_json_is_not_looked_at() {
        let check = |version: &str, kind: &str, json: &str| {
            assert_eq!(found(version, kind, json), Vec::<String>::new(), "{json}");
        };
        check("apps/v1", "ControllerRevision", r#"{"data":{"a":{"b":1,"b":2}},"revision":1}"#);
        let managed = r#"{"metadata":{"managedFields":[{"fieldsV1":{"f:a":{},"f:b":{".":{}}}}]}}"#;
        check("v1", "ConfigMap", managed);
        let claim = r#"{"apiVersion":"v1","kind":"PersistentVolumeClaim","spec":{"resources":{"requests":{"a":"1"}}}}"#;
        check("apps/v1", "StatefulSet", &format!(r#"{{"spec":{{"volumeClaimTemplates":[{claim}]}}}}"#));
        let schema = r#"{"properties":{"a":{"items":{"foo":1},"additionalProperties":{"foo":1}}}}"#;
        let version = format!(r#"{{"name":"v1","schema":{{"openAPIV3Schema":{schema}}}}}"#);
        let crd = format!(r#"{{"spec":{{"versions":[{version}]}}}}"#);
        check("apiextensions.k8s.io/v1", "CustomResourceDefinition", &crd);
        let wrong = crd.replace(r#""items""#, r#""itens""#);
        assert_eq!(
            found("apiextensions.k8s.io/v1", "CustomResourceDefinition", &wrong),
            [r#"unknown field "spec.versions[0].schema.openAPIV3Schema.properties.a.itens""#]
        );
    }

    #[test]
    fn there_is_an_end_to_what_is_told() {
        let many: String = (0..300).map(|i| format!("\"k{i}\":1,")).collect();
        assert_eq!(found("v1", "Pod", &format!("{{{many}\"k7\":1}}")).len(), MAX_FOUND);
        let data = format!("{{\"data\":{{{many}\"k7\":\"\",\"k299\":\"\"}}}}");
        assert_eq!(found("v1", "ConfigMap", &data), [r#"duplicate field "data.k7""#, r#"duplicate field "data.k299""#]);
    }

    #[test]
    fn broken_texts_end_early() {
        for text in [
            "",
            "{",
            "{\"a",
            "{\"data\"",
            "{\"data\":",
            "{\"data\":{",
            "[",
            "{\"spec\":{\"containers\":[",
            "{a:1}",
            "{\"a\\",
        ] {
            for kind in KINDS {
                assert!(problems(kind, text.as_bytes()).len() <= 1, "{text}");
            }
        }
    }

    #[test]
    fn the_table_has_every_kind_and_no_type_with_more_fields_than_bits() {
        let fields = Fields::built_in();
        for kind in KINDS {
            let root = fields.roots[&(kind.api_version, kind.kind)];
            assert!(fields.find(root, b"metadata").is_some() && fields.find(root, b"kind").is_some(), "{}", kind.kind);
        }
        assert!(fields.types.iter().all(|f| f.len() <= 128));
    }
}
