//! From the port's specifications to the messages of CRI. Pure translation: resource limits become cgroup values by the
//! kubelet's own formulas.

use std::{collections::HashMap, path::Path, time::Duration};

use coracle_agent_core::workload::{
    Access, ContainerSpec, HostNetwork, Processes, Profile, Propagation, ResourceLimits, SandboxSpec, SecuritySpec,
};

use crate::{
    cri::v1::{
        Capability, ContainerConfig, ContainerMetadata, DnsConfig, ImageSpec, Int64Value, KeyValue,
        LinuxContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext, LinuxPodSandboxConfig,
        LinuxSandboxSecurityContext, Mount, MountPropagation, NamespaceMode, NamespaceOption, PodSandbox,
        PodSandboxConfig, PodSandboxMetadata, SecurityProfile, Signal, security_profile::ProfileType,
    },
    hosts, labels,
};

/// The kubelet's `MinShares`, `SharesPerCPU` and quota period, in the units of cgroup v1, which CRI speaks.
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const SHARES_PER_CPU: i64 = 1024;
const QUOTA_PERIOD_MICROSECONDS: i64 = 100_000;
const MIN_QUOTA_MICROSECONDS: i64 = 1000;

/// `oom_score_adj` of a container of each class of service (`pkg/kubelet/qos`).
const GUARANTEED_OOM_SCORE: i64 = -997;
const BEST_EFFORT_OOM_SCORE: i64 = 1000;

/// A sandbox as CRI describes it.
pub(crate) fn sandbox(spec: &SandboxSpec, node: &str) -> PodSandboxConfig {
    let mut all: HashMap<String, String> = spec.labels.clone().into_iter().collect();
    all.extend([
        (labels::POD_NAME.to_owned(), spec.name.clone()),
        (labels::POD_NAMESPACE.to_owned(), spec.namespace.clone()),
        (labels::POD_UID.to_owned(), spec.pod.to_string()),
        (labels::MANAGED_BY.to_owned(), node.to_owned()),
    ]);
    let log_directory = text(&spec.log_dir);
    // In the node's network its name is the node's too.
    let hostname = if spec.host_network == HostNetwork::Yes { String::new() } else { spec.hostname.clone() };
    let mut annotations: HashMap<String, String> = spec.annotations.clone().into_iter().collect();
    annotations.insert(labels::LOG_DIRECTORY.to_owned(), log_directory.clone());
    annotations.insert(labels::HOSTNAME.to_owned(), hostname.clone());
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: spec.name.clone(),
            uid: spec.pod.to_string(),
            namespace: spec.namespace.clone(),
            attempt: spec.attempt,
        }),
        hostname,
        log_directory,
        dns_config: Some(DnsConfig {
            servers: spec.dns.nameservers.iter().map(ToString::to_string).collect(),
            searches: spec.dns.searches.clone(),
            options: spec.dns.options.clone(),
        }),
        labels: all,
        annotations,
        linux: Some(LinuxPodSandboxConfig {
            sysctls: spec.sysctls.clone().into_iter().collect(),
            ..linux(namespaces(spec), spec.has_privileged)
        }),
        ..PodSandboxConfig::default()
    }
}

/// The configuration of a sandbox that an earlier life of the agent made, as far as containers made in it ask for it.
pub(crate) fn sandbox_again(found: &PodSandbox, namespaces: NamespaceOption) -> PodSandboxConfig {
    let kept = |name: &str| found.annotations.get(name).cloned().unwrap_or_default();
    PodSandboxConfig {
        metadata: found.metadata.clone(),
        hostname: kept(labels::HOSTNAME),
        log_directory: kept(labels::LOG_DIRECTORY),
        labels: found.labels.clone(),
        annotations: found.annotations.clone(),
        linux: Some(linux(namespaces, false)),
        ..PodSandboxConfig::default()
    }
}

fn linux(namespaces: NamespaceOption, privileged: bool) -> LinuxPodSandboxConfig {
    LinuxPodSandboxConfig {
        security_context: Some(LinuxSandboxSecurityContext {
            namespace_options: Some(namespaces),
            privileged,
            seccomp: Some(profile(ProfileType::RuntimeDefault)),
            ..LinuxSandboxSecurityContext::default()
        }),
        ..LinuxPodSandboxConfig::default()
    }
}

