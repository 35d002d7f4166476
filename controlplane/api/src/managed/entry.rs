//! One manager's record, as an element of `managedFields`, and the list of them.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::json::{Index, Value};
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
#[derive(Debug, Clone)]
pub(super) struct Entry<'a, 'i> {
    pub(super) manager: Cow<'a, [u8]>,
    pub(super) operation: Operation,
    pub(super) api_version: Cow<'a, [u8]>,
    pub(super) time: Option<Cow<'a, [u8]>>,
    pub(super) fields: Fields<'a, 'i>,
    pub(super) subresource: Option<Cow<'a, [u8]>>,
}

/// A record's `FieldsV1`.
#[derive(Debug, Clone)]
pub(super) enum Fields<'a, 'i> {
    /// As it is stored.
    Stored(Value<'a, 'i>),
    /// Made in this write.
    Made(Vec<u8>),
}

impl Fields<'_, '_> {
    pub(super) fn none() -> Self {
        Self::Stored(Value::constant(b"{}"))
    }

    pub(super) fn raw(&self) -> &[u8] {
        match self {
            Self::Stored(value) => value.raw(),
            Self::Made(text) => text,
        }
    }

    /// Calls `look` with the value.
    pub(super) fn with<R>(&self, look: impl FnOnce(Value<'_, '_>) -> R) -> R {
        match self {
            Self::Stored(value) => look(*value),
            Self::Made(text) => {
                let index = Index::of(text);
                look(index.root(text))
            }
        }
    }
}

impl<'a, 'i> Entry<'a, 'i> {
    fn read(record: Value<'a, 'i>) -> Self {
        let mut entry = Self {
            manager: Cow::Borrowed(b"\"\""),
            operation: Operation::Update,
            api_version: Cow::Borrowed(b"\"\""),
            time: None,
            fields: Fields::none(),
            subresource: None,
        };
        for (name, value) in record.members() {
            let text = Cow::Borrowed(value.raw());
            match name {
                b"manager" => entry.manager = text,
                b"operation" if value.raw() == b"\"Apply\"" => entry.operation = Operation::Apply,
                b"apiVersion" => entry.api_version = text,
                b"time" => entry.time = Some(text),
                b"fieldsV1" => entry.fields = Fields::Stored(value),
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
        out.extend_from_slice(self.fields.raw());
        if let Some(subresource) = &self.subresource {
            out.extend_from_slice(b",\"subresource\":");
            out.extend_from_slice(subresource);
        }
        out.push(b'}');
    }

    /// Whether both are records of one manager. One who applies is the same in every version.
    pub(super) fn is_of_same(&self, other: &Entry<'_, '_>) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    pub(super) fn set_fields(&mut self, set: &Set<'_>) {
        let mut text = Vec::with_capacity(self.fields.raw().len() + 512);
        set.write(&mut text);
        self.fields = Fields::Made(text);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fields.raw() == b"{}"
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
pub(super) fn read<'a, 'i>(list: Value<'a, 'i>) -> Vec<Entry<'a, 'i>> {
    list.parts().map(Entry::read).collect()
}

/// The list as it is stored; `None` if there is nothing in it.
pub(super) fn write(mut entries: Vec<Entry<'_, '_>>) -> Option<Vec<u8>> {
    entries.retain(|entry| !entry.is_empty());
    join_oldest(&mut entries);
    if entries.is_empty() {
        return None;
    }
    entries.sort_by(Entry::order);
    let mut out = Vec::with_capacity(entries.iter().map(|e| e.fields.raw().len() + 192).sum());
    for entry in &entries {
        out.push(if out.is_empty() { b'[' } else { b',' });
        entry.write(&mut out);
    }
    out.push(b']');
    Some(out)
}

/// Joins the oldest records of updates of each version until there are few enough (`capmanagers.go`).
fn join_oldest(entries: &mut Vec<Entry<'_, '_>>) {
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
                let own = |fields: &Fields<'_, '_>| fields.with(|f| Set::of(f).into_owned());
                let fields = own(&joint.fields).union(own(&entry.fields));
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
