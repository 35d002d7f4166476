//! Strategic merge: a merge patch that knows which lists of the built-in types merge, and by which key. It understands the
//! directives `$patch`, `$retainKeys`, `$setElementOrder/…` and `$deleteFromPrimitiveList/…`
//! (<https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/>).

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::schema::{Field, Strategy, Type, type_of_named};
use super::{PatchError, check_depth};
use crate::kind::Kind;

type Object = Map<String, Value>;

pub(super) const DIRECTIVE: &str = "$patch";
pub(super) const RETAIN_KEYS: &str = "$retainKeys";
pub(super) const DELETE_FROM: &str = "$deleteFromPrimitiveList";
pub(super) const SET_ORDER: &str = "$setElementOrder";

const BAD_ORDER_LIST: &str = "invalid patch format of setElementOrder list";
const BAD_RETAIN_KEYS: &str = "invalid patch format of retainKeys";

/// What is merged into what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// A patch into an object: directives are carried out.
    Apply,
    /// A patch into another patch: directives and nulls are kept for whoever applies the sum.
    Combine,
}

/// Applies a strategic merge patch to an object of a kind.
///
/// # Errors
/// The patch is no object or its directives do not fit.
pub fn strategic_merge(kind: &Kind, target: &Value, patch: &Value) -> Result<Value, PatchError> {
    merge_typed(type_of_named(kind.api_version, kind.kind), target, patch)
}

/// Applies a strategic merge patch to an object of the kind of an `apiVersion` and a `kind`.
///
/// # Errors
/// The patch is no object or its directives do not fit.
pub fn strategic_merge_named(
    (api_version, kind): (&str, &str),
    target: &Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    merge_typed(type_of_named(api_version, kind), target, patch)
}

fn merge_typed(ty: &'static Type, target: &Value, patch: &Value) -> Result<Value, PatchError> {
    let (Value::Object(target), Value::Object(fields)) = (target, patch) else {
        return Err(PatchError::Malformed("invalid JSON document".to_owned()));
    };
    check_depth(patch)?;
    merge_map(target.clone(), fields.clone(), Some(ty), Mode::Apply).map(Value::Object)
}

/// The rule of a field, the common one for a field that has none.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    pub(super) strategy: Strategy,
    pub(super) retain_keys: bool,
    pub(super) of: Option<&'static Type>,
}

impl Rule {
    pub(super) fn of(ty: Option<&'static Type>, field: &str) -> Self {
        match ty.and_then(|t| t.field(field)) {
            Some(Field { strategy, retain_keys, of, .. }) => {
                Self { strategy: *strategy, retain_keys: *retain_keys, of: *of }
            }
            None => Self { strategy: Strategy::Plain, retain_keys: false, of: None },
        }
    }
}

pub(super) fn merge_map(
    mut original: Object,
    mut patch: Object,
    ty: Option<&'static Type>,
    mode: Mode,
) -> Result<Object, PatchError> {
    match patch.get(DIRECTIVE).map(Value::as_str) {
        None => {}
        Some(Some("replace")) => {
            patch.remove(DIRECTIVE);
            return Ok(patch);
        }
        Some(Some("delete")) => return Ok(Object::new()),
        Some(_) => return Err(unknown_directive(&patch)),
    }
    retain_keys(&mut original, &mut patch, mode)?;
    merge_ordered_lists(&mut original, &mut patch, ty, mode)?;
    for (key, value) in patch {
        let (key, deletes) = match key.strip_prefix(DELETE_FROM) {
            Some(_) if mode == Mode::Combine => {
                original.insert(key, value);
                continue;
            }
            Some(rest) => {
                let name = rest
                    .strip_prefix('/')
                    .ok_or_else(|| PatchError::Malformed("invalid patch format of primitive list".to_owned()))?;
                (name.to_owned(), Deletes::Listed)
            }
            None => (key, Deletes::Nothing),
        };
        merge_field(&mut original, key, value, deletes, ty, mode)?;
    }
    Ok(original)
}

/// Whether a list in a patch names what to delete rather than what to add.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deletes {
    Nothing,
    Listed,
}

