//! APIService: a group and version that another server serves.

use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;

use super::fields::{default_number, is_true, text};
use super::meta::{age_cell, name_cell, spec_and_status};
use crate::kind::{Info, NameRule, Resource, Subresource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path};

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
        let needed = if group.is_empty() { "v1.".to_owned() } else { format!("{version}.{group}") };
        let name = text(&self.metadata.name);
        if name != needed && !(group.is_empty() && name == format!("{version}.")) {
            let at = Path::new("metadata");
            errors.invalid(&at.child("name"), name, format!("must be `spec.version+\".\"+spec.group`: {needed:?}"));
        }
        let at = Path::new("spec");
        for (field, value, most) in [
            ("groupPriorityMinimum", spec.group_priority_minimum, 20_000),
            ("versionPriority", spec.version_priority, 1000),
        ] {
            if value <= 0 || value > most {
                errors.invalid(&at.child(field), value, format!("must be positive and less than or equal to {most}"));
            }
        }
        let has_bundle = spec.ca_bundle.as_ref().is_some_and(|b| !b.0.is_empty());
        if is_true(spec.insecure_skip_tls_verify) && has_bundle {
            let why = "may not be true if caBundle is present";
            errors.invalid(&at.child("insecureSkipTLSVerify"), true, why);
        }
        let Some(service) = &spec.service else { return };
        let at = at.child("service");
        for (field, value) in [("namespace", &service.namespace), ("name", &service.name)] {
            if text(value).is_empty() {
                errors.required(&at.child(field), "");
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
