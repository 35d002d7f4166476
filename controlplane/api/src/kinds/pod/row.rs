//! The row of a Pod in a table (`printPod`): how many containers are ready, the reason that says most, the restarts.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::resources::is_sidecar;
use crate::kinds::fields::{list, text};
use crate::kinds::meta::{age_cell, name_cell, or_none};
use crate::table::{Cell, Column, age};

/// The columns of Pods.
pub(super) const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Ready", "The aggregate readiness state of this pod for accepting traffic."),
    Column::text("Status", "The aggregate status of the containers in this pod."),
    Column::text(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    Column::AGE,
    Column::text("IP", "podIP address allocated to the pod.").wide(),
    Column::text("Node", "The node this pod runs on.").wide(),
    Column::text("Nominated Node", "The node on which resources were freed for this pod.").wide(),
    Column::text("Readiness Gates", "The pod's conditions that count toward its readiness.").wide(),
];

/// What the containers add up to.
struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i32,
    last_restart: Option<Time>,
}

pub(super) fn row(pod: &Pod, now: jiff::Timestamp) -> Vec<Cell> {
    let (no_spec, no_status) = (PodSpec::default(), PodStatus::default());
    let spec = pod.spec.as_ref().unwrap_or(&no_spec);
    let status = pod.status.as_ref().unwrap_or(&no_status);
    let mut summary = summarise(spec, status);
    if pod.metadata.deletion_timestamp.is_some() {
        if text(&status.reason) == "NodeLost" {
            summary.reason = "Unknown".to_owned();
        } else if !matches!(text(&status.phase), "Failed" | "Succeeded") {
            summary.reason = "Terminating".to_owned();
        }
    }
    let restarts = match &summary.last_restart {
        Some(at) if summary.restarts != 0 => format!("{} ({} ago)", summary.restarts, age(at.0, now)),
        _ => summary.restarts.to_string(),
    };
    let ip = list(&status.pod_ips).first().map(|ip| ip.ip.as_str()).unwrap_or_default();
    vec![
        name_cell(&pod.metadata),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        age_cell(&pod.metadata, now),
        or_none(ip).into(),
        or_none(text(&spec.node_name)).into(),
        or_none(text(&status.nominated_node_name)).into(),
        gates(spec, status).into(),
    ]
}

fn gates(spec: &PodSpec, status: &PodStatus) -> String {
    let gates = list(&spec.readiness_gates);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let met = gates.iter().filter(|g| condition(status, &g.condition_type) == Some("True")).count();
    format!("{met}/{}", gates.len())
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a str> {
    list(&status.conditions).iter().find(|c| c.type_ == kind).map(|c| c.status.as_str())
}

fn state(status: &ContainerStatus) -> ContainerState {
    status.state.clone().unwrap_or_default()
}

fn last_end(status: &ContainerStatus) -> Option<Time> {
    status.last_state.as_ref()?.terminated.as_ref()?.finished_at.clone()
}

fn later(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.0 > a.0 { b } else { a }),
        (a, b) => a.or(b),
    }
}

fn ended(t: &ContainerStateTerminated) -> String {
    match (text(&t.reason), t.signal.unwrap_or_default()) {
        ("", 0) => format!("ExitCode:{}", t.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn summarise(spec: &PodSpec, status: &PodStatus) -> Summary {
    let sidecar = |name: &str| list(&spec.init_containers).iter().any(|c| c.name == name && is_sidecar(c));
    let sidecars = list(&spec.init_containers).iter().filter(|c| is_sidecar(c)).count();
    let reason = if text(&status.reason).is_empty() { text(&status.phase) } else { text(&status.reason) };
    let gated =
        list(&status.conditions).iter().any(|c| c.type_ == "PodScheduled" && text(&c.reason) == "SchedulingGated");
    let mut out = Summary {
        reason: if gated { "SchedulingGated".to_owned() } else { reason.to_owned() },
        ready: 0,
        total: spec.containers.len() + sidecars,
        restarts: 0,
        last_restart: None,
    };
    let (mut sidecar_restarts, mut sidecar_last) = (0, None);
    let mut initializing = false;
    for (i, container) in list(&status.init_container_statuses).iter().enumerate() {
        out.restarts += container.restart_count;
        out.last_restart = later(out.last_restart.take(), last_end(container));
        let is_sidecar = sidecar(&container.name);
        if is_sidecar {
            sidecar_restarts += container.restart_count;
            sidecar_last = later(sidecar_last.take(), last_end(container));
        }
        let state = state(container);
        let waiting = state.waiting.as_ref().map(|w| text(&w.reason)).unwrap_or_default();
        match &state.terminated {
            Some(t) if t.exit_code == 0 => continue,
            _ if is_sidecar && container.started == Some(true) => {
                out.ready += usize::from(container.ready);
                continue;
            }
            Some(t) => out.reason = format!("Init:{}", ended(t)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => out.reason = format!("Init:{waiting}"),
            None => out.reason = format!("Init:{i}/{}", list(&spec.init_containers).len()),
        }
        initializing = true;
        break;
    }
    if !initializing || condition(status, "Initialized") == Some("True") {
        out.restarts = sidecar_restarts;
        out.last_restart = sidecar_last;
        add_containers(&mut out, status);
    }
    out
}

/// The regular containers, of which the first one's reason wins.
fn add_containers(out: &mut Summary, status: &PodStatus) {
    let mut running = false;
    for container in list(&status.container_statuses).iter().rev() {
        out.restarts += container.restart_count;
        out.last_restart = later(out.last_restart.take(), last_end(container));
        let state = state(container);
        let waiting = state.waiting.as_ref().map(|w| text(&w.reason)).unwrap_or_default();
        if !waiting.is_empty() {
            out.reason = waiting.to_owned();
        } else if let Some(t) = &state.terminated {
            out.reason = ended(t);
        } else if container.ready && state.running.is_some() {
            running = true;
            out.ready += 1;
        }
    }
    // A container that still runs says more than one that is done.
    if out.reason == "Completed" && running {
        let ready = condition(status, "Ready") == Some("True");
        out.reason = if ready { "Running" } else { "NotReady" }.to_owned();
    }
}
