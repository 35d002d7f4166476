//! What the server fills into a PodSpec (`pkg/apis/core/v1/defaults.go` and the defaults declared on its types). It reads
//! nothing but the object.

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, DownwardAPIVolumeFile, EnvVar, EphemeralContainer, HTTPGetAction, Lifecycle, Pod, PodIP,
    PodSpec, PodTemplateSpec, Probe, ResourceRequirements, Volume, VolumeMount,
};

use super::resources;
use crate::kinds::fields::{canonical, canonical_resources, default_number, default_to, omit_empty};

const SOURCE_MODE: i32 = 0o644;
const GRACE_PERIOD_SECONDS: i64 = 30;
const TOKEN_EXPIRATION_SECONDS: i64 = 3600;

/// The defaults of a Pod.
pub(crate) fn default_pod(pod: &mut Pod) {
    let spec = pod.spec.get_or_insert_default();
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        requests_from_limits(container.resources.as_mut());
    }
    spec.enable_service_links.get_or_insert(true);
    if spec.host_network == Some(true) {
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            for port in container.ports.iter_mut().flatten() {
                if port.host_port.unwrap_or_default() == 0 {
                    port.host_port = Some(port.container_port);
                }
            }
        }
    }
    default_spec(spec);
    resources::default_pod_level(spec);
    // One address and the list of addresses are the same thing; the lone one wins.
    if let Some(status) = &mut pod.status {
        let first = status.pod_ips.as_ref().and_then(|ips| ips.first()).map(|ip| ip.ip.clone());
        match (&status.pod_ip, first) {
            (Some(ip), first) if !ip.is_empty() && first.as_ref() != Some(ip) => {
                status.pod_ips = Some(vec![PodIP { ip: ip.clone() }]);
            }
            (None, Some(first)) => status.pod_ip = Some(first),
            _ => {}
        }
    }
}

/// The defaults of a template of pods, which are fewer than a Pod's.
pub(crate) fn default_template(template: &mut PodTemplateSpec) {
    default_spec(template.spec.get_or_insert_default());
}

fn requests_from_limits(resources: Option<&mut ResourceRequirements>) {
    let Some(resources) = resources else { return };
    let Some(limits) = &resources.limits else { return };
    let requests = resources.requests.get_or_insert_default();
    for (name, limit) in limits {
        if !requests.contains_key(name) {
            requests.insert(name.clone(), limit.clone());
        }
    }
}

fn default_spec(spec: &mut PodSpec) {
    default_to(&mut spec.dns_policy, "ClusterFirst");
    default_to(&mut spec.restart_policy, "Always");
    default_to(&mut spec.scheduler_name, "default-scheduler");
    spec.security_context.get_or_insert_default();
    spec.termination_grace_period_seconds.get_or_insert(GRACE_PERIOD_SECONDS);
    // `serviceAccount` is the old name of `serviceAccountName`; both are always written.
    omit_empty!(spec.service_account, spec.service_account_name);
    match (&spec.service_account_name, &spec.service_account) {
        (Some(name), old) if old.as_ref() != Some(name) => spec.service_account = Some(name.clone()),
        (None, Some(old)) => spec.service_account_name = Some(old.clone()),
        _ => {}
    }
    omit_empty!(
        spec.host_ipc,
        spec.host_network,
        spec.host_pid,
        spec.hostname,
        spec.subdomain,
        spec.node_name,
        spec.node_selector,
        spec.priority_class_name,
        spec.tolerations,
        spec.volumes,
        spec.init_containers,
        spec.ephemeral_containers,
        spec.host_aliases,
        spec.image_pull_secrets,
        spec.readiness_gates,
        spec.scheduling_gates,
        spec.topology_spread_constraints,
        spec.resource_claims,
        spec.overhead,
    );
    for volume in spec.volumes.iter_mut().flatten() {
        default_volume(volume);
    }
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        default_container(container);
    }
    for container in spec.ephemeral_containers.iter_mut().flatten() {
        default_ephemeral_container(container);
    }
    canonical_resources(spec.overhead.as_mut());
    if let Some(resources) = &mut spec.resources {
        canonical_resources(resources.limits.as_mut());
        canonical_resources(resources.requests.as_mut());
    }
}

