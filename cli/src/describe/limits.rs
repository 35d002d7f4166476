//! What a namespace may hold: ResourceQuotas, LimitRanges, and the Namespace that they stand in. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use super::page::{Page, date, items, map, text, text_or};

/// The names of a map in order.
fn names(value: &Value) -> BTreeSet<&String> {
    map(value).map(|(key, _)| key).collect()
}

pub(super) fn namespace(page: &mut Page, object: &Value, quotas: &[Value], ranges: &[Value]) {
    let (metadata, status) = (&object["metadata"], &object["status"]);
    page.field(0, "Name", text(&metadata["name"]));
    page.labels(0, "Labels", &metadata["labels"]);
    page.annotations(0, &metadata["annotations"]);
    page.field(0, "Status", text(&status["phase"]));
    if items(&status["conditions"]).next().is_some() {
        page.line(0, "Conditions:");
        page.line(1, "Type\tStatus\tLastTransitionTime\tReason\tMessage");
        page.line(1, "----\t------\t------------------\t------\t-------");
    }
    for condition in items(&status["conditions"]) {
        let cell = |field: &str| text(&condition[field]);
        let since = date(&condition["lastTransitionTime"]);
        page.line(1, [cell("type"), cell("status"), since, cell("reason"), cell("message")].join("\t"));
    }
    page.line(0, "");
    if quotas.is_empty() {
        page.line(0, "No resource quota.");
    } else {
        page.line(0, "Resource Quotas");
    }
    for quota in quotas {
        page.field(1, "Name", text(&quota["metadata"]["name"]));
        scopes(page, 1, "* ", quota);
        page.line(1, "Resource\tUsed\tHard");
        page.line(1, "--------\t---\t---");
        used(page, 1, quota);
    }
    page.line(0, "");
    if ranges.is_empty() {
        return page.line(0, "No LimitRange resource.");
    }
    page.line(0, "Resource Limits");
    table_of_limits(page, " ", ranges);
}

pub(super) fn quota(page: &mut Page, object: &Value) {
    page.field(0, "Name", text(&object["metadata"]["name"]));
    page.field(0, "Namespace", text(&object["metadata"]["namespace"]));
    scopes(page, 0, " * ", object);
    page.line(0, "Resource\tUsed\tHard");
    page.line(0, "--------\t----\t----");
    used(page, 0, object);
}

pub(super) fn limit_range(page: &mut Page, object: &Value) {
    page.field(0, "Name", text(&object["metadata"]["name"]));
    page.field(0, "Namespace", text(&object["metadata"]["namespace"]));
    table_of_limits(page, "", std::slice::from_ref(object));
}

fn used(page: &mut Page, level: usize, quota: &Value) {
    let status = &quota["status"];
    for name in names(&status["hard"]) {
        let (used, hard) = (text_or(&status["used"][name], "0"), text(&status["hard"][name]));
        page.line(level, format!("{name}\t{used}\t{hard}"));
    }
}

fn scopes(page: &mut Page, level: usize, mark: &str, quota: &Value) {
    let scopes: BTreeSet<String> = items(&quota["spec"]["scopes"]).map(text).collect();
    if scopes.is_empty() {
        return;
    }
    page.field(level, "Scopes", scopes.iter().cloned().collect::<Vec<_>>().join(", "));
    for help in scopes.iter().filter_map(|scope| scope_help(scope)) {
        page.line(level, format!("{mark}{help}"));
    }
}

fn scope_help(scope: &str) -> Option<&'static str> {
    Some(match scope {
        "Terminating" => {
            "Matches all pods that have an active deadline. These pods have a limited lifespan on a node before being actively terminated by the system."
        }
        "NotTerminating" => {
            "Matches all pods that do not have an active deadline. These pods usually include long running pods whose container command is not expected to terminate."
        }
        "BestEffort" => {
            "Matches all pods that do not have resource requirements set. These pods have a best effort quality of service."
        }
        "NotBestEffort" => {
            "Matches all pods that have at least one resource requirement set. These pods have a burstable or guaranteed quality of service."
        }
        _ => return None,
    })
}

fn table_of_limits(page: &mut Page, indent: &str, ranges: &[Value]) {
    page.line(0, format!("{indent}Type\tResource\tMin\tMax\tDefault Request\tDefault Limit\tMax Limit/Request Ratio"));
    page.line(0, format!("{indent}----\t--------\t---\t---\t---------------\t-------------\t-----------------------"));
    const COLUMNS: [&str; 5] = ["min", "max", "defaultRequest", "default", "maxLimitRequestRatio"];
    for limit in ranges.iter().flat_map(|range| items(&range["spec"]["limits"])) {
        let resources: BTreeSet<&String> = COLUMNS.iter().flat_map(|column| names(&limit[*column])).collect();
        for resource in resources {
            let cells: Vec<String> = COLUMNS.iter().map(|column| text_or(&limit[*column][resource], "-")).collect();
            page.line(0, format!("{indent}{}\t{resource}\t{}", text(&limit["type"]), cells.join("\t")));
        }
    }
}
