//! For tests of kinds: an object from JSON, its faults as text, its row as text.

use serde_json::Value;

use crate::kind::{Resource, Subresource};
use crate::validation::Errors;

/// The moment at which tests take place.
pub(super) const NOW: &str = "2024-05-01T12:00:00Z";

/// The object, with its defaults and what a creation does to it.
pub(super) fn created<T: Resource>(value: Value) -> T {
    let mut object: T = serde_json::from_value(value).unwrap();
    object.apply_defaults();
    object.prepare_create();
    object
}

/// What is wrong with a new object.
pub(super) fn faults<T: Resource>(value: Value) -> Vec<String> {
    let object: T = created(value);
    let mut errors = Errors::new();
    object.validate(&mut errors);
    object.validate_create(&mut errors);
    texts(&errors)
}

/// What is wrong with a change from one object to another.
pub(super) fn update_faults<T: Resource>(old: Value, new: Value) -> Vec<String> {
    let old: T = created(old);
    let mut new: T = serde_json::from_value(new).unwrap();
    new.apply_defaults();
    new.prepare_update(&old);
    let mut errors = Errors::new();
    new.validate(&mut errors);
    new.validate_update(&old, &mut errors);
    texts(&errors)
}

/// What is wrong with a new status of an object.
pub(super) fn status_faults<T: Resource>(object: Value, status: Value) -> Vec<String> {
    let old: T = created(object.clone());
    let mut new: T = serde_json::from_value(with(object, serde_json::json!({ "status": status }))).unwrap();
    new.apply_defaults();
    new.prepare_status_update(&old);
    let mut errors = Errors::new();
    new.validate_status_update(&old, &mut errors);
    texts(&errors)
}

/// What is wrong with a change through a narrow subresource, the rest of the object being as it was.
pub(super) fn subresource_faults<T: Resource>(subresource: Subresource, old: Value, new: Value) -> Vec<String> {
    let old: T = created(old);
    let mut new: T = serde_json::from_value(new).unwrap();
    new.apply_defaults();
    new.prepare_update(&old);
    let mut errors = Errors::new();
    new.validate_subresource_update(subresource, &old, &mut errors);
    texts(&errors)
}

pub(super) fn texts(errors: &Errors) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// Each fault begins as expected, in any order of equals, and there is no other.
#[track_caller]
pub(super) fn expect(faults: &[String], expected: &[&str]) {
    assert_eq!(faults.len(), expected.len(), "{faults:#?} instead of {expected:#?}");
    for (fault, start) in faults.iter().zip(expected) {
        assert!(fault.starts_with(start), "{fault:?} does not begin with {start:?}");
    }
}

/// The row as text, its cells separated by `|`, and as many as there are columns.
#[track_caller]
pub(super) fn row<T: Resource>(value: Value) -> String {
    let object: T = serde_json::from_value(value).unwrap();
    let cells = object.row(NOW.parse().unwrap());
    assert_eq!(cells.len(), T::INFO.columns.len());
    let text = |c: Value| c.as_str().map_or_else(|| c.to_string(), str::to_owned);
    cells.into_iter().map(text).collect::<Vec<_>>().join("|")
}

/// `value` with `patch` laid over it: objects are merged, anything else replaced, null removes.
pub(super) fn with(mut value: Value, patch: Value) -> Value {
    merge(&mut value, patch);
    value
}

fn merge(value: &mut Value, patch: Value) {
    match (value, patch) {
        (Value::Object(map), Value::Object(patch)) => {
            for (key, part) in patch {
                if part.is_null() {
                    map.remove(&key);
                } else {
                    merge(map.entry(key).or_insert(Value::Null), part);
                }
            }
        }
        (value, patch) => *value = patch,
    }
}
