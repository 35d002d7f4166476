//! The patch that brings a pod's status in the API up to date: only what changed, and only for the pod of that uid. Pure.

use coracle_agent_core::PodUid;
use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

/// A strategic merge patch; `None` when nothing changed. Conditions of others are not part of it, so that writers of
/// readiness gates are not overwritten.
pub(crate) fn status_patch(uid: &PodUid, old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let (old, new) = (fields(old), fields(new));
    let mut changed = Map::new();
    for (name, value) in &new {
        if old.get(name) == Some(value) {
            continue;
        }
        let part = match (name.as_str(), value, old.get(name)) {
            ("conditions", Value::Array(new), Some(Value::Array(old))) => {
                Value::Array(new.iter().filter(|condition| !old.contains(condition)).cloned().collect())
            }
            _ => value.clone(),
        };
        changed.insert(name.clone(), part);
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        changed.insert(name.clone(), Value::Null);
    }
    (!changed.is_empty()).then(|| json!({"metadata": {"uid": uid.as_str()}, "status": changed}))
}

fn fields(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(old: Value, new: Value, expect: Value) {
        let status = |value| serde_json::from_value::<PodStatus>(value).unwrap();
        let patch = status_patch(&PodUid::new("u"), &status(old), &status(new));
        assert_eq!(patch.map(|patch| patch["status"].clone()).unwrap_or(Value::Null), expect);
    }

    #[test]
    fn only_changes_are_sent() {
        let ready = |status: &str| json!({"type": "Ready", "status": status});
        let gate = json!({"type": "gate", "status": "True"});
        check(json!({"phase": "Pending"}), json!({"phase": "Pending"}), Value::Null);
        check(json!({"phase": "Pending"}), json!({"phase": "Running"}), json!({"phase": "Running"}));
        check(json!({"reason": "x"}), json!({}), json!({"reason": null}));
        check(
            json!({"conditions": [ready("False"), gate]}),
            json!({"conditions": [ready("True"), gate]}),
            json!({"conditions": [ready("True")]}),
        );
    }
}
