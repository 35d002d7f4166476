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
                let changed = new.iter().filter(|condition| !old.contains(condition));
                let changed: Vec<Value> = changed.map(|condition| replaced(condition, old)).collect();
                // Only those of others differ.
                if changed.is_empty() {
                    continue;
                }
                Value::Array(changed)
            }
            // Elements are merged by their address: one that is gone has to be taken out.
            ("podIPs" | "hostIPs", Value::Array(new), Some(Value::Array(old))) => {
                let gone = old.iter().filter(|known| !new.contains(known));
                let gone = gone.map(|known| json!({"$patch": "delete", "ip": known["ip"]}));
                Value::Array(new.iter().cloned().chain(gone).collect())
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

/// A condition with nulls for what the old one of its type says and it does not: elements are merged by their type, and
/// the reason of a failure would stay on what has recovered.
fn replaced(condition: &Value, old: &[Value]) -> Value {
    let mut condition = condition.clone();
    let before = old.iter().find(|old| old["type"] == condition["type"]).and_then(Value::as_object);
    if let (Some(fields), Some(before)) = (condition.as_object_mut(), before) {
        for name in before.keys() {
            fields.entry(name).or_insert(Value::Null);
        }
    }
    condition
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
        check(json!({"conditions": [gate, ready("True")]}), json!({"conditions": [ready("True")]}), Value::Null);
        let unready = json!({"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "m"});
        check(
            json!({"conditions": [unready]}),
            json!({"conditions": [ready("True")]}),
            json!({"conditions": [{"type": "Ready", "status": "True", "reason": null, "message": null}]}),
        );
        check(
            json!({"podIPs": [{"ip": "10.42.0.5"}]}),
            json!({"podIPs": [{"ip": "10.42.0.9"}]}),
            json!({"podIPs": [{"ip": "10.42.0.9"}, {"$patch": "delete", "ip": "10.42.0.5"}]}),
        );
    }
}
