//! Node: a machine that runs pods. Its agent writes its status; people mark and taint it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, Taint};

use super::fields::{canonical_resources, is_true, list, omit_empty, text};
use super::meta::{age_cell, name_cell, status_apart};
use super::pod::{validate_amount, validate_effect};
use crate::kind::{Info, Resource, Subresource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path, json, label_value, one_per_family, qualified_name, validate_cidr};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE: &str = "kubernetes.io/role";

impl Resource for Node {
    const INFO: Info = Info {
        short_names: &["no"],
        subresources: &[Subresource::Status, Subresource::Proxy],
        selectable_fields: &["spec.unschedulable"],
        columns: &[
            Column::NAME,
            Column::text("Status", "The status of the node"),
            Column::text("Roles", "The roles of the node"),
            Column::AGE,
            Column::text("Version", "Kubelet Version reported by the node."),
            Column::text("Internal-IP", "List of addresses reachable to the node.").wide(),
            Column::text("External-IP", "List of addresses reachable to the node.").wide(),
            Column::text(
                "OS-Image",
                "OS Image reported by the node from /etc/os-release (e.g. Debian GNU/Linux 7 (wheezy)).",
            )
            .wide(),
            Column::text(
                "Kernel-Version",
                "Kernel Version reported by the node from 'uname -r' (e.g. 3.16.0-0.bpo.4-amd64).",
            )
            .wide(),
            Column::text(
                "Container-Runtime",
                "ContainerRuntime Version reported by the node through runtime remote API (e.g. containerd://1.4.2).",
            )
            .wide(),
        ],
        ..Info::cluster("nodes", "node")
    };

    fn apply_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        omit_empty!(spec.pod_cidr, spec.pod_cidrs, spec.unschedulable, spec.taints, spec.provider_id);
        // One range and the list of ranges are the same thing; the lone one wins.
        match (&spec.pod_cidr, list(&spec.pod_cidrs).first()) {
            (Some(one), first) if first != Some(one) => spec.pod_cidrs = Some(vec![one.clone()]),
            (None, Some(first)) => spec.pod_cidr = Some(first.clone()),
            _ => {}
        }
        if let Some(status) = &mut self.status {
            if status.allocatable.is_none() {
                status.allocatable.clone_from(&status.capacity);
            }
            canonical_resources(status.capacity.as_mut());
            canonical_resources(status.allocatable.as_mut());
        }
    }

    fn prepare_create(&mut self) {
        self.status.get_or_insert_default();
    }

    status_apart!();

    fn validate(&self, errors: &mut Errors) {
        let empty = NodeSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let meta = Path::new("metadata");
        validate_taints(list(&spec.taints), &meta.child("taints"), errors);
        let at = Path::new("status");
        if let Some(status) = &self.status {
            for (field, resources) in [("capacity", &status.capacity), ("allocatable", &status.allocatable)] {
                for (name, amount) in resources.iter().flatten() {
                    validate_amount(name, &amount.0, &at.child(field).child(name), errors);
                }
            }
            let addresses = list(&status.addresses);
            for (i, address) in addresses.iter().enumerate().filter(|(i, a)| addresses[..*i].contains(a)) {
                errors.duplicate(&at.child("addresses").index(i), json(address));
            }
        }
        let spec_at = Path::new("spec");
        let at = spec_at.child("podCIDRs");
        let ranges = list(&spec.pod_cidrs);
        let mut parsed: Vec<IpAddr> = Vec::new();
        for (i, range) in ranges.iter().enumerate() {
            parsed.extend(validate_cidr(range, &at.index(i), errors));
        }
        if parsed.len() == ranges.len() && !one_per_family(&parsed) {
            errors.invalid(&at, json(&ranges), "may specify no more than one CIDR for each IP family");
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let (Some(spec), Some(old)) = (&self.spec, &old.spec) else { return };
        let at = Path::new("spec");
        if !list(&old.pod_cidrs).is_empty() && spec.pod_cidrs != old.pod_cidrs {
            let why = "node updates may not change podCIDR except from \"\" to valid";
            errors.forbidden(&at.child("podCIDRs"), why);
        }
        if old.provider_id.is_some() && spec.provider_id != old.provider_id {
            let why = "node updates may not change providerID except from \"\" to valid";
            errors.forbidden(&at.child("providerID"), why);
        }
        if spec.external_id != old.external_id {
            errors.forbidden(&at.child("externalID"), "may not be updated");
        }
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut Errors) {
        self.validate(errors);
    }

    fn selectable_field(&self, name: &str) -> Cow<'_, str> {
        let unschedulable = self.spec.as_ref().is_some_and(|s| is_true(s.unschedulable));
        Cow::Borrowed(match name {
            "spec.unschedulable" if unschedulable => "true",
            "spec.unschedulable" => "false",
            _ => "",
        })
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let (no_spec, no_status) = (NodeSpec::default(), NodeStatus::default());
        let spec = self.spec.as_ref().unwrap_or(&no_spec);
        let status = self.status.as_ref().unwrap_or(&no_status);
        let info = status.node_info.clone().unwrap_or_default();
        let known = |s: String| if s.is_empty() { "<unknown>".to_owned() } else { s };
        let address = |kind: &str| {
            let found = list(&status.addresses).iter().find(|a| a.type_ == kind);
            found.map_or_else(|| "<none>".to_owned(), |a| a.address.clone())
        };
        let ready = list(&status.conditions).iter().find(|c| c.type_ == "Ready");
        let mut state = match ready.map(|c| c.status.as_str()) {
            Some("True") => "Ready",
            Some(_) => "NotReady",
            None => "Unknown",
        }
        .to_owned();
        if is_true(spec.unschedulable) {
            state.push_str(",SchedulingDisabled");
        }
        vec![
            name_cell(&self.metadata),
            state.into(),
            roles(self).into(),
            age_cell(&self.metadata, now),
            info.kubelet_version.into(),
            address("InternalIP").into(),
            address("ExternalIP").into(),
            known(info.os_image).into(),
            known(info.kernel_version).into(),
            known(info.container_runtime_version).into(),
        ]
    }
}

