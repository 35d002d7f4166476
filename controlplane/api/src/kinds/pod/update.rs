//! What may change in a Pod once it is made: its spec next to nothing, its status by rules (`ValidatePodUpdate`,
//! `ValidatePodStatusUpdate`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, NodeSelectorTerm, Pod, PodSchedulingGate, PodSpec, Toleration,
};
use serde_json::Value;

use super::resources::is_sidecar;
use super::spec::{APP_ARMOR_PREFIX, MIRROR_POD};
use crate::kinds::fields::{list, text};
use crate::validation::{
    Errors, IMMUTABLE, Path, dns1123_subdomain, json, one_per_family, qualified_name, validate_ip,
};

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Reports what an update of a Pod may not change.
pub(super) fn validate_update(new: &Pod, old: &Pod, errors: &mut Errors) {
    validate_annotation_update(new, old, errors);
    let (Some(spec), Some(old_spec)) = (&new.spec, &old.spec) else { return };
    let at = Path::new("spec");
    for (field, new, old) in [
        ("containers", &spec.containers[..], &old_spec.containers[..]),
        ("initContainers", list(&spec.init_containers), list(&old_spec.init_containers)),
    ] {
        if new.len() != old.len() {
            return errors.forbidden(&at.child(field), "pod updates may not add or remove containers");
        }
    }
    if !validate_deadline(spec, old_spec, &at.child("activeDeadlineSeconds"), errors) {
        return;
    }
    let tolerations = at.child("tolerations");
    validate_tolerations(list(&spec.tolerations), list(&old_spec.tolerations), &tolerations, errors);
    validate_gates(
        list(&spec.scheduling_gates),
        list(&old_spec.scheduling_gates),
        &at.child("schedulingGates"),
        errors,
    );
    if spec == old_spec {
        return;
    }
    let mut munged = spec.clone();
    restore_images(&mut munged.containers, &old_spec.containers);
    restore_images(munged.init_containers.as_deref_mut().unwrap_or_default(), list(&old_spec.init_containers));
    munged.active_deadline_seconds = old_spec.active_deadline_seconds;
    munged.scheduling_gates.clone_from(&old_spec.scheduling_gates);
    munged.tolerations.clone_from(&old_spec.tolerations);
    let was_negative = old_spec.termination_grace_period_seconds.is_some_and(|s| s < 0);
    if was_negative && munged.termination_grace_period_seconds == Some(1) {
        munged.termination_grace_period_seconds = old_spec.termination_grace_period_seconds;
    }
    if !list(&old_spec.scheduling_gates).is_empty() {
        relax_gated(&mut munged, old_spec, &at, errors);
    }
    if munged != *old_spec {
        let diff = differences(&json(old_spec), &json(&munged));
        errors.forbidden(&at, format!("pod updates may not change fields other than {UPDATABLE}\n{diff}"));
    }
}

/// Pods that take no ephemeral containers. Nothing else is said of such a pod.
pub(super) fn refuses_ephemeral(old: &Pod) -> Option<&'static str> {
    let is_static = old.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR_POD));
    is_static.then_some("static pods do not support ephemeral containers")
}

/// Reports ephemeral containers that were changed or are gone: they may only be added
/// (`ValidatePodEphemeralContainersUpdate`).
pub(super) fn validate_ephemeral(new: &Pod, old: &Pod, errors: &mut Errors) {
    validate_annotation_update(new, old, errors);
    let of = |pod: &Pod| pod.spec.as_ref().and_then(|s| s.ephemeral_containers.clone()).unwrap_or_default();
    let root = Path::new("spec");
    let at = root.child("ephemeralContainers");
    let present = of(new);
    for old in of(old) {
        // A patch does not keep their order.
        match present.iter().find(|c| c.name == old.name) {
            None => errors.forbidden(&at, format!("existing ephemeral containers {:?} may not be removed\n", old.name)),
            Some(new) if *new != old => {
                let diff = differences(&json(&old), &json(new));
                errors
                    .forbidden(&at, format!("existing ephemeral containers {:?} may not be changed\n{diff}", old.name));
            }
            Some(_) => {}
        }
    }
}

fn restore_images(containers: &mut [Container], old: &[Container]) {
    for (container, old) in containers.iter_mut().zip(old) {
        container.image.clone_from(&old.image);
    }
}