fn merge_field(
    original: &mut Object,
    key: String,
    value: Value,
    deletes: Deletes,
    ty: Option<&'static Type>,
    mode: Mode,
) -> Result<(), PatchError> {
    if value.is_null() {
        original.remove(&key);
        if mode == Mode::Combine {
            original.insert(key, Value::Null);
        }
        return Ok(());
    }
    let rule = Rule::of(ty, &key);
    let merged = match (original.remove(&key), value) {
        (Some(Value::Object(old)), Value::Object(new)) => match rule.strategy {
            Strategy::Replace => Value::Object(new),
            _ => Value::Object(merge_map(old, new, rule.of, mode)?),
        },
        (Some(Value::Array(old)), Value::Array(new)) => Value::Array(merge_list(old, new, rule, deletes, mode)?),
        (old, value) => {
            if deletes == Deletes::Listed {
                // There is no list to delete from.
                if let Some(old) = old {
                    original.insert(key, old);
                }
                return Ok(());
            }
            let mut value = value;
            if mode == Mode::Apply {
                drop_directives(&mut value);
            }
            value
        }
    };
    original.insert(key, merged);
    Ok(())
}

/// Makes of a part of a patch that meets nothing to patch the plain value it stands for.
fn drop_directives(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, v| {
                let directive = key == DIRECTIVE || key == RETAIN_KEYS;
                !v.is_null() && !directive && !key.starts_with(DELETE_FROM) && !key.starts_with(SET_ORDER)
            });
            fields.values_mut().for_each(drop_directives);
        }
        Value::Array(items) => {
            // An element that only says what to delete or that the list is replaced is no element.
            items.retain(|item| item.get(DIRECTIVE).is_none_or(|d| d == "merge" || item_is_more(item)));
            items.iter_mut().for_each(drop_directives);
        }
        _ => {}
    }
}

fn item_is_more(item: &Value) -> bool {
    item[DIRECTIVE] != "delete" && item.as_object().is_some_and(|o| o.len() > 1)
}

/// `$retainKeys`: what is not named goes; what the patch sets must be named.
fn retain_keys(original: &mut Object, patch: &mut Object, mode: Mode) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    if mode == Mode::Combine {
        return match original.get(RETAIN_KEYS) {
            Some(other) if *other != keys => {
                let message = format!(
                    "{} and {} are not deep equal: this may happen when calculating the 3-way diff patch",
                    go_value(other),
                    go_value(&keys)
                );
                Err(PatchError::Mismatch(message))
            }
            _ => {
                original.insert(RETAIN_KEYS.to_owned(), keys);
                Ok(())
            }
        };
    }
    let Value::Array(keys) = keys else { return Err(PatchError::Malformed(BAD_RETAIN_KEYS.to_owned())) };
    let named = |key: &str| keys.iter().any(|k| k == key);
    let is_list_directive = |key: &str| key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER);
    if patch.iter().any(|(key, value)| !value.is_null() && !is_list_directive(key) && !named(key)) {
        return Err(PatchError::Malformed(BAD_RETAIN_KEYS.to_owned()));
    }
    original.retain(|key, _| named(key));
    Ok(())
}

/// `$setElementOrder/x`: merges the list `x` and puts it in the named order; elements the patch does not know keep their place.
fn merge_ordered_lists(
    original: &mut Object,
    patch: &mut Object,
    ty: Option<&'static Type>,
    mode: Mode,
) -> Result<(), PatchError> {
    let directives: Vec<String> = patch.keys().filter(|k| k.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let Some(order) = patch.remove(&directive) else { continue };
        let field = directive[SET_ORDER.len()..]
            .strip_prefix('/')
            .ok_or_else(|| PatchError::Malformed(BAD_ORDER_LIST.to_owned()))?;
        if mode == Mode::Combine {
            match original.get(&directive) {
                Some(other) if *other != order => return Err(PatchError::Malformed(BAD_ORDER_LIST.to_owned())),
                _ => original.insert(directive.clone(), order.clone()),
            };
        }
        let order = list(Some(order), "$setElementOrder")?.unwrap_or_default();
        let rule = Rule::of(ty, field);
        let key = merge_key(rule);
        let new = match patch.get(field) {
            // The whole list goes: there is nothing to order.
            Some(Value::Null) => continue,
            _ => list(patch.remove(field), field)?,
        };
        let old = match original.get(field) {
            Some(Value::Null) | None => None,
            Some(_) => list(original.remove(field), field)?,
        };
        check_order(new.as_deref().unwrap_or_default(), &order, key)?;
        let server = old.clone().unwrap_or_default();
        let merged = match (old, new) {
            (None, None) => continue,
            (Some(old), None) => old,
            (None, Some(new)) => {
                let mut new = Value::Array(new);
                if mode == Mode::Apply {
                    drop_directives(&mut new);
                }
                list(Some(new), field)?.unwrap_or_default()
            }
            (Some(old), Some(new)) => merge_list(old, new, rule, Deletes::Nothing, mode)?,
        };
        let (known, unknown) = partition(merged, &order, key)?;
        let ordered = in_order(known, unknown, &order, &server, key);
        original.insert(field.to_owned(), Value::Array(ordered));
    }
    Ok(())
}