/// The fields that containers of all sorts have.
macro_rules! default_common {
    ($container:expr) => {{
        let c = $container;
        let image = c.image.as_deref().unwrap_or_default();
        if c.image_pull_policy.as_ref().is_none_or(String::is_empty) {
            c.image_pull_policy = Some(pull_policy(image).to_owned());
        }
        default_to(&mut c.termination_message_path, "/dev/termination-log");
        default_to(&mut c.termination_message_policy, "File");
        omit_empty!(
            c.stdin,
            c.stdin_once,
            c.tty,
            c.args,
            c.command,
            c.env,
            c.env_from,
            c.ports,
            c.volume_mounts,
            c.volume_devices,
            c.resize_policy,
            c.working_dir,
            c.restart_policy_rules,
        );
        default_env(c.env.as_deref_mut().unwrap_or_default());
        default_ports(c.ports.as_deref_mut().unwrap_or_default());
        default_mounts(c.volume_mounts.as_deref_mut().unwrap_or_default());
        let resources = c.resources.get_or_insert_default();
        canonical_resources(resources.limits.as_mut());
        canonical_resources(resources.requests.as_mut());
        for probe in [&mut c.liveness_probe, &mut c.readiness_probe, &mut c.startup_probe].into_iter().flatten() {
            default_probe(probe);
        }
        if let Some(lifecycle) = &mut c.lifecycle {
            default_lifecycle(lifecycle);
        }
    }};
}

fn default_container(container: &mut Container) {
    default_common!(container);
}

fn default_ephemeral_container(container: &mut EphemeralContainer) {
    default_common!(&mut *container);
    omit_empty!(container.target_container_name);
}

fn default_env(env: &mut [EnvVar]) {
    for var in env {
        omit_empty!(var.value);
        let Some(source) = &mut var.value_from else { continue };
        if let Some(field) = &mut source.field_ref {
            default_to(&mut field.api_version, "v1");
        }
        if let Some(resource) = &mut source.resource_field_ref {
            canonical(resource.divisor.get_or_insert_with(zero));
        }
        if let Some(file) = &mut source.file_key_ref {
            file.optional.get_or_insert(false);
        }
    }
}

fn zero() -> k8s_openapi::apimachinery::pkg::api::resource::Quantity {
    k8s_openapi::apimachinery::pkg::api::resource::Quantity("0".to_owned())
}

fn default_ports(ports: &mut [ContainerPort]) {
    for port in ports {
        default_to(&mut port.protocol, "TCP");
        omit_empty!(port.host_port, port.host_ip, port.name);
    }
}

fn default_mounts(mounts: &mut [VolumeMount]) {
    for mount in mounts {
        omit_empty!(mount.read_only, mount.sub_path, mount.sub_path_expr);
    }
}

