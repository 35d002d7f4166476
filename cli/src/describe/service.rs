//! Services and where they lead. Pure.

use serde_json::Value;

use super::page::{Page, items, selector, text, text_or};

/// Addresses shown of a port before the rest is counted.
const MAX_SHOWN: usize = 3;

pub(super) fn describe(page: &mut Page, object: &Value, slices: &[Value]) {
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    page.field(0, "Name", text(&metadata["name"]));
    page.field(0, "Namespace", text(&metadata["namespace"]));
    page.labels(0, "Labels", &metadata["labels"]);
    page.annotations(0, &metadata["annotations"]);
    page.field(0, "Selector", selector(&spec["selector"]));
    page.field(0, "Type", text(&spec["type"]));
    let join = |value: &Value, otherwise: &str| {
        let all: Vec<String> = items(value).map(text).collect();
        if all.is_empty() { otherwise.to_owned() } else { all.join(",") }
    };
    if !spec["ipFamilyPolicy"].is_null() {
        page.field(0, "IP Family Policy", text(&spec["ipFamilyPolicy"]));
    }
    page.field(0, "IP Families", join(&spec["ipFamilies"], "<none>"));
    page.field(0, "IP", text_or(&spec["clusterIP"], "<none>"));
    page.field(0, "IPs", join(&spec["clusterIPs"], "<none>"));
    if items(&spec["externalIPs"]).next().is_some() {
        page.field(0, "External IPs", join(&spec["externalIPs"], ""));
    }
    if !text(&spec["externalName"]).is_empty() {
        page.field(0, "External Name", text(&spec["externalName"]));
    }
    for port in items(&spec["ports"]) {
        let name = text_or(&port["name"], "<unset>");
        let protocol = text(&port["protocol"]);
        page.field(0, "Port", format!("{name}\t{}/{protocol}", text(&port["port"])));
        page.field(0, "TargetPort", format!("{}/{protocol}", text(&port["targetPort"])));
        if port["nodePort"].as_i64().is_some_and(|port| port != 0) {
            page.field(0, "NodePort", format!("{name}\t{}/{protocol}", text(&port["nodePort"])));
        }
        page.field(0, "Endpoints", endpoints(port, slices));
    }
    page.field(0, "Session Affinity", text(&spec["sessionAffinity"]));
    for (field, name) in
        [("externalTrafficPolicy", "External Traffic Policy"), ("internalTrafficPolicy", "Internal Traffic Policy")]
    {
        if !spec[field].is_null() {
            page.field(0, name, text(&spec[field]));
        }
    }
}

/// The ready addresses behind a port.
fn endpoints(port: &Value, slices: &[Value]) -> String {
    let mut found = Vec::new();
    let name = |port: &Value| text(&port["name"]);
    for slice in slices {
        for served in items(&slice["ports"]).filter(|served| name(served) == name(port)) {
            for endpoint in items(&slice["endpoints"]).filter(|endpoint| endpoint["conditions"]["ready"] != false) {
                found.extend(items(&endpoint["addresses"]).map(|address| match text(address) {
                    address if address.contains(':') => format!("[{address}]:{}", text(&served["port"])),
                    address => format!("{address}:{}", text(&served["port"])),
                }));
            }
        }
    }
    if found.len() > MAX_SHOWN {
        let more = found.len() - MAX_SHOWN;
        return format!("{} + {more} more...", found[..MAX_SHOWN].join(","));
    }
    found.join(",")
}
