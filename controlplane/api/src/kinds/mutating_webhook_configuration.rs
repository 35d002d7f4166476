//! MutatingWebhookConfiguration: webhooks that may change objects.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;

use super::fields::{default_number, default_to, list};
use super::meta::{age_cell, name_cell};
use crate::kind::{Info, Resource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path, dns1123_subdomain};

impl Resource for MutatingWebhookConfiguration {
    const INFO: Info = Info {
        categories: &["api-extensions"],
        has_generation: true,
        columns: &[
            Column::NAME,
            Column::integer("Webhooks", "Webhooks indicates the number of webhooks registered in this configuration"),
            Column::AGE,
        ],
        ..Info::cluster("mutatingwebhookconfigurations", "mutatingwebhookconfiguration")
    };

    fn apply_defaults(&mut self) {
        for webhook in self.webhooks.iter_mut().flatten() {
            default_to(&mut webhook.failure_policy, "Fail");
            default_to(&mut webhook.match_policy, "Equivalent");
            default_to(&mut webhook.reinvocation_policy, "Never");
            webhook.namespace_selector.get_or_insert_default();
            webhook.object_selector.get_or_insert_default();
            default_number(&mut webhook.timeout_seconds, 10);
            for rule in webhook.rules.iter_mut().flatten() {
                default_to(&mut rule.scope, "*");
            }
            if let Some(service) = &mut webhook.client_config.service {
                default_number(&mut service.port, 443);
            }
        }
    }

    fn spec_changed(&self, old: &Self) -> bool {
        self.webhooks != old.webhooks
    }

    fn validate(&self, errors: &mut Errors) {
        let all = Path::new("webhooks");
        let webhooks = list(&self.webhooks);
        for (i, webhook) in webhooks.iter().enumerate() {
            let at = all.index(i);
            errors.invalid_each(&at.child("name"), &webhook.name, dns1123_subdomain(&webhook.name));
            if webhook.name.split('.').count() < 3 {
                let why = "should be a domain with at least three segments separated by dots";
                errors.invalid(&at.child("name"), &webhook.name, why);
            }
            if webhooks[..i].iter().any(|w| w.name == webhook.name) {
                errors.duplicate(&at.child("name"), &webhook.name);
            }
            if webhook.admission_review_versions.is_empty() {
                let why = "must specify one of v1, v1beta1";
                errors.required(&at.child("admissionReviewVersions"), why);
            }
            if !matches!(webhook.side_effects.as_str(), "None" | "NoneOnDryRun") {
                errors.not_supported(&at.child("sideEffects"), &webhook.side_effects, &["None", "NoneOnDryRun"]);
            }
            if let Some(n) = webhook.timeout_seconds.filter(|n| !(1..=30).contains(n)) {
                errors.invalid(&at.child("timeoutSeconds"), n, "the timeout value must be between 1 and 30 seconds");
            }
            let config = &webhook.client_config;
            if config.url.is_some() == config.service.is_some() {
                errors.required(&at.child("clientConfig"), "exactly one of url or service is required");
            }
            for (i, rule) in list(&webhook.rules).iter().enumerate() {
                let rules = at.child("rules");
                let at = rules.index(i);
                let parts = [
                    ("operations", &rule.operations),
                    ("apiGroups", &rule.api_groups),
                    ("apiVersions", &rule.api_versions),
                    ("resources", &rule.resources),
                ];
                for (field, _) in parts.into_iter().filter(|(_, values)| list(values).is_empty()) {
                    errors.required(&at.child(field), "");
                }
            }
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        vec![name_cell(&self.metadata), list(&self.webhooks).len().into(), age_cell(&self.metadata, now)]
    }
}
