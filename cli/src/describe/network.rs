//! How pods are reached and who may reach them: NetworkPolicies, Ingresses and their classes. Pure.

use serde_json::Value;

use super::page::{Page, items, selector, text, text_or};
use super::service::addresses;

pub(super) fn policy(page: &mut Page, object: &Value) {
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    page.field(0, "Name", text(&metadata["name"]));
    page.field(0, "Namespace", text(&metadata["namespace"]));
    let created = text(&metadata["creationTimestamp"]).parse::<jiff::Timestamp>();
    let created = created.map(|at| at.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string());
    page.field(0, "Created on", created.unwrap_or_default());
    page.labels(0, "Labels", &metadata["labels"]);
    page.annotations(0, &metadata["annotations"]);
    page.line(0, "Spec:");
    let selected = selector(&spec["podSelector"]);
    match selected.as_str() {
        "<none>" => {
            page.line(1, "PodSelector:     <none> (Allowing the specific traffic to all pods in this namespace)");
        }
        _ => page.line(1, format!("PodSelector:     {selected}")),
    }
    let types: Vec<String> = items(&spec["policyTypes"]).map(text).collect();
    for way in [&INGRESS, &EGRESS] {
        if types.iter().any(|sort| sort == way.sort) {
            page.line(1, format!("Allowing {} traffic:", way.field));
            rules(page, &spec[way.field], way);
        } else {
            page.line(1, format!("Not affecting {} traffic", way.field));
        }
    }
    page.line(1, format!("Policy Types: {}", types.join(", ")));
}

/// One direction of traffic.
struct Way {
    sort: &'static str,
    field: &'static str,
    peers: &'static str,
    side: &'static str,
    end: &'static str,
}

const INGRESS: Way = Way { sort: "Ingress", field: "ingress", peers: "from", side: "From", end: "source" };
const EGRESS: Way = Way { sort: "Egress", field: "egress", peers: "to", side: "To", end: "destination" };

fn rules(page: &mut Page, rules: &Value, way: &Way) {
    if items(rules).next().is_none() {
        page.line(2, format!("<none> (Selected pods are isolated for {} connectivity)", way.field));
    }
    for (at, rule) in items(rules).enumerate() {
        if at > 0 {
            page.line(2, "----------");
        }
        if items(&rule["ports"]).next().is_none() {
            page.line(2, "To Port: <any> (traffic allowed to all ports)");
        }
        for port in items(&rule["ports"]) {
            let protocol = text_or(&port["protocol"], "TCP");
            let first = text_or(&port["port"], "<nil>");
            match port["endPort"].as_i64() {
                Some(last) => page.line(2, format!("To Port Range: {first}-{last}/{protocol}")),
                None => page.line(2, format!("To Port: {first}/{protocol}")),
            }
        }
        if items(&rule[way.peers]).next().is_none() {
            page.line(2, format!("{}: <any> (traffic not restricted by {})", way.side, way.end));
        }
        for peer in items(&rule[way.peers]) {
            page.line(2, format!("{}:", way.side));
            for (field, title) in [("namespaceSelector", "NamespaceSelector"), ("podSelector", "PodSelector")] {
                if !peer[field].is_null() {
                    page.line(3, format!("{title}: {}", selector(&peer[field])));
                }
            }
            if !peer["ipBlock"].is_null() {
                let except: Vec<String> = items(&peer["ipBlock"]["except"]).map(text).collect();
                page.line(3, "IPBlock:");
                page.line(4, format!("CIDR: {}", text(&peer["ipBlock"]["cidr"])));
                page.line(4, format!("Except: {}", except.join(", ")));
            }
        }
    }
}

