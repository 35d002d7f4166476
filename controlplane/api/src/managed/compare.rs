//! What a write did to an object's fields: added or changed, and removed. Both texts are the server's own, of one kind.

use smallvec::SmallVec;

use super::element::Element;
use super::json::{Index, Value, is_zero};
use super::schema::{Field, KeysId, Schema, Shape, TypeId, Zero};
use super::set::{Branch, Set};

/// What the server itself writes, so that nobody owns it (`stripMeta` of `k8s.io/apimachinery`).
const NOBODYS: [&[u8]; 9] = [
    b"name",
    b"namespace",
    b"creationTimestamp",
    b"selfLink",
    b"uid",
    b"clusterName",
    b"generation",
    b"managedFields",
    b"resourceVersion",
];

/// The difference of two states of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison<'a> {
    /// Fields that are new or have another value.
    pub changed: Set<'a>,
    /// Fields that are gone, each for all that was in it.
    pub removed: Set<'a>,
}

impl Comparison<'_> {
    /// Nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// Compares two states of an object of a shape, as compact JSON. An object that is not there yet is `{}`.
#[must_use]
pub fn compare<'a>(shape: Shape, old: &'a [u8], new: &'a [u8]) -> Comparison<'a> {
    let Shape::Struct(ty) = shape else { return Comparison::default() };
    let walker = Walker { schema: Schema::built_in() };
    let (before, after) = (Index::of(old), Index::of(new));
    let mut delta = Delta::default();
    let visit = |name, old, new, delta: &mut Delta<'a>| {
        let field = walker.schema.field(ty, name);
        match (name, field.map(|f| f.shape)) {
            (b"apiVersion" | b"kind", _) => {}
            (b"metadata", Some(Shape::Struct(ty))) => delta.push(Element::field(name), walker.metadata(ty, old, new)),
            _ => walker.field(field, name, old, new, delta),
        }
    };
    walker.zip(before.root(old), after.root(new), visit, &mut delta);
    Comparison { changed: delta.changed.below, removed: delta.removed.below }
}

/// The difference at and below one field.
#[derive(Debug, Default)]
struct Delta<'a> {
    changed: Branch<'a>,
    removed: Branch<'a>,
}

impl<'a> Delta<'a> {
    fn changed(changed: Branch<'a>) -> Self {
        Self { changed, removed: Branch::default() }
    }

    fn removed() -> Self {
        Self { changed: Branch::default(), removed: Branch::leaf() }
    }

    fn push(&mut self, element: Element<'a>, below: Delta<'a>) {
        if below.changed.is_empty() {
            self.removed.below.push(element, below.removed);
        } else if below.removed.is_empty() {
            self.changed.below.push(element, below.changed);
        } else {
            self.removed.below.push(element.clone(), below.removed);
            self.changed.below.push(element, below.changed);
        }
    }

    fn sort(&mut self) {
        self.changed.below.sort();
        self.removed.below.sort();
    }
}

