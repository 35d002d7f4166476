//! Ingress: HTTP routes from outside to Services.

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressServiceBackend};

use super::fields::{list, text};
use super::meta::{age_cell, name_cell, or_none, spec_and_status};
use crate::kind::{Info, Resource, Subresource};
use crate::table::{Cell, Column};
use crate::validation::{
    Errors, Path, dns1035_label, dns1123_label, dns1123_subdomain, json, path_segment, port_name, port_number,
    validate_ip,
};

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
/// The most hosts a row names.
const SHOWN_HOSTS: usize = 3;

impl Resource for Ingress {
    const INFO: Info = Info {
        short_names: &["ing"],
        subresources: &[Subresource::Status],
        columns: &[
            Column::NAME,
            Column::text(
                "Class",
                "The name of the IngressClass resource that should be used for additional configuration",
            ),
            Column::text("Hosts", "Hosts that incoming requests are matched against before the ingress rule"),
            Column::text("Address", "Address is a list containing ingress points for the load-balancer"),
            Column::text("Ports", "Ports of TLS configurations that open"),
            Column::AGE,
        ],
        has_generation: true,
        is_acted_on: false,
        ..Info::namespaced("ingresses", "ingress")
    };

    spec_and_status!();

    fn validate(&self, errors: &mut Errors) {
        let at = Path::new("spec");
        let empty = Default::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        if list(&spec.rules).is_empty() && spec.default_backend.is_none() {
            errors.invalid(&at, json(&spec.rules), "either `defaultBackend` or `rules` must be specified");
        }
        if let Some(backend) = &spec.default_backend {
            validate_backend(backend, &at.child("defaultBackend"), errors);
        }
        for (i, rule) in list(&spec.rules).iter().enumerate() {
            let rules = at.child("rules");
            let at = rules.index(i);
            validate_host(text(&rule.host), &at.child("host"), errors);
            let Some(http) = &rule.http else { continue };
            let paths = at.child("http");
            let paths = paths.child("paths");
            if http.paths.is_empty() {
                errors.required(&paths, "");
            }
            for (i, path) in http.paths.iter().enumerate() {
                validate_path(path, &paths.index(i), errors);
            }
        }
        for (i, tls) in list(&spec.tls).iter().enumerate() {
            let all = at.child("tls");
            let at = all.index(i);
            for (i, host) in list(&tls.hosts).iter().enumerate() {
                errors.invalid_each(&at.child("hosts").index(i), host, host_rule(host));
            }
            if let Some(name) = tls.secret_name.as_ref().filter(|n| !n.is_empty()) {
                errors.invalid_each(&at.child("secretName"), name, dns1123_subdomain(name));
            }
        }
        if let Some(class) = &spec.ingress_class_name {
            errors.invalid_each(&at.child("ingressClassName"), class, dns1123_subdomain(class));
        }
    }

