//! The rules for what is asked of a container while it runs: probes, and handlers of its start and stop.

use k8s_openapi::api::core::v1::{Container, Lifecycle, LifecycleHandler, Probe};

use super::spec::Context;
use crate::kinds::fields::{list, text};
use crate::validation::{Errors, Path, http_header_name, port_number, validate_non_negative, validate_port};

/// The handlers and probes that regular containers and sidecars have.
pub(super) fn validate_lifecycle_and_probes(
    context: &Context<'_>,
    container: &Container,
    at: &Path<'_>,
    errors: &mut Errors,
) {
    if let Some(lifecycle) = &container.lifecycle {
        validate_lifecycle(context, lifecycle, &at.child("lifecycle"), errors);
    }
    for (field, probe) in [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ] {
        let Some(probe) = probe else { continue };
        let at = at.child(field);
        validate_probe(probe, &at, errors);
        if field == "readinessProbe" {
            if let Some(seconds) = probe.termination_grace_period_seconds {
                let at = at.child("terminationGracePeriodSeconds");
                errors.invalid(&at, seconds, "must not be set for readinessProbes");
            }
        } else if probe.success_threshold != Some(1) {
            errors.invalid(&at.child("successThreshold"), probe.success_threshold.unwrap_or_default(), "must be 1");
        }
    }
}

fn validate_lifecycle(context: &Context<'_>, lifecycle: &Lifecycle, at: &Path<'_>, errors: &mut Errors) {
    for (field, handler) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        let Some(handler) = handler else { continue };
        let LifecycleHandler { exec, http_get, sleep, tcp_socket } = handler;
        let probe = Probe {
            exec: exec.clone(),
            http_get: http_get.clone(),
            tcp_socket: tcp_socket.clone(),
            ..Default::default()
        };
        let at = at.child(field);
        let seconds = sleep.as_ref().map(|s| s.seconds);
        validate_handler(&probe, seconds, context.spec.termination_grace_period_seconds, &at, errors);
    }
}

fn validate_probe(probe: &Probe, at: &Path<'_>, errors: &mut Errors) {
    validate_handler(probe, None, None, at, errors);
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        validate_non_negative(value.unwrap_or_default(), &at.child(field), errors);
    }
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|s| *s <= 0) {
        errors.invalid(&at.child("terminationGracePeriodSeconds"), seconds, "must be greater than 0");
    }
}

/// Exactly one way to ask a container something: those of a probe, or to sleep.
fn validate_handler(probe: &Probe, sleep: Option<i64>, grace: Option<i64>, at: &Path<'_>, errors: &mut Errors) {
    let set = [
        ("exec", probe.exec.is_some()),
        ("httpGet", probe.http_get.is_some()),
        ("tcpSocket", probe.tcp_socket.is_some()),
        ("grpc", probe.grpc.is_some()),
        ("sleep", sleep.is_some()),
    ];
    let mut set = set.into_iter().filter(|(_, set)| *set).map(|(field, _)| field);
    let Some(first) = set.next() else {
        errors.required(at, "must specify a handler type");
        return;
    };
    let first_at = at.child(first);
    if first == "exec" && probe.exec.as_ref().is_some_and(|e| list(&e.command).is_empty()) {
        errors.required(&first_at.child("command"), "");
    }
    if let (Some(http), "httpGet") = (&probe.http_get, first) {
        if text(&http.path).is_empty() {
            errors.required(&first_at.child("path"), "");
        }
        validate_port(&http.port, &first_at.child("port"), errors);
        let scheme = text(&http.scheme);
        if !matches!(scheme, "HTTP" | "HTTPS") {
            errors.not_supported(&first_at.child("scheme"), scheme, &["HTTP", "HTTPS"]);
        }
        for header in list(&http.http_headers) {
            errors.invalid_each(&first_at.child("httpHeaders"), &header.name, http_header_name(&header.name));
        }
    }
    if let (Some(tcp), "tcpSocket") = (&probe.tcp_socket, first) {
        validate_port(&tcp.port, &first_at.child("port"), errors);
    }
    if let (Some(grpc), "grpc") = (&probe.grpc, first) {
        for detail in port_number(grpc.port) {
            errors.invalid(&first_at.child("port"), grpc.port, detail);
        }
    }
    if let (Some(seconds), Some(grace), "sleep") = (sleep, grace, first)
        && !(0..=grace).contains(&seconds)
    {
        let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.invalid(&first_at, seconds, detail);
    }
    for other in set {
        errors.forbidden(&at.child(other), "may not specify more than 1 handler type");
    }
}
