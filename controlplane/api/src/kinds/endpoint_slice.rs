//! EndpointSlice: a part of the addresses behind a Service, all of one family.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use super::endpoints::SHOWN;
use super::fields::{list, text};
use super::meta::{age_cell, name_cell};
use super::pod::validate_protocol;
use crate::kind::{Info, Resource};
use crate::table::{Cell, Column};
use crate::validation::{
    Errors, IMMUTABLE, Path, dns1123_label, dns1123_subdomain, label_value, qualified_name, validate_non_special_ip,
};

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_HINTS: usize = 8;
const FAMILIES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];

impl Resource for EndpointSlice {
    const INFO: Info = Info {
        columns: &[
            Column::NAME,
            Column::text("AddressType", "addressType specifies the type of address carried by this EndpointSlice."),
            Column::text("Ports", "ports specifies the list of network ports exposed by each endpoint in this slice."),
            Column::text("Endpoints", "endpoints is a list of unique endpoints in this slice."),
            Column::AGE,
        ],
        has_generation: true,
        ..Info::namespaced("endpointslices", "endpointslice")
    };

    fn apply_defaults(&mut self) {
        for port in self.ports.iter_mut().flatten() {
            port.name.get_or_insert_default();
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
    }

    fn spec_changed(&self, old: &Self) -> bool {
        self.endpoints != old.endpoints || self.ports != old.ports || self.address_type != old.address_type
    }

    fn validate(&self, errors: &mut Errors) {
        let family = self.address_type.as_str();
        if family.is_empty() {
            errors.required(&Path::new("addressType"), "");
        } else if !FAMILIES.contains(&family) {
            errors.not_supported(&Path::new("addressType"), family, &FAMILIES);
        }
        let at = Path::new("endpoints");
        let endpoints = list(&self.endpoints);
        if endpoints.len() > MAX_ENDPOINTS {
            return errors.too_many(&at, endpoints.len(), MAX_ENDPOINTS);
        }
        for (i, endpoint) in endpoints.iter().enumerate() {
            validate_endpoint(endpoint, family, &at.index(i), errors);
        }
        validate_ports(list(&self.ports), &Path::new("ports"), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.address_type != old.address_type {
            errors.invalid(&Path::new("addressType"), &self.address_type, IMMUTABLE);
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let ports = list(&self.ports).iter().map(|p| match (p.port, &p.name) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.clone(),
            (None, None) => "*".to_owned(),
        });
        let addresses = list(&self.endpoints).iter().flat_map(|e| e.addresses.iter().cloned());
        vec![
            name_cell(&self.metadata),
            self.address_type.as_str().into(),
            some_of(ports).into(),
            some_of(addresses).into(),
            age_cell(&self.metadata, now),
        ]
    }
}

fn some_of(all: impl Iterator<Item = String>) -> String {
    let mut shown = Vec::with_capacity(SHOWN);
    let mut count = 0;
    for text in all {
        count += 1;
        if shown.len() < SHOWN {
            shown.push(text);
        }
    }
    match (shown.join(","), count) {
        (text, n) if n > SHOWN => format!("{text} + {} more...", n - SHOWN),
        (text, _) if text.is_empty() => "<unset>".to_owned(),
        (text, _) => text,
    }
}

fn validate_endpoint(endpoint: &Endpoint, family: &str, at: &Path<'_>, errors: &mut Errors) {
    let addresses_at = at.child("addresses");
    let addresses = &endpoint.addresses;
    if addresses.is_empty() {
        errors.required(&addresses_at, "must contain at least 1 address");
    } else if addresses.len() > MAX_ADDRESSES {
        errors.too_many(&addresses_at, addresses.len(), MAX_ADDRESSES);
    }
    for (i, address) in addresses.iter().enumerate() {
        let at = addresses_at.index(i);
        let parsed = address.parse::<IpAddr>().ok();
        match family {
            "IPv4" | "IPv6" => {
                if parsed.is_none_or(|ip| ip.is_ipv4() != (family == "IPv4")) {
                    errors.invalid(&at, address, format!("must be a valid {family} address"));
                }
                validate_non_special_ip(address, &at, errors);
            }
            "FQDN" => validate_domain(address, &at, errors),
            _ => {}
        }
    }
    if let Some(node) = &endpoint.node_name {
        errors.invalid_each(&at.child("nodeName"), node, dns1123_subdomain(node));
    }
    if let Some(host) = &endpoint.hostname {
        errors.invalid_each(&at.child("hostname"), host, dns1123_label(host));
    }
    if let Some(hints) = &endpoint.hints {
        let at = at.child("hints");
        let zones = list(&hints.for_zones).iter().map(|z| z.name.as_str());
        validate_hints(zones, &at.child("forZones"), errors, label_value);
        let nodes = list(&hints.for_nodes).iter().map(|n| n.name.as_str());
        validate_hints(nodes, &at.child("forNodes"), errors, dns1123_subdomain);
    }
}

/// A domain of at least two labels, which may end with a dot.
fn validate_domain(address: &str, at: &Path<'_>, errors: &mut Errors) {
    if address.is_empty() {
        return errors.required(at, "");
    }
    let name = address.strip_suffix('.').unwrap_or(address);
    let faults = dns1123_subdomain(name);
    if !faults.is_empty() {
        return errors.invalid(at, address, faults.join(","));
    }
    if !name.contains('.') {
        return errors.invalid(at, address, "should be a domain with at least two segments separated by dots");
    }
    for label in name.split('.').filter(|label| !dns1123_label(label).is_empty()) {
        errors.invalid_each(at, label, dns1123_label(label));
    }
}

/// The zones or the nodes for which an endpoint is meant.
fn validate_hints<'a>(
    names: impl ExactSizeIterator<Item = &'a str>,
    at: &Path<'_>,
    errors: &mut Errors,
    rule: fn(&str) -> Vec<String>,
) {
    if names.len() > MAX_HINTS {
        return errors.too_many(at, names.len(), MAX_HINTS);
    }
    let mut seen = BTreeSet::new();
    for (i, name) in names.enumerate() {
        let at = at.index(i);
        let at = at.child("name");
        if !seen.insert(name) {
            errors.duplicate(&at, name);
        } else {
            errors.invalid_each(&at, name, rule(name));
        }
    }
}

fn validate_ports(ports: &[EndpointPort], at: &Path<'_>, errors: &mut Errors) {
    if ports.len() > MAX_PORTS {
        return errors.too_many(at, ports.len(), MAX_PORTS);
    }
    for (i, port) in ports.iter().enumerate() {
        let at = at.index(i);
        let name = text(&port.name);
        if !name.is_empty() {
            errors.invalid_each(&at.child("name"), name, dns1123_label(name));
        }
        if ports[..i].iter().any(|p| text(&p.name) == name) {
            errors.duplicate(&at.child("name"), name);
        }
        validate_protocol(text(&port.protocol), &at.child("protocol"), errors);
        if let Some(protocol) = &port.app_protocol {
            errors.invalid_each(&at.child("appProtocol"), protocol, qualified_name(protocol));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{expect, faults, row, update_faults, with};

    fn slice(rest: Value) -> Value {
        let slice = json!({
            "metadata": {"name": "e", "namespace": "n", "creationTimestamp": "2024-05-01T11:55:00Z"},
            "addressType": "IPv4", "endpoints": [],
        });
        with(slice, rest)
    }

    #[track_caller]
    fn check(rest: Value, expected: &[&str]) {
        expect(&faults::<EndpointSlice>(slice(rest)), expected);
    }

    #[test]
    fn slices() {
        check(json!({"endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}), &[]);
        check(
            json!({"addressType": "IPX"}),
            &["addressType: Unsupported value: \"IPX\": supported values: \"FQDN\", \"IPv4\", \"IPv6\""],
        );
        check(
            json!({"endpoints": [{"addresses": []}, {"addresses": ["::2"], "hostname": "A"}], "ports": [{"name": "a"}, {"name": "a", "protocol": "X"}]}),
            &[
                "endpoints[0].addresses: Required value: must contain at least 1 address",
                "endpoints[1].addresses[0]: Invalid value: \"::2\": must be a valid IPv4 address",
                "endpoints[1].hostname: Invalid value: \"A\"",
                "ports[1].name: Duplicate value: \"a\"",
                "ports[1].protocol: Unsupported value: \"X\"",
            ],
        );
    }

    #[test]
    fn hints_and_addresses() {
        let hints = |hints: Value| json!({"endpoints": [{"addresses": ["10.0.0.1"], "hints": hints}]});
        check(
            hints(
                json!({"forZones": [{"name": "a"}, {"name": "a"}, {"name": "-"}], "forNodes": [{"name": "A"}, {"name": "A"}]}),
            ),
            &[
                "endpoints[0].hints.forZones[1].name: Duplicate value: \"a\"",
                "endpoints[0].hints.forZones[2].name: Invalid value: \"-\": a valid label must be",
                "endpoints[0].hints.forNodes[0].name: Invalid value: \"A\": a lowercase RFC 1123 subdomain",
                "endpoints[0].hints.forNodes[1].name: Duplicate value: \"A\"",
            ],
        );
        let many: Vec<Value> = (0..9).map(|i| json!({"name": i.to_string()})).collect();
        check(
            hints(json!({"forZones": many})),
            &["endpoints[0].hints.forZones: Too many: 9: must have at most 8 items"],
        );
        let domains = |names: Value| json!({"addressType": "FQDN", "endpoints": [{"addresses": names}]});
        check(domains(json!(["a.b", "a.b."])), &[]);
        check(
            domains(json!(["", "a", "A.b", "ab"])),
            &[
                "endpoints[0].addresses[0]: Required value",
                "endpoints[0].addresses[1]: Invalid value: \"a\": should be a domain with at least two segments separated by dots",
                "endpoints[0].addresses[2]: Invalid value: \"A.b\": a lowercase RFC 1123 subdomain",
                "endpoints[0].addresses[3]: Invalid value: \"ab\": should be",
            ],
        );
        check(
            json!({"endpoints": [{"addresses": ["127.0.0.1", "::1"]}]}),
            &[
                "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range",
                "endpoints[0].addresses[1]: Invalid value: \"::1\": must be a valid IPv4 address",
                "endpoints[0].addresses[1]: Invalid value: \"::1\": may not be in the loopback range",
            ],
        );
    }

    #[test]
    fn changes_and_rows() {
        expect(
            &update_faults::<EndpointSlice>(slice(json!({})), slice(json!({"addressType": "IPv6"}))),
            &["addressType: Invalid value: \"IPv6\": field is immutable"],
        );
        let line = |rest: Value| row::<EndpointSlice>(slice(rest));
        assert_eq!(line(json!({})), "e|IPv4|<unset>|<unset>|5m");
        assert_eq!(line(json!({"ports": [{}, {"name": ""}, {"port": 1}]})), "e|IPv4|*,,1|<unset>|5m");
        assert_eq!(line(json!({"ports": [{"name": ""}]})), "e|IPv4|<unset>|<unset>|5m");
        assert_eq!(
            line(
                json!({"ports": [{"port": 80}, {"name": "a"}], "endpoints": [{"addresses": ["1", "2"]}, {"addresses": ["3", "4"]}]})
            ),
            "e|IPv4|80,a|1,2,3 + 1 more...|5m"
        );
    }
}
