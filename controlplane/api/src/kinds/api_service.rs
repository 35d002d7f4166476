//! APIService: a group and version that another server serves.

use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec};

use super::fields::{default_number, is_true, list, text};
use super::meta::{age_cell, name_cell, spec_and_status};
use crate::kind::{Info, NameRule, Resource, Subresource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path, dns1035_label, dns1123_subdomain, port_number};

const STATUSES: [&str; 3] = ["True", "False", "Unknown"];

impl Resource for APIService {
    const INFO: Info = Info {
        categories: &["api-extensions"],
        subresources: &[Subresource::Status],
        name_rule: NameRule::PathSegment,
        columns: &[
            Column::NAME,
            Column::text("Service", "The reference to the service that hosts this API endpoint."),
            Column::text("Available", "Whether this service is available."),
            Column::AGE,
        ],
        needs_version: true,
        is_acted_on: false,
        ..Info::cluster("apiservices", "apiservice")
    };

    spec_and_status!();

    fn apply_defaults(&mut self) {
        if let Some(service) = self.spec.as_mut().and_then(|s| s.service.as_mut()) {
            default_number(&mut service.port, 443);
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let empty = Default::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let (group, version) = (text(&spec.group), text(&spec.version));
        let needed = format!("{version}.{group}");
        let name = text(&self.metadata.name);
        if name != needed {
            let at = Path::new("metadata");
            errors.invalid(&at.child("name"), name, format!("must be `spec.version+\".\"+spec.group`: {needed:?}"));
        }
        let at = Path::new("spec");
        if !group.is_empty() {
            errors.invalid_each(&at.child("group"), group, dns1123_subdomain(group));
        } else if version != "v1" {
            errors.required(&at.child("group"), "only v1 may have an empty group and it better be legacy kube");
        }
        errors.invalid_each(&at.child("version"), version, dns1035_label(version));
        for (field, value, most) in [
            ("groupPriorityMinimum", spec.group_priority_minimum, 20_000),
            ("versionPriority", spec.version_priority, 1000),
        ] {
            if value <= 0 || value > most {
                errors.invalid(&at.child(field), value, format!("must be positive and less than {most}"));
            }
        }
        validate_service(spec, &at, errors);
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut Errors) {
        let at = Path::new("status");
        let at = at.child("conditions");
        let conditions = self.status.as_ref().map(|s| list(&s.conditions)).unwrap_or_default();
        for (i, condition) in conditions.iter().enumerate() {
            if !STATUSES.contains(&condition.status.as_str()) {
                errors.not_supported(&at.index(i).child("status"), &condition.status, &STATUSES);
            }
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        vec![
            name_cell(&self.metadata),
            self.spec
                .as_ref()
                .and_then(|s| s.service.as_ref())
                .map_or_else(|| "Local".to_owned(), |s| format!("{}/{}", text(&s.namespace), text(&s.name)))
                .into(),
            self.status
                .iter()
                .filter_map(|s| s.conditions.as_ref())
                .flatten()
                .find(|c| c.type_ == "Available")
                .map_or_else(
                    || "Unknown".to_owned(),
                    |c| match (c.status.as_str(), text(&c.reason)) {
                        ("True", _) | (_, "") => c.status.clone(),
                        (status, reason) => format!("{status} ({reason})"),
                    },
                )
                .into(),
            age_cell(&self.metadata, now),
        ]
    }
}

/// Where the server is, and how it is trusted.
fn validate_service(spec: &APIServiceSpec, at: &Path<'_>, errors: &mut Errors) {
    let bundle = spec.ca_bundle.as_ref().map_or(0, |b| b.0.len());
    let insecure = is_true(spec.insecure_skip_tls_verify);
    let insecure_at = at.child("insecureSkipTLSVerify");
    let Some(service) = &spec.service else {
        if bundle > 0 {
            let why = "local APIServices may not have a caBundle";
            errors.invalid(&at.child("caBundle"), format!("{bundle} bytes"), why);
        }
        if insecure {
            errors.invalid(&insecure_at, true, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    };
    let service_at = at.child("service");
    for (field, value) in [("namespace", &service.namespace), ("name", &service.name)] {
        if text(value).is_empty() {
            errors.required(&service_at.child(field), "");
        }
    }
    let port = service.port.unwrap_or_default();
    let wrong = port_number(port);
    if !wrong.is_empty() {
        errors.invalid(&service_at.child("port"), port, format!("port is not valid: {}", wrong.join(",")));
    }
    if insecure && bundle > 0 {
        errors.invalid(&insecure_at, true, "may not be true if caBundle is present");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, expect, faults, row, status_faults, with};

    fn service(rest: Value) -> Value {
        let service = json!({
            "metadata": {"name": "v1.a.b", "creationTimestamp": "2024-05-01T11:55:00Z"},
            "spec": {
                "group": "a.b", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 10,
                "service": {"namespace": "n", "name": "s"},
            },
        });
        with(service, rest)
    }

    #[test]
    fn services() {
        let made: APIService = created(service(json!({})));
        assert_eq!(made.spec.unwrap().service.unwrap().port, Some(443));
        let check = |rest: Value, expected: &[&str]| expect(&faults::<APIService>(service(rest)), expected);
        check(json!({}), &[]);
        check(json!({"metadata": {"name": "v1."}, "spec": {"group": null, "service": null}}), &[]);
        check(
            json!({"spec": {"group": "A", "version": "1", "groupPriorityMinimum": 20001, "versionPriority": 0}}),
            &[
                "metadata.name: Invalid value: \"v1.a.b\": must be `spec.version+\".\"+spec.group`: \"1.A\"",
                "spec.group: Invalid value: \"A\": a lowercase RFC 1123 subdomain",
                "spec.version: Invalid value: \"1\": a DNS-1035 label",
                "spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000",
                "spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
            ],
        );
        check(
            json!({"metadata": {"name": "v2."}, "spec": {"group": "", "version": "v2"}}),
            &["spec.group: Required value: only v1 may have an empty group and it better be legacy kube"],
        );
        check(
            json!({"spec": {"service": null, "caBundle": "QQ==", "insecureSkipTLSVerify": true}}),
            &[
                "spec.caBundle: Invalid value: \"1 bytes\": local APIServices may not have a caBundle",
                "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
            ],
        );
        check(
            json!({"spec": {"service": {"namespace": null, "name": "", "port": 65536}, "caBundle": "QQ==", "insecureSkipTLSVerify": true}}),
            &[
                "spec.service.namespace: Required value",
                "spec.service.name: Required value",
                "spec.service.port: Invalid value: 65536: port is not valid: must be between 1 and 65535, inclusive",
                "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
            ],
        );
    }

    #[test]
    fn status_and_rows() {
        let condition = |status: &str, reason: &str| {
            let reason = if reason.is_empty() { Value::Null } else { json!(reason) };
            json!({"conditions": [{"type": "Available", "status": status, "reason": reason}]})
        };
        expect(
            &status_faults::<APIService>(service(json!({})), condition("Maybe", "")),
            &[
                "status.conditions[0].status: Unsupported value: \"Maybe\": supported values: \"True\", \"False\", \"Unknown\"",
            ],
        );
        let line = |rest: Value| row::<APIService>(service(rest));
        assert_eq!(line(json!({"spec": {"service": null}})), "v1.a.b|Local|Unknown|5m");
        assert_eq!(line(json!({"status": condition("True", "Passed")})), "v1.a.b|n/s|True|5m");
        assert_eq!(line(json!({"status": condition("False", "Missing")})), "v1.a.b|n/s|False (Missing)|5m");
    }
}
