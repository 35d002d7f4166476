//! What a client is told of a pod's spec that is allowed and yet likely a mistake (`pkg/api/pod/warnings.go`).

use k8s_openapi::api::core::v1::{Container, PodSpec};

use crate::kinds::fields::{is_true, list, text};
use crate::validation::Path;

/// Labels of nodes that have newer names.
const OLD_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

/// The warnings for a spec that stands at `at`.
pub(crate) fn spec_warnings(spec: &PodSpec, at: &Path<'_>) -> Vec<String> {
    let mut out = Vec::new();
    for key in spec.node_selector.iter().flatten().map(|(key, _)| key) {
        if let Some((old, new)) = OLD_LABELS.iter().find(|(old, _)| old == key) {
            out.push(format!("{}: deprecated since v1.14; use {new:?} instead", at.child("nodeSelector").key(old)));
        }
    }
    for (i, alias) in list(&spec.host_aliases).iter().enumerate() {
        if list(&spec.host_aliases)[..i].iter().any(|a| a.ip == alias.ip) {
            let field = at.child("hostAliases");
            out.push(format!("{}: duplicate ip {:?}", field.index(i).child("ip"), alias.ip));
        }
    }
    let secrets = list(&spec.image_pull_secrets);
    for (i, secret) in secrets.iter().enumerate() {
        let field = at.child("imagePullSecrets");
        if secret.name.is_empty() {
            out.push(format!("{}: invalid empty name {:?}", field.index(i).child("name"), secret.name));
        } else if secrets[..i].contains(secret) {
            out.push(format!("{}: duplicate name {:?}", field.index(i).child("name"), secret.name));
        }
    }
    for (i, volume) in list(&spec.volumes).iter().enumerate() {
        let field = at.child("volumes");
        for (source, set, why) in [
            ("gitRepo", volume.git_repo.is_some(), "deprecated in v1.11, and disabled by default in v1.33+"),
            ("flexVolume", volume.flex_volume.is_some(), "deprecated in v1.23. FlexVolume plugins are deprecated"),
        ] {
            if set {
                out.push(format!("{}: {why}", field.index(i).child(source)));
            }
        }
    }
    for (field, containers) in [("initContainers", list(&spec.init_containers)), ("containers", &spec.containers)] {
        for (i, container) in containers.iter().enumerate() {
            container_warnings(container, &at.child(field).index(i), &mut out);
        }
    }
    if spec.termination_grace_period_seconds.is_some_and(|s| s < 0) {
        let why = "must be >= 0; negative values are invalid and will be treated as 1";
        out.push(format!("{}: {why}", at.child("terminationGracePeriodSeconds")));
    }
    if is_true(spec.host_network) && spec.host_users == Some(false) {
        out.push(format!("{}: has no effect with hostNetwork", at.child("hostUsers")));
    }
    out
}

fn container_warnings(container: &Container, at: &Path<'_>, out: &mut Vec<String>) {
    let env = list(&container.env);
    for (i, var) in env.iter().enumerate() {
        if env[..i].iter().any(|e| e.name == var.name) {
            let field = at.child("env");
            let why = "which may be dropped when using apply";
            out.push(format!("{}: hides previous definition of {:?}, {why}", field.index(i), var.name));
        }
    }
    let ports = list(&container.ports);
    for (i, port) in ports.iter().enumerate() {
        let same = |p: &&k8s_openapi::api::core::v1::ContainerPort| {
            p.container_port == port.container_port
                && text(&p.protocol) == text(&port.protocol)
                && p.host_port == port.host_port
                && text(&p.host_ip) == text(&port.host_ip)
        };
        if let Some(first) = ports[..i].iter().position(|p| same(&p)) {
            let field = at.child("ports");
            out.push(format!("{}: duplicate port definition with {}", field.index(i), field.index(first)));
        }
    }
    let resources = container.resources.as_ref();
    for (kind, amounts) in [
        ("limits", resources.and_then(|r| r.limits.as_ref())),
        ("requests", resources.and_then(|r| r.requests.as_ref())),
    ] {
        for (name, amount) in amounts.into_iter().flatten() {
            let fine = crate::quantity::Amount::of(amount).is_ok_and(|a| a.nano() % 1_000_000_000 != 0);
            if fine && matches!(name.as_str(), "memory" | "ephemeral-storage") {
                let field = at.child("resources");
                let shown = &amount.0;
                out.push(format!(
                    "{}: fractional byte value {shown:?} is invalid, must be an integer",
                    field.child(kind).key(name)
                ));
            }
        }
    }
}
