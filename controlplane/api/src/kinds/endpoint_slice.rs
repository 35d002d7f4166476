//! EndpointSlice: a part of the addresses behind a Service, all of one family.

use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use super::endpoints::SHOWN;
use super::fields::{list, text};
use super::meta::{age_cell, name_cell};
use super::pod::validate_protocol;
use crate::kind::{Info, Resource};
use crate::table::{Cell, Column};
use crate::validation::{
    Errors, IMMUTABLE, Path, dns1123_label, dns1123_subdomain, qualified_name, validate_non_special_ip,
};

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_ZONE_HINTS: usize = 8;
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
            (None, Some(name)) if !name.is_empty() => name.clone(),
            _ => "*".to_owned(),
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
        (_, 0) => "<unset>".to_owned(),
        (text, n) if n > SHOWN => format!("{text} + {} more...", n - SHOWN),
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
                if parsed.is_some_and(|ip| ip.is_ipv4() == (family == "IPv4")) {
                    validate_non_special_ip(address, &at, errors);
                } else {
                    errors.invalid(&at, address, format!("must be a valid {family} address"));
                }
            }
            "FQDN" => {
                let name = address.strip_suffix('.').unwrap_or(address);
                errors.invalid_each(&at, address, dns1123_subdomain(name));
                if !name.contains('.') {
                    errors.invalid(&at, address, "should be a domain with at least two segments separated by dots");
                }
            }
            _ => {}
        }
    }
    if let Some(node) = &endpoint.node_name {
        errors.invalid_each(&at.child("nodeName"), node, dns1123_subdomain(node));
    }
    if let Some(host) = &endpoint.hostname {
        errors.invalid_each(&at.child("hostname"), host, dns1123_label(host));
    }
    let zones = endpoint.hints.as_ref().map(|h| list(&h.for_zones)).unwrap_or_default();
    let hints = at.child("hints");
    let zones_at = hints.child("forZones");
    if zones.len() > MAX_ZONE_HINTS {
        errors.too_many(&zones_at, zones.len(), MAX_ZONE_HINTS);
    }
    for (i, zone) in zones.iter().enumerate().filter(|(i, z)| zones[..*i].contains(z)) {
        errors.duplicate(&zones_at.index(i).child("name"), &zone.name);
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

    #[test]
    fn slices() {
        let slice = |rest: Value| {
            with(
                json!({"metadata": {"name": "e", "namespace": "n", "creationTimestamp": "2024-05-01T11:55:00Z"}, "addressType": "IPv4", "endpoints": []}),
                rest,
            )
        };
        let check = |rest: Value, expected: &[&str]| expect(&faults::<EndpointSlice>(slice(rest)), expected);
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
        expect(
            &update_faults::<EndpointSlice>(slice(json!({})), slice(json!({"addressType": "IPv6"}))),
            &["addressType: Invalid value: \"IPv6\": field is immutable"],
        );
        let line = |rest: Value| row::<EndpointSlice>(slice(rest));
        assert_eq!(line(json!({})), "e|IPv4|<unset>|<unset>|5m");
        assert_eq!(
            line(
                json!({"ports": [{"port": 80}, {"name": "a"}], "endpoints": [{"addresses": ["1", "2"]}, {"addresses": ["3", "4"]}]})
            ),
            "e|IPv4|80,a|1,2,3 + 1 more...|5m"
        );
    }
}
