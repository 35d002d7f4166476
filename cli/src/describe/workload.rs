//! Deployments, ReplicaSets, StatefulSets and DaemonSets. Pure.

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

/// How many of the pods that an object controls are in each phase.
fn phases(object: &Value, pods: &[Value]) -> String {
    let uid = &object["metadata"]["uid"];
    let is_ours = |pod: &&Value| {
        items(&pod["metadata"]["ownerReferences"]).any(|owner| owner["controller"] == true && owner["uid"] == *uid)
    };
    let ours: Vec<&Value> = pods.iter().filter(is_ours).collect();
    let in_phase = |phase: &str| ours.iter().filter(|pod| pod["status"]["phase"] == phase).count();
    let [running, waiting, succeeded, failed] = ["Running", "Pending", "Succeeded", "Failed"].map(in_phase);
    format!("{running} Running / {waiting} Waiting / {succeeded} Succeeded / {failed} Failed")
}

pub(super) fn replica_set(page: &mut Page, object: &Value, pods: &[Value]) {
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
    page.field(0, "Pods Status", phases(object, pods));
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

pub(super) fn stateful_set(page: &mut Page, object: &Value, pods: &[Value]) {
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    head(page, object);
    page.field(0, "CreationTimestamp", date(&metadata["creationTimestamp"]));
    page.field(0, "Selector", selector(&spec["selector"]));
    page.labels(0, "Labels", &metadata["labels"]);
    page.annotations(0, &metadata["annotations"]);
    page.field(0, "Replicas", format!("{} desired | {} total", count(&spec["replicas"]), count(&status["replicas"])));
    page.field(0, "Update Strategy", text(&spec["updateStrategy"]["type"]));
    let rolling = &spec["updateStrategy"]["rollingUpdate"];
    for (field, name) in [("partition", "Partition"), ("maxUnavailable", "MaxUnavailable")] {
        if !rolling[field].is_null() {
            page.field(1, name, text(&rolling[field]));
        }
    }
    page.field(0, "Pods Status", phases(object, pods));
    pod::template(page, &spec["template"]);
    claims(page, &spec["volumeClaimTemplates"]);
}

/// The claims that each pod of a StatefulSet gets.
fn claims(page: &mut Page, templates: &Value) {
    if items(templates).next().is_none() {
        return page.field(0, "Volume Claims", "<none>");
    }
    page.line(0, "Volume Claims:");
    for claim in items(templates) {
        let (metadata, spec) = (&claim["metadata"], &claim["spec"]);
        page.field(1, "Name", text(&metadata["name"]));
        page.field(1, "StorageClass", text(&spec["storageClassName"]));
        page.labels(1, "Labels", &metadata["labels"]);
        page.annotations(1, &metadata["annotations"]);
        page.field(1, "Capacity", text_or(&spec["resources"]["requests"]["storage"], "<default>"));
        let modes: Vec<String> = items(&spec["accessModes"]).map(text).collect();
        page.field(1, "Access Modes", format!("[{}]", modes.join(" ")));
    }
}

pub(super) fn daemon_set(page: &mut Page, object: &Value, pods: &[Value]) {
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    head(page, object);
    page.field(0, "Selector", selector(&spec["selector"]));
    page.field(0, "Node-Selector", selector(&spec["template"]["spec"]["nodeSelector"]));
    page.labels(0, "Labels", &metadata["labels"]);
    page.annotations(0, &metadata["annotations"]);
    for (field, name) in [
        ("desiredNumberScheduled", "Desired Number of Nodes Scheduled"),
        ("currentNumberScheduled", "Current Number of Nodes Scheduled"),
        ("updatedNumberScheduled", "Number of Nodes Scheduled with Up-to-date Pods"),
        ("numberAvailable", "Number of Nodes Scheduled with Available Pods"),
        ("numberMisscheduled", "Number of Nodes Misscheduled"),
    ] {
        // These are no cells of the column: kubectl puts a blank here.
        page.line(0, format!("{name}: {}", count(&status[field])));
    }
    page.field(0, "Pods Status", phases(object, pods));
    pod::template(page, &spec["template"]);
}
