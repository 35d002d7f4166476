//! Service: one address for a set of pods. Addresses and node ports are given out by the server; here are the rules for
//! what a client may ask for and change.

mod addresses;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::fields::{default_to, list, omit_empty, text};
use super::meta::{age_cell, name_cell};
use super::pod::validate_protocol;
use super::workload::labels_text;
use crate::kind::{Info, NameRule, Resource, Subresource};
use crate::table::{Cell, Column};
use crate::validation::{
    Errors, Path, dns1123_label, dns1123_subdomain, port_number, qualified_name, validate_cidr, validate_ip,
    validate_labels, validate_non_special_ip, validate_port,
};

/// Three hours (`DefaultClientIPServiceAffinitySeconds`).
const AFFINITY_SECONDS: i32 = 10_800;
/// A day (`MaxClientIPServiceAffinitySeconds`).
const AFFINITY_MAX_SECONDS: i32 = 86_400;
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// Whether the Service has no address of its own.
pub(super) fn is_headless(spec: &ServiceSpec) -> bool {
    matches!(list(&spec.cluster_ips), [only] if only == "None")
}

fn kind(spec: &ServiceSpec) -> &str {
    text(&spec.type_)
}

fn is_external(spec: &ServiceSpec) -> bool {
    let kind = kind(spec);
    matches!(kind, "LoadBalancer" | "NodePort") || (kind == "ClusterIP" && !list(&spec.external_ips).is_empty())
}

fn needs_health_check(spec: &ServiceSpec) -> bool {
    kind(spec) == "LoadBalancer" && text(&spec.external_traffic_policy) == "Local"
}

impl Resource for Service {
    const INFO: Info = Info {
        short_names: &["svc"],
        categories: &["all"],
        name_rule: NameRule::Label,
        subresources: &[Subresource::Status, Subresource::Proxy],
        selectable_fields: &["spec.clusterIP", "spec.type"],
        columns: &[
            Column::NAME,
            Column::text("Type", "type determines how the Service is exposed."),
            Column::text("Cluster-IP", "clusterIP is the IP address of the service and is usually assigned randomly."),
            Column::text(
                "External-IP",
                "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this service.",
            ),
            Column::text("Port(s)", "The list of ports that are exposed by this service."),
            Column::AGE,
            Column::text(
                "Selector",
                "Route service traffic to pods with label keys and values matching this selector.",
            )
            .wide(),
        ],
        create_on_update: true,
        ..Info::namespaced("services", "service")
    };

