//! The Events about an object, oldest first.

use coracle_api::table::age;
use serde_json::Value;

use crate::{
    cluster::{Call, Cluster},
    discovery::ApiKind,
};

use super::page::{Page, items, text};

/// Asks for the Events of an object.
pub(super) async fn fetch(cluster: &Cluster, kind: &ApiKind, object: &Value) -> anyhow::Result<Vec<Value>> {
    let metadata = &object["metadata"];
    let name = text(&metadata["name"]);
    let mut selector = format!("involvedObject.name={name},involvedObject.kind={}", kind.kind);
    let namespace = metadata["namespace"].as_str();
    if let Some(namespace) = namespace {
        selector.push_str(&format!(",involvedObject.namespace={namespace}"));
    }
    // A node's Events are told by its name, not its uid.
    if kind.kind != "Node" && !metadata["uid"].is_null() {
        selector.push_str(&format!(",involvedObject.uid={}", text(&metadata["uid"])));
    }
    let path = namespace
        .map_or_else(|| "/api/v1/events".to_owned(), |namespace| format!("/api/v1/namespaces/{namespace}/events"));
    let list = cluster.json(Call::get(path).query("fieldSelector", selector)).await?;
    let mut events: Vec<Value> = items(&list["items"]).cloned().collect();
    events.sort_by_key(|event| last(event).map_or(0, |time| time.as_nanosecond()));
    Ok(events)
}

fn time(value: &Value) -> Option<jiff::Timestamp> {
    value.as_str()?.parse().ok()
}

fn last(event: &Value) -> Option<jiff::Timestamp> {
    time(&event["series"]["lastObservedTime"])
        .or_else(|| time(&event["lastTimestamp"]))
        .or_else(|| time(&event["eventTime"]))
}

fn first(event: &Value) -> Option<jiff::Timestamp> {
    time(&event["firstTimestamp"]).or_else(|| time(&event["eventTime"]))
}

pub(super) fn write(page: &mut Page, events: &[Value], now: jiff::Timestamp) {
    if events.is_empty() {
        return page.field(0, "Events", "<none>");
    }
    page.line(0, "Events:");
    page.line(1, "Type\tReason\tAge\tFrom\tMessage");
    page.line(1, "----\t------\t----\t----\t-------");
    for event in events {
        let ago = |time: Option<jiff::Timestamp>| time.map_or_else(|| "<unknown>".to_owned(), |time| age(time, now));
        let count = event["series"]["count"].as_i64().or_else(|| event["count"].as_i64()).unwrap_or(1);
        let when = if count > 1 {
            format!("{} (x{count} over {})", ago(last(event)), ago(first(event)))
        } else {
            ago(first(event).or_else(|| last(event)))
        };
        let from = match event["source"]["component"].as_str() {
            Some(component) if !component.is_empty() => component.to_owned(),
            _ => text(&event["reportingComponent"]),
        };
        let message = text(&event["message"]);
        page.line(
            1,
            format!("{}\t{}\t{when}\t{from}\t{}", text(&event["type"]), text(&event["reason"]), message.trim()),
        );
    }
}