fn roles(node: &Node) -> String {
    let mut roles = BTreeSet::new();
    for (key, value) in node.metadata.labels.iter().flatten() {
        match key.strip_prefix(ROLE_PREFIX) {
            Some(role) if !role.is_empty() => roles.insert(role),
            None if key == ROLE && !value.is_empty() => roles.insert(value),
            _ => false,
        };
    }
    if roles.is_empty() { "<none>".to_owned() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

fn validate_taints(taints: &[Taint], at: &Path<'_>, errors: &mut Errors) {
    for (i, taint) in taints.iter().enumerate() {
        let at = at.index(i);
        errors.invalid_each(&at.child("key"), &taint.key, qualified_name(&taint.key));
        let broken = label_value(text(&taint.value));
        if !broken.is_empty() {
            errors.invalid(&at.child("value"), text(&taint.value), broken.join(";"));
        }
        if taint.effect.is_empty() {
            errors.required(&at.child("effect"), "");
        } else {
            validate_effect(&taint.effect, &at.child("effect"), errors);
        }
        if taints[..i].iter().any(|t| t.key == taint.key && t.effect == taint.effect) {
            errors.duplicate(&at, json(taint));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, expect, faults, row, update_faults};

    #[test]
    fn nodes() {
        let node = |spec: Value, status: Value| {
            json!({
                "metadata": {"name": "n", "creationTimestamp": "2024-05-01T11:55:00Z", "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "edge"}},
                "spec": spec, "status": status,
            })
        };
        let made: Node = created(node(json!({"podCIDR": "10.0.0.0/24"}), json!({"capacity": {"cpu": "4000m"}})));
        assert_eq!(made.spec.as_ref().unwrap().pod_cidrs, Some(vec!["10.0.0.0/24".to_owned()]));
        assert_eq!(made.status.as_ref().unwrap().allocatable.as_ref().unwrap()["cpu"].0, "4");
        expect(&faults::<Node>(node(json!({}), json!({}))), &[]);
        expect(
            &faults::<Node>(node(
                json!({"podCIDRs": ["x"], "taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}, {"key": "b", "effect": "Never"}]}),
                json!({"capacity": {"pods": "1.5"}, "allocatable": {}}),
            )),
            &[
                "metadata.taints[1]: Duplicate value: {",
                "metadata.taints[2].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\"",
                "status.capacity.pods: Invalid value: \"1500m\": must be an integer",
                "spec.podCIDRs[0]: Invalid value: \"x\": must be a valid CIDR value",
            ],
        );
        let change = |old: Value, new: Value| update_faults::<Node>(node(old, json!({})), node(new, json!({})));
        expect(
            &change(json!({"podCIDR": "10.0.0.0/24"}), json!({"podCIDR": "10.0.1.0/24"})),
            &["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"],
        );
        expect(&change(json!({}), json!({"podCIDR": "10.0.1.0/24", "unschedulable": true})), &[]);
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.1.1.1"}],
            "nodeInfo": {"kubeletVersion": "v1", "osImage": "Debian", "kernelVersion": "", "containerRuntimeVersion": "x://1", "architecture": "",
                "bootID": "", "kubeProxyVersion": "", "machineID": "", "operatingSystem": "", "systemUUID": ""}});
        assert_eq!(
            row::<Node>(node(json!({"unschedulable": true}), ready)),
            "n|Ready,SchedulingDisabled|control-plane,edge|5m|v1|10.1.1.1|<none>|Debian|<unknown>|x://1"
        );
    }
}
