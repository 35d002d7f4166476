//! What a node must have on its own disk before it tells anybody.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::PodStatus;

/// Whether a status tells of a container's end that the one before did not tell. Such a status is recorded first: a machine
/// that loses its power between the two would otherwise run again what the API has the end of.
pub fn ends_something(old: Option<&PodStatus>, new: &PodStatus) -> bool {
    fn ends(status: &PodStatus) -> BTreeSet<(&str, &str)> {
        let lists = [&status.init_container_statuses, &status.container_statuses];
        let all = lists.into_iter().flatten().flatten();
        let ended = all.filter_map(|one| {
            let now = one.state.as_ref().and_then(|state| state.terminated.as_ref());
            let before = one.last_state.as_ref().and_then(|state| state.terminated.as_ref());
            Some((one.name.as_str(), now.or(before)?.container_id.as_deref().unwrap_or_default()))
        });
        ended.collect()
    }
    let phase = |status: &PodStatus| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let none = PodStatus::default();
    let old = old.unwrap_or(&none);
    (phase(new) && !phase(old)) || !ends(new).is_subset(&ends(old))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_end_is_new_once() {
        let status = |phase: &str, container: Value| -> PodStatus {
            let mut one = json!({"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0});
            one.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
            serde_json::from_value(json!({"phase": phase, "containerStatuses": [one]})).unwrap()
        };
        let end = |id: &str| json!({"terminated": {"exitCode": 1, "containerID": id}});
        let running = status("Running", json!({"state": {"running": {}}}));
        let ended = status("Running", json!({"state": end("1")}));
        let again = status("Running", json!({"state": {"running": {}}, "lastState": end("1")}));
        let twice = status("Running", json!({"state": end("2"), "lastState": end("1")}));
        let over = status("Failed", json!({"state": end("1")}));
        for (old, new, expect) in [
            (None, &running, false),
            (None, &ended, true),
            (Some(&running), &ended, true),
            (Some(&ended), &again, false),
            (Some(&again), &twice, true),
            (Some(&ended), &over, true),
            (Some(&over), &over, false),
        ] {
            assert_eq!(ends_something(old, new), expect, "{old:?} {new:?}");
        }
    }
}
