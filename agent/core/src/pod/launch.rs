//! The way of one container from "due" to "running": look up what it refers to, make its image available, build its
//! specification, start it.

use std::{net::IpAddr, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, VolumeMount};

use super::{
    PodMachine, Stage, Surround, Timer,
    containers::{Ended, Role, Run, State, Turn, Wait},
};
use crate::{
    credentials::Keyring,
    effect::{Effect, SubPath, SubPathResult},
    env::{self, Environment, ServiceVariables, Sources},
    event::EventKind,
    expand::{expand, expand_known},
    field::Surroundings,
    resources,
    time::Now,
    workload::{
        Command, ContainerKey, ContainerSpec, DnsSpec, Exit, Port, Protocol, PullFailure, PullPolicy, PullRequest,
        ResolvedImage, StartStage, StdioSpec, TerminationMessage, Transfer,
    },
};

/// Keys of sources that can't be names of variables, by source.
type SkippedKeys = Vec<(String, Vec<String>)>;

/// How long `ErrImagePull` is shown before it reads `ImagePullBackOff`: about one sync of the kubelet.
const SHOW_PULL_ERROR: Duration = Duration::from_secs(2);
/// How long `RunContainerError` is shown before the container is tried again or `CrashLoopBackOff` takes its place.
const SHOW_START_ERROR: Duration = Duration::from_secs(1);
/// The reason of a container that was made and would not run.
pub(super) const RUN_ERROR: &str = "RunContainerError";
/// A container whose configuration is incomplete is tried again this often, besides when what it lacks appears.
const RETRY_CONFIG: Duration = Duration::from_secs(10);

impl PodMachine {
    /// Begins a run of a container.
    pub(super) fn launch(&mut self, now: Now, index: usize, around: Surround<'_>) {
        if self.stage != Stage::Up || self.remounting {
            return;
        }
        self.timers.remove(&Timer::ShowBackOff(index));
        let next = self.slots[index].last.as_ref().map_or(0, |last| last.attempt + 1);
        if next != self.slots[index].attempt {
            self.remove_old_run(index);
            // The delay grows with each new run, the first restart included; tries of one run do not count.
            let since = self.slots[index].last.as_ref().map_or(now.mono, |last| last.finished);
            self.slots[index].crash.advance(since.max(now.mono));
            self.slots[index].attempt = next;
        }
        self.slots[index].changed = false;
        let mut wants = env::references(self.container(index));
        for name in self.pull_secrets() {
            wants.secret(name);
        }
        if wants.is_empty() {
            self.begin_pull(index, Sources::default());
        } else {
            self.slots[index].state = State::Resolving;
            let key = self.key(index);
            self.effects.push(Effect::Resolve { key, wants });
        }
        let _ = around;
    }

    pub(super) fn sources_resolved(&mut self, _now: Now, index: usize, sources: Sources, _around: Surround<'_>) {
        if matches!(self.slots[index].state, State::Resolving) {
            self.begin_pull(index, sources);
        }
    }

    fn begin_pull(&mut self, index: usize, sources: Sources) {
        let keyring = self.keyring(&sources);
        let container = self.container(index);
        let image = container.image.clone().unwrap_or_default();
        let policy = pull_policy(container);
        let key = self.key(index);
        self.slots[index].asked_image.clone_from(&image);
        self.slots[index].state = State::Pulling(Box::new(sources));
        self.command(Command::Pull(Box::new(PullRequest { key, image, policy, keyring })));
    }

    /// The names of the pod's pull secrets. The API takes ones without a name, and the kubelet passes them over.
    fn pull_secrets(&self) -> impl Iterator<Item = &str> {
        let all = self.spec().image_pull_secrets.iter().flatten();
        all.map(|secret| secret.name.as_str()).filter(|name| !name.is_empty())
    }

