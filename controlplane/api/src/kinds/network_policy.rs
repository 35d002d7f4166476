//! NetworkPolicy: who may talk to which pods.

use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::fields::{default_to, list};
use super::meta::{age_cell, name_cell};
use super::workload::selector_text;
use crate::kind::{Info, Resource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path, json, port_number, validate_cidr, validate_label_selector, validate_port};

const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

impl Resource for NetworkPolicy {
    const INFO: Info = Info {
        short_names: &["netpol"],
        columns: &[
            Column::NAME,
            Column::text("Pod-Selector", "podSelector selects the pods to which this NetworkPolicy object applies."),
            Column::AGE,
        ],
        has_generation: true,
        is_acted_on: false,
        ..Info::namespaced("networkpolicies", "networkpolicy")
    };

    fn apply_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        let ingress = spec.ingress.iter_mut().flatten().filter_map(|r| r.ports.as_mut());
        let egress = spec.egress.iter_mut().flatten().filter_map(|r| r.ports.as_mut());
        for port in ingress.chain(egress).flatten() {
            default_to(&mut port.protocol, "TCP");
        }
        if list(&spec.policy_types).is_empty() {
            let mut types = vec!["Ingress".to_owned()];
            if !list(&spec.egress).is_empty() {
                types.push("Egress".to_owned());
            }
            spec.policy_types = Some(types);
        }
    }

    fn spec_changed(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn validate(&self, errors: &mut Errors) {
        let Some(spec) = &self.spec else { return };
        let at = Path::new("spec");
        if let Some(selector) = &spec.pod_selector {
            validate_label_selector(selector, &at.child("podSelector"), errors);
        }
        for (i, rule) in list(&spec.ingress).iter().enumerate() {
            let rules = at.child("ingress");
            let at = rules.index(i);
            validate_rule((list(&rule.ports), list(&rule.from)), &at, "from", errors);
        }
        for (i, rule) in list(&spec.egress).iter().enumerate() {
            let rules = at.child("egress");
            let at = rules.index(i);
            validate_rule((list(&rule.ports), list(&rule.to)), &at, "to", errors);
        }
        let types = list(&spec.policy_types);
        if types.len() > 2 {
            errors.invalid(
                &at.child("policyTypes"),
                json(&spec.policy_types),
                "may not specify more than two policyTypes",
            );
            return;
        }
        for (i, name) in types.iter().enumerate().filter(|(_, t)| !matches!(t.as_str(), "Ingress" | "Egress")) {
            errors.not_supported(&at.child("policyTypes").index(i), name, &["Ingress", "Egress"]);
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let selector = self.spec.as_ref().and_then(|s| s.pod_selector.as_ref());
        vec![name_cell(&self.metadata), selector_text(selector).into(), age_cell(&self.metadata, now)]
    }
}

fn validate_rule(
    (ports, peers): (&[NetworkPolicyPort], &[NetworkPolicyPeer]),
    at: &Path<'_>,
    peers_field: &str,
    errors: &mut Errors,
) {
    for (i, port) in ports.iter().enumerate() {
        validate_policy_port(port, &at.child("ports").index(i), errors);
    }
    for (i, peer) in peers.iter().enumerate() {
        validate_peer(peer, &at.child(peers_field).index(i), errors);
    }
}

fn validate_policy_port(port: &NetworkPolicyPort, at: &Path<'_>, errors: &mut Errors) {
    if let Some(protocol) = port.protocol.as_deref().filter(|p| !PROTOCOLS.contains(p)) {
        errors.not_supported(&at.child("protocol"), protocol, &PROTOCOLS);
    }
    if let Some(number) = &port.port {
        validate_port(number, &at.child("port"), errors);
    }
    let Some(end) = port.end_port else { return };
    let at = at.child("endPort");
    match &port.port {
        Some(IntOrString::Int(start)) => {
            if end < *start {
                errors.invalid(&at, end, "must be greater than or equal to `port`");
            }
            for detail in port_number(end) {
                errors.invalid(&at, end, detail);
            }
        }
        Some(IntOrString::String(_)) => errors.invalid(&at, end, "may not be specified when `port` is non-numeric"),
        None => errors.invalid(&at, end, "may not be specified when `port` is not specified"),
    }
}

fn validate_peer(peer: &NetworkPolicyPeer, at: &Path<'_>, errors: &mut Errors) {
    for (field, selector) in [("podSelector", &peer.pod_selector), ("namespaceSelector", &peer.namespace_selector)] {
        if let Some(selector) = selector {
            validate_label_selector(selector, &at.child(field), errors);
        }
    }
    let by_labels = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
    match &peer.ip_block {
        Some(block) => {
            validate_block(block, &at.child("ipBlock"), errors);
            if by_labels {
                errors.forbidden(at, "may not specify both ipBlock and another peer");
            }
        }
        None if !by_labels => errors.required(at, "must specify a peer"),
        None => {}
    }
}

fn validate_block(block: &IPBlock, at: &Path<'_>, errors: &mut Errors) {
    if block.cidr.is_empty() {
        errors.required(&at.child("cidr"), "");
        return;
    }
    if validate_cidr(&block.cidr, &at.child("cidr"), errors).is_none() {
        return;
    }
    for (i, except) in list(&block.except).iter().enumerate() {
        let all = at.child("except");
        let at = all.index(i);
        if validate_cidr(except, &at, errors).is_some() && !is_strict_subset(except, &block.cidr) {
            errors.invalid(&at, except, "must be a strict subset of `cidr`");
        }
    }
}

/// The address as a number of 128 bits, its prefix's length within them, and whether it is of IPv4.
fn bits(cidr: &str) -> Option<(u128, u32, bool)> {
    let (ip, length) = cidr.split_once('/')?;
    let length: u32 = length.parse().ok()?;
    Some(match ip.parse().ok()? {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, length, true),
        IpAddr::V6(v6) => (v6.to_bits(), length, false),
    })
}

