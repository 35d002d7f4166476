//! The making of patches: what turns one object into another (two-way), and what `kubectl apply` sends (three-way: what the
//! user changed since the last apply, and nothing of what others set). It applies nothing.

use serde_json::{Map, Value, json};

use super::schema::{Strategy, Type, type_of_named};
use super::strategic::{DELETE_FROM, DIRECTIVE, Mode, RETAIN_KEYS, Rule, SET_ORDER, merge_map, sort_by_order};
use super::{PatchError, check_depth};

type Object = Map<String, Value>;

/// Which differences go into the patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Take {
    All,
    ChangesAndAdditions,
    Deletions,
}

impl Take {
    fn changes(self) -> bool {
        self != Self::Deletions
    }
    fn deletions(self) -> bool {
        self != Self::ChangesAndAdditions
    }
}

/// The strategic merge patch that turns `original` into `modified`, both of the kind of an `apiVersion` and a `kind`.
///
/// # Errors
/// They are no objects, or a merging list has an element without its key.
pub fn two_way(gvk: (&str, &str), original: &Value, modified: &Value) -> Result<Value, PatchError> {
    let (original, modified) = (object(original)?, object(modified)?);
    diff_maps(original, modified, Some(type_of_named(gvk.0, gvk.1)), Take::All, false).map(Value::Object)
}

/// The strategic merge patch that `kubectl apply` sends: deletes what stood in `original` (the last applied object) and no
/// longer stands in `modified` (the one to apply), and changes `current` (the server's) to what `modified` says.
///
/// # Errors
/// They are no objects, are not versions of one object, or a merging list has an element without its key.
pub fn three_way(gvk: (&str, &str), original: &Value, modified: &Value, current: &Value) -> Result<Value, PatchError> {
    let (original, modified, current) = (object(original)?, object(modified)?, object(current)?);
    let ty = Some(type_of_named(gvk.0, gvk.1));
    let changes = diff_maps(current, modified, ty, Take::ChangesAndAdditions, false)?;
    let deletions = diff_maps(original, modified, ty, Take::Deletions, false)?;
    let patch = merge_map(deletions, changes, ty, Mode::Combine)?;
    keeps_identity(&patch)?;
    Ok(Value::Object(patch))
}

/// The JSON merge patch that turns `original` into `modified`.
///
/// # Errors
/// They are no objects.
pub fn two_way_merge(original: &Value, modified: &Value) -> Result<Value, PatchError> {
    Ok(Value::Object(diff_plain(object(original)?, object(modified)?, Take::All)))
}

/// What [`three_way`] is for kinds with no known type: the same as a JSON merge patch, which replaces lists.
///
/// # Errors
/// They are no objects, or are not versions of one object.
pub fn three_way_merge(original: &Value, modified: &Value, current: &Value) -> Result<Value, PatchError> {
    let (original, modified, current) = (object(original)?, object(modified)?, object(current)?);
    let mut patch = diff_plain(original, modified, Take::Deletions);
    overlay(&mut patch, diff_plain(current, modified, Take::ChangesAndAdditions));
    keeps_identity(&patch)?;
    Ok(Value::Object(patch))
}

fn object(value: &Value) -> Result<&Object, PatchError> {
    check_depth(value)?;
    value.as_object().ok_or_else(|| PatchError::Malformed("invalid JSON document".to_owned()))
}

/// A patch of an apply may not make another object of it.
fn keeps_identity(patch: &Object) -> Result<(), PatchError> {
    let name = patch.get("metadata").and_then(|m| m.get("name"));
    if patch.contains_key("apiVersion") || patch.contains_key("kind") || name.is_some() {
        return Err(PatchError::IdentityChanged);
    }
    Ok(())
}

fn diff_plain(original: &Object, modified: &Object, take: Take) -> Object {
    let mut patch = Object::new();
    for (key, new) in modified {
        match (original.get(key), new) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                let inner = diff_plain(old, new, take);
                if !inner.is_empty() {
                    patch.insert(key.clone(), Value::Object(inner));
                }
            }
            (old, new) if take.changes() && old != Some(new) && !new.is_null() => {
                patch.insert(key.clone(), new.clone());
            }
            _ => {}
        }
    }
    if take.deletions() {
        let gone = original.iter().filter(|(k, v)| !v.is_null() && modified.get(*k).is_none_or(Value::is_null));
        patch.extend(gone.map(|(k, _)| (k.clone(), Value::Null)));
    }
    patch
}

/// Lays one merge patch over another.
fn overlay(patch: &mut Object, over: Object) {
    for (key, value) in over {
        match (patch.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => overlay(old, new),
            (_, value) => {
                patch.insert(key, value);
            }
        }
    }
}

