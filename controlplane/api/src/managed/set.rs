//! A set of fields: a tree of elements in the order of `FieldsV1`, with the algebra of updates and applies.

use std::cmp::Ordering;

use super::element::Element;
use super::json::{Index, Value};

/// A set of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set<'a> {
    /// Sorted; none is empty.
    nodes: Vec<Node<'a>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Node<'a> {
    element: Element<'a>,
    below: Branch<'a>,
}

/// What a set has at and below one element: the field itself, and a set of fields in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Branch<'a> {
    pub(super) is_member: bool,
    pub(super) below: Set<'a>,
}

impl Branch<'_> {
    pub(super) fn leaf() -> Self {
        Self { is_member: true, below: Set::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.is_member && self.below.is_empty()
    }
}

impl<'a> Set<'a> {
    /// Whether no field is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds what is at an element that was not added before. Call [`Set::sort`] after the last.
    pub(super) fn push(&mut self, element: Element<'a>, below: Branch<'a>) {
        if !below.is_empty() {
            self.nodes.push(Node { element, below });
        }
    }

    pub(super) fn reserve(&mut self, count: usize) {
        self.nodes.reserve_exact(count);
    }

    pub(super) fn sort(&mut self) {
        if !self.nodes.is_sorted_by(|a, b| a.element <= b.element) {
            self.nodes.sort_by(|a, b| a.element.cmp(&b.element));
        }
    }

    /// Takes a field of the root, and all in it, out of the set.
    pub(super) fn remove_field(&mut self, name: &str) {
        self.nodes.retain(|node| !node.element.is_field(name));
    }

    /// Reads a `FieldsV1` text that this server wrote.
    #[must_use]
    pub fn read(text: &'a [u8]) -> Self {
        let index = Index::of(text);
        Self::of(index.root(text))
    }

    pub(super) fn of(fields: Value<'a, '_>) -> Self {
        branch(fields).below
    }

    /// Appends the `FieldsV1` text.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        self.write_members(out, true);
        out.push(b'}');
    }

    fn write_members(&self, out: &mut Vec<u8>, mut is_first: bool) {
        for node in &self.nodes {
            if !std::mem::take(&mut is_first) {
                out.push(b',');
            }
            out.push(b'"');
            node.element.write(out);
            out.extend_from_slice(b"\":{");
            let Branch { is_member, below } = &node.below;
            if *is_member && !below.is_empty() {
                out.extend_from_slice(b"\".\":{}");
            }
            below.write_members(out, !*is_member);
            out.push(b'}');
        }
    }

    /// Every field that is in either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        let mut nodes = Vec::with_capacity(self.nodes.len().max(other.nodes.len()));
        let (mut left, mut right) = (self.nodes.into_iter().peekable(), other.nodes.into_iter().peekable());
        loop {
            let order = match (left.peek(), right.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a.element.cmp(&b.element),
            };
            let (a, b) =
                (if order.is_le() { left.next() } else { None }, if order.is_ge() { right.next() } else { None });
            nodes.push(match (a, b) {
                (Some(a), Some(b)) => Node {
                    element: a.element,
                    below: Branch {
                        is_member: a.below.is_member || b.below.is_member,
                        below: a.below.below.union(b.below.below),
                    },
                },
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => break,
            });
        }
        Self { nodes }
    }

    /// Every field that is in this set and not in `other`.
    #[must_use]
    pub fn difference(self, other: &Set<'_>) -> Self {
        self.matched(other, Keep::NotIn)
    }

    /// Every field that is in both: where managers conflict.
    #[must_use]
    pub fn intersection(self, other: &Set<'_>) -> Self {
        self.matched(other, Keep::In)
    }

    /// Every field that is neither in `other` nor inside a field of it.
    #[must_use]
    pub fn difference_with_contents(self, other: &Set<'_>) -> Self {
        self.matched(other, Keep::NotInside)
    }

    fn matched(mut self, other: &Set<'_>, keep: Keep) -> Self {
        self.nodes.retain_mut(|node| {
            let Some(there) = other.get(&node.element) else { return keep != Keep::In };
            let Branch { is_member, below } = &mut node.below;
            match keep {
                Keep::NotInside if there.is_member => return false,
                Keep::In => *is_member &= there.is_member,
                Keep::NotIn | Keep::NotInside => *is_member &= !there.is_member,
            }
            *below = std::mem::take(below).matched(&there.below, keep);
            !node.below.is_empty()
        });
        self
    }

    fn get(&self, element: &Element<'_>) -> Option<&Branch<'a>> {
        let at = self.nodes.binary_search_by(|node| node.element.cmp(element)).ok()?;
        Some(&self.nodes[at].below)
    }

    /// Whether a `FieldsV1` text has any field of this set.
    pub(super) fn touches(&self, fields: Value<'_, '_>, inside: Inside) -> bool {
        if self.nodes.is_empty() {
            return false;
        }
        fields.members().any(|(name, value)| {
            let Some(there) = Element::read(name).as_ref().and_then(|e| self.get(e)) else { return false };
            if there.is_member && (inside == Inside::Counts || is_member(value)) {
                return true;
            }
            !there.below.is_empty() && there.below.touches(value, inside)
        })
    }

    /// Whether a `FieldsV1` text has every field of this set.
    pub(super) fn is_within(&self, fields: Value<'_, '_>) -> bool {
        let mut found = 0;
        for (name, value) in fields.members() {
            if found == self.nodes.len() {
                break;
            }
            let Some(wanted) = Element::read(name).as_ref().and_then(|e| self.get(e)) else { continue };
            if (wanted.is_member && !is_member(value)) || !wanted.below.is_within(value) {
                return false;
            }
            found += 1;
        }
        found == self.nodes.len()
    }

    /// A copy that borrows nothing.
    #[must_use]
    pub fn into_owned(self) -> Set<'static> {
        let owned = |node: Node<'a>| Node {
            element: node.element.into_owned(),
            below: Branch { is_member: node.below.is_member, below: node.below.below.into_owned() },
        };
        Set { nodes: self.nodes.into_iter().map(owned).collect() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    In,
    NotIn,
    NotInside,
}

/// Whether a field stands for what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inside {
    /// It does.
    Counts,
    /// It stands for itself alone.
    CountsNot,
}

/// Whether the field of a value in a `FieldsV1` text is in the set itself: `{}`, or `.` stands in it.
fn is_member(value: Value<'_, '_>) -> bool {
    value.raw() == b"{}" || value.members().next().is_some_and(|(name, _)| name == b".")
}

fn branch<'a>(value: Value<'a, '_>) -> Branch<'a> {
    let mut out = Branch::default();
    out.below.reserve(value.parts().count() / 2);
    for (name, value) in value.members() {
        match Element::read(name) {
            Some(element) => out.below.nodes.push(Node { element, below: branch(value) }),
            None => out.is_member |= name == b".",
        }
    }
    out.is_member |= out.below.is_empty();
    out
}
