//! What a write leaves in `managedFields`: what it changed is its manager's and nobody else's, and what it removed is
//! nobody's (`merge.Updater` of structured-merge-diff, and the managers of `k8s.io/apimachinery` around it).

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

use super::compare::{Comparison, compare};
use super::entry::{self, Entry, Fields, Operation};
use super::given::{self, quoted};
use super::json::Index;
use super::schema::shape_of;
use super::set::{Inside, Set};
use crate::kind::{Kind, Storage, Subresource};
use crate::validation::FIELD_MANAGER_MAX;

/// Who writes.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The name of the manager.
    pub manager: &'a str,
    /// What it writes through.
    pub subresource: Option<Subresource>,
    /// When; whole seconds count.
    pub now: Timestamp,
}

/// The `managedFields` of a request's object.
#[derive(Debug, Clone, Copy)]
pub enum Given<'a> {
    /// Those of the stored object hold: there were none, or they do not count on this path.
    Nothing,
    /// The client's.
    Entries(&'a [ManagedFieldsEntry]),
}

/// A write.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// The kind in whose version it is made.
    pub kind: &'static Kind,
    /// The object's text before; `None` when it is made.
    pub old: Option<&'a [u8]>,
    /// The object's text after. `managedFields` in either are passed over.
    pub new: &'a [u8],
    /// The stored `managedFields`.
    pub managed: Option<&'a [u8]>,
    /// Those of the request.
    pub given: Given<'a>,
}

/// What becomes of the stored `managedFields`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// They stay.
    Same,
    /// They are now these; `None` for none.
    New(Option<Vec<u8>>),
}

/// Works out the `managedFields` of a write.
#[must_use]
pub fn update(change: Change<'_>, writer: Writer<'_>) -> Outcome {
    let stored = change.managed.unwrap_or_default();
    let index = Index::of(stored);
    let (mut entries, is_given) = match change.given {
        Given::Entries(list) if given::is_reset(list) => (Vec::new(), true),
        Given::Entries(list) if let Some(entries) = given::entries(list) => (entries, true),
        _ => (entry::read(index.root(stored)), false),
    };
    if entries.is_empty() && change.old.is_some() {
        // Whoever cleared them does not want them back.
        return if change.managed.is_some() { Outcome::New(None) } else { Outcome::Same };
    }
    let comparison = compared(change.kind, writer.subresource, change.old, change.new);
    let is_touched = !comparison.is_empty() && apply(&mut entries, &comparison, change, writer);
    if !is_touched && !is_given {
        return Outcome::Same;
    }
    let text = entry::write(entries);
    if text.as_deref() == change.managed { Outcome::Same } else { Outcome::New(text) }
}

fn compared<'a>(kind: &Kind, subresource: Option<Subresource>, old: Option<&'a [u8]>, new: &'a [u8]) -> Comparison<'a> {
    let mut comparison = compare(shape_of(kind), old.unwrap_or(b"{}"), new);
    // A plain write cannot set the status, whatever it sends (`GetResetFields` of each kind's strategy).
    if subresource != Some(Subresource::Status) && kind.has(Subresource::Status) {
        comparison.changed.remove_field("status");
        comparison.removed.remove_field("status");
    }
    comparison
}

/// Says whether any record changed.
fn apply(
    entries: &mut Vec<Entry<'_, '_>>,
    comparison: &Comparison<'_>,
    change: Change<'_>,
    writer: Writer<'_>,
) -> bool {
    let mut own = Entry {
        manager: quoted(if writer.manager.is_empty() { "unknown" } else { writer.manager }),
        operation: Operation::Update,
        api_version: quoted(change.kind.api_version),
        time: Some(quoted(&format!("{:.0}", whole_second(writer.now)))),
        fields: Fields::none(),
        subresource: writer.subresource.map(|s| quoted(s.as_str())),
    };
    let mut is_touched = false;
    entries.retain_mut(|entry| {
        if !comparison.changed.is_empty() && entry.is_of_same(&own) {
            own.fields = std::mem::replace(&mut entry.fields, Fields::none());
            return false;
        }
        if entry.api_version == own.api_version {
            is_touched |= take_from(entry, comparison);
            return true;
        }
        // In the version of that record, the fields may have other names.
        match in_version(&entry.api_version, change) {
            Some(Converted { old, new, kind }) => {
                is_touched |= take_from(entry, &compared(kind, writer.subresource, old.as_deref(), &new));
                true
            }
            None => {
                is_touched = true;
                false
            }
        }
    });
    if comparison.changed.is_empty() {
        return is_touched;
    }
    let is_same = own
        .fields
        .with(|fields| comparison.changed.is_within(fields) && !comparison.removed.touches(fields, Inside::Counts));
    if !is_same {
        let fields = std::mem::replace(&mut own.fields, Fields::none());
        fields.with(|fields| {
            let kept = Set::of(fields).difference_with_contents(&comparison.removed);
            // A record that begins now needs no copy of what it is.
            if kept.is_empty() {
                own.set_fields(&comparison.changed);
            } else {
                own.set_fields(&kept.union(comparison.changed.clone()));
            }
        });
    }
    entries.push(own);
    true
}

/// Takes from another's record what a write changed or removed. Says whether it had any of it.
fn take_from(entry: &mut Entry<'_, '_>, comparison: &Comparison<'_>) -> bool {
    let is_touched = entry.fields.with(|fields| {
        comparison.changed.touches(fields, Inside::CountsNot) || comparison.removed.touches(fields, Inside::Counts)
    });
    if is_touched {
        let fields = std::mem::replace(&mut entry.fields, Fields::none());
        fields.with(|fields| {
            let left = Set::of(fields).difference(&comparison.changed);
            entry.set_fields(&left.difference_with_contents(&comparison.removed));
        });
    }
    is_touched
}

/// The texts of a change in another version of its kind.
struct Converted {
    old: Option<Vec<u8>>,
    new: Vec<u8>,
    kind: &'static Kind,
}

/// A change in another version of its kind; `None` if there is no such version.
fn in_version(api_version: &[u8], change: Change<'_>) -> Option<Converted> {
    let api_version: String = serde_json::from_slice(api_version).ok()?;
    let kind = crate::kinds::find_by_kind(&api_version, change.kind.kind)?;
    if kind.collection() != change.kind.collection() {
        return None;
    }
    let convert = |text: &[u8]| {
        let stored = match change.kind.info.storage {
            Storage::SharedWith { to_stored, .. } => to_stored(text).ok()?,
            Storage::Own | Storage::Never | Storage::Measured => text.to_vec(),
        };
        match kind.info.storage {
            Storage::SharedWith { from_stored, .. } => from_stored(&stored).ok(),
            Storage::Own | Storage::Never | Storage::Measured => Some(stored),
        }
    };
    let old = match change.old {
        Some(old) => Some(convert(old)?),
        None => None,
    };
    Some(Converted { old, new: convert(change.new)?, kind })
}

fn whole_second(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// The manager of a request that names none: its user agent up to the first slash (`prefixFromUserAgent`).
#[must_use]
pub fn manager_of_user_agent(user_agent: &str) -> String {
    let mut manager = String::new();
    let prefix = user_agent.split('/').next().unwrap_or_default();
    for letter in prefix.chars().filter(|c| !c.is_control()) {
        if manager.len() + letter.len_utf8() > FIELD_MANAGER_MAX {
            break;
        }
        manager.push(letter);
    }
    manager
}
