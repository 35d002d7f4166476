//! `managedFields` that a client sent. A client may clear them, or put back what it read; anything else it sends is as good
//! as nothing, since the server never fails a write over them (`decodeLiveOrNew` of `fieldmanager.go`).

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::Value;

use super::element::Element;
use super::entry::{Entry, Fields, Operation};
use super::set::{Branch, Set};

/// The records a client sent, or `None` if they are none that count.
pub(super) fn entries<'i>(given: &[ManagedFieldsEntry]) -> Option<Vec<Entry<'static, 'i>>> {
    let mut entries: Vec<Entry<'static, 'i>> = Vec::with_capacity(given.len());
    for given in given {
        let entry = entry(given)?;
        entries.retain(|earlier| !earlier.is_of_same(&entry));
        entries.push(entry);
    }
    (!entries.is_empty()).then_some(entries)
}

/// An only record with nothing in it clears them all.
pub(super) fn is_reset(given: &[ManagedFieldsEntry]) -> bool {
    matches!(given, [only] if *only == ManagedFieldsEntry::default())
}

fn entry<'i>(given: &ManagedFieldsEntry) -> Option<Entry<'static, 'i>> {
    let operation = match given.operation.as_deref() {
        Some("Apply") => Operation::Apply,
        Some("Update") => Operation::Update,
        _ => return None,
    };
    let api_version = given.api_version.as_deref().filter(|v| !v.is_empty())?;
    if given.fields_type.as_deref() != Some("FieldsV1") {
        return None;
    }
    let empty = Value::Null;
    let branch = branch(given.fields_v1.as_ref().map_or(&empty, |f| &f.0), true).ok()?;
    let mut entry = Entry {
        manager: quoted(given.manager.as_deref().unwrap_or_default()),
        operation,
        api_version: quoted(api_version),
        time: given.time.as_ref().map(|t| quoted(&format!("{:.0}", t.0))),
        fields: Fields::none(),
        subresource: given.subresource.as_deref().filter(|s| !s.is_empty()).map(quoted),
    };
    entry.set_fields(&branch.below);
    Some(entry)
}

pub(super) fn quoted(text: &str) -> Cow<'static, [u8]> {
    Cow::Owned(Value::from(text).to_string().into_bytes())
}

fn branch(value: &Value, is_root: bool) -> Result<Branch<'static>, String> {
    let members = match value {
        Value::Object(members) => members,
        Value::Null if is_root => return Ok(Branch::default()),
        other => return Err(format!("no set of fields: {other}")),
    };
    let mut out = Branch { is_member: false, below: Set::default() };
    for (name, value) in members {
        if name == "." {
            out.is_member = true;
        } else if let Some(element) = Element::parse(name)? {
            out.below.push(element, branch(value, false)?);
        }
    }
    out.below.sort();
    out.is_member |= out.below.is_empty();
    Ok(out)
}
