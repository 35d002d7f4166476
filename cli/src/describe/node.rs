//! Nodes, what they can hold and what they do hold. Pure.

use std::ops::Add;

use coracle_api::{quantity::Amount, table::age};
use serde_json::Value;

use super::page::{Page, date, items, map, text, text_or};

const ROLE: &str = "node-role.kubernetes.io/";

pub(super) fn describe(page: &mut Page, object: &Value, pods: &[Value], lease: Option<&Value>, now: jiff::Timestamp) {
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    page.field(0, "Name", text(&metadata["name"]));
    let roles: Vec<&str> = map(&metadata["labels"]).filter_map(|(key, _)| key.strip_prefix(ROLE)).collect();
    page.field(0, "Roles", if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") });
    page.labels(0, "Labels", &metadata["labels"]);
    page.annotations(0, &metadata["annotations"]);
    page.field(0, "CreationTimestamp", date(&metadata["creationTimestamp"]));
    let taint = |taint: &Value| {
        let value = text(&taint["value"]);
        let value = if value.is_empty() { value } else { format!("={value}") };
        format!("{}{value}:{}", text(&taint["key"]), text(&taint["effect"]))
    };
    page.list(0, "Taints", &items(&spec["taints"]).map(taint).collect::<Vec<_>>());
    page.field(0, "Unschedulable", if spec["unschedulable"] == true { "true" } else { "false" });
    heartbeat(page, lease);
    conditions(page, &status["conditions"]);
    page.line(0, "Addresses:");
    for address in items(&status["addresses"]) {
        page.field(1, &text(&address["type"]), text(&address["address"]));
    }
    for (field, name) in [("capacity", "Capacity"), ("allocatable", "Allocatable")] {
        page.line(0, format!("{name}:"));
        for (resource, amount) in map(&status[field]) {
            page.field(1, resource, text(amount));
        }
    }
    page.line(0, "System Info:");
    for (field, name) in [
        ("machineID", "Machine ID"),
        ("systemUUID", "System UUID"),
        ("bootID", "Boot ID"),
        ("kernelVersion", "Kernel Version"),
        ("osImage", "OS Image"),
        ("operatingSystem", "Operating System"),
        ("architecture", "Architecture"),
        ("containerRuntimeVersion", "Container Runtime Version"),
        ("kubeletVersion", "Kubelet Version"),
    ] {
        page.field(1, name, text(&status["nodeInfo"][field]));
    }
    for (field, name) in [("podCIDR", "PodCIDR"), ("providerID", "ProviderID")] {
        if !text(&spec[field]).is_empty() {
            page.field(0, name, text(&spec[field]));
        }
    }
    if items(&spec["podCIDRs"]).next().is_some() {
        page.field(0, "PodCIDRs", items(&spec["podCIDRs"]).map(text).collect::<Vec<_>>().join(","));
    }
    load(page, status, pods, now);
}

/// When the node was heard of last.
fn heartbeat(page: &mut Page, lease: Option<&Value>) {
    let Some(lease) = lease else { return };
    page.line(0, "Lease:");
    page.field(1, "HolderIdentity", text_or(&lease["spec"]["holderIdentity"], "<unset>"));
    page.field(1, "AcquireTime", date(&lease["spec"]["acquireTime"]));
    page.field(1, "RenewTime", date(&lease["spec"]["renewTime"]));
}

fn conditions(page: &mut Page, conditions: &Value) {
    if items(conditions).next().is_none() {
        return;
    }
    page.line(0, "Conditions:");
    page.line(1, "Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage");
    page.line(1, "----\t------\t-----------------\t------------------\t------\t-------");
    for condition in items(conditions) {
        page.line(
            1,
            format!(
                "{} \t{} \t{} \t{} \t{} \t{}",
                text(&condition["type"]),
                text(&condition["status"]),
                date(&condition["lastHeartbeatTime"]),
                date(&condition["lastTransitionTime"]),
                text(&condition["reason"]),
                text(&condition["message"])
            ),
        );
    }
}

/// The resources of which the sums are shown.
const SUMMED: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// How many of them, from the first, are shown for each pod too.
const SHOWN: usize = 2;

/// What pods ask for, and how much of the node that is.
fn load(page: &mut Page, status: &Value, pods: &[Value], now: jiff::Timestamp) {
    let running: Vec<&Value> =
        pods.iter().filter(|pod| !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))).collect();
    page.line(0, format!("Non-terminated Pods:\t({} in total)", running.len()));
    page.line(1, "Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge");
    page.line(1, "---------\t----\t\t------------\t----------\t---------------\t-------------\t---");
    let mut totals = [[Amount::ZERO; 2]; SUMMED.len()];
    for pod in running {
        let mut cells = Vec::new();
        for (at, resource) in SUMMED.iter().enumerate() {
            for (sort, total) in ["requests", "limits"].iter().zip(&mut totals[at]) {
                let amount = pod_amount(&pod["spec"], sort, resource);
                *total += amount;
                if at < SHOWN {
                    cells.push(share(amount, &status["allocatable"][*resource]));
                }
            }
        }
        let metadata = &pod["metadata"];
        let made = metadata["creationTimestamp"].as_str().and_then(|text| text.parse().ok());
        let old = made.map_or_else(|| "<unknown>".to_owned(), |made| age(made, now));
        page.line(
            1,
            format!("{}\t{}\t\t{}\t{old}", text(&metadata["namespace"]), text(&metadata["name"]), cells.join("\t")),
        );
    }
    page.line(0, "Allocated resources:");
    page.line(1, "(Total limits may be over 100 percent, i.e., overcommitted.)");
    page.line(1, "Resource\tRequests\tLimits");
    page.line(1, "--------\t--------\t------");
    for (at, resource) in SUMMED.iter().enumerate() {
        let of = &status["allocatable"][*resource];
        page.line(1, format!("{resource}\t{}\t{}", share(totals[at][0], of), share(totals[at][1], of)));
    }
}

fn amount(value: &Value) -> Amount {
    Amount::parse(&text_or(value, "0")).unwrap_or(Amount::ZERO)
}

/// What all containers ask for together, or one that runs before them and asks for more.
fn pod_amount(spec: &Value, sort: &str, resource: &str) -> Amount {
    let of = |container: &Value| amount(&container["resources"][sort][resource]);
    let sidecar = |container: &&Value| container["restartPolicy"] == "Always";
    let main = items(&spec["containers"]).map(of).fold(Amount::ZERO, Add::add);
    let sidecars = items(&spec["initContainers"]).filter(sidecar).map(of).fold(Amount::ZERO, Add::add);
    let together = main + sidecars;
    let init = items(&spec["initContainers"]).filter(|container| !sidecar(container)).map(of);
    init.fold(together, |most, one| if one.nano() > most.nano() { one } else { most })
}

/// `10m (0%)`
fn share(part: Amount, whole: &Value) -> String {
    let whole = amount(whole).nano();
    let percent = if whole > 0 { part.nano() * 100 / whole } else { 0 };
    format!("{part} ({percent}%)")
}
