//! Endpoints: the addresses behind a Service, all in one object.

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, Endpoints};

use super::fields::{default_to, list, omit_empty, text};
use super::meta::{age_cell, name_cell};
use super::pod::validate_protocol;
use crate::kind::{Info, Resource};
use crate::table::{Cell, Column};
use crate::validation::{
    Errors, Path, dns1123_label, dns1123_subdomain, port_number, qualified_name, validate_ip, validate_non_special_ip,
};

/// A row shows so many addresses and counts the others.
pub(super) const SHOWN: usize = 3;

impl Resource for Endpoints {
    const INFO: Info = Info {
        short_names: &["ep"],
        columns: &[
            Column::NAME,
            Column::text("Endpoints", "The set of all endpoints is the union of all subsets."),
            Column::AGE,
        ],
        create_on_update: true,
        deprecation: Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        ..Info::namespaced("endpoints", "endpoints")
    };

    fn apply_defaults(&mut self) {
        for port in self.subsets.iter_mut().flatten().flat_map(|s| s.ports.iter_mut().flatten()) {
            default_to(&mut port.protocol, "TCP");
            omit_empty!(port.name);
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let at = Path::new("subsets");
        for (i, subset) in list(&self.subsets).iter().enumerate() {
            let at = at.index(i);
            let (ready, not_ready) = (list(&subset.addresses), list(&subset.not_ready_addresses));
            if ready.is_empty() && not_ready.is_empty() {
                errors.required(&at, "must specify `addresses` or `notReadyAddresses`");
            }
            for (field, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
                for (i, address) in addresses.iter().enumerate() {
                    validate_address(address, &at.child(field).index(i), errors);
                }
            }
            let ports = list(&subset.ports);
            for (i, port) in ports.iter().enumerate() {
                validate_endpoint_port(port, ports.len(), &at.child("ports").index(i), errors);
            }
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        vec![name_cell(&self.metadata), addresses(self).into(), age_cell(&self.metadata, now)]
    }
}

fn addresses(endpoints: &Endpoints) -> String {
    let subsets = list(&endpoints.subsets);
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    let mut shown = Vec::new();
    let mut count = 0;
    for subset in subsets {
        let ips = list(&subset.addresses).iter().map(|a| a.ip.as_str());
        let ports = list(&subset.ports);
        if ports.is_empty() {
            count += ips.len();
            shown.extend(ips.map(str::to_owned).take(SHOWN.saturating_sub(shown.len())));
            continue;
        }
        for port in ports {
            let ips = ips.clone();
            count += ips.len();
            let room = SHOWN.saturating_sub(shown.len());
            shown.extend(ips.take(room).map(|ip| {
                if ip.contains(':') { format!("[{ip}]:{}", port.port) } else { format!("{ip}:{}", port.port) }
            }));
        }
    }
    let text = shown.join(",");
    if count > SHOWN { format!("{text} + {} more...", count - SHOWN) } else { text }
}

fn validate_address(address: &EndpointAddress, at: &Path<'_>, errors: &mut Errors) {
    if validate_ip(&address.ip, &at.child("ip"), errors).is_some() {
        validate_non_special_ip(&address.ip, &at.child("ip"), errors);
    }
    let host = text(&address.hostname);
    if !host.is_empty() {
        errors.invalid_each(&at.child("hostname"), host, dns1123_label(host));
    }
    if let Some(node) = &address.node_name {
        errors.invalid_each(&at.child("nodeName"), node, dns1123_subdomain(node));
    }
}

fn validate_endpoint_port(port: &EndpointPort, ports: usize, at: &Path<'_>, errors: &mut Errors) {
    let name = text(&port.name);
    if !name.is_empty() {
        errors.invalid_each(&at.child("name"), name, dns1123_label(name));
    } else if ports > 1 {
        errors.required(&at.child("name"), "");
    }
    for detail in port_number(port.port) {
        errors.invalid(&at.child("port"), port.port, detail);
    }
    validate_protocol(text(&port.protocol), &at.child("protocol"), errors);
    if let Some(protocol) = &port.app_protocol {
        errors.invalid_each(&at.child("appProtocol"), protocol, qualified_name(protocol));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{expect, faults, row};

    #[test]
    fn endpoints() {
        let of = |subsets: Value| json!({"metadata": {"name": "e", "namespace": "n", "creationTimestamp": "2024-05-01T11:55:00Z"}, "subsets": subsets});
        let check = |subsets: Value, expected: &[&str]| expect(&faults::<Endpoints>(of(subsets)), expected);
        check(json!([{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]), &[]);
        check(
            json!([{}, {"addresses": [{"ip": "127.0.0.1"}, {"ip": "x"}], "ports": [{"port": 0}, {"name": "A", "port": 1}]}]),
            &[
                "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
                "subsets[1].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range",
                "subsets[1].addresses[1].ip: Invalid value: \"x\": must be a valid IP address",
                "subsets[1].ports[0].name: Required value",
                "subsets[1].ports[0].port: Invalid value: 0",
                "subsets[1].ports[1].name: Invalid value: \"A\"",
            ],
        );
        let ip = |n: u8| json!({"ip": format!("10.0.0.{n}")});
        let line = |subsets: Value| row::<Endpoints>(of(subsets));
        assert_eq!(line(json!(null)), "e|<none>|5m");
        assert_eq!(
            line(json!([{"addresses": [ip(1)], "ports": [{"port": 80}, {"port": 81}]}])),
            "e|10.0.0.1:80,10.0.0.1:81|5m"
        );
        assert_eq!(
            line(json!([{"addresses": [ip(1), ip(2), ip(3), ip(4), ip(5)]}])),
            "e|10.0.0.1,10.0.0.2,10.0.0.3 + 2 more...|5m"
        );
    }
}