type Member<'a, 'i> = (&'a [u8], Value<'a, 'i>);

struct Walker {
    schema: &'static Schema,
}

impl Walker {
    /// The metadata of the object itself, without what is nobody's.
    fn metadata<'a>(&self, ty: TypeId, old: Option<Value<'a, '_>>, new: Option<Value<'a, '_>>) -> Delta<'a> {
        let mut delta = Delta::default();
        let visit = |name, old, new, delta: &mut Delta<'a>| {
            if !NOBODYS.contains(&name) {
                self.field(self.schema.field(ty, name), name, old, new, delta);
            }
        };
        let nothing = || Value::constant(b"{}");
        self.zip(old.unwrap_or_else(nothing), new.unwrap_or_else(nothing), visit, &mut delta);
        delta
    }

    /// Calls `visit` for each name that is in either object.
    fn zip<'a, 'o, 'n, F>(&self, old: Value<'a, 'o>, new: Value<'a, 'n>, mut visit: F, delta: &mut Delta<'a>)
    where
        F: FnMut(&'a [u8], Option<Value<'a, 'o>>, Option<Value<'a, 'n>>, &mut Delta<'a>),
    {
        let before: SmallVec<[Member<'a, 'o>; 24]> = old.members().collect();
        let mut seen: SmallVec<[bool; 24]> = SmallVec::from_elem(false, before.len());
        // Both texts have their members in one order, so the next is nearly always where it is looked for first.
        let mut next = 0;
        for (name, value) in new.members() {
            let is_it = |i: &usize| before.get(*i).is_some_and(|(n, _)| *n == name);
            let at = Some(next).filter(is_it).or_else(|| (0..before.len()).find(is_it));
            if let Some(at) = at {
                seen[at] = true;
                next = at + 1;
            }
            visit(name, at.map(|at| before[at].1), Some(value), delta);
        }
        for ((name, value), _) in before.iter().zip(&seen).filter(|(_, seen)| !**seen) {
            visit(name, Some(*value), None, delta);
        }
        delta.sort();
    }

    /// A field of a struct that is there on both sides.
    fn field<'a>(
        &self,
        field: Option<&Field>,
        name: &'a [u8],
        old: Option<Value<'a, '_>>,
        new: Option<Value<'a, '_>>,
        delta: &mut Delta<'a>,
    ) {
        let shape = field.map_or(Shape::Leaf, |f| f.shape);
        let (old, new) = (present(field, old), present(field, new));
        delta.push(Element::field(name), self.walk(shape, old, new));
    }

    fn walk<'a>(&self, shape: Shape, old: Option<Value<'a, '_>>, new: Option<Value<'a, '_>>) -> Delta<'a> {
        let (before, after) = match (old, new) {
            (None, None) => return Delta::default(),
            (None, Some(new)) => return Delta::changed(self.added(shape, new)),
            (Some(_), None) => return Delta::removed(),
            (Some(old), Some(new)) if old.raw() == new.raw() => return Delta::default(),
            (Some(old), Some(new)) => (old, new),
        };
        let mut delta = Delta::default();
        match shape {
            Shape::Leaf => delta.changed.is_member = true,
            // Between nothing and empty it is a leaf.
            _ if before.is_hollow() && after.is_hollow() => delta.changed.is_member = true,
            Shape::Struct(ty) => {
                let visit = |name, old, new, delta: &mut Delta<'a>| {
                    self.field(self.schema.field(ty, name), name, old, new, delta);
                };
                self.zip(before, after, visit, &mut delta);
            }
            Shape::Map(values) => {
                let shape = values.map_or(Shape::Leaf, Shape::Struct);
                let visit = |name, old, new, delta: &mut Delta<'a>| {
                    delta.push(Element::field(name), self.walk(shape, old, new));
                };
                self.zip(before, after, visit, &mut delta);
            }
            Shape::Keyed(ty, keys) => {
                let (old, new) = (self.keyed(keys, before), self.keyed(keys, after));
                self.items(ty.map_or(Shape::Leaf, Shape::Struct), old, new, &mut delta);
            }
            Shape::Set => self.items(Shape::Leaf, valued(before), valued(after), &mut delta),
        }
        delta
    }

    /// Everything in a value that was not there.
    fn added<'a>(&self, shape: Shape, new: Value<'a, '_>) -> Branch<'a> {
        let mut branch = Branch::leaf();
        let below = &mut branch.below;
        match shape {
            Shape::Leaf => {}
            Shape::Struct(ty) => {
                below.reserve(new.parts().count() / 2);
                for (name, value) in new.members() {
                    let field = self.schema.field(ty, name);
                    if let Some(value) = written(field, value) {
                        let shape = field.map_or(Shape::Leaf, |f| f.shape);
                        below.push(Element::field(name), self.added(shape, value));
                    }
                }
            }
            Shape::Map(values) => {
                let shape = values.map_or(Shape::Leaf, Shape::Struct);
                new.members().for_each(|(name, value)| below.push(Element::field(name), self.added(shape, value)));
            }
            Shape::Keyed(ty, keys) => {
                self.added_items(ty.map_or(Shape::Leaf, Shape::Struct), self.keyed(keys, new), below);
            }
            Shape::Set => self.added_items(Shape::Leaf, valued(new), below),
        }
        below.sort();
        branch
    }

    fn added_items<'a>(&self, shape: Shape, items: Found<'a, '_>, below: &mut Set<'a>) {
        for (element, same) in groups(items) {
            // Elements that cannot be told apart are one field.
            let branch = if let [item] = same[..] { self.added(shape, item) } else { Branch::leaf() };
            below.push(element, branch);
        }
    }

    /// The elements of two lists, those that cannot be told apart together (`visitListItems` of `typed/compare.go`).
    fn items<'a>(&self, shape: Shape, old: Found<'a, '_>, new: Found<'a, '_>, delta: &mut Delta<'a>) {
        let mut left = groups(old).into_iter().peekable();
        for (element, after) in groups(new) {
            while let Some((gone, _)) = left.next_if(|(e, _)| *e < element) {
                delta.push(gone, Delta::removed());
            }
            let before = left.next_if(|(e, _)| *e == element).map(|(_, items)| items).unwrap_or_default();
            let below = match (&before[..], &after[..]) {
                ([] | [_], [item]) => self.walk(shape, before.first().copied(), Some(*item)),
                ([_, _, ..], [item]) => Delta { removed: Branch::leaf(), ..Delta::changed(self.added(shape, *item)) },
                ([], _) => Delta::changed(Branch::leaf()),
                ([_], _) => Delta { removed: Branch::leaf(), ..Delta::changed(Branch::leaf()) },
                (before, after) if before.iter().map(|v| v.raw()).eq(after.iter().map(|v| v.raw())) => Delta::default(),
                _ => Delta::changed(Branch::leaf()),
            };
            delta.push(element, below);
        }
        left.for_each(|(gone, _)| delta.push(gone, Delta::removed()));
        delta.sort();
    }

    fn keyed<'a, 'i>(&self, keys: KeysId, list: Value<'a, 'i>) -> Found<'a, 'i> {
        let keys = self.schema.keys(keys);
        let element = |item: Value<'a, 'i>| {
            let mut fields: SmallVec<[(&str, &[u8]); 2]> = SmallVec::new();
            for key in keys {
                let default = key.default.map(str::as_bytes);
                if let Some(value) = item.member(key.name.as_bytes()).map(Value::raw).or(default) {
                    fields.push((key.name, value));
                }
            }
            // An element with no key at all is nobody's.
            (!fields.is_empty()).then(|| (Element::key(&fields), item))
        };
        list.parts().filter_map(element).collect()
    }
}

