//! Probes: when one is due, what its result changes. The startup probe gates the others; liveness restarts; readiness
//! shows. Thresholds, defaults and minimums are those of Kubernetes.

use std::{net::IpAddr, time::Duration};

use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    PodMachine, Timer,
    containers::{Role, Turn},
    hooks::{Purpose, Resolved},
};
use crate::{
    effect::{Effect, Outcome, ProbeKind, ProbeRequest, Target},
    event::EventKind,
    time::Now,
    workload::ContainerKey,
};

/// One probe of a container and what it has seen in the present run.
#[derive(Debug)]
pub(super) struct Prober {
    pub(super) kind: ProbeKind,
    initial_delay: Duration,
    period: Duration,
    timeout: Duration,
    success_threshold: u32,
    failure_threshold: u32,
    /// Time given to the container when this probe ends it.
    grace_seconds: Option<i64>,
    /// Successes (or failures) in a row.
    streak: u32,
    streak_passed: bool,
    in_flight: bool,
    /// The result in force; `None` until a threshold is reached.
    pub(super) passed: Option<bool>,
}

impl Prober {
    /// The probes of a container.
    pub(super) fn all(container: &Container) -> Vec<Self> {
        let kinds = [
            (ProbeKind::Startup, &container.startup_probe),
            (ProbeKind::Liveness, &container.liveness_probe),
            (ProbeKind::Readiness, &container.readiness_probe),
        ];
        kinds.into_iter().filter_map(|(kind, probe)| probe.as_ref().map(|probe| Self::new(kind, probe))).collect()
    }

    fn new(kind: ProbeKind, probe: &Probe) -> Self {
        let count = |value: Option<i32>, default: u32| match value {
            Some(value) if value > 0 => u32::try_from(value).unwrap_or(default),
            _ => default,
        };
        let seconds = |value, default| Duration::from_secs(u64::from(count(value, default)));
        Self {
            kind,
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            success_threshold: count(probe.success_threshold, 1),
            failure_threshold: count(probe.failure_threshold, 3),
            grace_seconds: probe.termination_grace_period_seconds,
            streak: 0,
            streak_passed: false,
            in_flight: false,
            passed: None,
        }
    }

    fn reset(&mut self) {
        (self.streak, self.in_flight, self.passed) = (0, false, None);
    }

    /// Counts a result; answers whether the result in force has changed or was reached anew.
    fn count(&mut self, passed: bool) -> bool {
        self.streak = if self.streak_passed == passed { self.streak.saturating_add(1) } else { 1 };
        self.streak_passed = passed;
        let threshold = if passed { self.success_threshold } else { self.failure_threshold };
        if self.streak < threshold {
            return false;
        }
        self.passed = Some(passed);
        true
    }
}

impl PodMachine {
    /// A container runs and its `postStart`, if any, is done.
    pub(super) fn begin_probes(&mut self, now: Now, index: usize) {
        let slot = &mut self.slots[index];
        for prober in &mut slot.probers {
            prober.reset();
        }
        let gated = slot.probers.iter().any(|prober| prober.kind == ProbeKind::Startup);
        if slot.role == Role::Init {
            // Init containers have no probes; started is true while they run.
            self.set_started(now, index);
        } else if gated {
            self.schedule(now, index, ProbeKind::Startup);
        } else {
            self.set_started(now, index);
        }
    }

    fn set_started(&mut self, now: Now, index: usize) {
        let slot = &mut self.slots[index];
        let has_readiness = slot.probers.iter().any(|prober| prober.kind == ProbeKind::Readiness);
        let is_init = slot.role == Role::Init;
        if let Some(run) = slot.run_mut() {
            run.started = true;
            run.ready = !has_readiness && !is_init;
        }
        if !is_init {
            self.schedule(now, index, ProbeKind::Liveness);
            self.schedule(now, index, ProbeKind::Readiness);
        }
    }

    /// Plans the first probe of a kind. The initial delay counts from the container's start.
    fn schedule(&mut self, now: Now, index: usize, kind: ProbeKind) {
        let slot = &self.slots[index];
        let (Some(run), Some(prober)) = (slot.run(), slot.probers.iter().find(|prober| prober.kind == kind)) else {
            return;
        };
        let at = (run.since + prober.initial_delay).max(now.mono);
        self.timers.insert(Timer::Probe(index, kind), at);
    }

    pub(super) fn probe_due(&mut self, now: Now, index: usize, kind: ProbeKind) {
        let key = self.key(index);
        let slot = &mut self.slots[index];
        if slot.run().is_none_or(|run| run.stop.is_some() && kind != ProbeKind::Readiness) {
            return;
        }
        let Some(prober) = slot.probers.iter_mut().find(|prober| prober.kind == kind) else { return };
        let timeout = prober.timeout;
        self.timers.insert(Timer::Probe(index, kind), now.mono + prober.period);
        // A probe that outlives its period is not doubled.
        if std::mem::replace(&mut prober.in_flight, true) {
            return;
        }
        let container = self.container(index);
        let Some(probe) = probe_of(container, kind).cloned() else { return };
        if let Some(exec) = &probe.exec {
            self.exec(key, exec.command.clone().unwrap_or_default(), timeout, Purpose::Probe(kind));
            return;
        }
        match target(container, &probe, self.ips.first()) {
            Ok(target) => self.effects.push(Effect::Probe(ProbeRequest { key, kind, target, timeout })),
            Err(message) => self.probe_done(now, &key, kind, Outcome::Error { message }),
        }
    }

