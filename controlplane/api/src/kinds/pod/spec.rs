//! The rules for a PodSpec as a whole, in a Pod or a template of pods (`ValidatePodSpec`, `ValidatePodTemplateSpec`).

use k8s_openapi::api::core::v1::{PodDNSConfig, PodSpec, PodTemplateSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::containers;
use super::requirements::{Level, validate_amount, validate_resources};
use super::resources::aggregate_requests;
use super::{scheduling, security, volumes};
use crate::kinds::fields::{is_true, list, text};
use crate::quantity::Amount;
use crate::validation::{
    Errors, Path, dns1123_label, dns1123_subdomain, json, qualified_name, validate_annotations, validate_ip,
    validate_labels,
};

/// What a resolver of libc reads.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;
/// `sethostname(2)` on Linux.
const MAX_HOSTNAME: usize = 64;
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
pub(super) const MIRROR_POD: &str = "kubernetes.io/config.mirror";
pub(super) const APP_ARMOR_PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";

/// The spec that is checked, and what its containers may refer to.
pub(super) struct Context<'a> {
    pub(super) spec: &'a PodSpec,
    /// The volumes with no fault.
    volumes: Vec<&'a Volume>,
    /// The spec is a Pod's own, not a template's.
    pub(super) is_pod: bool,
}

impl Context<'_> {
    /// The volume that a mount names.
    pub(super) fn volume(&self, name: &str) -> Option<&Volume> {
        self.volumes.iter().copied().find(|v| v.name == name)
    }
}

/// Reports what is wrong with the spec of a Pod.
pub(super) fn validate_pod_spec(spec: &PodSpec, meta: &ObjectMeta, at: &Path<'_>, errors: &mut Errors) {
    validate_spec(spec, Some(meta), at, errors);
}