/// A container as CRI describes it. `machine_memory_bytes` is what the kernel weighs requests against; `hosts` is the pod's file
/// of names.
pub(crate) fn container(
    spec: &ContainerSpec,
    sandbox: &PodSandboxConfig,
    machine_memory_bytes: i64,
    hosts: Option<&Path>,
) -> ContainerConfig {
    let metadata = ContainerMetadata { name: spec.key.name.to_string(), attempt: spec.key.attempt };
    let log_path = spec.log_path.strip_prefix(&sandbox.log_directory).unwrap_or(&spec.log_path);
    ContainerConfig {
        metadata: Some(metadata),
        image: Some(ImageSpec {
            image: spec.image_id.clone(),
            user_specified_image: spec.image.clone(),
            ..ImageSpec::default()
        }),
        command: spec.command.clone(),
        args: spec.args.clone(),
        working_dir: spec.working_dir.clone().unwrap_or_default(),
        envs: spec.env.iter().map(|(key, value)| KeyValue { key: key.clone(), value: value.clone().into() }).collect(),
        mounts: mounts(spec, hosts),
        labels: container_labels(spec, sandbox),
        annotations: container_annotations(spec),
        log_path: text(log_path),
        stdin: spec.stdio.stdin,
        stdin_once: spec.stdio.stdin_once,
        tty: spec.stdio.tty,
        linux: Some(LinuxContainerConfig {
            resources: Some(resources(&spec.resources, machine_memory_bytes)),
            security_context: Some(security(&spec.security, namespaces_of(sandbox))),
        }),
        stop_signal: spec.stop_signal.as_deref().and_then(Signal::from_str_name).unwrap_or_default().into(),
        ..ContainerConfig::default()
    }
}

/// How long the runtime waits before it ends a container by force, in CRI's whole seconds.
pub(crate) fn grace_seconds(grace: Duration) -> i64 {
    i64::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i64::MAX)
}

fn namespaces(spec: &SandboxSpec) -> NamespaceOption {
    let mode = |host: bool| if host { NamespaceMode::Node } else { NamespaceMode::Pod };
    let processes = match spec.namespaces.processes {
        Processes::Container => NamespaceMode::Container,
        Processes::Pod => NamespaceMode::Pod,
        Processes::Node => NamespaceMode::Node,
    };
    NamespaceOption {
        network: mode(spec.host_network == HostNetwork::Yes).into(),
        pid: processes.into(),
        ipc: mode(spec.namespaces.host_ipc).into(),
        ..NamespaceOption::default()
    }
}

fn namespaces_of(sandbox: &PodSandboxConfig) -> NamespaceOption {
    let context = sandbox.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    context.and_then(|context| context.namespace_options.clone()).unwrap_or_default()
}

fn mounts(spec: &ContainerSpec, hosts: Option<&Path>) -> Vec<Mount> {
    let mut all: Vec<Mount> = spec
        .mounts
        .iter()
        .map(|mount| Mount {
            container_path: mount.container_path.clone(),
            host_path: text(&mount.host_path),
            readonly: mount.access == Access::ReadOnly,
            recursive_read_only: mount.recursive_read_only,
            propagation: match mount.propagation {
                Propagation::None => MountPropagation::PropagationPrivate,
                Propagation::HostToContainer => MountPropagation::PropagationHostToContainer,
                Propagation::Bidirectional => MountPropagation::PropagationBidirectional,
            }
            .into(),
            ..Mount::default()
        })
        .collect();
    let message = &spec.termination_message;
    if let Some(host_path) = message.host_path.as_deref().filter(|_| !message.path.is_empty()) {
        let (container_path, host_path) = (message.path.clone(), text(host_path));
        all.push(Mount { container_path, host_path, ..Mount::default() });
    }
    // A pod that mounts its own file there keeps it.
    if let Some(hosts) = hosts.filter(|_| !all.iter().any(|mount| mount.container_path == hosts::PATH)) {
        let (container_path, host_path) = (hosts::PATH.to_owned(), text(hosts));
        all.push(Mount { container_path, host_path, ..Mount::default() });
    }
    all
}

fn container_labels(spec: &ContainerSpec, sandbox: &PodSandboxConfig) -> HashMap<String, String> {
    let own = [labels::POD_NAME, labels::POD_NAMESPACE, labels::POD_UID, labels::MANAGED_BY];
    let mut all: HashMap<String, String> = own
        .into_iter()
        .filter_map(|label| sandbox.labels.get(label).map(|value| (label.to_owned(), value.clone())))
        .collect();
    all.insert(labels::CONTAINER_NAME.to_owned(), spec.key.name.to_string());
    all
}

fn container_annotations(spec: &ContainerSpec) -> HashMap<String, String> {
    let message = &spec.termination_message;
    let mut all = HashMap::from([(labels::RESTART_COUNT.to_owned(), spec.key.attempt.to_string())]);
    if let Some(path) = &message.host_path {
        all.insert(labels::MESSAGE_PATH.to_owned(), text(path));
    }
    if message.fallback_to_logs {
        all.insert(labels::MESSAGE_POLICY.to_owned(), labels::FALLBACK_TO_LOGS.to_owned());
    }
    all
}