fn validate_annotation_update(new: &Pod, old: &Pod, errors: &mut Errors) {
    let root = Path::new("metadata");
    let at = root.child("annotations");
    let empty = Default::default();
    let (new, old) =
        (new.metadata.annotations.as_ref().unwrap_or(&empty), old.metadata.annotations.as_ref().unwrap_or(&empty));
    for (key, _) in old.iter().filter(|(k, v)| new.get(*k) != Some(v)) {
        if key.starts_with(APP_ARMOR_PREFIX) {
            errors.forbidden(&at.key(key), "may not remove or update AppArmor annotations");
        }
        if key == MIRROR_POD {
            errors.forbidden(&at.key(key), "may not remove or update mirror pod annotation");
        }
    }
    for key in new.keys().filter(|k| !old.contains_key(*k)) {
        if key.starts_with(APP_ARMOR_PREFIX) {
            errors.forbidden(&at.key(key), "may not add AppArmor annotations");
        }
        if key == MIRROR_POD {
            errors.forbidden(&at.key(key), "may not add mirror pod annotation");
        }
    }
}

/// A deadline may be set, or come nearer. False when nothing further should be said.
fn validate_deadline(new: &PodSpec, old: &PodSpec, at: &Path<'_>, errors: &mut Errors) -> bool {
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            errors.invalid(at, seconds, "must be between 0 and 2147483647, inclusive");
            false
        }
        (Some(seconds), Some(before)) if before < seconds => {
            errors.invalid(at, seconds, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            errors.invalid(at, Value::Null, "must not update from a positive integer to nil value");
            true
        }
        _ => true,
    }
}

fn validate_tolerations(new: &[Toleration], old: &[Toleration], at: &Path<'_>, errors: &mut Errors) {
    let kept = |old: &Toleration| {
        new.iter()
            .any(|n| (&n.key, &n.operator, &n.value, &n.effect) == (&old.key, &old.operator, &old.value, &old.effect))
    };
    if !old.iter().all(kept) {
        errors.forbidden(at, "existing toleration can not be modified except its tolerationSeconds");
    }
}

fn validate_gates(new: &[PodSchedulingGate], old: &[PodSchedulingGate], at: &Path<'_>, errors: &mut Errors) {
    for (i, gate) in new.iter().enumerate().filter(|(_, g)| !old.contains(g)) {
        let why = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
        errors.forbidden(&at.index(i).child("name"), why);
    }
}

/// A pod that is held back may still be told more narrowly where to go.
fn relax_gated(munged: &mut PodSpec, old: &PodSpec, at: &Path<'_>, errors: &mut Errors) {
    let lost = |(k, v): (&String, &String)| munged.node_selector.as_ref().and_then(|s| s.get(k)) != Some(v);
    if old.node_selector.iter().flatten().any(lost) {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.invalid(&at.child("nodeSelector"), json(&munged.node_selector), detail);
    }
    munged.node_selector.clone_from(&old.node_selector);

    let old_affinity = old.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let new_affinity = munged.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    if old_affinity == new_affinity {
        return;
    }
    let terms = |a: Option<&k8s_openapi::api::core::v1::NodeAffinity>| {
        a.and_then(|a| a.required_during_scheduling_ignored_during_execution.clone())
            .map(|s| s.node_selector_terms)
            .unwrap_or_default()
    };
    let (old_terms, new_terms) = (terms(old_affinity), terms(new_affinity));
    let affinity_at = at.child("affinity");
    let node_at = affinity_at.child("nodeAffinity");
    let required_at = node_at.child("requiredDuringSchedulingIgnoredDuringExecution");
    let terms_at = required_at.child("nodeSelectorTerms");
    if !old_terms.is_empty() && old_terms.len() != new_terms.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.invalid(&terms_at, json(&new_terms), detail);
    } else {
        for (i, (old, new)) in old_terms.iter().zip(&new_terms).enumerate() {
            if !only_adds(new, old) {
                let detail = "only additions are allowed (no mutations or deletions)";
                errors.invalid(&terms_at.index(i), json(new), detail);
            }
        }
    }
    let mut affinity = munged.affinity.take().unwrap_or_default();
    affinity.node_affinity = old_affinity.cloned();
    let is_empty = affinity == Default::default();
    munged.affinity = if is_empty && old.affinity.is_none() { None } else { Some(affinity) };
}

fn only_adds(new: &NodeSelectorTerm, old: &NodeSelectorTerm) -> bool {
    let (ne, oe) = (list(&new.match_expressions), list(&old.match_expressions));
    let (nf, of) = (list(&new.match_fields), list(&old.match_fields));
    if oe.is_empty() && of.is_empty() {
        return ne.is_empty() && nf.is_empty();
    }
    ne.starts_with(oe) && nf.starts_with(of)
}

/// The fields that differ, one a line: what was with `-`, what would be with `+`.
fn differences(old: &Value, new: &Value) -> String {
    let mut out = String::new();
    collect(old, new, "", &mut out);
    out
}