    fn apply_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        default_to(&mut spec.session_affinity, "None");
        if text(&spec.session_affinity) == "None" {
            spec.session_affinity_config = None;
        }
        if text(&spec.session_affinity) == "ClientIP" {
            let client = spec.session_affinity_config.get_or_insert_default().client_ip.get_or_insert_default();
            client.timeout_seconds.get_or_insert(AFFINITY_SECONDS);
        }
        default_to(&mut spec.type_, "ClusterIP");
        omit_empty!(
            spec.ports,
            spec.selector,
            spec.external_ips,
            spec.external_name,
            spec.load_balancer_ip,
            spec.load_balancer_source_ranges,
            spec.publish_not_ready_addresses,
            spec.health_check_node_port,
            spec.cluster_ip,
            spec.cluster_ips,
            spec.ip_families,
            spec.external_traffic_policy,
        );
        for port in spec.ports.iter_mut().flatten() {
            default_to(&mut port.protocol, "TCP");
            omit_empty!(port.name, port.node_port);
            let unset = match &port.target_port {
                None | Some(IntOrString::Int(0)) => true,
                Some(IntOrString::String(name)) => name.is_empty(),
                Some(IntOrString::Int(_)) => false,
            };
            if unset {
                port.target_port = Some(IntOrString::Int(port.port));
            }
        }
        if is_external(spec) {
            default_to(&mut spec.external_traffic_policy, "Cluster");
        }
        if matches!(kind(spec), "ClusterIP" | "NodePort" | "LoadBalancer") {
            spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".to_owned());
        }
        if kind(spec) == "LoadBalancer" {
            spec.allocate_load_balancer_node_ports.get_or_insert(true);
            let status = self.status.as_mut().and_then(|s| s.load_balancer.as_mut());
            for ingress in status.and_then(|b| b.ingress.as_mut()).into_iter().flatten() {
                if ingress.ip.as_ref().is_some_and(|ip| !ip.is_empty()) {
                    ingress.ip_mode.get_or_insert_with(|| "VIP".to_owned());
                }
            }
        }
        addresses::normalise(spec, None);
    }

    fn prepare_create(&mut self) {
        self.status = Some(empty_status());
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
        if let (Some(spec), Some(old)) = (&mut self.spec, &old.spec) {
            addresses::carry_over(spec, old);
        }
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errors: &mut Errors) {
        let empty = ServiceSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let at = Path::new("spec");
        validate_type(spec, &at, errors);
        validate_ports(spec, &at.child("ports"), errors);
        if let Some(selector) = &spec.selector {
            validate_labels(selector, &at.child("selector"), errors);
        }
        validate_affinity(spec, &at, errors);
        addresses::validate(spec, &at, errors);
        for (i, ip) in list(&spec.external_ips).iter().enumerate() {
            let ips = at.child("externalIPs");
            if validate_ip(ip, &ips.index(i), errors).is_some() {
                validate_non_special_ip(ip, &ips.index(i), errors);
            }
        }
        match kind(spec) {
            "" => errors.required(&at.child("type"), ""),
            kind if TYPES.contains(&kind) => {}
            other => errors.not_supported(&at.child("type"), other, &TYPES),
        }
        validate_unique_ports(spec, &at.child("ports"), errors);
        validate_load_balancer(self, spec, &at, errors);
        validate_traffic(spec, &at, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let (Some(spec), Some(old)) = (&self.spec, &old.spec) else { return };
        let at = Path::new("spec");
        addresses::validate_update(spec, old, &at, errors);
        let both = kind(spec) == "LoadBalancer" && kind(old) == "LoadBalancer";
        if both && spec.load_balancer_class != old.load_balancer_class {
            let class = json!(spec.load_balancer_class);
            errors.invalid(&at.child("loadBalancerClass"), class, "may not change once set");
        }
        let health = needs_health_check(spec) && needs_health_check(old);
        if health && spec.health_check_node_port != old.health_check_node_port {
            errors.forbidden(&at.child("healthCheckNodePort"), "field is immutable");
        }
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut Errors) {
        let ingress = self.status.as_ref().and_then(|s| s.load_balancer.as_ref()).map(|b| list(&b.ingress));
        let ingress = ingress.unwrap_or_default();
        let at = Path::new("status");
        let balancer = at.child("loadBalancer");
        let at = balancer.child("ingress");
        if !ingress.is_empty() && self.spec.as_ref().is_none_or(|s| kind(s) != "LoadBalancer") {
            return errors.forbidden(&at, "may only be used when `spec.type` is 'LoadBalancer'");
        }
        for (i, point) in ingress.iter().enumerate() {
            let at = at.index(i);
            let ip = text(&point.ip);
            if !ip.is_empty() {
                validate_ip(ip, &at.child("ip"), errors);
            }
            match point.ip_mode.as_deref() {
                None if !ip.is_empty() => errors.required(&at.child("ipMode"), "must be specified when `ip` is set"),
                Some(_) if ip.is_empty() => {
                    errors.forbidden(&at.child("ipMode"), "may not be specified when `ip` is not set");
                }
                None | Some("VIP" | "Proxy") => {}
                Some(other) => errors.not_supported(&at.child("ipMode"), other, &["Proxy", "VIP"]),
            }
            let name = text(&point.hostname);
            if !name.is_empty() {
                errors.invalid_each(&at.child("hostname"), name, dns1123_subdomain(name));
                if name.parse::<std::net::IpAddr>().is_ok() {
                    errors.invalid(&at.child("hostname"), name, "must be a DNS name, not an IP address");
                }
            }
        }
    }

    fn selectable_field(&self, name: &str) -> Cow<'_, str> {
        let spec = self.spec.as_ref();
        Cow::Borrowed(match name {
            "spec.clusterIP" => spec.map(|s| text(&s.cluster_ip)).unwrap_or_default(),
            "spec.type" => spec.map(kind).unwrap_or_default(),
            _ => "",
        })
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let empty = ServiceSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let ports: Vec<String> = list(&spec.ports).iter().map(port_text).collect();
        let cluster_ip = list(&spec.cluster_ips).first().map_or("<none>", String::as_str);
        vec![
            name_cell(&self.metadata),
            kind(spec).into(),
            cluster_ip.into(),
            external_ip(self, spec).into(),
            if ports.is_empty() { "<none>".to_owned() } else { ports.join(",") }.into(),
            age_cell(&self.metadata, now),
            labels_text(spec.selector.as_ref()).into(),
        ]
    }
}