    fn validate_create(&self, errors: &mut Errors) {
        let class = self.spec.as_ref().and_then(|s| s.ingress_class_name.as_ref());
        let annotated = self.metadata.annotations.as_ref().and_then(|a| a.get(CLASS_ANNOTATION));
        if let (Some(annotated), Some(class)) = (annotated, class)
            && annotated != class
        {
            let at = Path::new("annotations");
            let why = "must match `ingressClassName` when both are specified";
            errors.invalid(&at.child(CLASS_ANNOTATION), annotated, why);
        }
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut Errors) {
        let balancer = self.status.as_ref().and_then(|s| s.load_balancer.as_ref());
        let at = Path::new("status.loadBalancer.ingress");
        for (i, point) in balancer.and_then(|b| b.ingress.as_ref()).into_iter().flatten().enumerate() {
            if let Some(ip) = point.ip.as_ref().filter(|ip| !ip.is_empty()) {
                validate_ip(ip, &at.index(i).child("ip"), errors);
            }
            if let Some(host) = point.hostname.as_ref().filter(|h| !h.is_empty()) {
                errors.invalid_each(&at.index(i).child("hostname"), host, dns1123_subdomain(host));
                refuse_ip(host, &at.index(i).child("hostname"), errors);
            }
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = self.spec.as_ref();
        let class = spec.and_then(|s| s.ingress_class_name.as_deref()).unwrap_or_default();
        let tls = spec.is_some_and(|s| !list(&s.tls).is_empty());
        let balancer = self.status.as_ref().and_then(|s| s.load_balancer.as_ref());
        let points: BTreeSet<&str> = balancer
            .and_then(|b| b.ingress.as_ref())
            .into_iter()
            .flatten()
            .filter_map(|p| p.ip.as_deref().filter(|ip| !ip.is_empty()).or(p.hostname.as_deref()))
            .collect();
        vec![
            name_cell(&self.metadata),
            or_none(class).into(),
            hosts(self).into(),
            points.into_iter().collect::<Vec<_>>().join(",").into(),
            if tls { "80, 443" } else { "80" }.into(),
            age_cell(&self.metadata, now),
        ]
    }
}

fn hosts(ingress: &Ingress) -> String {
    let rules = ingress.spec.as_ref().map(|s| list(&s.rules)).unwrap_or_default();
    let named: Vec<&str> = rules.iter().take(SHOWN_HOSTS).map(|r| text(&r.host)).filter(|h| !h.is_empty()).collect();
    if named.is_empty() {
        return "*".to_owned();
    }
    let more = rules.len().saturating_sub(SHOWN_HOSTS);
    if more == 0 { named.join(",") } else { format!("{} + {more} more...", named.join(",")) }
}

/// A name, or one with `*` in place of its first label.
fn host_rule(host: &str) -> Vec<String> {
    match host.strip_prefix("*.") {
        Some(rest) if dns1123_subdomain(rest).is_empty() => Vec::new(),
        None if !host.contains('*') => dns1123_subdomain(host),
        _ => vec!["a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')".to_owned()],
    }
}

fn validate_host(host: &str, at: &Path<'_>, errors: &mut Errors) {
    if host.is_empty() {
        return;
    }
    refuse_ip(host, at, errors);
    errors.invalid_each(at, host, host_rule(host));
}

fn refuse_ip(host: &str, at: &Path<'_>, errors: &mut Errors) {
    if host.parse::<std::net::IpAddr>().is_ok() {
        errors.invalid(at, host, "must be a DNS name, not an IP address");
    }
}

fn validate_path(path: &HTTPIngressPath, at: &Path<'_>, errors: &mut Errors) {
    let url = text(&path.path);
    let relative = !url.starts_with('/');
    match path.path_type.as_str() {
        "" => errors.required(&at.child("pathType"), "pathType must be specified"),
        "Exact" | "Prefix" => {
            if relative {
                errors.invalid(&at.child("path"), url, "must be an absolute path");
            }
            for bad in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|bad| url.contains(bad)) {
                errors.invalid(&at.child("path"), url, format!("must not contain '{bad}'"));
            }
            for bad in ["/..", "/."].into_iter().filter(|bad| url.ends_with(bad)) {
                errors.invalid(&at.child("path"), url, format!("cannot end with '{bad}'"));
            }
        }
        "ImplementationSpecific" if !url.is_empty() && relative => {
            errors.invalid(&at.child("path"), url, "must be an absolute path");
        }
        "ImplementationSpecific" => {}
        other => errors.not_supported(&at.child("pathType"), other, &PATH_TYPES),
    }
    validate_backend(&path.backend, &at.child("backend"), errors);
}

fn validate_backend(backend: &IngressBackend, at: &Path<'_>, errors: &mut Errors) {
    match (&backend.resource, &backend.service) {
        (Some(_), Some(_)) => errors.invalid(at, "", "cannot set both resource and service backends"),
        (Some(resource), None) => {
            let at = at.child("resource");
            validate_reference(resource.api_group.as_ref(), &resource.kind, &resource.name, &at, errors);
        }
        (None, Some(service)) => validate_service(service, at, errors),
        (None, None) => errors.invalid(at, "", "resource or service backend is required"),
    }
}

/// A reference to an object of some kind.
pub(super) fn validate_reference(group: Option<&String>, kind: &str, name: &str, at: &Path<'_>, errors: &mut Errors) {
    if let Some(group) = group {
        errors.invalid_each(&at.child("apiGroup"), group, dns1123_subdomain(group));
    }
    for (field, value) in [("kind", kind), ("name", name)] {
        if value.is_empty() {
            errors.required(&at.child(field), "");
        } else {
            errors.invalid_each(&at.child(field), value, path_segment(value));
        }
    }
}

