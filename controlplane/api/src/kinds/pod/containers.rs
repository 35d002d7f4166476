//! The rules for the containers of a pod, of all three sorts (`validateContainers`, `validateInitContainers`,
//! `validateEphemeralContainers`).

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, ContainerResizePolicy, ContainerRestartRule, EphemeralContainer, ResourceRequirements,
    VolumeDevice, VolumeMount,
};

use super::probes::validate_lifecycle_and_probes;
use super::requirements::{Level, validate_resources};
use super::resources::is_sidecar;
use super::spec::Context;
use super::volumes::{validate_descending_path, validate_no_backsteps};
use super::{env, security};
use crate::kinds::fields::{is_true, list, text};
use crate::validation::{Errors, Path, dns1123_label, json, port_name, port_number};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
/// `spec.containers[*].restartPolicyRules` has at most this many.
const MAX_RESTART_RULES: usize = 20;

/// Regular containers: at least one, with names of their own.
pub(super) fn validate_containers(context: &Context<'_>, at: &Path<'_>, errors: &mut Errors) {
    let containers = &context.spec.containers;
    if containers.is_empty() {
        errors.required(at, "");
        return;
    }
    for (i, container) in containers.iter().enumerate() {
        let at = at.index(i);
        validate_common(context, container, &at, errors);
        if containers[..i].iter().any(|c| c.name == container.name) {
            errors.duplicate(&at.child("name"), &container.name);
        }
        validate_lifecycle_and_probes(context, container, &at, errors);
        validate_restart(container, &at, errors);
        validate_only_for_pod(context, text(&container.image), &at, errors);
    }
    let mut taken = HashSet::new();
    for (i, container) in containers.iter().enumerate() {
        validate_host_ports(list(&container.ports), &mut taken, &at.index(i), errors);
    }
}

/// Init containers, which run one by one, and the sidecars among them.
pub(super) fn validate_init_containers(context: &Context<'_>, at: &Path<'_>, errors: &mut Errors) {
    const WHY: &str = "may not be set for init containers without restartPolicy=Always";
    let containers = list(&context.spec.init_containers);
    for (i, container) in containers.iter().enumerate() {
        let list_at = at;
        let at = at.index(i);
        validate_common(context, container, &at, errors);
        validate_restart(container, &at, errors);
        let mut others = context.spec.containers.iter().chain(&containers[..i]);
        if !container.name.is_empty() && others.any(|c| c.name == container.name) {
            errors.duplicate(&at.child("name"), &container.name);
        }
        // They run one after the other, so each may use what another one used; the path is the list's.
        validate_host_ports(list(&container.ports), &mut HashSet::new(), &list_at.index(0), errors);
        if is_sidecar(container) {
            validate_lifecycle_and_probes(context, container, &at, errors);
        } else {
            for (field, set) in [
                ("lifecycle", container.lifecycle.is_some()),
                ("livenessProbe", container.liveness_probe.is_some()),
                ("readinessProbe", container.readiness_probe.is_some()),
                ("startupProbe", container.startup_probe.is_some()),
            ] {
                if set {
                    errors.forbidden(&at.child(field), WHY);
                }
            }
        }
        validate_only_for_pod(context, text(&container.image), &at, errors);
    }
}