    /// The logins of the pod's pull secrets. Without one that is not there the pull may succeed all the same.
    fn keyring(&mut self, sources: &Sources) -> Keyring {
        let found = |name: &str| sources.secrets.get(name).and_then(Option::as_deref);
        let keyring = Keyring::of(self.pull_secrets().filter_map(found));
        let missing: Vec<&str> = self.pull_secrets().filter(|name| found(name).is_none()).collect();
        if !missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            self.event(None, EventKind::Warning, "FailedToRetrieveImagePullSecret", message);
        }
        keyring
    }

    pub(super) fn pulling(&mut self, key: &ContainerKey) {
        if let Some(index) = self.current(key) {
            let message = format!("Pulling image {:?}", self.container(index).image.as_deref().unwrap_or_default());
            self.event(Some(index), EventKind::Normal, "Pulling", message);
        }
    }

    pub(super) fn pulled(
        &mut self,
        now: Now,
        key: &ContainerKey,
        image: ResolvedImage,
        transfer: Option<Transfer>,
        around: Surround<'_>,
    ) {
        let Some(index) = self.current(key) else { return };
        if !matches!(self.slots[index].state, State::Pulling(_)) {
            return;
        }
        let State::Pulling(sources) = std::mem::replace(&mut self.slots[index].state, State::Idle) else { return };
        if self.image_changed(index) {
            return self.begin_pull(index, *sources);
        }
        let name = self.container(index).image.clone().unwrap_or_default();
        let message = match transfer {
            None => format!("Container image {name:?} already present on machine and can be accessed by the pod"),
            Some(transfer) => format!(
                "Successfully pulled image {name:?} in {} ({} including waiting). Image size: {} bytes.",
                short_duration(transfer.took),
                short_duration(transfer.took_with_waiting),
                image.size_bytes
            ),
        };
        self.event(Some(index), EventKind::Normal, "Pulled", message);
        self.slots[index].pull.reset();
        self.slots[index].image = Some(image);
        match self.container_spec(index, &sources, around) {
            Ok((spec, skipped)) => {
                for (from, keys) in skipped {
                    let message = format!(
                        "Keys [{}] from the EnvFrom {from} were skipped since they are considered invalid environment variable names.",
                        keys.join(", ")
                    );
                    self.event(Some(index), EventKind::Warning, "InvalidEnvironmentVariableNames", message);
                }
                let wants = self.sub_paths(index, &spec);
                if wants.is_empty() {
                    self.start(index, Box::new(spec));
                } else {
                    self.slots[index].state = State::Preparing(Box::new(spec));
                    self.effects.push(Effect::SubPaths { key: key.clone(), wants });
                }
            }
            Err(message) => self.config_error(now, index, message),
        }
    }

    fn start(&mut self, index: usize, spec: Box<ContainerSpec>) {
        self.slots[index].state = State::Starting { stop: None };
        self.command(Command::StartContainer(spec));
    }

    fn config_error(&mut self, now: Now, index: usize, message: String) {
        self.event(Some(index), EventKind::Warning, "Failed", format!("Error: {message}"));
        self.wait(index, "CreateContainerConfigError", message);
        self.timers.insert(Timer::Retry(index), now.mono + RETRY_CONFIG);
    }

    /// The parts of volumes that a container mounts, in the order of its mounts.
    fn sub_paths(&self, index: usize, spec: &ContainerSpec) -> Vec<SubPath> {
        let lookup = |name: &str| spec.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let mounts = self.container(index).volume_mounts.iter().flatten();
        let wanted = mounts.filter_map(|mount| {
            let path = sub_path(mount, lookup).ok().flatten()?;
            Some(SubPath { volume: mount.name.clone(), base: self.volumes.get(&mount.name)?.clone(), path })
        });
        wanted.collect()
    }

    pub(super) fn sub_paths_found(&mut self, now: Now, index: usize, result: SubPathResult) {
        if !matches!(self.slots[index].state, State::Preparing(_)) {
            return;
        }
        let State::Preparing(mut spec) = std::mem::replace(&mut self.slots[index].state, State::Idle) else { return };
        match result {
            Ok(paths) => {
                let mut paths = paths.into_iter();
                let declared = self.container(index).volume_mounts.iter().flatten();
                for (mount, declared) in spec.mounts.iter_mut().zip(declared) {
                    let has_part = has_sub_path(declared);
                    if let Some(path) = has_part.then(|| paths.next()).flatten() {
                        mount.host_path = path;
                    }
                }
                self.start(index, spec);
            }
            Err(volume) => {
                let name = self.slots[index].name.clone();
                let message = format!("failed to prepare subPath for volumeMount {volume:?} of container {name:?}");
                self.config_error(now, index, message);
            }
        }
    }

    pub(super) fn pull_failed(
        &mut self,
        now: Now,
        key: &ContainerKey,
        failure: PullFailure,
        message: String,
        around: Surround<'_>,
    ) {
        let Some(index) = self.current(key) else { return };
        if !matches!(self.slots[index].state, State::Pulling(_)) {
            return;
        }
        if self.image_changed(index) {
            return self.launch(now, index, around);
        }
        let image = self.container(index).image.clone().unwrap_or_default();
        let (reason, event, text) = match failure {
            PullFailure::Pull => ("ErrImagePull", "Failed", format!("Failed to pull image {image:?}: {message}")),
            PullFailure::RegistryUnavailable => {
                ("RegistryUnavailable", "Failed", format!("Failed to pull image {image:?}: {message}"))
            }
            PullFailure::InvalidName => {
                ("InvalidImageName", "InspectFailed", format!("Failed to apply default image tag {image:?}: {message}"))
            }
            PullFailure::NeverPull => ("ErrImageNeverPull", "ErrImageNeverPull", message.clone()),
            PullFailure::Inspect => {
                ("ImageInspectError", "InspectFailed", format!("Failed to inspect image {image:?}: {message}"))
            }
        };
        self.event(Some(index), EventKind::Warning, event, text.clone());
        self.event(Some(index), EventKind::Warning, "Failed", format!("Error: {reason}"));
        let pull = matches!(failure, PullFailure::Pull | PullFailure::RegistryUnavailable);
        let shown = match failure {
            // The kubelet shows the bare error of a pull, and its own words around every other.
            PullFailure::Pull => message,
            PullFailure::RegistryUnavailable => {
                format!("image pull failed for {image} because the registry is unavailable: {message}")
            }
            PullFailure::InvalidName | PullFailure::NeverPull | PullFailure::Inspect => text,
        };
        self.wait(index, reason, shown);
        let slot = &mut self.slots[index];
        slot.pull.advance(now.mono);
        let delay = slot.pull.pending(now.mono).unwrap_or(RETRY_CONFIG);
        self.timers.insert(Timer::Retry(index), now.mono + delay);
        if pull {
            self.timers.insert(Timer::ShowBackOff(index), now.mono + SHOW_PULL_ERROR);
        }
    }

    pub(super) fn show_pull_back_off(&mut self, index: usize) {
        let State::Waiting(wait) = &self.slots[index].state else { return };
        if !wait.is_image() {
            return;
        }
        let image = self.container(index).image.clone().unwrap_or_default();
        let text = format!("Back-off pulling image {image:?}");
        let message = format!("{text}: {}: {}", wait.reason, wait.message);
        self.event(Some(index), EventKind::Normal, "BackOff", text);
        self.event(Some(index), EventKind::Warning, "Failed", "Error: ImagePullBackOff");
        self.wait(index, "ImagePullBackOff", message);
    }

    pub(super) fn created(&mut self, key: &ContainerKey, id: String) {
        if let Some(index) = self.current(key) {
            self.slots[index].id = Some(id);
            self.event(Some(index), EventKind::Normal, "Created", "Container created");
        }
    }

    pub(super) fn started(&mut self, now: Now, key: &ContainerKey, at: Timestamp) {
        let Some(index) = self.current(key) else { return };
        let State::Starting { stop } = self.slots[index].state else { return };
        self.event(Some(index), EventKind::Normal, "Started", "Container started");
        self.slots[index].refused = None;
        let run = Run { at, since: now.mono, in_post_start: false, started: false, ready: false, stop: None };
        self.slots[index].state = State::Running(run);
        match stop {
            Some(deadline) => {
                let ends = self.ending.is_some() && self.slots[index].role == Role::Sidecar;
                let turn = if ends { Turn::Later } else { Turn::Now };
                self.stop_container(now, index, deadline.saturating_sub(now.mono), turn, None);
            }
            None if !self.begin_post_start(now, index) => self.begin_probes(now, index),
            None => {}
        }
    }

    pub(super) fn start_failed(
        &mut self,
        now: Now,
        key: &ContainerKey,
        stage: StartStage,
        message: String,
        at: Timestamp,
    ) {
        let Some(index) = self.current(key) else { return };
        if !matches!(self.slots[index].state, State::Starting { .. }) {
            return;
        }
        self.event(Some(index), EventKind::Warning, "Failed", format!("Error: {message}"));
        match stage {
            StartStage::Configure | StartStage::Create => {
                let configure = stage == StartStage::Configure;
                let reason = if configure { "CreateContainerConfigError" } else { "CreateContainerError" };
                self.wait(index, reason, message);
                self.timers.insert(Timer::Retry(index), now.mono + RETRY_CONFIG);
            }
            StartStage::Start => {
                let slot = &mut self.slots[index];
                let ended = Ended {
                    attempt: slot.attempt,
                    code: 128,
                    signal: None,
                    reason: "StartError".to_owned(),
                    message: message.clone(),
                    started_at: None,
                    finished_at: Some(at),
                    finished: now.mono,
                    id: slot.id.clone(),
                };
                slot.end(ended);
                if self.ending.is_none() && self.restarts(index) {
                    self.wait(index, RUN_ERROR, message);
                    self.timers.insert(Timer::Retry(index), now.mono + SHOW_START_ERROR);
                }
            }
        }
    }

    pub(super) fn exited(&mut self, now: Now, key: &ContainerKey, exit: Exit) {
        let Some(index) = self.current(key) else { return };
        if !self.slots[index].is_live() {
            return;
        }
        self.clear_run_timers(index);
        let slot = &mut self.slots[index];
        let ended = Ended::of(exit, slot.attempt, now.mono, slot.id.clone());
        slot.end(ended);
    }

    /// Whether the pod names another image than the one that was asked for.
    fn image_changed(&self, index: usize) -> bool {
        self.container(index).image.as_deref().unwrap_or_default() != self.slots[index].asked_image
    }

    /// The object has changed; of a container only its image can: what runs is ended and runs again with the new one, what
    /// waits for the old one is tried at once.
    pub(super) fn note_images(&mut self, now: Now) {
        if self.ending.is_some() || self.stage != Stage::Up {
            return;
        }
        for index in 0..self.slots.len() {
            if self.slots[index].asked_image.is_empty() || !self.image_changed(index) {
                continue;
            }
            match &self.slots[index].state {
                State::Running(run) if run.stop.is_none() && self.slots[index].role != Role::Init => {
                    let name = &self.slots[index].name;
                    let message = format!("Container {name} definition changed, will be restarted");
                    let grace = Duration::from_secs(u64::try_from(self.grace_seconds()).unwrap_or(0));
                    self.slots[index].changed = true;
                    self.stop_container(now, index, grace, Turn::Now, Some(message));
                }
                State::Waiting(wait) if wait.is_image() => {
                    self.slots[index].pull.reset();
                    self.timers.insert(Timer::Retry(index), now.mono);
                }
                _ => {}
            }
        }
    }

    pub(super) fn wait(&mut self, index: usize, reason: &'static str, message: String) {
        let wait = Wait { reason, message };
        self.slots[index].refused = Some(wait.clone());
        self.slots[index].state = State::Waiting(wait);
    }

    pub(super) fn dns(&self, namespace: &str, around: Surround<'_>) -> DnsSpec {
        let (spec, node) = (self.spec(), around.node);
        let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
        let cluster =
            policy == "ClusterFirstWithHostNet" || (policy == "ClusterFirst" && spec.host_network != Some(true));
        let mut dns = match (policy, cluster, node.dns_server) {
            ("None", ..) => DnsSpec::default(),
            (_, true, Some(server)) => {
                let domain = &node.cluster_domain;
                let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
                searches.extend(node.host_dns.searches.iter().cloned());
                let options = vec!["ndots:5".to_owned()];
                DnsSpec { nameservers: vec![server], searches, options, ..DnsSpec::default() }
            }
            _ => node.host_dns.clone(),
        };
        dns.cluster = cluster.then(|| node.cluster_domain.clone());
        if let Some(own) = &spec.dns_config {
            dns.nameservers.extend(own.nameservers.iter().flatten().filter_map(|ip| ip.parse::<IpAddr>().ok()));
            dns.searches.extend(own.searches.iter().flatten().cloned());
            for option in own.options.iter().flatten() {
                let name = option.name.clone().unwrap_or_default();
                dns.options.retain(|known| known.split(':').next() != Some(&name));
                dns.options.push(match &option.value {
                    Some(value) => format!("{name}:{value}"),
                    None => name,
                });
            }
        }
        dns
    }

    fn container_spec(
        &self,
        index: usize,
        sources: &Sources,
        around: Surround<'_>,
    ) -> Result<(ContainerSpec, SkippedKeys), String> {
        let container = self.container(index);
        let key = self.key(index);
        let surroundings =
            Surroundings { pod_ips: &self.ips, host_ips: &around.node.ips, allocatable: &around.node.allocatable };
        let none = ServiceVariables::default();
        let services = self.services(around).unwrap_or(&none);
        let Environment { variables, skipped } = env::resolve(&self.pod, container, sources, services, &surroundings)?;
        let lookup = |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let expanded =
            |list: Option<&Vec<String>>| list.into_iter().flatten().map(|text| expand(text, lookup)).collect();
        let (command, args) = (expanded(container.command.as_ref()), expanded(container.args.as_ref()));
        let mounts = container.volume_mounts.iter().flatten().map(|mount| self.mount_of(mount, lookup));
        let mounts = mounts.collect::<Result<Vec<_>, _>>()?;
        let termination = self.termination_message(container, &key, around);
        let spec = ContainerSpec {
            image: container.image.clone().unwrap_or_default(),
            image_id: self.slots[index].image.as_ref().map(|image| image.image_id.clone()).unwrap_or_default(),
            command,
            args,
            working_dir: container.working_dir.clone().filter(|dir| !dir.is_empty()),
            mounts,
            ports: container.ports.iter().flatten().filter_map(port).collect(),
            resources: resources::limits(container),
            log_path: self.sandbox_spec(around).log_dir.join(&*key.name).join(format!("{}.log", key.attempt)),
            security: self.security(container),
            stop_signal: container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.clone()),
            labels: self.pod.metadata.labels.clone().unwrap_or_default(),
            annotations: self.pod.metadata.annotations.clone().unwrap_or_default(),
            termination_message: termination,
            stdio: StdioSpec {
                stdin: container.stdin == Some(true),
                stdin_once: container.stdin_once == Some(true),
                tty: container.tty == Some(true),
            },
            env: variables,
            key,
        };
        Ok((spec, skipped))
    }

    fn services<'a>(&self, around: Surround<'a>) -> Option<&'a ServiceVariables> {
        // Without service links only the API server's own Service is announced; the shell keeps it under this key.
        let namespace = match self.spec().enable_service_links {
            Some(false) => "",
            _ => self.pod.metadata.namespace.as_deref().unwrap_or_default(),
        };
        around.services.get(namespace).or_else(|| around.services.get("")).map(|variables| &**variables)
    }

    /// Whether a volume's files are ours to replace, so that containers may only read them.
    pub(super) fn is_generated(&self, name: &str) -> bool {
        self.spec().volumes.iter().flatten().any(|volume| {
            volume.name == name
                && (volume.config_map.is_some()
                    || volume.secret.is_some()
                    || volume.downward_api.is_some()
                    || volume.projected.is_some())
        })
    }

    fn termination_message(
        &self,
        container: &Container,
        key: &ContainerKey,
        around: Surround<'_>,
    ) -> TerminationMessage {
        let dir = around.node.pods_dir.join(self.uid.as_str()).join("containers").join(&*key.name);
        TerminationMessage {
            path: container.termination_message_path.clone().unwrap_or_else(|| "/dev/termination-log".to_owned()),
            host_path: Some(dir.join(format!("termination-{}", key.attempt))),
            fallback_to_logs: container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError"),
        }
    }
}