fn default_probe(probe: &mut Probe) {
    default_number(&mut probe.timeout_seconds, 1);
    default_number(&mut probe.period_seconds, 10);
    default_number(&mut probe.success_threshold, 1);
    default_number(&mut probe.failure_threshold, 3);
    omit_empty!(probe.initial_delay_seconds);
    if let Some(http) = &mut probe.http_get {
        default_http(http);
    }
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn default_lifecycle(lifecycle: &mut Lifecycle) {
    for handler in [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten() {
        if let Some(http) = &mut handler.http_get {
            default_http(http);
        }
    }
}

fn default_http(http: &mut HTTPGetAction) {
    default_to(&mut http.path, "/");
    default_to(&mut http.scheme, "HTTP");
    omit_empty!(http.host);
}

fn default_volume(volume: &mut Volume) {
    if !super::volumes::has_source(volume) {
        volume.empty_dir = Some(Default::default());
    }
    if let Some(empty) = &mut volume.empty_dir {
        omit_empty!(empty.medium);
        if let Some(limit) = &mut empty.size_limit {
            canonical(limit);
        }
    }
    if let Some(path) = &mut volume.host_path {
        path.type_.get_or_insert_default();
    }
    if let Some(secret) = &mut volume.secret {
        secret.default_mode.get_or_insert(SOURCE_MODE);
    }
    if let Some(map) = &mut volume.config_map {
        map.default_mode.get_or_insert(SOURCE_MODE);
    }
    if let Some(downward) = &mut volume.downward_api {
        downward.default_mode.get_or_insert(SOURCE_MODE);
        default_files(downward.items.as_deref_mut().unwrap_or_default());
    }
    if let Some(projected) = &mut volume.projected {
        projected.default_mode.get_or_insert(SOURCE_MODE);
        for source in projected.sources.iter_mut().flatten() {
            if let Some(downward) = &mut source.downward_api {
                default_files(downward.items.as_deref_mut().unwrap_or_default());
            }
            if let Some(token) = &mut source.service_account_token {
                token.expiration_seconds.get_or_insert(TOKEN_EXPIRATION_SECONDS);
                omit_empty!(token.audience);
            }
        }
    }
    if let Some(image) = &mut volume.image {
        let policy = pull_policy(image.reference.as_deref().unwrap_or_default());
        default_to(&mut image.pull_policy, policy);
    }
    default_rare_volume(volume);
}

/// Sources that this cluster has no driver for, but keeps as Kubernetes would.
fn default_rare_volume(volume: &mut Volume) {
    if let Some(iscsi) = &mut volume.iscsi {
        default_to(&mut iscsi.iscsi_interface, "default");
    }
    if let Some(rbd) = &mut volume.rbd {
        default_to(&mut rbd.pool, "rbd");
        default_to(&mut rbd.user, "admin");
        default_to(&mut rbd.keyring, "/etc/ceph/keyring");
    }
    if let Some(disk) = &mut volume.azure_disk {
        disk.caching_mode.get_or_insert_with(|| "ReadWrite".to_owned());
        disk.kind.get_or_insert_with(|| "Shared".to_owned());
        disk.fs_type.get_or_insert_with(|| "ext4".to_owned());
        disk.read_only.get_or_insert(false);
    }
    if let Some(scale_io) = &mut volume.scale_io {
        default_to(&mut scale_io.storage_mode, "ThinProvisioned");
        default_to(&mut scale_io.fs_type, "xfs");
    }
    if let Some(template) = volume.ephemeral.as_mut().and_then(|e| e.volume_claim_template.as_mut()) {
        template.spec.volume_mode.get_or_insert_with(|| "Filesystem".to_owned());
        if let Some(resources) = &mut template.spec.resources {
            canonical_resources(resources.limits.as_mut());
            canonical_resources(resources.requests.as_mut());
        }
    }
}

fn default_files(files: &mut [DownwardAPIVolumeFile]) {
    for file in files {
        if let Some(field) = &mut file.field_ref {
            default_to(&mut field.api_version, "v1");
        }
        if let Some(resource) = &mut file.resource_field_ref {
            canonical(resource.divisor.get_or_insert_with(zero));
        }
    }
}

/// `Always` for the tag `latest`, which an image with neither tag nor digest has; else `IfNotPresent`.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let slash = name.rfind('/').map_or(0, |i| i + 1);
    let (path, tag) = match name[slash..].split_once(':') {
        Some((last, tag)) => (&name[..slash + last.len()], Some(tag)),
        None => (name, None),
    };
    // Kubernetes takes no tag from a reference it cannot read.
    let last = path.rsplit('/').next().unwrap_or_default();
    let readable = !last.is_empty() && !last.bytes().any(|b| b.is_ascii_uppercase() || b.is_ascii_whitespace());
    match (tag, digest) {
        (Some("latest"), _) | (None, None) if readable => "Always",
        _ => "IfNotPresent",
    }
}

#[cfg(test)]
mod tests {
    use super::pull_policy;

    #[test]
    fn the_pull_policy_follows_the_tag() {
        let cases = [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1", "IfNotPresent"),
            ("r:5000/nginx", "Always"),
            ("r:5000/nginx:v1", "IfNotPresent"),
            ("a/b@sha256:00", "IfNotPresent"),
            ("a/b:latest@sha256:00", "Always"),
            ("", "IfNotPresent"),
            ("UPPER", "IfNotPresent"),
        ];
        for (image, policy) in cases {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