/// Ephemeral containers, which have no part in the pod's work and so may have few fields.
pub(super) fn validate_ephemeral_containers(context: &Context<'_>, at: &Path<'_>, errors: &mut Errors) {
    const WHY: &str = "cannot be set for an Ephemeral Container";
    let spec = context.spec;
    let containers = list(&spec.ephemeral_containers);
    for (i, ephemeral) in containers.iter().enumerate() {
        let at = at.index(i);
        let container = as_container(ephemeral);
        validate_common(context, &container, &at, errors);
        let named = |name: &str| spec.containers.iter().chain(list(&spec.init_containers)).any(|c| c.name == name);
        if named(&ephemeral.name) || containers[..i].iter().any(|c| c.name == ephemeral.name) {
            errors.duplicate(&at.child("name"), &ephemeral.name);
        }
        let target = text(&ephemeral.target_container_name);
        if !target.is_empty() && !named(target) {
            errors.not_found(&at.child("targetContainerName"), target);
        }
        let resources = container.resources.clone().unwrap_or_default();
        for (field, set) in [
            ("ports", container.ports.is_some()),
            ("resources", resources != ResourceRequirements::default()),
            ("resizePolicy", container.resize_policy.is_some()),
            ("restartPolicy", container.restart_policy.is_some()),
            ("restartPolicyRules", container.restart_policy_rules.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
            ("lifecycle", container.lifecycle.is_some()),
        ] {
            if set {
                errors.forbidden(&at.child(field), WHY);
            }
        }
        for (i, mount) in list(&container.volume_mounts).iter().enumerate() {
            let mounts = at.child("volumeMounts");
            let at = mounts.index(i);
            if !text(&mount.sub_path).is_empty() {
                errors.forbidden(&at.child("subPath"), WHY);
            }
            if !text(&mount.sub_path_expr).is_empty() {
                errors.forbidden(&at.child("subPathExpr"), WHY);
            }
        }
        validate_only_for_pod(context, text(&container.image), &at, errors);
    }
}

fn as_container(e: &EphemeralContainer) -> Container {
    let e = e.clone();
    Container {
        args: e.args,
        command: e.command,
        env: e.env,
        env_from: e.env_from,
        image: e.image,
        image_pull_policy: e.image_pull_policy,
        lifecycle: e.lifecycle,
        liveness_probe: e.liveness_probe,
        name: e.name,
        ports: e.ports,
        readiness_probe: e.readiness_probe,
        resize_policy: e.resize_policy,
        resources: e.resources,
        restart_policy: e.restart_policy,
        restart_policy_rules: e.restart_policy_rules,
        security_context: e.security_context,
        startup_probe: e.startup_probe,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        tty: e.tty,
        volume_devices: e.volume_devices,
        volume_mounts: e.volume_mounts,
        working_dir: e.working_dir,
    }
}

fn validate_only_for_pod(context: &Context<'_>, image: &str, at: &Path<'_>, errors: &mut Errors) {
    if context.is_pod && image.trim().len() != image.len() {
        errors.invalid(&at.child("image"), image, "must not have leading or trailing whitespace");
    }
}

/// The rules that containers of all sorts have.
fn validate_common(context: &Context<'_>, container: &Container, at: &Path<'_>, errors: &mut Errors) {
    if container.name.is_empty() {
        errors.required(&at.child("name"), "");
    } else {
        errors.invalid_each(&at.child("name"), &container.name, dns1123_label(&container.name));
    }
    if text(&container.image).is_empty() {
        errors.required(&at.child("image"), "");
    }
    match text(&container.termination_message_policy) {
        "File" | "FallbackToLogsOnError" => {}
        "" => errors.required(&at.child("terminationMessagePolicy"), ""),
        other => {
            errors.not_supported(&at.child("terminationMessagePolicy"), other, &["File", "FallbackToLogsOnError"]);
        }
    }
    validate_ports(list(&container.ports), &at.child("ports"), errors);
    env::validate_env(list(&container.env), &at.child("env"), errors);
    env::validate_env_from(list(&container.env_from), &at.child("envFrom"), errors);
    validate_mounts(context, container, &at.child("volumeMounts"), errors);
    validate_devices(context, container, &at.child("volumeDevices"), errors);
    validate_pull_policy(text(&container.image_pull_policy), &at.child("imagePullPolicy"), errors);
    if let Some(resources) = &container.resources {
        validate_resources(context, resources, Level::Container, &at.child("resources"), errors);
    }
    validate_resize_policy(context, list(&container.resize_policy), &at.child("resizePolicy"), errors);
    if let Some(security) = &container.security_context {
        security::validate_container(context, security, &at.child("securityContext"), errors);
    }
}

fn validate_ports(ports: &[ContainerPort], at: &Path<'_>, errors: &mut Errors) {
    for (i, port) in ports.iter().enumerate() {
        let at = at.index(i);
        let name = text(&port.name);
        if !name.is_empty() {
            let broken = port_name(name);
            if broken.is_empty() && ports[..i].iter().any(|p| text(&p.name) == name) {
                errors.duplicate(&at.child("name"), name);
            }
            errors.invalid_each(&at.child("name"), name, broken);
        }
        if port.container_port == 0 {
            errors.required(&at.child("containerPort"), "");
        } else {
            for detail in port_number(port.container_port) {
                errors.invalid(&at.child("containerPort"), port.container_port, detail);
            }
        }
        if let Some(host_port) = port.host_port.filter(|p| *p != 0) {
            for detail in port_number(host_port) {
                errors.invalid(&at.child("hostPort"), host_port, detail);
            }
        }
        validate_protocol(text(&port.protocol), &at.child("protocol"), errors);
    }
}

/// The protocol of a port.
pub(crate) fn validate_protocol(protocol: &str, at: &Path<'_>, errors: &mut Errors) {
    match protocol {
        "" => errors.required(at, ""),
        _ if PROTOCOLS.contains(&protocol) => {}
        other => errors.not_supported(at, other, &PROTOCOLS),
    }
}

fn validate_host_ports(ports: &[ContainerPort], taken: &mut HashSet<String>, at: &Path<'_>, errors: &mut Errors) {
    for (i, port) in ports.iter().enumerate() {
        let number = port.host_port.unwrap_or_default();
        if number == 0 {
            continue;
        }
        let key = format!("{}/{}/{number}", text(&port.protocol), text(&port.host_ip));
        if taken.contains(&key) {
            errors.duplicate(&at.child("ports").index(i).child("hostPort"), &key);
        }
        taken.insert(key);
    }
}

/// When an image is pulled.
pub(super) fn validate_pull_policy(policy: &str, at: &Path<'_>, errors: &mut Errors) {
    match policy {
        "" => errors.required(at, ""),
        _ if PULL_POLICIES.contains(&policy) => {}
        other => errors.not_supported(at, other, &PULL_POLICIES),
    }
}

fn validate_mounts(context: &Context<'_>, container: &Container, at: &Path<'_>, errors: &mut Errors) {
    let mounts = list(&container.volume_mounts);
    let devices = list(&container.volume_devices);
    for (i, mount) in mounts.iter().enumerate() {
        let list_at = at;
        let at = at.index(i);
        if mount.name.is_empty() {
            errors.required(&at.child("name"), "");
        }
        let volume = context.volume(&mount.name);
        if volume.is_none() {
            errors.not_found(&at.child("name"), &mount.name);
        }
        if mount.mount_path.is_empty() {
            errors.required(&at.child("mountPath"), "");
        }
        if mounts[..i].iter().any(|m| m.mount_path == mount.mount_path) {
            errors.invalid(&at.child("mountPath"), &mount.mount_path, "must be unique");
        }
        if devices.iter().any(|d| d.name == mount.name) {
            errors.invalid(&at.child("name"), &mount.name, "must not already exist in volumeDevices");
        }
        if devices.iter().any(|d| d.device_path == mount.mount_path) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.invalid(&at.child("mountPath"), &mount.mount_path, detail);
        }
        let sub_path = text(&mount.sub_path);
        let expression = text(&mount.sub_path_expr);
        if volume.is_some_and(|v| v.image.is_some()) {
            for (field, value) in [("subPath", sub_path), ("subPathExpr", expression)] {
                if !value.is_empty() {
                    errors.invalid(&at.child(field), value, "not allowed in image volume sources");
                }
            }
        }
        validate_descending_path(sub_path, &list_at.child("subPath"), errors);
        if !expression.is_empty() && !sub_path.is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.invalid(&at.child("subPathExpr"), expression, detail);
        }
        validate_descending_path(expression, &list_at.child("subPathExpr"), errors);
        validate_propagation(container, mount, list_at, errors);
    }
}