fn has_sub_path(mount: &VolumeMount) -> bool {
    [&mount.sub_path_expr, &mount.sub_path].into_iter().flatten().any(|path| !path.is_empty())
}

/// The part of its volume that a mount shows; `None` is all of it.
pub(super) fn sub_path(mount: &VolumeMount, lookup: impl Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    let path = match (&mount.sub_path_expr, &mount.sub_path) {
        (Some(pattern), _) if !pattern.is_empty() => expand_known(pattern, lookup)?,
        (_, Some(path)) => path.clone(),
        _ => String::new(),
    };
    if path.starts_with('/') {
        return Err(format!("error SubPath `{path}` must not be an absolute path"));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(format!("unable to provision SubPath `{path}`: must not contain '..'"));
    }
    Ok(Some(path).filter(|path| !path.is_empty()))
}

fn pull_policy(container: &Container) -> PullPolicy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        _ => PullPolicy::IfNotPresent,
    }
}

fn port(port: &k8s_openapi::api::core::v1::ContainerPort) -> Option<Port> {
    let any = IpAddr::from([0, 0, 0, 0]);
    let host_ip = port.host_ip.as_ref().and_then(|ip| ip.parse().ok()).unwrap_or(any);
    let host_port = port.host_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    Some(Port {
        name: port.name.clone().unwrap_or_default(),
        container_port: u16::try_from(port.container_port).ok()?,
        host: host_port.map(|port| (host_ip, port)),
        protocol: match port.protocol.as_deref() {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            _ => Protocol::Tcp,
        },
    })
}

/// A pull's duration to the millisecond, as the kubelet prints it: `1.234s`, `87ms`.
fn short_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0..1_000 => format!("{millis}ms"),
        1_000..60_000 => format!("{}s", (millis as f64) / 1000.0),
        _ => format!("{}m{}s", millis / 60_000, (millis % 60_000) as f64 / 1000.0),
    }
}