fn is_strict_subset(inner: &str, outer: &str) -> bool {
    let (Some((inner, inner_length, v4)), Some((outer, outer_length, outer_v4))) = (bits(inner), bits(outer)) else {
        return false;
    };
    let same = |length: u32| length == 0 || (inner ^ outer) >> (128 - length) == 0;
    v4 == outer_v4 && inner_length > outer_length && same(outer_length)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, expect, faults, row};

    fn policy(spec: Value) -> Value {
        json!({"metadata": {"name": "p", "namespace": "n", "creationTimestamp": "2024-05-01T11:55:00Z"}, "spec": spec})
    }

    #[test]
    fn policies() {
        let made: NetworkPolicy = created(policy(json!({"egress": [{"ports": [{"port": 80}]}]})));
        let spec = serde_json::to_value(made.spec).unwrap();
        assert_eq!(spec["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(spec["egress"][0]["ports"][0], json!({"port": 80, "protocol": "TCP"}));
        let check = |spec: Value, expected: &[&str]| expect(&faults::<NetworkPolicy>(policy(spec)), expected);
        check(json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}), &[]);
        check(
            json!({"policyTypes": ["Ingres"], "podSelector": {"matchLabels": {"-": ""}}}),
            &[
                "spec.podSelector.matchLabels: Invalid value: \"-\"",
                "spec.policyTypes[0]: Unsupported value: \"Ingres\": supported values: \"Ingress\", \"Egress\"",
            ],
        );
        check(
            json!({"policyTypes": ["Ingress", "Egress", "Ingress"]}),
            &[
                "spec.policyTypes: Invalid value: [\"Ingress\",\"Egress\",\"Ingress\"]: may not specify more than two policyTypes",
            ],
        );
        let port = |port: Value, expected: &[&str]| check(json!({"ingress": [{"ports": [port]}]}), expected);
        port(json!({"port": 80, "endPort": 90}), &[]);
        port(
            json!({"protocol": "ICMP"}),
            &[
                "spec.ingress[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
            ],
        );
        port(
            json!({"port": 80, "endPort": 70}),
            &["spec.ingress[0].ports[0].endPort: Invalid value: 70: must be greater than or equal to `port`"],
        );
        port(
            json!({"port": 80, "endPort": 70000}),
            &["spec.ingress[0].ports[0].endPort: Invalid value: 70000: must be between 1 and 65535, inclusive"],
        );
        port(
            json!({"port": "web", "endPort": 80}),
            &["spec.ingress[0].ports[0].endPort: Invalid value: 80: may not be specified when `port` is non-numeric"],
        );
        port(
            json!({"endPort": 80}),
            &["spec.ingress[0].ports[0].endPort: Invalid value: 80: may not be specified when `port` is not specified"],
        );
        let peer = |peer: Value, expected: &[&str]| check(json!({"ingress": [{"from": [peer]}]}), expected);
        peer(json!({}), &["spec.ingress[0].from[0]: Required value: must specify a peer"]);
        peer(
            json!({"podSelector": {}, "ipBlock": {"cidr": ""}}),
            &[
                "spec.ingress[0].from[0].ipBlock.cidr: Required value",
                "spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer",
            ],
        );
        peer(
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["x", "11.0.0.0/16"]}}),
            &[
                "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"x\": must be a valid CIDR value",
                "spec.ingress[0].from[0].ipBlock.except[1]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
            ],
        );
        assert_eq!(row::<NetworkPolicy>(policy(json!({"podSelector": {"matchLabels": {"a": "b"}}}))), "p|a=b|5m");
    }

    #[test]
    fn exceptions_lie_within_their_block() {
        let cases = [
            ("10.1.0.0/16", "10.0.0.0/8", true),
            ("10.0.0.0/8", "10.0.0.0/8", false),
            ("11.0.0.0/16", "10.0.0.0/8", false),
            ("10.0.0.0/24", "0.0.0.0/0", true),
            ("fd00:1::/32", "fd00::/8", true),
            ("10.0.0.0/8", "::/0", false),
        ];
        for (inner, outer, within) in cases {
            assert_eq!(is_strict_subset(inner, outer), within, "{inner} in {outer}");
        }
    }
}