fn collect(old: &Value, new: &Value, path: &str, out: &mut String) {
    if old == new {
        return;
    }
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let dot = if path.is_empty() { "" } else { "." };
                let at = format!("{path}{dot}{key}");
                collect(a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), &at, out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                collect(a, b, &format!("{path}[{i}]"), out);
            }
        }
        _ => {
            if !old.is_null() {
                out.push_str(&format!("- {path}: {old}\n"));
            }
            if !new.is_null() {
                out.push_str(&format!("+ {path}: {new}\n"));
            }
        }
    }
}

/// Reports what a new status may not say.
pub(super) fn validate_status_update(new: &Pod, old: &Pod, errors: &mut Errors) {
    validate_annotation_update(new, old, errors);
    let (Some(status), Some(spec)) = (&new.status, &old.spec) else { return };
    let empty = Default::default();
    let old_status = old.status.as_ref().unwrap_or(&empty);
    let meta_at = Path::new("metadata");
    for (i, condition) in list(&status.conditions).iter().enumerate() {
        if !matches!(condition.type_.as_str(), "PodScheduled" | "Ready" | "Initialized") {
            let conditions = meta_at.child("conditions");
            let at = conditions.index(i);
            errors.invalid_each(&at.child("Type"), &condition.type_, qualified_name(&condition.type_));
        }
    }
    let at = Path::new("status");
    let nominated = text(&status.nominated_node_name);
    if nominated != text(&old_status.nominated_node_name) && !nominated.is_empty() {
        errors.invalid_each(&at.child("nominatedNodeName"), nominated, dns1123_subdomain(nominated));
    }
    if text(&status.qos_class) != text(&old_status.qos_class) {
        errors.invalid(&at.child("qosClass"), text(&status.qos_class), IMMUTABLE);
    }
    let policy = text(&spec.restart_policy);
    for (field, new, old, policy) in [
        ("containerStatuses", &status.container_statuses, &old_status.container_statuses, policy),
        ("initContainerStatuses", &status.init_container_statuses, &old_status.init_container_statuses, policy),
        (
            "ephemeralContainerStatuses",
            &status.ephemeral_container_statuses,
            &old_status.ephemeral_container_statuses,
            "Never",
        ),
    ] {
        validate_transitions(list(new), list(old), spec, policy, &at.child(field), errors);
    }
    validate_addresses(new, &at, errors);
}

/// A container that ended for good stays ended.
fn validate_transitions(
    new: &[ContainerStatus],
    old: &[ContainerStatus],
    spec: &PodSpec,
    policy: &str,
    at: &Path<'_>,
    errors: &mut Errors,
) {
    if policy == "Always" {
        return;
    }
    fn ended(status: &ContainerStatus) -> Option<i32> {
        status.state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code)
    }
    for (i, before) in old.iter().enumerate() {
        let Some(code) = ended(before) else { continue };
        let restarts = list(&spec.init_containers).iter().any(|c| c.name == before.name && is_sidecar(c));
        // A container may have a restart policy, and rules, of its own.
        let own = spec.containers.iter().find(|c| c.name == before.name);
        let own = own.is_some_and(|c| c.restart_policy.is_some() || !list(&c.restart_policy_rules).is_empty());
        if restarts || own || (code != 0 && policy == "OnFailure") {
            continue;
        }
        if new.iter().any(|n| n.name == before.name && ended(n).is_none()) {
            errors.forbidden(&at.index(i).child("state"), "may not be transitioned to non-terminated state");
        }
    }
}

fn validate_addresses(pod: &Pod, at: &Path<'_>, errors: &mut Errors) {
    let Some(status) = &pod.status else { return };
    let pod_ips: Vec<&str> = list(&status.pod_ips).iter().map(|ip| ip.ip.as_str()).collect();
    validate_ips(&pod_ips, json(&status.pod_ips), &at.child("podIPs"), errors);
    let host_ips: Vec<&str> = list(&status.host_ips).iter().map(|ip| ip.ip.as_str()).collect();
    let host_at = at.child("hostIPs");
    if let Some(first) = host_ips.first().filter(|ip| **ip != text(&status.host_ip)) {
        errors.invalid(&host_at.index(0).child("ip"), *first, "must be equal to `hostIP`");
    }
    validate_ips(&host_ips, json(&status.host_ips), &host_at, errors);
}

fn validate_ips(ips: &[&str], shown: Value, at: &Path<'_>, errors: &mut Errors) {
    let mut parsed: Vec<IpAddr> = Vec::with_capacity(ips.len());
    for (i, ip) in ips.iter().enumerate() {
        parsed.extend(validate_ip(ip, &at.index(i), errors));
    }
    if !one_per_family(&parsed) {
        errors.invalid(at, shown, "may specify no more than one IP for each IP family");
    }
    for (i, ip) in ips.iter().enumerate().filter(|(i, ip)| ips[..*i].contains(ip)) {
        errors.duplicate(&at.index(i), json(&serde_json::json!({ "ip": ip })));
    }
}