pub(super) fn ingress(page: &mut Page, object: &Value, services: &[Value], slices: &[Value]) {
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    let target = |backend: &Value| behind(backend, services, slices);
    page.field(0, "Name", text(&metadata["name"]));
    page.labels(0, "Labels", &metadata["labels"]);
    page.field(0, "Namespace", text(&metadata["namespace"]));
    let balancers = items(&object["status"]["loadBalancer"]["ingress"]);
    let balancers = balancers.map(|b| text_or(&b["ip"], &text(&b["hostname"]))).collect::<Vec<_>>();
    page.field(0, "Address", balancers.join(","));
    page.field(0, "Ingress Class", text_or(&spec["ingressClassName"], "<none>"));
    let default = &spec["defaultBackend"];
    page.field(0, "Default backend", if default.is_null() { "<default>".to_owned() } else { target(default) });
    if items(&spec["tls"]).next().is_some() {
        page.line(0, "TLS:");
    }
    for tls in items(&spec["tls"]) {
        let hosts = items(&tls["hosts"]).map(text).collect::<Vec<_>>().join(",");
        match text(&tls["secretName"]) {
            secret if secret.is_empty() => page.line(1, format!("SNI routes {hosts}")),
            secret => page.line(1, format!("{secret} terminates {hosts}")),
        }
    }
    page.line(0, "Rules:");
    page.line(1, "Host\tPath\tBackends");
    page.line(1, "----\t----\t--------");
    let mut shown = 0;
    for rule in items(&spec["rules"]).filter(|rule| !rule["http"].is_null()) {
        shown += 1;
        page.line(1, format!("{}\t", text_or(&rule["host"], "*")));
        for path in items(&rule["http"]["paths"]) {
            page.line(2, format!("\t{} \t{}", text(&path["path"]), target(&path["backend"])));
        }
    }
    if shown == 0 {
        let otherwise = if default.is_null() { "<default>".to_owned() } else { target(default) };
        page.line(1, format!("*\t* \t{otherwise}"));
    }
    page.annotations(0, &metadata["annotations"]);
}

/// A backend, and for a Service where it leads.
fn behind(backend: &Value, services: &[Value], slices: &[Value]) -> String {
    let wanted = &backend["service"];
    if wanted.is_null() {
        let resource = &backend["resource"];
        return match text(&resource["apiGroup"]) {
            group if group.is_empty() => {
                format!("APIGroup: <none>, Kind: {}, Name: {}", text(&resource["kind"]), text(&resource["name"]))
            }
            group => format!("APIGroup: {group}, Kind: {}, Name: {}", text(&resource["kind"]), text(&resource["name"])),
        };
    }
    let name = text(&wanted["name"]);
    let port = text_or(&wanted["port"]["name"], &text(&wanted["port"]["number"]));
    let Some(service) = services.iter().find(|service| text(&service["metadata"]["name"]) == name) else {
        return format!("{name}:{port} (<error: services {name:?} not found>)");
    };
    let is_meant = |p: &&Value| match wanted["port"]["number"].as_i64() {
        Some(number) => p["port"].as_i64() == Some(number),
        None => p["name"] == wanted["port"]["name"],
    };
    let of_service = |slice: &&Value| slice["metadata"]["labels"]["kubernetes.io/service-name"] == name;
    let slices: Vec<Value> = slices.iter().filter(of_service).cloned().collect();
    let served = items(&service["spec"]["ports"]).find(is_meant).cloned().unwrap_or_default();
    format!("{name}:{port} ({})", addresses(&served, &slices))
}

pub(super) fn class(page: &mut Page, object: &Value) {
    page.field(0, "Name", text(&object["metadata"]["name"]));
    page.labels(0, "Labels", &object["metadata"]["labels"]);
    page.annotations(0, &object["metadata"]["annotations"]);
    page.field(0, "Controller", text(&object["spec"]["controller"]));
    let parameters = &object["spec"]["parameters"];
    if parameters.is_null() {
        return;
    }
    page.line(0, "Parameters:");
    for (field, title) in [("apiGroup", "APIGroup"), ("kind", "Kind"), ("name", "Name")] {
        if !parameters[field].is_null() {
            page.field(1, title, text(&parameters[field]));
        }
    }
}
