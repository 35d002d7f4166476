//! Patches: JSON patch (RFC 6902), JSON merge patch (RFC 7386) and Kubernetes' strategic merge patch, and the making of the
//! patch that turns one object into another. All of it works on JSON values; nothing here knows a stored object or a request.

mod diff;
pub mod schema;
mod strategic;
#[cfg(test)]
mod tests;

pub use diff::{three_way, three_way_merge, two_way, two_way_merge};
pub use strategic::{strategic_merge, strategic_merge_named};

use json_patch::{PatchErrorKind, PatchOperation};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusDetails;
use serde_json::{Map, Value};

use crate::status::{ApiError, Reason};

/// The most operations of a JSON patch, as upstream's `maxJSONPatchOperations`.
pub const MAX_OPERATIONS: usize = 10_000;
/// The most bytes that the `copy` operations of one JSON patch may add (`JSONPatchMaxCopyBytes`).
pub const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;
/// The deepest a patch may be nested, far above any built-in type and far below the stack's end.
pub const MAX_DEPTH: usize = 128;

/// A patch that cannot be applied or made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch is no patch of its sort: 400.
    #[error("{0}")]
    Malformed(String),
    /// It has too many operations: 413.
    #[error("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {0}")]
    TooManyOperations(usize),
    /// It does not fit the object: 422.
    #[error("{0}")]
    Unprocessable(String),
    /// It breaks a rule of strategic merges that upstream reports as 500.
    #[error("{0}")]
    Mismatch(String),
    /// The objects of a diff are not versions of one object.
    #[error("at least one of apiVersion, kind and name was changed")]
    IdentityChanged,
}

impl From<PatchError> for ApiError {
    fn from(error: PatchError) -> Self {
        match error {
            PatchError::Malformed(message) => Self::bad_request(message),
            PatchError::TooManyOperations(_) => Self::new(Reason::RequestEntityTooLarge, error.to_string()),
            // Upstream hides what did not fit, and clients know the sentence.
            PatchError::Unprocessable(_) => Self {
                details: Some(Box::<StatusDetails>::default()),
                ..Self::new(Reason::Invalid, "the server rejected our request due to an error in our request")
            },
            PatchError::Mismatch(message) => Self::new(Reason::InternalError, message),
            PatchError::IdentityChanged => Self::bad_request(error.to_string()),
        }
    }
}

/// Applies a JSON patch.
///
/// # Errors
/// The patch is no list, has more than [`MAX_OPERATIONS`], or one of its operations does not fit.
pub fn json_patch(target: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Array(operations) = patch else {
        let message = format!("json: cannot unmarshal {} into Go value of type jsonpatch.Patch", go_kind(patch));
        return Err(PatchError::Malformed(message));
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooManyOperations(operations.len()));
    }
    let mut document = target.clone();
    let mut copied = 0;
    for operation in operations {
        if !operation.is_object() {
            let message =
                format!("json: cannot unmarshal {} into Go value of type jsonpatch.Operation", go_kind(operation));
            return Err(PatchError::Malformed(message));
        }
        let operation: PatchOperation =
            serde_json::from_value(operation.clone()).map_err(|e| PatchError::Unprocessable(e.to_string()))?;
        apply_one(&mut document, operation, &mut copied)?;
    }
    Ok(document)
}

fn apply_one(document: &mut Value, operation: PatchOperation, copied: &mut usize) -> Result<(), PatchError> {
    if let PatchOperation::Copy(copy) = &operation {
        *copied += document.pointer(copy.from.as_str()).map_or(0, |v| v.to_string().len());
        if *copied > MAX_COPIED_BYTES {
            let message = format!(
                "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_COPIED_BYTES}"
            );
            return Err(PatchError::Unprocessable(message));
        }
    }
    // Upstream's library takes an absent value for null in a test.
    let tests_null = matches!(&operation, PatchOperation::Test(test) if test.value.is_null());
    match json_patch::patch_unsafe(document, std::slice::from_ref(&operation)) {
        Err(e) if tests_null && matches!(e.kind, PatchErrorKind::InvalidPointer) => Ok(()),
        result => result.map_err(|e| PatchError::Unprocessable(e.to_string())),
    }
}

/// Applies a JSON merge patch.
///
/// # Errors
/// The patch is no object, or nested too deep.
pub fn merge_patch(target: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Object(fields) = patch else {
        return Err(PatchError::Malformed("error decoding patch: Invalid JSON Patch".to_owned()));
    };
    check_depth(patch)?;
    let mut document = target.as_object().cloned().unwrap_or_default();
    merge_into(&mut document, fields);
    Ok(Value::Object(document))
}

fn merge_into(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(fields) => {
                let slot = target.entry(key).or_insert_with(|| Value::Object(Map::new()));
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                if let Value::Object(inner) = slot {
                    merge_into(inner, fields);
                }
            }
            _ => {
                target.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Refuses a value so deep that walking it could end the stack.
fn check_depth(value: &Value) -> Result<(), PatchError> {
    let mut level: Vec<&Value> = vec![value];
    for _ in 0..MAX_DEPTH {
        level = level
            .into_iter()
            .flat_map(|v| -> Vec<&Value> {
                match v {
                    Value::Array(items) => items.iter().collect(),
                    Value::Object(fields) => fields.values().collect(),
                    _ => Vec::new(),
                }
            })
            .collect();
        if level.is_empty() {
            return Ok(());
        }
    }
    Err(PatchError::Malformed(format!("the patch is nested deeper than {MAX_DEPTH}")))
}

/// Go's word for the kind of a JSON value.
fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