fn validate_service(service: &IngressServiceBackend, at: &Path<'_>, errors: &mut Errors) {
    let service_at = at.child("service");
    if service.name.is_empty() {
        errors.required(&service_at.child("name"), "");
    } else if !dns1035_label(&service.name).is_empty() {
        errors.invalid_each(&service_at.child("name"), &service.name, dns1123_label(&service.name));
    }
    let port = service.port.as_ref();
    let name = port.map(|p| text(&p.name)).unwrap_or_default();
    let number = port.and_then(|p| p.number).unwrap_or_default();
    let port_at = service_at.child("port");
    match (name.is_empty(), number == 0) {
        (false, false) => errors.invalid(at, "", "cannot set both port name & port number"),
        (false, true) => errors.invalid_each(&port_at.child("name"), name, port_name(name)),
        (true, false) => {
            for detail in port_number(number) {
                errors.invalid(&port_at.child("number"), number, detail);
            }
        }
        (true, true) => errors.required(at, "port name or number is required"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{expect, faults, row, status_faults, with};

    fn ingress(rest: Value) -> Value {
        let base = json!({"metadata": {"name": "i", "namespace": "n", "creationTimestamp": "2024-05-01T11:55:00Z"}, "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}});
        with(base, rest)
    }

    #[track_caller]
    fn check(spec: Value, expected: &[&str]) {
        expect(&faults::<Ingress>(ingress(json!({ "spec": spec }))), expected);
    }

    #[test]
    fn ingresses() {
        check(json!({}), &[]);
        check(
            json!({"defaultBackend": null}),
            &["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
        );
        check(
            json!({"ingressClassName": "C", "tls": [{"hosts": ["*.a.b", "a.*"], "secretName": "S"}]}),
            &[
                "spec.tls[0].hosts[1]: Invalid value: \"a.*\": a wildcard DNS-1123 subdomain must start with '*.'",
                "spec.tls[0].secretName: Invalid value: \"S\"",
                "spec.ingressClassName: Invalid value: \"C\"",
            ],
        );
        let class = |annotation: &str, expected: &[&str]| {
            let both = json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": annotation}}, "spec": {"ingressClassName": "a"}});
            expect(&faults::<Ingress>(ingress(both)), expected);
        };
        class("a", &[]);
        class(
            "b",
            &[
                "annotations.kubernetes.io/ingress.class: Invalid value: \"b\": must match `ingressClassName` when both are specified",
            ],
        );
    }

    #[test]
    fn rules() {
        check(
            json!({"rules": [{"host": "10.0.0.1"}, {"host": "A", "http": {"paths": []}}]}),
            &[
                "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
                "spec.rules[1].host: Invalid value: \"A\"",
                "spec.rules[1].http.paths: Required value",
            ],
        );
        let path = |patch: Value, expected: &[&str]| {
            let base = json!({"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"name": "web"}}}});
            check(json!({"rules": [{"http": {"paths": [with(base, patch)]}}]}), expected);
        };
        let at = "spec.rules[0].http.paths[0]";
        path(json!({}), &[]);
        path(json!({"pathType": ""}), &[&format!("{at}.pathType: Required value: pathType must be specified")]);
        path(
            json!({"pathType": "Regex"}),
            &[&format!(
                "{at}.pathType: Unsupported value: \"Regex\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\""
            )],
        );
        path(
            json!({"path": "a//b/.."}),
            &[
                &format!("{at}.path: Invalid value: \"a//b/..\": must be an absolute path"),
                &format!("{at}.path: Invalid value: \"a//b/..\": must not contain '//'"),
                &format!("{at}.path: Invalid value: \"a//b/..\": cannot end with '/..'"),
            ],
        );
        path(
            json!({"path": "a", "pathType": "ImplementationSpecific"}),
            &[&format!("{at}.path: Invalid value: \"a\": must be an absolute path")],
        );
    }

    #[test]
    fn backends() {
        let backend = |backend: Value, expected: &[&str]| check(json!({ "defaultBackend": backend }), expected);
        let at = "spec.defaultBackend";
        backend(
            json!({"service": null}),
            &[&format!("{at}: Invalid value: \"\": resource or service backend is required")],
        );
        backend(
            json!({"resource": {"kind": "K", "name": "r"}}),
            &[&format!("{at}: Invalid value: \"\": cannot set both resource and service backends")],
        );
        backend(
            json!({"service": null, "resource": {"apiGroup": "", "kind": "", "name": "a/b"}}),
            &[
                &format!("{at}.resource.apiGroup: Invalid value: \"\""),
                &format!("{at}.resource.kind: Required value"),
                &format!("{at}.resource.name: Invalid value: \"a/b\": may not contain '/'"),
            ],
        );
        backend(
            json!({"service": {"name": "", "port": {"name": "web", "number": 80}}}),
            &[
                &format!("{at}.service.name: Required value"),
                &format!("{at}: Invalid value: \"\": cannot set both port name & port number"),
            ],
        );
        backend(
            json!({"service": {"name": "S", "port": {"number": 0}}}),
            &[
                &format!("{at}.service.name: Invalid value: \"S\""),
                &format!("{at}: Required value: port name or number is required"),
            ],
        );
        backend(
            json!({"service": {"port": {"number": 70000}}}),
            &[&format!("{at}.service.port.number: Invalid value: 70000: must be between 1 and 65535, inclusive")],
        );
    }

    #[test]
    fn status_and_rows() {
        let points = json!({"loadBalancer": {"ingress": [{"ip": "x"}, {"hostname": "10.0.0.1"}]}});
        expect(
            &status_faults::<Ingress>(ingress(json!({})), points),
            &[
                "status.loadBalancer.ingress[0].ip: Invalid value: \"x\": must be a valid IP address",
                "status.loadBalancer.ingress[1].hostname: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
            ],
        );
        let line = |rest: Value| row::<Ingress>(ingress(rest));
        assert_eq!(line(json!({})), "i|<none>|*||80|5m");
        let hosts: Vec<Value> = ["a", "b", "c", "d"].iter().map(|h| json!({ "host": h })).collect();
        assert_eq!(
            line(
                json!({"spec": {"ingressClassName": "k", "rules": hosts, "tls": [{}]}, "status": {"loadBalancer": {"ingress": [{"ip": "1.1.1.1"}]}}})
            ),
            "i|k|a,b,c + 1 more...|1.1.1.1|80, 443|5m"
        );
    }
}