fn validate_propagation(container: &Container, mount: &VolumeMount, list_at: &Path<'_>, errors: &mut Errors) {
    if let Some(propagation) = &mount.mount_propagation {
        const KNOWN: [&str; 3] = ["Bidirectional", "HostToContainer", "None"];
        let at = list_at.child("mountPropagation");
        if !KNOWN.contains(&propagation.as_str()) {
            errors.not_supported(&at, propagation, &KNOWN);
        }
        let privileged = container.security_context.as_ref().is_some_and(|s| is_true(s.privileged));
        if propagation == "Bidirectional" && !privileged {
            errors.forbidden(&at, "Bidirectional mount propagation is available only to privileged containers");
        }
    }
    let at = list_at.child("recursiveReadOnly");
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if !is_true(mount.read_only) {
                errors.forbidden(&at, "may only be specified when readOnly is true");
            }
            if !matches!(mount.mount_propagation.as_deref(), None | Some("None")) {
                errors.forbidden(&at, "may only be specified when mountPropagation is None or not specified");
            }
        }
        Some(other) => errors.not_supported(&at, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn validate_devices(context: &Context<'_>, container: &Container, at: &Path<'_>, errors: &mut Errors) {
    let devices: &[VolumeDevice] = list(&container.volume_devices);
    let mounts = list(&container.volume_mounts);
    for (i, device) in devices.iter().enumerate() {
        let at = at.index(i);
        let (name, path) = (&device.name, &device.device_path);
        if name.is_empty() {
            errors.required(&at.child("name"), "");
        } else if devices[..i].iter().any(|d| d.name == *name) {
            errors.invalid(&at.child("name"), name, "must be unique");
        }
        match context.volume(name) {
            None => errors.not_found(&at.child("name"), name),
            Some(v) if v.persistent_volume_claim.is_none() && v.ephemeral.is_none() => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.invalid(&at.child("name"), name, detail);
            }
            Some(_) => {}
        }
        if path.is_empty() {
            errors.required(&at.child("devicePath"), "");
        }
        if devices[..i].iter().any(|d| d.device_path == *path) {
            errors.invalid(&at.child("devicePath"), path, "must be unique");
        }
        let mut backsteps = Errors::new();
        validate_no_backsteps(path, &at, &mut backsteps);
        if !backsteps.is_empty() {
            errors.invalid(&at.child("devicePath"), path, "can not contain backsteps ('..')");
        }
        if mounts.iter().any(|m| m.name == *name) {
            errors.invalid(&at.child("name"), name, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|m| m.mount_path == *path) {
            errors.invalid(&at.child("devicePath"), path, "must not already exist as a path in volumeMounts");
        }
    }
}

fn validate_resize_policy(
    context: &Context<'_>,
    policies: &[ContainerResizePolicy],
    at: &Path<'_>,
    errors: &mut Errors,
) {
    for (i, policy) in policies.iter().enumerate() {
        if policies[..i].iter().any(|p| p.resource_name == policy.resource_name) {
            errors.duplicate(&at.index(i), &policy.resource_name);
        }
        match policy.resource_name.as_str() {
            "cpu" | "memory" => {}
            "" => errors.required(at, ""),
            other => errors.not_supported(at, other, &["cpu", "memory"]),
        }
        match policy.restart_policy.as_str() {
            "NotRequired" | "RestartContainer" => {}
            "" => errors.required(at, ""),
            other => errors.not_supported(at, other, &["NotRequired", "RestartContainer"]),
        }
        if text(&context.spec.restart_policy) == "Never" && policy.restart_policy != "NotRequired" {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.invalid(at, &policy.restart_policy, detail);
        }
    }
}

/// `restartPolicy` and its rules, which a container may have of its own.
fn validate_restart(container: &Container, at: &Path<'_>, errors: &mut Errors) {
    let rules: &[ContainerRestartRule] = list(&container.restart_policy_rules);
    match container.restart_policy.as_deref() {
        None if !rules.is_empty() => {
            errors.required(&at.child("restartPolicy"), "must specify restartPolicy when restart rules are used");
        }
        None | Some("Always" | "Never" | "OnFailure") => {}
        Some(other) => errors.not_supported(&at.child("restartPolicy"), other, &["Always", "Never", "OnFailure"]),
    }
    let at = at.child("restartPolicyRules");
    if rules.len() > MAX_RESTART_RULES {
        errors.too_many(&at, rules.len(), MAX_RESTART_RULES);
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = at.index(i);
        if !matches!(rule.action.as_str(), "Restart" | "RestartAllContainers") {
            errors.not_supported(&at.child("action"), &rule.action, &["Restart", "RestartAllContainers"]);
        }
        let Some(codes) = &rule.exit_codes else {
            errors.required(&at.child("exitCodes"), "must be specified");
            continue;
        };
        let at = at.child("exitCodes");
        if !matches!(codes.operator.as_str(), "In" | "NotIn") {
            errors.not_supported(&at.child("operator"), &codes.operator, &["In", "NotIn"]);
        }
        if list(&codes.values).is_empty() {
            errors.invalid(&at.child("values"), json(&codes.values), "must have at least one value");
        }
    }
}