type Found<'a, 'i> = Vec<(Element<'a>, Value<'a, 'i>)>;

fn valued<'a, 'i>(list: Value<'a, 'i>) -> Found<'a, 'i> {
    list.parts().map(|item| (Element::value(item.raw()), item)).collect()
}

type Group<'a, 'i> = (Element<'a>, SmallVec<[Value<'a, 'i>; 1]>);

/// Sorted, elements that are equal together.
fn groups<'a, 'i>(mut items: Found<'a, 'i>) -> Vec<Group<'a, 'i>> {
    items.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut out: Vec<Group<'a, 'i>> = Vec::with_capacity(items.len());
    for (element, item) in items {
        match out.last_mut() {
            Some((last, same)) if *last == element => same.push(item),
            _ => out.push((element, SmallVec::from_elem(item, 1))),
        }
    }
    out
}

/// What a field's value is in Go's JSON; the zero value of one that Go always writes.
fn present<'a, 'i>(field: Option<&Field>, value: Option<Value<'a, 'i>>) -> Option<Value<'a, 'i>> {
    match (value, field.map(|f| f.zero)) {
        (None, Some(Zero::Always(zero))) => Some(Value::constant(zero)),
        (None, _) => None,
        (Some(value), _) => written(field, value),
    }
}

/// The value, if Go writes it at all.
fn written<'a, 'i>(field: Option<&Field>, value: Value<'a, 'i>) -> Option<Value<'a, 'i>> {
    match field.map(|f| f.zero) {
        Some(Zero::Omitted) if is_zero(value.raw()) => None,
        Some(Zero::Absent) if value.raw() == b"null" => None,
        _ => Some(value),
    }
}