fn empty_status() -> k8s_openapi::api::core::v1::ServiceStatus {
    k8s_openapi::api::core::v1::ServiceStatus { load_balancer: Some(Default::default()), ..Default::default() }
}

fn port_text(port: &ServicePort) -> String {
    let protocol = text(&port.protocol);
    match port.node_port.unwrap_or_default() {
        0 => format!("{}/{protocol}", port.port),
        node_port => format!("{}:{node_port}/{protocol}", port.port),
    }
}

fn external_ip(service: &Service, spec: &ServiceSpec) -> String {
    let external = list(&spec.external_ips);
    match kind(spec) {
        "ClusterIP" | "NodePort" if external.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => external.join(","),
        "LoadBalancer" => {
            let status = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
            let mut addresses: Vec<&str> = Vec::new();
            for point in status.map(|b| list(&b.ingress)).unwrap_or_default() {
                let address = if text(&point.ip).is_empty() { text(&point.hostname) } else { text(&point.ip) };
                if !address.is_empty() && !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            addresses.extend(external.iter().map(String::as_str));
            if addresses.is_empty() { "<pending>".to_owned() } else { addresses.join(",") }
        }
        "ExternalName" => text(&spec.external_name).to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

/// What each type must have and may not have.
fn validate_type(spec: &ServiceSpec, at: &Path<'_>, errors: &mut Errors) {
    let headless = is_headless(spec);
    if list(&spec.ports).is_empty() && !headless && kind(spec) != "ExternalName" {
        errors.required(&at.child("ports"), "");
    }
    match kind(spec) {
        kind @ ("LoadBalancer" | "NodePort") if headless => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.invalid(&at.child("clusterIPs").index(0), "None", detail);
        }
        "ExternalName" => {
            const WHY: &str = "may not be set for ExternalName services";
            for (field, set) in [
                ("clusterIPs", !list(&spec.cluster_ips).is_empty()),
                ("ipFamilies", !list(&spec.ip_families).is_empty()),
                ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
            ] {
                if set {
                    errors.forbidden(&at.child(field), WHY);
                }
            }
            let name = text(&spec.external_name);
            match name.strip_suffix('.').unwrap_or(name) {
                "" => errors.required(&at.child("externalName"), ""),
                name => errors.invalid_each(&at.child("externalName"), name, dns1123_subdomain(name)),
            }
        }
        _ => {}
    }
}

fn validate_ports(spec: &ServiceSpec, at: &Path<'_>, errors: &mut Errors) {
    let ports = list(&spec.ports);
    for (i, port) in ports.iter().enumerate() {
        let at = at.index(i);
        let name = text(&port.name);
        if name.is_empty() {
            if ports.len() > 1 {
                errors.required(&at.child("name"), "");
            }
        } else {
            errors.invalid_each(&at.child("name"), name, dns1123_label(name));
            if ports[..i].iter().any(|p| text(&p.name) == name) {
                errors.duplicate(&at.child("name"), name);
            }
        }
        for detail in port_number(port.port) {
            errors.invalid(&at.child("port"), port.port, detail);
        }
        validate_protocol(text(&port.protocol), &at.child("protocol"), errors);
        if let Some(target) = &port.target_port {
            validate_port(target, &at.child("targetPort"), errors);
        }
        if let Some(protocol) = &port.app_protocol {
            errors.invalid_each(&at.child("appProtocol"), protocol, qualified_name(protocol));
        }
    }
}

fn validate_unique_ports(spec: &ServiceSpec, at: &Path<'_>, errors: &mut Errors) {
    let ports = list(&spec.ports);
    for (i, port) in ports.iter().enumerate() {
        let Some(node_port) = port.node_port.filter(|p| *p != 0) else { continue };
        let at = at.index(i);
        if kind(spec) == "ClusterIP" {
            errors.forbidden(&at.child("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
        for detail in port_number(node_port) {
            errors.invalid(&at.child("nodePort"), node_port, detail);
        }
        if ports[..i].iter().any(|p| p.protocol == port.protocol && p.node_port == port.node_port) {
            errors.duplicate(&at.child("nodePort"), node_port);
        }
    }
    for (i, port) in ports.iter().enumerate() {
        if ports[..i].iter().any(|p| p.protocol == port.protocol && p.port == port.port) {
            errors.duplicate(&at.index(i), json!({ "port": port.port, "protocol": port.protocol }));
        }
    }
}

fn validate_affinity(spec: &ServiceSpec, at: &Path<'_>, errors: &mut Errors) {
    let config_at = at.child("sessionAffinityConfig");
    match text(&spec.session_affinity) {
        "" => errors.required(&at.child("sessionAffinity"), ""),
        "None" => {
            if spec.session_affinity_config.is_some() {
                errors.forbidden(&config_at, "must not be set when session affinity is None");
            }
        }
        "ClientIP" => {
            const WHY: &str = "when session affinity type is ClientIP";
            let client_at = config_at.child("clientIP");
            let Some(config) = &spec.session_affinity_config else {
                return errors.required(&config_at, WHY);
            };
            let Some(client) = &config.client_ip else {
                return errors.required(&client_at, WHY);
            };
            let seconds_at = client_at.child("timeoutSeconds");
            match client.timeout_seconds {
                None => errors.required(&seconds_at, WHY),
                Some(seconds) if !(1..=AFFINITY_MAX_SECONDS).contains(&seconds) => {
                    let detail = format!("must be greater than 0 and less than {AFFINITY_MAX_SECONDS}");
                    errors.invalid(&seconds_at, seconds, detail);
                }
                Some(_) => {}
            }
        }
        other => errors.not_supported(&at.child("sessionAffinity"), other, &["ClientIP", "None"]),
    }
}

fn validate_load_balancer(service: &Service, spec: &ServiceSpec, at: &Path<'_>, errors: &mut Errors) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let balancer = kind(spec) == "LoadBalancer";
    let ranges = list(&spec.load_balancer_source_ranges);
    let annotation = service.metadata.annotations.as_ref().and_then(|a| a.get(SOURCE_RANGES));
    if !ranges.is_empty() {
        let at = at.child("LoadBalancerSourceRanges");
        if !balancer {
            errors.forbidden(&at, ONLY);
        }
        for (i, range) in ranges.iter().enumerate() {
            validate_cidr(range.trim(), &at.index(i), errors);
        }
    } else if let Some(value) = annotation {
        let meta = Path::new("metadata");
        let annotations = meta.child("annotations");
        let at = annotations.key(SOURCE_RANGES);
        if !balancer {
            errors.forbidden(&at, ONLY);
        }
        for range in value.split(',').map(str::trim).filter(|_| !value.trim().is_empty()) {
            validate_cidr(range, &at, errors);
        }
    }
    match spec.allocate_load_balancer_node_ports {
        Some(_) if !balancer => errors.forbidden(&at.child("allocateLoadBalancerNodePorts"), ONLY),
        None if balancer => errors.required(&Path::new("allocateLoadBalancerNodePorts"), ""),
        _ => {}
    }
    match &spec.load_balancer_class {
        Some(class) if balancer => errors.invalid_each(&at.child("loadBalancerClass"), class, qualified_name(class)),
        Some(_) => errors.forbidden(&at.child("loadBalancerClass"), ONLY),
        None => {}
    }
}

fn validate_traffic(spec: &ServiceSpec, at: &Path<'_>, errors: &mut Errors) {
    const POLICIES: [&str; 2] = ["Cluster", "Local"];
    let external_at = at.child("externalTrafficPolicy");
    match text(&spec.external_traffic_policy) {
        "" if is_external(spec) => errors.required(&external_at, ""),
        "" => {}
        policy if !is_external(spec) => {
            errors.invalid(&external_at, policy, "may only be set for externally-accessible services");
        }
        policy if !POLICIES.contains(&policy) => errors.not_supported(&external_at, policy, &POLICIES),
        _ => {}
    }
    let health = spec.health_check_node_port.unwrap_or_default();
    if health != 0 && !needs_health_check(spec) {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.invalid(&at.child("healthCheckNodePort"), health, detail);
    } else if health != 0 {
        for detail in port_number(health) {
            errors.invalid(&at.child("healthCheckNodePort"), health, detail);
        }
    }
    match spec.internal_traffic_policy.as_deref() {
        None if matches!(kind(spec), "ClusterIP" | "NodePort" | "LoadBalancer") => {
            errors.required(&at.child("internalTrafficPolicy"), "");
        }
        Some(policy) if !POLICIES.contains(&policy) => {
            errors.not_supported(&at.child("internalTrafficPolicy"), policy, &POLICIES);
        }
        _ => {}
    }
    const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameNode", "PreferSameZone"];
    if let Some(wish) = spec.traffic_distribution.as_deref().filter(|d| !DISTRIBUTIONS.contains(d)) {
        errors.not_supported(&at.child("trafficDistribution"), wish, &DISTRIBUTIONS);
    }
}
