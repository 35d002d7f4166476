//! Volumes and the claims on them. Pure.

use serde_json::Value;

use super::page::{Page, date, items, map, text, text_or};

/// Where a class was named before there was a field for it.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

fn class(object: &Value) -> String {
    text_or(&object["metadata"]["annotations"][CLASS], &text(&object["spec"]["storageClassName"]))
}

fn phase(object: &Value) -> String {
    if object["metadata"]["deletionTimestamp"].is_null() {
        text(&object["status"]["phase"])
    } else {
        "Terminating".to_owned()
    }
}

fn finalizers(object: &Value) -> String {
    let all: Vec<String> = items(&object["metadata"]["finalizers"]).map(text).collect();
    format!("[{}]", all.join(" "))
}

/// The short forms, each once and in kubectl's order.
fn modes(modes: &Value) -> String {
    let known =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |long: &str| items(modes).any(|mode| mode == long);
    known.iter().filter(|(long, _)| has(long)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

pub(super) fn volume(page: &mut Page, object: &Value) {
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    page.field(0, "Name", text(&metadata["name"]));
    page.labels(0, "Labels", &metadata["labels"]);
    page.annotations(0, &metadata["annotations"]);
    page.field(0, "Finalizers", finalizers(object));
    page.field(0, "StorageClass", class(object));
    page.field(0, "Status", phase(object));
    let claim = &spec["claimRef"];
    let claim =
        if claim.is_null() { String::new() } else { format!("{}/{}", text(&claim["namespace"]), text(&claim["name"])) };
    page.field(0, "Claim", claim);
    page.field(0, "Reclaim Policy", text(&spec["persistentVolumeReclaimPolicy"]));
    page.field(0, "Access Modes", modes(&spec["accessModes"]));
    if !spec["volumeMode"].is_null() {
        page.field(0, "VolumeMode", text(&spec["volumeMode"]));
    }
    page.field(0, "Capacity", text_or(&spec["capacity"]["storage"], "0"));
    affinity(page, &spec["nodeAffinity"]);
    page.field(0, "Message", text(&object["status"]["message"]));
    page.line(0, "Source:");
    source(page, spec);
}

fn affinity(page: &mut Page, affinity: &Value) {
    if affinity["required"].is_null() {
        return page.field(0, "Node Affinity", "<none>");
    }
    page.field(0, "Node Affinity", "");
    page.field(1, "Required Terms", "");
    for (at, term) in items(&affinity["required"]["nodeSelectorTerms"]).enumerate() {
        let requirements: Vec<String> = items(&term["matchExpressions"]).map(requirement).collect();
        let shown = if requirements.is_empty() { "<none>".to_owned() } else { requirements.join("\n\t") };
        page.field(2, &format!("Term {at}"), shown);
    }
}

fn requirement(requirement: &Value) -> String {
    let head = format!("{} {}", text(&requirement["key"]), text(&requirement["operator"]).to_lowercase());
    let values: Vec<String> = items(&requirement["values"]).map(text).collect();
    if values.is_empty() { head } else { format!("{head} [{}]", values.join(", ")) }
}

/// Where the volume comes from: its sort, and what is said of it.
fn source(page: &mut Page, spec: &Value) {
    let flag = |value: &Value| text_or(value, "false");
    if let Some(path) = spec.get("hostPath") {
        page.field(2, "Type", "HostPath (bare host directory volume)");
        page.field(2, "Path", text(&path["path"]));
        page.field(2, "HostPathType", text(&path["type"]));
    } else if let Some(local) = spec.get("local") {
        page.field(2, "Type", "LocalVolume (a persistent volume backed by local storage on a node)");
        page.field(2, "Path", text(&local["path"]));
    } else if let Some(nfs) = spec.get("nfs") {
        page.field(2, "Type", "NFS (an NFS mount that lasts the lifetime of a pod)");
        page.field(2, "Server", text(&nfs["server"]));
        page.field(2, "Path", text(&nfs["path"]));
        page.field(2, "ReadOnly", flag(&nfs["readOnly"]));
    } else if let Some(csi) = spec.get("csi") {
        page.field(2, "Type", "CSI (a Container Storage Interface (CSI) volume source)");
        page.field(2, "Driver", text(&csi["driver"]));
        page.field(2, "FSType", text(&csi["fsType"]));
        page.field(2, "VolumeHandle", text(&csi["volumeHandle"]));
        page.field(2, "ReadOnly", flag(&csi["readOnly"]));
        let mut attributes: Vec<String> =
            map(&csi["volumeAttributes"]).map(|(key, value)| format!("{key}={}", text(value))).collect();
        attributes.sort();
        match attributes.is_empty() {
            true => page.line(2, "VolumeAttributes:\t    <none>"),
            false => page.line(2, format!("VolumeAttributes:\t    {}", attributes.join("\n        \t    "))),
        }
    } else {
        page.field(2, "Type", "<unknown>");
    }
}

/// A claim, and the pods of its namespace.
pub(super) fn claim(page: &mut Page, object: &Value, pods: &[Value]) {
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    let name = text(&metadata["name"]);
    page.field(0, "Name", &name);
    page.field(0, "Namespace", text(&metadata["namespace"]));
    page.field(0, "StorageClass", class(object));
    page.field(0, "Status", phase(object));
    page.field(0, "Volume", text(&spec["volumeName"]));
    page.labels(0, "Labels", &metadata["labels"]);
    page.annotations(0, &metadata["annotations"]);
    page.field(0, "Finalizers", finalizers(object));
    let is_bound = !text(&spec["volumeName"]).is_empty();
    page.field(0, "Capacity", if is_bound { text_or(&status["capacity"]["storage"], "0") } else { String::new() });
    page.field(0, "Access Modes", if is_bound { modes(&status["accessModes"]) } else { String::new() });
    if !spec["volumeMode"].is_null() {
        page.field(0, "VolumeMode", text(&spec["volumeMode"]));
    }
    let from = &spec["dataSource"];
    if !from.is_null() {
        page.line(0, "DataSource:");
        for (field, title) in [("apiGroup", "APIGroup"), ("kind", "Kind"), ("name", "Name")] {
            if !from[field].is_null() {
                page.field(1, title, text(&from[field]));
            }
        }
    }
    let uses = |pod: &&Value| {
        let mut volumes = items(&pod["spec"]["volumes"]);
        volumes.any(|volume| text(&volume["persistentVolumeClaim"]["claimName"]) == name)
    };
    let users: Vec<String> = pods.iter().filter(uses).map(|pod| text(&pod["metadata"]["name"])).collect();
    page.list(0, "Used By", &users);
    conditions(page, &status["conditions"]);
}

fn conditions(page: &mut Page, conditions: &Value) {
    if items(conditions).next().is_none() {
        return;
    }
    page.line(0, "Conditions:");
    page.line(1, "Type\tStatus\tLastProbeTime\tLastTransitionTime\tReason\tMessage");
    page.line(1, "----\t------\t-----------------\t------------------\t------\t-------");
    // kubectl shows a time that is not set as Go's first.
    let time = |value: &Value| if value.is_null() { "Mon, 01 Jan 0001 00:00:00 +0000".to_owned() } else { date(value) };
    for condition in items(conditions) {
        let cell = |field: &str| text(&condition[field]);
        let cells = [
            format!("{} ", cell("type")),
            format!("{} ", cell("status")),
            format!("{} ", time(&condition["lastProbeTime"])),
            format!("{} ", time(&condition["lastTransitionTime"])),
            cell("reason"),
            cell("message"),
        ];
        page.line(1, cells.join("\t"));
    }
}
