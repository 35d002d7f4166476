//! One manager's record, as an element of `managedFields`, and the list of them.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::json::{Items, Members};
use super::set::Set;

/// The most records of updates an object has; the oldest are joined (`DefaultMaxUpdateManagers`).
pub const MAX_UPDATE_ENTRIES: usize = 10;
/// Who the oldest records are joined under.
const ANCIENT: &[u8] = b"\"ancient-changes\"";

/// How a manager wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// A record. Texts are JSON as they stand in the list, quotes and all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) manager: Cow<'a, [u8]>,
    pub(super) operation: Operation,
    pub(super) api_version: Cow<'a, [u8]>,
    pub(super) time: Option<Cow<'a, [u8]>>,
    /// `FieldsV1`.
    pub(super) fields: Cow<'a, [u8]>,
    pub(super) subresource: Option<Cow<'a, [u8]>>,
}

impl<'a> Entry<'a> {
    fn read(text: &'a [u8]) -> Self {
        let mut entry = Self {
            manager: Cow::Borrowed(b"\"\""),
            operation: Operation::Update,
            api_version: Cow::Borrowed(b"\"\""),
            time: None,
            fields: Cow::Borrowed(b"{}"),
            subresource: None,
        };
        for (name, value) in Members::of(text) {
            let text = Cow::Borrowed(value);
            match name {
                b"manager" => entry.manager = text,
                b"operation" if value == b"\"Apply\"" => entry.operation = Operation::Apply,
                b"apiVersion" => entry.api_version = text,
                b"time" => entry.time = Some(text),
                b"fieldsV1" => entry.fields = text,
                b"subresource" => entry.subresource = Some(text),
                _ => {}
            }
        }
        entry
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"manager\":");
        out.extend_from_slice(&self.manager);
        out.extend_from_slice(match self.operation {
            Operation::Apply => b",\"operation\":\"Apply\",\"apiVersion\":".as_slice(),
            Operation::Update => b",\"operation\":\"Update\",\"apiVersion\":",
        });
        out.extend_from_slice(&self.api_version);
        if let Some(time) = &self.time {
            out.extend_from_slice(b",\"time\":");
            out.extend_from_slice(time);
        }
        out.extend_from_slice(b",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":");
        out.extend_from_slice(&self.fields);
        if let Some(subresource) = &self.subresource {
            out.extend_from_slice(b",\"subresource\":");
            out.extend_from_slice(subresource);
        }
        out.push(b'}');
    }

    /// Whether both are records of one manager. One who applies is the same in every version.
    pub(super) fn is_of_same(&self, other: &Self) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    pub(super) fn set_fields(&mut self, set: &Set<'_>) {
        let mut text = Vec::with_capacity(self.fields.len() + 64);
        set.write(&mut text);
        self.fields = text.into();
    }

    pub(super) fn is_empty(&self) -> bool {
        *self.fields == *b"{}"
    }

    /// Appliers first, then by age.
    fn order(&self, other: &Self) -> Ordering {
        self.operation.cmp(&other.operation).then_with(|| self.by_age(other))
    }

    /// Times have one form, whose texts sort as they do; none is the oldest.
    fn by_age(&self, other: &Self) -> Ordering {
        (&self.time, &self.manager, &self.api_version, &self.subresource).cmp(&(
            &other.time,
            &other.manager,
            &other.api_version,
            &other.subresource,
        ))
    }
}

/// Reads a list that this server wrote.
pub(super) fn read(text: &[u8]) -> Vec<Entry<'_>> {
    Items::of(text).map(Entry::read).collect()
}

/// The list as it is stored; `None` if there is nothing in it.
pub(super) fn write(mut entries: Vec<Entry<'_>>) -> Option<Vec<u8>> {
    entries.retain(|entry| !entry.is_empty());
    join_oldest(&mut entries);
    if entries.is_empty() {
        return None;
    }
    entries.sort_by(Entry::order);
    let mut out = Vec::with_capacity(entries.iter().map(|e| e.fields.len() + 192).sum());
    for entry in &entries {
        out.push(if out.is_empty() { b'[' } else { b',' });
        entry.write(&mut out);
    }
    out.push(b']');
    Some(out)
}

/// Joins the oldest records of updates of each version until there are few enough (`capmanagers.go`).
fn join_oldest(entries: &mut Vec<Entry<'_>>) {
    let mut count = entries.iter().filter(|e| e.operation == Operation::Update).count();
    if count <= MAX_UPDATE_ENTRIES {
        return;
    }
    let (mut updates, appliers): (Vec<_>, Vec<_>) =
        std::mem::take(entries).into_iter().partition(|e| e.operation == Operation::Update);
    updates.sort_by(Entry::by_age);
    *entries = appliers;
    // Where the first record of each version went, which becomes the joint one when a second comes.
    let mut firsts: Vec<usize> = Vec::new();
    for entry in updates {
        let first = firsts.iter().copied().find(|i| entries[*i].api_version == entry.api_version);
        match first {
            Some(first) if count > MAX_UPDATE_ENTRIES => {
                let joint = &mut entries[first];
                let fields = Set::read(&joint.fields).union(Set::read(&entry.fields)).into_owned();
                joint.set_fields(&fields);
                joint.manager = Cow::Borrowed(ANCIENT);
                joint.subresource = None;
                joint.time = entry.time;
                count -= 1;
            }
            _ => {
                if first.is_none() {
                    firsts.push(entries.len());
                }
                entries.push(entry);
            }
        }
    }
}
