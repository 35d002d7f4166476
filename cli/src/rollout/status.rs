//! How far a rollout is, in kubectl's words. Pure.

use anyhow::bail;
use serde_json::Value;

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    Waiting(String),
    Through(String),
}

use Progress::{Through, Waiting};

pub(super) fn progress(kind: &str, name: &str, object: &Value) -> anyhow::Result<Progress> {
    match kind {
        "Deployment" => deployment(name, object),
        "DaemonSet" => daemon_set(name, object),
        "StatefulSet" => stateful_set(object),
        other => bail!("no status viewer has been implemented for {other}"),
    }
}

fn count(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

/// Whether the controller has seen what is wanted.
fn is_observed(object: &Value) -> bool {
    count(&object["status"]["observedGeneration"]) >= count(&object["metadata"]["generation"])
}

fn deployment(name: &str, object: &Value) -> anyhow::Result<Progress> {
    if !is_observed(object) {
        return Ok(Waiting("Waiting for deployment spec update to be observed...".to_owned()));
    }
    let status = &object["status"];
    let conditions = status["conditions"].as_array().into_iter().flatten();
    if conditions
        .into_iter()
        .any(|condition| condition["type"] == "Progressing" && condition["reason"] == "ProgressDeadlineExceeded")
    {
        bail!("deployment {name:?} exceeded its progress deadline");
    }
    let wanted = object["spec"]["replicas"].as_i64();
    let (updated, all, available) =
        (count(&status["updatedReplicas"]), count(&status["replicas"]), count(&status["availableReplicas"]));
    let head = format!("Waiting for deployment {name:?} rollout to finish:");
    Ok(if let Some(wanted) = wanted.filter(|wanted| updated < *wanted) {
        Waiting(format!("{head} {updated} out of {wanted} new replicas have been updated..."))
    } else if all > updated {
        Waiting(format!("{head} {} old replicas are pending termination...", all - updated))
    } else if available < updated {
        Waiting(format!("{head} {available} of {updated} updated replicas are available..."))
    } else {
        Through(format!("deployment {name:?} successfully rolled out"))
    })
}

fn daemon_set(name: &str, object: &Value) -> anyhow::Result<Progress> {
    if object["spec"]["updateStrategy"]["type"] != "RollingUpdate" {
        bail!("rollout status is only available for RollingUpdate strategy type");
    }
    if !is_observed(object) {
        return Ok(Waiting("Waiting for daemon set spec update to be observed...".to_owned()));
    }
    let status = &object["status"];
    let (updated, wanted, available) = (
        count(&status["updatedNumberScheduled"]),
        count(&status["desiredNumberScheduled"]),
        count(&status["numberAvailable"]),
    );
    let head = format!("Waiting for daemon set {name:?} rollout to finish:");
    Ok(if updated < wanted {
        Waiting(format!("{head} {updated} out of {wanted} new pods have been updated..."))
    } else if available < wanted {
        Waiting(format!("{head} {available} of {wanted} updated pods are available..."))
    } else {
        Through(format!("daemon set {name:?} successfully rolled out"))
    })
}

fn stateful_set(object: &Value) -> anyhow::Result<Progress> {
    let (spec, status) = (&object["spec"], &object["status"]);
    if spec["updateStrategy"]["type"] != "RollingUpdate" {
        bail!("rollout status is only available for RollingUpdate strategy type");
    }
    if !is_observed(object) || count(&status["observedGeneration"]) == 0 {
        return Ok(Waiting("Waiting for statefulset spec update to be observed...".to_owned()));
    }
    let wanted = count(&spec["replicas"]);
    let (ready, updated) = (count(&status["readyReplicas"]), count(&status["updatedReplicas"]));
    if ready < wanted {
        return Ok(Waiting(format!("Waiting for {} pods to be ready...", wanted - ready)));
    }
    if let Some(partition) = spec["updateStrategy"]["rollingUpdate"]["partition"].as_i64().filter(|at| *at > 0) {
        let moving = wanted - partition;
        return Ok(if updated < moving {
            Waiting(format!(
                "Waiting for partitioned roll out to finish: {updated} out of {moving} new pods have been updated..."
            ))
        } else {
            Through(format!("partitioned roll out complete: {updated} new pods have been updated..."))
        });
    }
    let (update, current) = (&status["updateRevision"], &status["currentRevision"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(if update != current {
        Waiting(format!(
            "waiting for statefulset rolling update to complete {updated} pods at revision {}...",
            text(update)
        ))
    } else {
        let at = count(&status["currentReplicas"]);
        Through(format!("statefulset rolling update complete {at} pods at revision {}...", text(current)))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Progress, progress};

    fn check(kind: &str, object: &Value, expect: &str) {
        let text = match progress(kind, "x", object) {
            Ok(Progress::Waiting(text) | Progress::Through(text)) => text,
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(text, expect);
    }

    #[test]
    fn deployments_tell_how_far_they_are() {
        let at = |observed: i64, status: Value| {
            let mut object = json!({"metadata": {"generation": 2}, "spec": {"replicas": 3}, "status": status});
            object["status"]["observedGeneration"] = observed.into();
            object
        };
        let check = |object: Value, expect: &str| check("Deployment", &object, expect);
        check(at(1, json!({})), "Waiting for deployment spec update to be observed...");
        let head = "Waiting for deployment \"x\" rollout to finish:";
        check(at(2, json!({"updatedReplicas": 1})), &format!("{head} 1 out of 3 new replicas have been updated..."));
        check(
            at(2, json!({"updatedReplicas": 3, "replicas": 4})),
            &format!("{head} 1 old replicas are pending termination..."),
        );
        check(
            at(2, json!({"updatedReplicas": 3, "replicas": 3, "availableReplicas": 2})),
            &format!("{head} 2 of 3 updated replicas are available..."),
        );
        check(
            at(2, json!({"updatedReplicas": 3, "replicas": 3, "availableReplicas": 3})),
            "deployment \"x\" successfully rolled out",
        );
        let late = json!({"conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]});
        check(at(2, late), "error: deployment \"x\" exceeded its progress deadline");
    }

    #[test]
    fn stateful_sets_and_daemon_sets_too() {
        let set = json!({"metadata": {"generation": 1}, "spec": {"replicas": 2, "updateStrategy": {"type": "RollingUpdate"}},
            "status": {"observedGeneration": 1, "readyReplicas": 1}});
        check("StatefulSet", &set, "Waiting for 1 pods to be ready...");
        let set = json!({"metadata": {"generation": 1}, "spec": {"updateStrategy": {"type": "RollingUpdate"}},
            "status": {"observedGeneration": 1, "updatedNumberScheduled": 2, "desiredNumberScheduled": 2, "numberAvailable": 1}});
        check(
            "DaemonSet",
            &set,
            "Waiting for daemon set \"x\" rollout to finish: 1 of 2 updated pods are available...",
        );
        let set = json!({"spec": {"updateStrategy": {"type": "OnDelete"}}});
        check("DaemonSet", &set, "error: rollout status is only available for RollingUpdate strategy type");
        check("Pod", &set, "error: no status viewer has been implemented for Pod");
    }
}