    pub(super) fn probe_done(&mut self, now: Now, key: &ContainerKey, kind: ProbeKind, outcome: Outcome) {
        let Some(index) = self.current(key) else { return };
        let slot = &mut self.slots[index];
        let over = slot.run().is_none_or(|run| run.stop.is_some() && kind != ProbeKind::Readiness);
        let Some(prober) = slot.probers.iter_mut().find(|prober| prober.kind == kind) else { return };
        prober.in_flight = false;
        if over {
            return;
        }
        // A probe that could not be carried out says nothing about the container: its result is thrown away.
        let changed = !matches!(outcome, Outcome::Error { .. }) && prober.count(outcome.passed());
        let passed = prober.passed;
        match outcome {
            Outcome::Success => {}
            Outcome::Warning { output } => {
                let message = format!("{} probe warning: {output}", kind.title());
                self.event(Some(index), EventKind::Warning, "ProbeWarning", message);
            }
            Outcome::Failure { output } => {
                let message = format!("{} probe failed: {output}", kind.title());
                self.event(Some(index), EventKind::Warning, "Unhealthy", message);
            }
            Outcome::Error { message } => {
                let message = format!("{} probe errored and resulted in unknown state: {message}", kind.title());
                self.event(Some(index), EventKind::Warning, "Unhealthy", message);
            }
        }
        if changed {
            self.act_on_probe(now, index, kind, passed == Some(true));
        }
    }

    fn act_on_probe(&mut self, now: Now, index: usize, kind: ProbeKind, passed: bool) {
        match (kind, passed) {
            (ProbeKind::Readiness, passed) => {
                if let Some(run) = self.slots[index].run_mut() {
                    run.ready = passed;
                }
            }
            (ProbeKind::Startup, true) => {
                self.timers.remove(&Timer::Probe(index, kind));
                self.set_started(now, index);
            }
            (ProbeKind::Liveness, true) => {}
            (ProbeKind::Startup | ProbeKind::Liveness, false) => {
                let prober = self.slots[index].probers.iter().find(|prober| prober.kind == kind);
                let own = prober.and_then(|prober| prober.grace_seconds);
                let seconds = own.unwrap_or_else(|| self.grace_seconds());
                let name = &self.slots[index].name;
                let again = if self.policy(index) == "Never" { "" } else { ", will be restarted" };
                let message = format!("Container {name} failed {} probe{again}", kind.title().to_lowercase());
                let grace = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
                self.stop_container(now, index, grace, Turn::Now, Some(message));
            }
        }
    }
}

fn probe_of(container: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
    }
}

fn target(container: &Container, probe: &Probe, ip: Option<&IpAddr>) -> Resolved {
    let pod_ip = ip.map(IpAddr::to_string).unwrap_or_default();
    if let Some(get) = &probe.http_get {
        return http_target(container, get, ip);
    }
    if let Some(tcp) = &probe.tcp_socket {
        let host = tcp.host.clone().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
        return Ok(Target::Tcp { host, port: port_number(container, &tcp.port)? });
    }
    if let Some(grpc) = &probe.grpc {
        let port = u16::try_from(grpc.port).map_err(|_| format!("invalid port number: {}", grpc.port))?;
        return Ok(Target::Grpc { host: pod_ip, port, service: grpc.service.clone().unwrap_or_default() });
    }
    Err("missing probe handler".to_owned())
}

/// The target of an `httpGet`, of a probe or a hook.
pub(super) fn http_target(container: &Container, get: &HTTPGetAction, ip: Option<&IpAddr>) -> Resolved {
    let own = get.host.clone().filter(|host| !host.is_empty());
    let path = get.path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned());
    let headers = get.http_headers.iter().flatten();
    Ok(Target::Http {
        scheme: get.scheme.as_deref().unwrap_or("HTTP").to_lowercase(),
        host: own.unwrap_or_else(|| ip.map(IpAddr::to_string).unwrap_or_default()),
        port: port_number(container, &get.port)?,
        path: if path.starts_with('/') { path } else { format!("/{path}") },
        headers: headers.map(|header| (header.name.clone(), header.value.clone())).collect(),
    })
}

fn port_number(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match name.parse() {
            Ok(number) => number,
            Err(_) => {
                let mut ports = container.ports.iter().flatten();
                let named = ports.find(|port| port.name.as_deref() == Some(name));
                named
                    .map(|port| port.container_port)
                    .ok_or_else(|| format!("couldn't find port: {name:?} in container {:?}", container.name))?
            }
        },
    };
    u16::try_from(number).ok().filter(|number| *number > 0).ok_or_else(|| format!("invalid port number: {number}"))
}