fn diff_maps(
    original: &Object,
    modified: &Object,
    ty: Option<&'static Type>,
    take: Take,
    names_kept_keys: bool,
) -> Result<Object, PatchError> {
    let mut patch = Object::new();
    for (key, new) in modified {
        let rule = Rule::of(ty, key);
        match (original.get(key), new) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                if rule.strategy == Strategy::Replace {
                    if take.changes() && old != new {
                        patch.insert(key.clone(), Value::Object(new.clone()));
                    }
                    continue;
                }
                let inner = diff_maps(old, new, rule.of, take, rule.retain_keys)?;
                if !inner.is_empty() {
                    patch.insert(key.clone(), Value::Object(inner));
                }
            }
            (Some(Value::Array(old)), Value::Array(new)) => diff_lists(&mut patch, key, (old, new), rule, take)?,
            (old, new) => {
                if take.changes() && old != Some(new) {
                    patch.insert(key.clone(), new.clone());
                }
            }
        }
    }
    if take.deletions() {
        let gone = original.keys().filter(|k| !modified.contains_key(*k));
        patch.extend(gone.map(|k| (k.clone(), Value::Null)));
    }
    let kept: Vec<Value> =
        modified.iter().filter(|(_, v)| !v.is_null()).map(|(k, _)| Value::String(k.clone())).collect();
    let clears = original.iter().any(|(k, v)| !v.is_null() && !modified.contains_key(k));
    if names_kept_keys && !kept.is_empty() && (!patch.is_empty() || clears) {
        patch.insert(RETAIN_KEYS.to_owned(), Value::Array(kept));
    }
    Ok(patch)
}

fn diff_lists(
    patch: &mut Object,
    key: &str,
    (old, new): (&[Value], &[Value]),
    rule: Rule,
    take: Take,
) -> Result<(), PatchError> {
    let by = match rule.strategy {
        Strategy::MergeBy(by) => by,
        Strategy::MergeSet => {
            diff_sets(patch, key, (old, new), take);
            return Ok(());
        }
        Strategy::Plain | Strategy::Replace => {
            if take.changes() && old != new {
                patch.insert(key.to_owned(), Value::from(new.to_vec()));
            }
            return Ok(());
        }
    };
    if old.is_empty() {
        if take.changes() && !new.is_empty() {
            patch.insert(key.to_owned(), Value::from(new.to_vec()));
        }
        return Ok(());
    }
    let changes = diff_elements((old, new), by, rule, take)?;
    let same_order = old.len() == new.len() && old.iter().zip(new).all(|(o, n)| o.get(by) == n.get(by));
    let order_matters =
        (take.changes() && (!changes.is_empty() || !same_order)) || (take.deletions() && !changes.is_empty());
    if !changes.is_empty() {
        patch.insert(key.to_owned(), Value::Array(changes));
    }
    if order_matters && !new.is_empty() {
        let order = new.iter().map(|n| json!({ by: n[by] })).collect();
        patch.insert(format!("{SET_ORDER}/{key}"), Value::Array(order));
    }
    Ok(())
}

/// Changes and additions in the new order, then deletions.
fn diff_elements((old, new): (&[Value], &[Value]), by: &str, rule: Rule, take: Take) -> Result<Vec<Value>, PatchError> {
    for item in old.iter().chain(new) {
        super::strategic::require_key(item, by)?;
    }
    let mut changes = Vec::new();
    for item in new {
        match (old.iter().find(|o| o[by] == item[by]), item) {
            (Some(Value::Object(old)), Value::Object(fields)) => {
                let mut inner = diff_maps(old, fields, rule.of, take, rule.retain_keys)?;
                if !inner.is_empty() {
                    inner.insert(by.to_owned(), item[by].clone());
                    changes.push(Value::Object(inner));
                }
            }
            _ if take.changes() => changes.push(item.clone()),
            _ => {}
        }
    }
    let mut changes = sort_by_order(changes, new, Some(by));
    if take.deletions() {
        let gone = old.iter().filter(|o| !new.iter().any(|n| n[by] == o[by]));
        changes.extend(gone.map(|o| json!({ DIRECTIVE: "delete", by: o[by] })));
    }
    Ok(changes)
}

fn diff_sets(patch: &mut Object, key: &str, (old, new): (&[Value], &[Value]), take: Take) {
    if old.is_empty() {
        if take.changes() && !new.is_empty() {
            patch.insert(key.to_owned(), Value::from(new.to_vec()));
        }
        return;
    }
    let added: Vec<Value> = new.iter().filter(|n| take.changes() && !old.contains(n)).cloned().collect();
    let gone: Vec<Value> = old.iter().filter(|o| take.deletions() && !new.contains(o)).cloned().collect();
    let order_matters = (take.deletions() && !gone.is_empty()) || (take.changes() && old != new);
    if !added.is_empty() {
        patch.insert(key.to_owned(), Value::Array(added));
    }
    if !gone.is_empty() {
        patch.insert(format!("{DELETE_FROM}/{key}"), Value::Array(gone));
    }
    if order_matters && !new.is_empty() {
        patch.insert(format!("{SET_ORDER}/{key}"), Value::from(new.to_vec()));
    }
}