fn list(value: Option<Value>, field: &str) -> Result<Option<Vec<Value>>, PatchError> {
    match value {
        None => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(other) => {
            let message = format!("expected a list in {field}, but received a {}", super::go_kind(&other));
            Err(PatchError::Unprocessable(message))
        }
    }
}

fn merge_key(rule: Rule) -> Option<&'static str> {
    match rule.strategy {
        Strategy::MergeBy(key) => Some(key),
        _ => None,
    }
}

/// What tells elements apart: the merge key's value of a map, a scalar itself.
fn identity<'a>(item: &'a Value, key: Option<&str>) -> &'a Value {
    match key {
        Some(key) => item.get(key).unwrap_or(&Value::Null),
        None => item,
    }
}

fn is_deletion(item: &Value) -> bool {
    item.get(DIRECTIVE).is_some_and(|d| d == "delete")
}

pub(super) fn require_key(item: &Value, key: &str) -> Result<(), PatchError> {
    match item {
        Value::Object(fields) if fields.contains_key(key) => Ok(()),
        Value::Object(_) => {
            let message = format!("map: {} does not contain declared merge key: {key}", go_value(item));
            Err(PatchError::Mismatch(message))
        }
        _ => {
            let message = format!("expected a map[string]interface {{}}, but received a {}", super::go_kind(item));
            Err(PatchError::Unprocessable(message))
        }
    }
}

/// The elements of the patch must stand in the named order, deletions apart.
fn check_order(items: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    if order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    for item in items.iter().filter(|i| i.get(DIRECTIVE).is_none()) {
        if let Some(key) = key {
            require_key(item, key)?;
        }
        if !rest.any(|o| identity(o, key) == identity(item, key)) {
            let (items, order) = (Value::from(items.to_vec()), Value::from(order.to_vec()));
            return Err(PatchError::Mismatch(format!(
                "The order in patch list:\n{}\n doesn't match {SET_ORDER} list:\n{}\n",
                go_value(&items),
                go_value(&order)
            )));
        }
    }
    Ok(())
}

fn merge_list(
    old: Vec<Value>,
    new: Vec<Value>,
    rule: Rule,
    deletes: Deletes,
    mode: Mode,
) -> Result<Vec<Value>, PatchError> {
    match rule.strategy {
        Strategy::Plain | Strategy::Replace if deletes == Deletes::Nothing => return Ok(plain_list(new, mode)),
        _ => {}
    }
    let Some(first) = old.first().or(new.first()) else { return Ok(old) };
    check_same_kind(&old, &new)?;
    if !first.is_object() {
        if deletes == Deletes::Listed {
            return Ok(old.into_iter().filter(|item| !new.contains(item)).collect());
        }
        let mut merged: Vec<Value> = Vec::with_capacity(old.len() + new.len());
        for item in old.iter().chain(&new) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        let (known, unknown) = partition(merged, &new, None)?;
        return Ok(in_order(known, unknown, &new, &old, None));
    }
    let Strategy::MergeBy(key) = rule.strategy else {
        return Err(PatchError::Mismatch("cannot merge lists without merge key for type struct".to_owned()));
    };
    let (mut merged, new) = carry_out_list_directives(old, new, key)?;
    let server = merged.clone();
    for item in &new {
        require_key(item, key)?;
        let at = merged.iter().position(|m| m.get(key) == item.get(key));
        match (at, item) {
            (Some(at), Value::Object(fields)) => {
                let Value::Object(old) = std::mem::take(&mut merged[at]) else { continue };
                merged[at] = Value::Object(merge_map(old, fields.clone(), rule.of, mode)?);
            }
            _ => merged.extend(plain_list(vec![item.clone()], mode)),
        }
    }
    let (known, unknown) = partition(merged, &new, Some(key))?;
    Ok(in_order(known, unknown, &new, &server, Some(key)))
}

