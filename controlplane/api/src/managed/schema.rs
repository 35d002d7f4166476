//! How the fields of the built-in types behave: which lists are sets or maps, what is one field as a whole, and what Go
//! leaves out or always writes. It comes from two tables that stand for Kubernetes' own types: the messages, which know
//! structure and presence, and the markers (`+listType` and the like). It is made on first use, and kept.

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::kind::Kind;
use crate::protobuf::messages;

const MARKERS: &str = include_str!("../../schemas/markers.tsv");

/// The number of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeId(u16);

/// The number of a list's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeysId(u16);

/// How a value is owned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// As one: scalars, and atomic lists, maps and structs.
    Leaf,
    /// Field by field.
    Struct(TypeId),
    /// Key by key; the type of the values if they are structs.
    Map(Option<TypeId>),
    /// Element by element, told apart by key fields; the type of the elements if they are not owned as one.
    Keyed(Option<TypeId>, KeysId),
    /// Element by element, told apart by their values.
    Set,
}

/// What an absent field means, by its type in Go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zero {
    /// It is absent: a pointer.
    Absent,
    /// It is absent, and so is its zero value: `omitempty`.
    Omitted,
    /// It has this value: Go always writes it.
    Always(&'static [u8]),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) zero: Zero,
}

/// A field that tells a list's elements apart, and the JSON of its default.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) default: Option<&'static str>,
}

#[derive(Debug)]
pub(super) struct Schema {
    /// Each sorted by the length of the name and then the name: most comparisons end at the length.
    types: Vec<Box<[Field]>>,
    /// Each sorted by name.
    keys: Vec<Box<[Key]>>,
    roots: HashMap<(&'static str, &'static str), TypeId>,
}

impl Schema {
    pub(super) fn field(&self, ty: TypeId, name: &[u8]) -> Option<&Field> {
        let fields = &self.types[usize::from(ty.0)];
        let order = |f: &Field| f.name.len().cmp(&name.len()).then_with(|| f.name.as_bytes().cmp(name));
        fields.binary_search_by(order).ok().map(|i| &fields[i])
    }

    pub(super) fn keys(&self, keys: KeysId) -> &[Key] {
        &self.keys[usize::from(keys.0)]
    }

    /// The table of the built-in types.
    pub(super) fn built_in() -> &'static Self {
        static SCHEMA: OnceLock<Schema> = OnceLock::new();
        SCHEMA.get_or_init(|| {
            Maker::read(messages()).expect("the file's lines are as described, a test reads them").make()
        })
    }
}

/// How the objects of a kind are owned; as one if the kind is none of the built-in ones.
#[must_use]
pub fn shape_of(kind: &Kind) -> Shape {
    let root = Schema::built_in().roots.get(&(kind.api_version, kind.kind));
    root.map_or(Shape::Leaf, |ty| Shape::Struct(*ty))
}

/// A line of the table of messages: name, cardinality and presence and type in one word.
type Line = (&'static str, &'static str);

struct Maker {
    messages: Vec<(&'static str, Vec<Line>)>,
    roots: HashMap<(&'static str, &'static str), TypeId>,
    markers: HashMap<(&'static str, &'static str), Vec<(&'static str, &'static str)>>,
    keys: Vec<Box<[Key]>>,
}

impl Maker {
    fn read(messages: &'static str) -> Option<Self> {
        let mut maker = Self { messages: Vec::new(), roots: HashMap::new(), markers: HashMap::new(), keys: Vec::new() };
        for line in messages.lines() {
            let mut words = line.split(' ');
            match words.next()? {
                "m" => maker.messages.push((words.next()?, Vec::new())),
                "r" => {
                    let root = (words.next()?, words.next()?);
                    maker.roots.insert(root, TypeId(words.next()?.parse().ok()?));
                }
                _tag => maker.messages.last_mut()?.1.push((words.next()?, words.next()?)),
            }
        }
        for line in MARKERS.lines().filter(|l| !l.starts_with('#')) {
            let mut words = line.split('\t');
            let place = (words.next()?, words.next()?);
            maker.markers.entry(place).or_default().push((words.next()?, words.next()?));
        }
        Some(maker)
    }

