//! Deployments and ReplicaSets. Pure.

use serde_json::Value;

use super::{
    page::{Page, date, items, selector, text, text_or},
    pod,
};

const REVISION: &str = "deployment.kubernetes.io/revision";

fn head(page: &mut Page, object: &Value) {
    let metadata = &object["metadata"];
    page.field(0, "Name", text(&metadata["name"]));
    page.field(0, "Namespace", text(&metadata["namespace"]));
}

fn count(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

pub(super) fn deployment(page: &mut Page, object: &Value, sets: &[Value]) {
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    head(page, object);
    page.field(0, "CreationTimestamp", date(&metadata["creationTimestamp"]));
    page.labels(0, "Labels", &metadata["labels"]);
    page.annotations(0, &metadata["annotations"]);
    page.field(0, "Selector", selector(&spec["selector"]));
    page.field(
        0,
        "Replicas",
        format!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            count(&spec["replicas"]),
            count(&status["updatedReplicas"]),
            count(&status["replicas"]),
            count(&status["availableReplicas"]),
            count(&status["unavailableReplicas"])
        ),
    );
    page.field(0, "StrategyType", text(&spec["strategy"]["type"]));
    page.field(0, "MinReadySeconds", count(&spec["minReadySeconds"]).to_string());
    if let Some(rolling) = spec["strategy"].get("rollingUpdate").filter(|rolling| !rolling.is_null()) {
        let limits =
            format!("{} max unavailable, {} max surge", text(&rolling["maxUnavailable"]), text(&rolling["maxSurge"]));
        page.field(0, "RollingUpdateStrategy", limits);
    }
    pod::template(page, &spec["template"]);
    if items(&status["conditions"]).next().is_some() {
        page.line(0, "Conditions:");
        page.line(1, "Type\tStatus\tReason");
        page.line(1, "----\t------\t------");
        for condition in items(&status["conditions"]) {
            page.line(
                1,
                format!(
                    "{} \t{}\t{}",
                    text(&condition["type"]),
                    text(&condition["status"]),
                    text(&condition["reason"])
                ),
            );
        }
    }
    let (new, old) = split(object, sets);
    page.field(0, "OldReplicaSets", shown(&old));
    page.field(0, "NewReplicaSet", shown(&new));
}

/// The set of the Deployment's own revision, and the others.
fn split<'a>(object: &Value, sets: &'a [Value]) -> (Vec<&'a Value>, Vec<&'a Value>) {
    let uid = &object["metadata"]["uid"];
    let revision = &object["metadata"]["annotations"][REVISION];
    let ours = sets.iter().filter(|set| items(&set["metadata"]["ownerReferences"]).any(|owner| owner["uid"] == *uid));
    ours.partition(|set| set["metadata"]["annotations"][REVISION] == *revision)
}

fn shown(sets: &[&Value]) -> String {
    let one = |set: &&Value| {
        let (made, wanted) = (count(&set["status"]["replicas"]), count(&set["spec"]["replicas"]));
        format!("{} ({made}/{wanted} replicas created)", text(&set["metadata"]["name"]))
    };
    if sets.is_empty() { "<none>".to_owned() } else { sets.iter().map(one).collect::<Vec<_>>().join(", ") }
}

pub(super) fn replica_set(page: &mut Page, object: &Value) {
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    head(page, object);
    page.field(0, "Selector", selector(&spec["selector"]));
    page.labels(0, "Labels", &metadata["labels"]);
    page.annotations(0, &metadata["annotations"]);
    page.controller(object);
    page.field(
        0,
        "Replicas",
        format!("{} current / {} desired", count(&status["replicas"]), text_or(&spec["replicas"], "0")),
    );
    pod::template(page, &spec["template"]);
    if items(&status["conditions"]).next().is_some() {
        page.line(0, "Conditions:");
        page.line(1, "Type\tStatus\tReason");
        page.line(1, "----\t------\t------");
        for condition in items(&status["conditions"]) {
            page.line(
                1,
                format!(
                    "{} \t{}\t{}",
                    text(&condition["type"]),
                    text(&condition["status"]),
                    text(&condition["reason"])
                ),
            );
        }
    }
}
