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
        page.field(0, "Endpoints", addresses(port, slices));
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

/// An Endpoints object.
pub(super) fn endpoints(page: &mut Page, object: &Value) {
    super::config::head(page, object);
    page.line(0, "Subsets:");
    for subset in items(&object["subsets"]) {
        for (field, name) in [("addresses", "Addresses"), ("notReadyAddresses", "NotReadyAddresses")] {
            let all: Vec<String> = items(&subset[field]).map(|address| text(&address["ip"])).collect();
            page.field(1, name, if all.is_empty() { "<none>".to_owned() } else { all.join(",") });
        }
        if items(&subset["ports"]).next().is_some() {
            page.line(1, "Ports:");
            page.line(2, "Name\tPort\tProtocol");
            page.line(2, "----\t----\t--------");
        }
        for port in items(&subset["ports"]) {
            let name = text_or(&port["name"], "<unset>");
            page.line(2, format!("{name}\t{}\t{}", text(&port["port"]), text_or(&port["protocol"], "TCP")));
        }
        page.line(0, "");
    }
}

/// An EndpointSlice.
pub(super) fn endpoint_slice(page: &mut Page, object: &Value) {
    super::config::head(page, object);
    page.field(0, "AddressType", text(&object["addressType"]));
    if items(&object["ports"]).next().is_none() {
        page.line(0, "Ports: <unset>");
    } else {
        page.line(0, "Ports:");
        page.line(1, "Name\tPort\tProtocol");
        page.line(1, "----\t----\t--------");
    }
    for port in items(&object["ports"]) {
        let cells = ["name", "port", "protocol"].map(|field| text_or(&port[field], "<unset>"));
        page.line(1, cells.join("\t"));
    }
    if items(&object["endpoints"]).next().is_none() {
        return page.line(0, "Endpoints: <none>");
    }
    page.line(0, "Endpoints:");
    for endpoint in items(&object["endpoints"]) {
        let all: Vec<String> = items(&endpoint["addresses"]).map(text).collect();
        page.field(1, "- Addresses", if all.is_empty() { "<none>".to_owned() } else { all.join(", ") });
        page.line(2, "Conditions:");
        page.field(3, "Ready", text_or(&endpoint["conditions"]["ready"], "<unset>"));
        page.field(2, "Hostname", text_or(&endpoint["hostname"], "<unset>"));
        let target = &endpoint["targetRef"];
        if !target.is_null() {
            page.field(2, "TargetRef", format!("{}/{}", text(&target["kind"]), text(&target["name"])));
        }
        page.field(2, "NodeName", text_or(&endpoint["nodeName"], "<unset>"));
        page.field(2, "Zone", text_or(&endpoint["zone"], "<unset>"));
    }
}

/// The ready addresses behind a port.
pub(super) fn addresses(port: &Value, slices: &[Value]) -> String {
    if slices.is_empty() {
        return "<none>".to_owned();
    }
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