    fn make(mut self) -> Schema {
        let types = (0..self.messages.len())
            .map(|i| {
                let mut fields = Vec::new();
                self.add_fields(i, &[self.messages[i].0], &mut fields);
                fields.sort_by_key(|f| (f.name.len(), f.name));
                fields.into()
            })
            .collect();
        Schema { types, keys: self.keys, roots: self.roots }
    }

    /// The fields of a message and of those inlined in it. Markers stand with the outermost type, as definitions do.
    fn add_fields(&mut self, message: usize, owners: &[&'static str], out: &mut Vec<Field>) {
        for (name, code) in self.messages[message].1.clone() {
            let Some((cardinality, rest)) = code.split_at_checked(1) else { continue };
            let Some((presence, ty)) = rest.split_at_checked(1) else { continue };
            if let Some(inner) = ty.strip_prefix('I').and_then(|n| n.parse::<usize>().ok()) {
                let owners = [owners, &[self.messages[inner].0]].concat();
                self.add_fields(inner, &owners, out);
                continue;
            }
            let shape = self.shape(owners, name, cardinality, ty);
            out.push(Field { name, shape, zero: zero(cardinality, presence, ty) });
        }
    }

    fn marker(&self, owners: &[&'static str], field: &'static str, marker: &str) -> Option<&'static str> {
        let all = owners.iter().filter_map(|owner| self.markers.get(&(*owner, field)));
        all.flatten().find(|(m, _)| *m == marker).map(|(_, value)| *value)
    }

    fn shape(&mut self, owners: &[&'static str], field: &'static str, cardinality: &str, ty: &str) -> Shape {
        let is = |marker| self.marker(owners, field, marker).is_some();
        let message = ty.strip_prefix('m').and_then(|n| n.parse::<u16>().ok());
        let is_atomic = |id: u16| {
            let name = self.messages[usize::from(id)].0;
            self.marker(&[name], "", "mapAtomic").is_some()
        };
        match (cardinality, message) {
            _ if is("atomic") || is("mapAtomic") => Shape::Leaf,
            (".", Some(id)) if is_atomic(id) => Shape::Leaf,
            (".", Some(id)) => Shape::Struct(TypeId(id)),
            ("%", Some(id)) => Shape::Map(Some(TypeId(id)).filter(|_| !is_atomic(id))),
            ("%", None) => Shape::Map(None),
            // A list with no marker is atomic.
            ("*", None) if is("set") => Shape::Set,
            ("*", Some(id)) => match self.marker(owners, field, "map") {
                Some(names) => {
                    let item = Some(TypeId(id)).filter(|_| !is_atomic(id));
                    Shape::Keyed(item, self.keys_of(id, names))
                }
                None => Shape::Leaf,
            },
            _ => Shape::Leaf,
        }
    }

    fn keys_of(&mut self, item: u16, names: &'static str) -> KeysId {
        let item = self.messages[usize::from(item)].0;
        let key = |name| Key { name, default: self.marker(&[item], name, "default") };
        let mut keys: Vec<Key> = names.split(',').map(key).collect();
        keys.sort_by_key(|k| k.name);
        self.keys.push(keys.into());
        KeysId(u16::try_from(self.keys.len() - 1).expect("there are some hundred lists"))
    }
}

fn zero(cardinality: &str, presence: &str, ty: &str) -> Zero {
    let value: &[u8] = match (cardinality, ty.chars().next()) {
        (".", Some('m')) => b"{}",
        (".", Some('s')) => b"\"\"",
        (".", Some('i' | 'd' | 'O')) => b"0",
        (".", Some('b')) => b"false",
        (".", Some('Q')) => b"\"0\"",
        (".", Some('D')) => b"\"0s\"",
        _ => b"null",
    };
    let is_struct = cardinality == "." && ty.starts_with(['m', 'T', 'U', 'D', 'Q', 'O', 'J']);
    match presence {
        "?" => Zero::Absent,
        // `omitempty` leaves no struct out.
        "0" if !is_struct => Zero::Omitted,
        _ => Zero::Always(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KINDS;

    fn field(kind: &str, path: &str) -> (Shape, Zero) {
        let schema = Schema::built_in();
        let kind = KINDS.iter().find(|k| k.kind == kind).unwrap();
        let (mut shape, mut zero) = (shape_of(kind), Zero::Absent);
        for name in path.split('.') {
            let (Shape::Struct(ty) | Shape::Keyed(Some(ty), _)) = shape else { panic!("{path}: nothing in {shape:?}") };
            let field = schema.field(ty, name.as_bytes()).unwrap_or_else(|| panic!("{path}: no {name}"));
            (shape, zero) = (field.shape, field.zero);
        }
        (shape, zero)
    }

    #[test]
    fn every_kind_has_its_shape() {
        for kind in KINDS {
            assert!(matches!(shape_of(kind), Shape::Struct(_)), "{}", kind.kind);
        }
    }

    #[test]
    fn every_marker_has_its_field() {
        let maker = Maker::read(messages()).unwrap();
        let markers: Vec<_> = maker.markers.keys().copied().collect();
        let numbers: HashMap<&str, u16> =
            maker.messages.iter().zip(0..).map(|((name, _), number)| (*name, number)).collect();
        let schema = maker.make();
        let mut found = 0;
        for (owner, field) in markers {
            // Some types are in no kind that is served.
            let Some(number) = numbers.get(owner) else { continue };
            found += 1;
            assert!(field.is_empty() || schema.field(TypeId(*number), field.as_bytes()).is_some(), "{owner} {field}");
        }
        assert!(found > 300, "{found}");
    }

    #[test]
    fn fields_have_their_shapes() {
        let is = |kind, path, check: fn(Shape) -> bool| {
            let (shape, _) = field(kind, path);
            assert!(check(shape), "{kind} {path}: {shape:?}");
        };
        is("Pod", "spec.containers", |s| matches!(s, Shape::Keyed(..)));
        is("Pod", "spec.containers.env.valueFrom.secretKeyRef", |s| s == Shape::Leaf);
        is("Pod", "spec.containers.resources.limits", |s| s == Shape::Map(None));
        is("Pod", "spec.containers.command", |s| s == Shape::Leaf);
        is("Pod", "spec.nodeSelector", |s| s == Shape::Leaf);
        is("Pod", "spec.volumes.configMap.items", |s| s == Shape::Leaf);
        is("Pod", "spec.containers.livenessProbe.httpGet", |s| matches!(s, Shape::Struct(_)));
        is("Pod", "metadata.finalizers", |s| s == Shape::Set);
        is("Pod", "metadata.labels", |s| s == Shape::Map(None));
        is("Pod", "metadata.ownerReferences", |s| matches!(s, Shape::Keyed(..)));
        is("Deployment", "spec.selector", |s| s == Shape::Leaf);
        is("ConfigMap", "data", |s| s == Shape::Map(None));
        is("Event", "involvedObject", |s| s == Shape::Leaf);
        let ports = field("Pod", "spec.containers.ports").0;
        let Shape::Keyed(_, keys) = ports else { panic!("{ports:?}") };
        let keys: Vec<_> = Schema::built_in().keys(keys).iter().map(|k| (k.name, k.default)).collect();
        assert_eq!(keys, [("containerPort", None), ("protocol", Some("\"TCP\""))]);
    }

    #[test]
    fn absence_is_as_in_go() {
        let is = |kind, path, zero| assert_eq!(field(kind, path).1, zero, "{kind} {path}");
        is("Deployment", "spec", Zero::Always(b"{}"));
        is("Deployment", "spec.strategy", Zero::Always(b"{}"));
        is("Deployment", "spec.replicas", Zero::Absent);
        is("Deployment", "spec.paused", Zero::Omitted);
        is("Pod", "spec.containers", Zero::Always(b"null"));
        is("Pod", "spec.volumes", Zero::Omitted);
        is("Pod", "status.conditions.lastProbeTime", Zero::Always(b"null"));
        is("Event", "reportingComponent", Zero::Always(b"\"\""));
        is("Pod", "metadata.labels", Zero::Omitted);
    }
}
