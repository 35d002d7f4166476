//! HorizontalPodAutoscalers. Pure.

use serde_json::Value;

use super::page::{Page, date, items, text, text_or};

const UNKNOWN: &str = "<unknown>";

pub(super) fn describe(page: &mut Page, object: &Value) {
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    page.field(0, "Name", text(&metadata["name"]));
    page.field(0, "Namespace", text(&metadata["namespace"]));
    page.labels(0, "Labels", &metadata["labels"]);
    page.annotations(0, &metadata["annotations"]);
    page.field(0, "CreationTimestamp", date(&metadata["creationTimestamp"]));
    let target = &spec["scaleTargetRef"];
    page.field(0, "Reference", format!("{}/{}", text(&target["kind"]), text(&target["name"])));
    page.field(0, "Metrics", "( current / target )");
    for (at, metric) in items(&spec["metrics"]).enumerate() {
        let current = &status["currentMetrics"][at];
        let (title, now, wanted) = line(metric, current);
        page.field(1, &title, format!("{now} / {wanted}"));
    }
    page.field(0, "Min replicas", text_or(&spec["minReplicas"], "<unset>"));
    page.field(0, "Max replicas", text(&spec["maxReplicas"]));
    if !spec["behavior"].is_null() {
        page.line(0, "Behavior:");
        direction(page, "Scale Up", &spec["behavior"]["scaleUp"]);
        direction(page, "Scale Down", &spec["behavior"]["scaleDown"]);
    }
    let count = |field: &str| text_or(&status[field], "0");
    page.field(
        0,
        &format!("{} pods", text(&target["kind"])),
        format!("{} current / {} desired", count("currentReplicas"), count("desiredReplicas")),
    );
    if items(&status["conditions"]).next().is_some() {
        page.line(0, "Conditions:");
        page.line(1, "Type\tStatus\tReason\tMessage");
        page.line(1, "----\t------\t------\t-------");
    }
    for condition in items(&status["conditions"]) {
        page.line(1, ["type", "status", "reason", "message"].map(|field| text(&condition[field])).join("\t"));
    }
}

/// What a metric is of, how it stands, and what it is to be.
fn line(metric: &Value, current: &Value) -> (String, String, String) {
    let sort = text(&metric["type"]);
    let field = first_lower(&sort);
    let (source, current) = (&metric[&field], &current[&field]["current"]);
    let target = &source["target"];
    let average = &target["averageValue"];
    let known = |field: &str| text_or(&current[field], UNKNOWN);
    match sort.as_str() {
        "Resource" | "ContainerResource" => {
            let of = match text(&source["container"]) {
                container if container.is_empty() => String::new(),
                container => format!(" of container {container:?}"),
            };
            let title = format!("resource {}{of} on pods", text(&source["name"]));
            if !average.is_null() {
                return (title, known("averageValue"), text(average));
            }
            let now = match current["averageUtilization"].as_i64() {
                Some(percent) => format!("{percent}% ({})", text(&current["averageValue"])),
                None => UNKNOWN.to_owned(),
            };
            let wanted = match target["averageUtilization"].as_i64() {
                Some(percent) => format!("{percent}%"),
                None => "<auto>".to_owned(),
            };
            (format!("{title}  (as a percentage of request)"), now, wanted)
        }
        "Pods" => (format!("{:?} on pods", text(&source["metric"]["name"])), known("averageValue"), text(average)),
        "Object" | "External" => {
            let on = match &source["describedObject"] {
                Value::Null => String::new(),
                object => format!(" on {}/{}", text(&object["kind"]), text(&object["name"])),
            };
            let title = format!("{:?}{on}", text(&source["metric"]["name"]));
            if average.is_null() {
                return (format!("{title} (target value)"), known("value"), text(&target["value"]));
            }
            (format!("{title} (target average value)"), known("averageValue"), text(average))
        }
        _ => (format!("<unknown metric type {sort:?}>"), UNKNOWN.to_owned(), UNKNOWN.to_owned()),
    }
}

fn first_lower(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

fn direction(page: &mut Page, title: &str, rules: &Value) {
    if rules.is_null() {
        return;
    }
    page.line(1, format!("{title}:"));
    if !rules["stabilizationWindowSeconds"].is_null() {
        page.line(2, format!("Stabilization Window: {} seconds", text(&rules["stabilizationWindowSeconds"])));
    }
    if items(&rules["policies"]).next().is_none() {
        return;
    }
    page.line(2, format!("Select Policy: {}", text_or(&rules["selectPolicy"], "Max")));
    page.line(2, "Policies:");
    for policy in items(&rules["policies"]) {
        let [sort, value, period] = ["type", "value", "periodSeconds"].map(|field| text(&policy[field]));
        page.line(3, format!("- Type: {sort}\tValue: {value}\tPeriod: {period} seconds"));
    }
}