fn plain_list(items: Vec<Value>, mode: Mode) -> Vec<Value> {
    let mut items = Value::Array(items);
    if mode == Mode::Apply {
        drop_directives(&mut items);
    }
    match items {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

/// Deletes and replaces as the elements with `$patch` say; gives what is left of the list and of the patch.
fn carry_out_list_directives(
    mut old: Vec<Value>,
    new: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut plain = Vec::with_capacity(new.len());
    let mut replaces = false;
    for item in new {
        match item.get(DIRECTIVE).map(Value::as_str) {
            None => plain.push(item),
            Some(Some("delete")) => {
                require_key(&item, key)?;
                old.retain(|o| o.get(key) != item.get(key));
            }
            Some(Some("replace")) => replaces = true,
            Some(Some("merge")) => {
                let message = "merging lists cannot yet be specified in the patch";
                return Err(PatchError::Mismatch(message.to_owned()));
            }
            Some(_) => {
                return Err(item.as_object().map_or_else(|| unknown_directive(&Object::new()), unknown_directive));
            }
        }
    }
    Ok(if replaces { (plain, Vec::new()) } else { (old, plain) })
}

fn check_same_kind(old: &[Value], new: &[Value]) -> Result<(), PatchError> {
    let mut all = old.iter().chain(new).map(super::go_kind);
    let Some(first) = all.next() else { return Ok(()) };
    if first == "array" {
        return Err(PatchError::Unprocessable("lists of lists are not supported".to_owned()));
    }
    if all.all(|k| k == first) {
        return Ok(());
    }
    let (old, new) = (Value::from(old.to_vec()), Value::from(new.to_vec()));
    let message = format!("list element types are not identical: [{} {}]", go_value(&old), go_value(&new));
    Err(PatchError::Mismatch(message))
}

/// Splits a list into what `by` names and what it does not.
fn partition(items: Vec<Value>, by: &[Value], key: Option<&str>) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    if let Some(key) = key {
        items.iter().try_for_each(|item| require_key(item, key))?;
    }
    Ok(items.into_iter().partition(|item| by.iter().any(|b| identity(b, key) == identity(item, key))))
}

fn place(order: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    order.iter().position(|o| identity(o, key) == identity(item, key))
}

/// Sorts a list by `order`; deletions go last, and so does what is not in it.
pub(super) fn sort_by_order(items: Vec<Value>, order: &[Value], key: Option<&str>) -> Vec<Value> {
    let (deletions, mut items): (Vec<_>, Vec<_>) = items.into_iter().partition(|i| key.is_some() && is_deletion(i));
    items.sort_by_key(|item| place(order, item, key).unwrap_or(usize::MAX));
    items.extend(deletions);
    items
}

/// Weaves what the patch names (in the patch's order) with what only the server has (in the server's): an element of the
/// server goes before the first of the patch that stood behind it.
fn in_order(
    known: Vec<Value>,
    unknown: Vec<Value>,
    order: &[Value],
    server: &[Value],
    key: Option<&str>,
) -> Vec<Value> {
    let known = sort_by_order(known, order, key);
    let unknown = sort_by_order(unknown, server, key);
    let mut woven = Vec::with_capacity(known.len() + unknown.len());
    let (mut known, mut unknown) = (known.into_iter().peekable(), unknown.into_iter().peekable());
    loop {
        let server_first = match (unknown.peek(), known.peek()) {
            (None, None) => return woven,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(u), Some(k)) => match (place(server, u, key), place(server, k, key)) {
                (Some(u), Some(k)) => u < k,
                _ => false,
            },
        };
        woven.extend(if server_first { unknown.next() } else { known.next() });
    }
}

fn unknown_directive(patch: &Object) -> PatchError {
    let directive = patch.get(DIRECTIVE).map(go_value).unwrap_or_default();
    let map = go_value(&Value::Object(patch.clone()));
    PatchError::Mismatch(format!("unknown patch type: {directive} in map: {map}"))
}

/// A value as Go's `%v` prints it, since upstream's messages do.
fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(s) => s.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_value).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let mut out = "map[".to_owned();
            for (i, (key, value)) in fields.iter().enumerate() {
                let _ = write!(out, "{}{key}:{}", if i == 0 { "" } else { " " }, go_value(value));
            }
            out + "]"
        }
        other => other.to_string(),
    }
}
