//! The rules for `metav1.Condition`, which the newer kinds have in their status (`metav1validation.ValidateConditions`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{Errors, Path, qualified_name};

/// The longest reason of a condition, in bytes.
const REASON_MAX: usize = 1024;
/// The longest message of a condition, in bytes.
const MESSAGE_MAX: usize = 32 * 1024;
const REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

/// Conditions of a status: one of each type, each complete.
pub fn validate_conditions(conditions: &[Condition], at: &Path<'_>, errors: &mut Errors) {
    for (i, condition) in conditions.iter().enumerate() {
        let at = at.index(i);
        if conditions[..i].iter().any(|c| c.type_ == condition.type_) {
            errors.duplicate(&at.child("type"), &condition.type_);
        }
        validate_condition(condition, &at, errors);
    }
}

fn validate_condition(condition: &Condition, at: &Path<'_>, errors: &mut Errors) {
    errors.invalid_each(&at.child("type"), &condition.type_, qualified_name(&condition.type_));
    if !matches!(condition.status.as_str(), "True" | "False" | "Unknown") {
        errors.not_supported(&at.child("status"), &condition.status, &["False", "True", "Unknown"]);
    }
    if let Some(generation) = condition.observed_generation.filter(|g| *g < 0) {
        errors.invalid(&at.child("observedGeneration"), generation, "must be greater than or equal to zero");
    }
    let reason = &condition.reason;
    if reason.is_empty() {
        errors.required(&at.child("reason"), "");
    } else {
        if !is_reason(reason) {
            errors.invalid(&at.child("reason"), reason, REASON);
        }
        if reason.len() > REASON_MAX {
            errors.too_long(&at.child("reason"), REASON_MAX);
        }
    }
    if condition.message.len() > MESSAGE_MAX {
        errors.too_long(&at.child("message"), MESSAGE_MAX);
    }
}

fn is_reason(reason: &str) -> bool {
    let bytes = reason.as_bytes();
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(word)
        && bytes.iter().all(|b| word(b) || matches!(b, b',' | b':'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions() {
        let of = |value| -> Vec<Condition> { serde_json::from_value(value).unwrap() };
        let good = json!({"type": "Ready", "status": "True", "reason": "All:Good", "message": "", "lastTransitionTime": "2024-05-01T11:55:00Z"});
        let bad = json!({"type": "Ready", "status": "Yes", "reason": "1x", "message": "", "observedGeneration": -1, "lastTransitionTime": "2024-05-01T11:55:00Z"});
        let empty = json!({"type": "a b", "status": "Unknown", "reason": "", "message": "x".repeat(MESSAGE_MAX + 1), "lastTransitionTime": "2024-05-01T11:55:00Z"});
        let mut errors = Errors::new();
        validate_conditions(&of(json!([good, bad, empty])), &Path::new("c"), &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let expected = [
            "c[1].type: Duplicate value: \"Ready\"",
            "c[1].status: Unsupported value: \"Yes\": supported values: \"False\", \"True\", \"Unknown\"",
            "c[1].observedGeneration: Invalid value: -1: must be greater than or equal to zero",
            "c[1].reason: Invalid value: \"1x\": a condition reason must start with alphabetic",
            "c[2].type: Invalid value: \"a b\": name part must consist",
            "c[2].reason: Required value",
            "c[2].message: Too long: may not be more than 32768 bytes",
        ];
        assert_eq!(texts.len(), expected.len(), "{texts:#?}");
        for (text, start) in texts.iter().zip(expected) {
            assert!(text.starts_with(start), "{text}");
        }
    }
}