/// Limits as cgroup values (`MilliCPUToShares`, `MilliCPUToQuota`, `GetContainerOOMScoreAdjust`).
fn resources(limits: &ResourceLimits, machine_memory_bytes: i64) -> LinuxContainerResources {
    // Without a request the limit is one.
    let request = if limits.cpu_request_milli > 0 { Some(limits.cpu_request_milli) } else { limits.cpu_limit_milli };
    let shares = request.map_or(MIN_SHARES, |milli| (milli * SHARES_PER_CPU / 1000).clamp(MIN_SHARES, MAX_SHARES));
    let quota = limits
        .cpu_limit_milli
        .filter(|milli| *milli > 0)
        .map_or(0, |milli| (milli * QUOTA_PERIOD_MICROSECONDS / 1000).max(MIN_QUOTA_MICROSECONDS));
    LinuxContainerResources {
        cpu_period: if quota > 0 { QUOTA_PERIOD_MICROSECONDS } else { 0 },
        cpu_quota: quota,
        cpu_shares: shares,
        memory_limit_in_bytes: limits.memory_limit_bytes.unwrap_or(0),
        oom_score_adj: oom_score(limits, machine_memory_bytes),
        ..LinuxContainerResources::default()
    }
}

fn oom_score(limits: &ResourceLimits, machine_memory_bytes: i64) -> i64 {
    let guaranteed = limits.memory_limit_bytes.is_some_and(|limit| limit == limits.memory_request_bytes)
        && limits.cpu_limit_milli.is_some_and(|limit| limit == limits.cpu_request_milli);
    let nothing = limits.memory_limit_bytes.is_none()
        && limits.cpu_limit_milli.is_none()
        && limits.memory_request_bytes == 0
        && limits.cpu_request_milli == 0;
    if guaranteed {
        return GUARANTEED_OOM_SCORE;
    }
    if nothing || machine_memory_bytes <= 0 {
        return BEST_EFFORT_OOM_SCORE;
    }
    // A container that asks for more of the machine is killed later; the bounds keep it between the other classes.
    let share = i128::from(limits.memory_request_bytes) * 1000 / i128::from(machine_memory_bytes);
    let score = 1000 - i64::try_from(share).unwrap_or(1000);
    score.clamp(1000 + GUARANTEED_OOM_SCORE, BEST_EFFORT_OOM_SCORE - 1)
}

fn security(spec: &SecuritySpec, namespaces: NamespaceOption) -> LinuxContainerSecurityContext {
    let open_proc = spec.privileged || spec.unmasked_proc;
    let paths = |all: &[&str]| all.iter().filter(|_| !open_proc).map(|path| (*path).to_owned()).collect();
    let number = |value: Option<i64>| value.map(|value| Int64Value { value });
    LinuxContainerSecurityContext {
        capabilities: Some(Capability {
            add_capabilities: spec.add_capabilities.clone(),
            drop_capabilities: spec.drop_capabilities.clone(),
            ..Capability::default()
        }),
        privileged: spec.privileged,
        namespace_options: Some(namespaces),
        run_as_user: number(spec.user),
        run_as_group: number(spec.group),
        readonly_rootfs: spec.read_only_root,
        supplemental_groups: spec.supplemental_groups.clone(),
        no_new_privs: spec.no_new_privileges,
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READ_ONLY_PATHS),
        // Unless the pod names a profile, as Kubernetes has it (`SeccompDefault` of the kubelet is off).
        seccomp: Some(spec.seccomp.as_ref().map_or_else(|| profile(ProfileType::Unconfined), named_profile)),
        apparmor: spec.app_armor.as_ref().map(named_profile),
        ..LinuxContainerSecurityContext::default()
    }
}

fn profile(kind: ProfileType) -> SecurityProfile {
    SecurityProfile { profile_type: kind.into(), localhost_ref: String::new() }
}

/// A localhost profile of seccomp is a file below the folder that the kubelet has for it.
fn named_profile(named: &Profile) -> SecurityProfile {
    match named {
        Profile::RuntimeDefault => profile(ProfileType::RuntimeDefault),
        Profile::Unconfined => profile(ProfileType::Unconfined),
        Profile::Localhost(name) => {
            SecurityProfile { profile_type: ProfileType::Localhost.into(), localhost_ref: name.clone() }
        }
    }
}

/// `procMount: Default` (`pkg/securitycontext`).
const MASKED_PATHS: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