/// Reports what is wrong with a template of pods.
pub(crate) fn validate_template(template: &PodTemplateSpec, at: &Path<'_>, errors: &mut Errors) {
    let empty = PodSpec::default();
    let spec = template.spec.as_ref().unwrap_or(&empty);
    if let Some(meta) = &template.metadata {
        if let Some(labels) = &meta.labels {
            validate_labels(labels, &at.child("labels"), errors);
        }
        if let Some(annotations) = &meta.annotations {
            validate_annotations(annotations, &at.child("annotations"), errors);
        }
        validate_pod_annotations(meta, spec, &at.child("annotations"), errors);
    }
    validate_spec(spec, None, &at.child("spec"), errors);
    if !list(&spec.ephemeral_containers).is_empty() {
        let at = at.child("spec");
        errors.forbidden(&at.child("ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

/// Annotations that mean something to a pod.
pub(super) fn validate_pod_annotations(meta: &ObjectMeta, spec: &PodSpec, at: &Path<'_>, errors: &mut Errors) {
    for (key, value) in meta.annotations.iter().flatten() {
        if key == MIRROR_POD && text(&spec.node_name).is_empty() {
            errors.invalid(&at.key(key), value, "must set spec.nodeName if mirror pod annotation is set");
        }
        if key == DELETION_COST {
            let padded = value.starts_with('+') || (value.len() > 1 && value.starts_with('0'));
            if padded || value.parse::<i32>().is_err() {
                errors.invalid(&at.key(key), value, "must be a 32bit integer");
            }
        }
        if let Some(name) = key.strip_prefix(APP_ARMOR_PREFIX) {
            let all = spec.containers.iter().chain(list(&spec.init_containers)).map(|c| &c.name);
            let mut all = all.chain(list(&spec.ephemeral_containers).iter().map(|c| &c.name));
            if !all.any(|n| n == name) {
                errors.invalid(&at.key(key), name, "container not found");
            }
            let known = matches!(value.as_str(), "" | "runtime/default" | "unconfined");
            if !known && !value.starts_with("localhost/") {
                errors.invalid(&at.key(key), value, format!("invalid AppArmor profile name: {value:?}"));
            }
        }
    }
}

fn validate_spec(spec: &PodSpec, pod: Option<&ObjectMeta>, at: &Path<'_>, errors: &mut Errors) {
    if spec.termination_grace_period_seconds.is_none() {
        errors.required(&at.child("terminationGracePeriodSeconds"), "");
    }
    let pod_name = pod.and_then(|m| m.name.as_deref()).unwrap_or_default();
    let is_pod = pod.is_some();
    let good = volumes::validate_volumes(list(&spec.volumes), pod_name, is_pod, &at.child("volumes"), errors);
    let context = Context { spec, volumes: good, is_pod };
    validate_claims(spec, &at.child("resourceClaims"), errors);
    containers::validate_containers(&context, &at.child("containers"), errors);
    containers::validate_init_containers(&context, &at.child("initContainers"), errors);
    containers::validate_ephemeral_containers(&context, &at.child("ephemeralContainers"), errors);
    validate_pod_resources(&context, &at.child("resources"), errors);
    validate_host(&context, at, errors);
    validate_choices(spec, at, errors);
    if let Some(selector) = &spec.node_selector {
        validate_labels(selector, &at.child("nodeSelector"), errors);
    }
    if let Some(security) = &spec.security_context {
        security::validate_pod(&context, security, &at.child("securityContext"), errors);
    }
    if let Some(affinity) = &spec.affinity {
        scheduling::validate_affinity(affinity, &at.child("affinity"), errors);
    }
    validate_dns(spec, &at.child("dnsConfig"), errors);
    for (i, gate) in list(&spec.readiness_gates).iter().enumerate() {
        let gates = at.child("readinessGates");
        let at = gates.index(i);
        errors.invalid_each(&at.child("conditionType"), &gate.condition_type, qualified_name(&gate.condition_type));
    }
    scheduling::validate_gates(list(&spec.scheduling_gates), &at.child("schedulingGates"), errors);
    let spread = list(&spec.topology_spread_constraints);
    scheduling::validate_spread(spread, &at.child("topologySpreadConstraints"), errors);
    validate_names(spec, at, errors);
    scheduling::validate_tolerations(list(&spec.tolerations), &at.child("tolerations"), errors);
    validate_host_aliases(spec, &at.child("hostAliases"), errors);
    if let Some(overhead) = &spec.overhead {
        for (name, amount) in overhead {
            validate_amount(name, &amount.0, &at.child("overhead").child("limits").key(name), errors);
        }
    }
    security::validate_os(spec, at, errors);
    if is_pod {
        validate_token_volumes(spec, &at.child("volumes"), errors);
    }
}

/// A pod that has no service account has no token of one.
fn validate_token_volumes(spec: &PodSpec, at: &Path<'_>, errors: &mut Errors) {
    if !text(&spec.service_account_name).is_empty() {
        return;
    }
    for (i, volume) in list(&spec.volumes).iter().enumerate() {
        let Some(projected) = &volume.projected else { continue };
        for (j, source) in list(&projected.sources).iter().enumerate() {
            if source.service_account_token.is_some() {
                let volume_at = at.index(i);
                let at = volume_at.child("projected");
                let why = "must not be specified when serviceAccountName is not set";
                errors.forbidden(&at.child("sources").index(j).child("serviceAccountToken"), why);
            }
        }
    }
}

fn validate_claims(spec: &PodSpec, at: &Path<'_>, errors: &mut Errors) {
    let claims = list(&spec.resource_claims);
    for (i, claim) in claims.iter().enumerate() {
        let at = at.index(i);
        if claim.name.is_empty() {
            errors.required(&at.child("name"), "");
        } else if claims[..i].iter().any(|c| c.name == claim.name) {
            errors.duplicate(&at.child("name"), &claim.name);
        } else {
            errors.invalid_each(&at.child("name"), &claim.name, dns1123_label(&claim.name));
        }
        match (&claim.resource_claim_name, &claim.resource_claim_template_name) {
            (Some(_), Some(_)) => {
                let detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.invalid(&at, json(claim), detail);
            }
            (None, None) => {
                let detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.invalid(&at, json(claim), detail);
            }
            _ => {}
        }
        for (field, name) in [
            ("resourceClaimName", &claim.resource_claim_name),
            ("resourceClaimTemplateName", &claim.resource_claim_template_name),
        ] {
            if let Some(name) = name {
                errors.invalid_each(&at.child(field), name, dns1123_subdomain(name));
            }
        }
    }
}

fn validate_pod_resources(context: &Context<'_>, at: &Path<'_>, errors: &mut Errors) {
    let spec = context.spec;
    let Some(own) = &spec.resources else { return };
    if own.claims.is_some() {
        errors.forbidden(&at.child("claims"), "claims cannot be set for Resources at pod-level");
    }
    validate_resources(context, own, Level::Pod, at, errors);
    for (name, asked) in aggregate_requests(spec) {
        let whole = own.requests.as_ref().and_then(|r| r.get(name)).and_then(|q| Amount::of(q).ok());
        let whole = whole.unwrap_or_default();
        if asked > whole {
            let detail = format!("must be greater than or equal to aggregate container requests of {asked}");
            errors.invalid(&at.child("requests").key(name), whole.to_string(), detail);
        }
    }
    for (i, container) in spec.containers.iter().enumerate() {
        let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
        for (name, limit) in limits.into_iter().flatten() {
            let Some(whole) = own.limits.as_ref().and_then(|l| l.get(name)) else { continue };
            if Amount::of(limit).ok() > Amount::of(whole).ok() {
                let detail = format!("must be less than or equal to pod limits of {}", whole.0);
                let at = at.child("containers");
                errors.invalid(&at.index(i).key(name).child("limits"), &limit.0, detail);
            }
        }
    }
}

/// What a pod in the host's namespaces may not have.
fn validate_host(context: &Context<'_>, at: &Path<'_>, errors: &mut Errors) {
    let spec = context.spec;
    if is_true(spec.host_network) {
        for (i, container) in spec.containers.iter().enumerate() {
            for (j, port) in list(&container.ports).iter().enumerate() {
                let host = port.host_port.unwrap_or_default();
                if (context.is_pod || host != 0) && host != port.container_port {
                    let containers = at.child("containers");
                    let container_at = containers.index(i);
                    let detail = "must match `containerPort` when `hostNetwork` is true";
                    errors.invalid(&container_at.child("ports").index(j).child("hostPort"), host, detail);
                }
            }
        }
    }
    if spec.host_users == Some(false) {
        for (field, set) in [("hostNetwork", spec.host_network), ("HostPID", spec.host_pid), ("HostIPC", spec.host_ipc)]
        {
            if is_true(set) {
                errors.forbidden(&at.child(field), "when `pod.Spec.HostUsers` is false");
            }
        }
    }
}

/// Fields with one of a few values.
fn validate_choices(spec: &PodSpec, at: &Path<'_>, errors: &mut Errors) {
    for (field, value, known) in [
        ("restartPolicy", text(&spec.restart_policy), &["Always", "OnFailure", "Never"][..]),
        ("dnsPolicy", text(&spec.dns_policy), &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]),
    ] {
        if value.is_empty() {
            errors.required(&at.child(field), "");
        } else if !known.contains(&value) {
            errors.not_supported(&at.child(field), value, known);
        }
    }
    match spec.preemption_policy.as_deref() {
        None | Some("PreemptLowerPriority" | "Never") => {}
        Some("") => errors.required(&at.child("preemptionPolicy"), ""),
        Some(other) => {
            errors.not_supported(&at.child("preemptionPolicy"), other, &["PreemptLowerPriority", "Never"]);
        }
    }
    if let Some(seconds) = spec.active_deadline_seconds.filter(|s| !(1..=i64::from(i32::MAX)).contains(s)) {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.invalid(&at.child("activeDeadlineSeconds"), seconds, detail);
    }
}

/// Names of the pod itself and of other objects.
fn validate_names(spec: &PodSpec, at: &Path<'_>, errors: &mut Errors) {
    for (field, name) in [
        ("serviceAccountName", &spec.service_account_name),
        ("nodeName", &spec.node_name),
        ("priorityClassName", &spec.priority_class_name),
    ] {
        let name = text(name);
        if !name.is_empty() {
            errors.invalid_each(&at.child(field), name, dns1123_subdomain(name));
        }
    }
    if let Some(name) = &spec.runtime_class_name {
        errors.invalid_each(&at.child("runtimeClassName"), name, dns1123_subdomain(name));
    }
    for (field, name) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        let name = text(name);
        if !name.is_empty() {
            errors.invalid_each(&at.child(field), name, dns1123_label(name));
        }
    }
    if let Some(name) = &spec.hostname_override {
        let at = at.child("hostnameOverride");
        if is_true(spec.host_network) {
            errors.forbidden(&at, "may not be specified when hostNetwork is true");
        }
        if is_true(spec.set_hostname_as_fqdn) {
            errors.forbidden(&at, "may not be specified when setHostnameAsFQDN is true");
        }
        errors.invalid_each(&at, name, dns1123_subdomain(name));
        if name.len() > MAX_HOSTNAME {
            errors.too_long(&at, MAX_HOSTNAME);
        }
    }
}

fn validate_host_aliases(spec: &PodSpec, at: &Path<'_>, errors: &mut Errors) {
    for (i, alias) in list(&spec.host_aliases).iter().enumerate() {
        let at = at.index(i);
        validate_ip(&alias.ip, &at.child("ip"), errors);
        for (j, name) in list(&alias.hostnames).iter().enumerate() {
            errors.invalid_each(&at.child("hostnames").index(j), name, dns1123_subdomain(name));
        }
    }
}

fn validate_dns(spec: &PodSpec, at: &Path<'_>, errors: &mut Errors) {
    let none = text(&spec.dns_policy) == "None";
    let Some(config) = &spec.dns_config else {
        if none {
            errors.required(at, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        return;
    };
    let PodDNSConfig { nameservers, options, searches } = config;
    let (nameservers, searches) = (list(nameservers), list(searches));
    if none && nameservers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        return errors.required(&at.child("nameservers"), detail);
    }
    if nameservers.len() > MAX_NAMESERVERS {
        let detail = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        errors.invalid(&at.child("nameservers"), json(&nameservers), detail);
    }
    for (i, server) in nameservers.iter().enumerate() {
        validate_ip(server, &at.child("nameservers").index(i), errors);
    }
    if searches.len() > MAX_SEARCHES {
        let detail = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.invalid(&at.child("searches"), json(&searches), detail);
    }
    let chars = searches.iter().map(|s| s.len() + 1).sum::<usize>().saturating_sub(1);
    if chars > MAX_SEARCH_CHARS {
        let detail =
            format!("must not have more than {MAX_SEARCH_CHARS} characters (including spaces) in the search list");
        errors.invalid(&at.child("searches"), json(&searches), detail);
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, s)| s.as_str() != ".") {
        let name = search.strip_suffix('.').unwrap_or(search);
        // A search path may have underscores where names of objects may not.
        errors.invalid_each(&at.child("searches").index(i), name, dns1123_subdomain(&name.replace('_', "-")));
    }
    for (i, option) in list(options).iter().enumerate() {
        if text(&option.name).is_empty() {
            errors.required(&at.child("options").index(i), "must not be empty");
        }
    }
}
