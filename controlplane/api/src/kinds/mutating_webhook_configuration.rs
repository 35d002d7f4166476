//! MutatingWebhookConfiguration: webhooks that may change objects.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;

use super::admission::{WEBHOOK_COLUMNS, Webhook as _, validate_webhooks, webhooks_row};
use super::fields::{default_to, list};
use crate::kind::{Info, Resource};
use crate::table::Cell;
use crate::validation::Errors;

impl Resource for MutatingWebhookConfiguration {
    const INFO: Info = Info {
        categories: &["api-extensions"],
        columns: WEBHOOK_COLUMNS,
        has_generation: true,
        needs_version: true,
        is_acted_on: false,
        ..Info::cluster("mutatingwebhookconfigurations", "mutatingwebhookconfiguration")
    };

    fn apply_defaults(&mut self) {
        for webhook in self.webhooks.iter_mut().flatten() {
            webhook.apply_defaults();
            default_to(&mut webhook.reinvocation_policy, "Never");
        }
    }

    fn spec_changed(&self, old: &Self) -> bool {
        self.webhooks != old.webhooks
    }

    fn validate(&self, errors: &mut Errors) {
        validate_webhooks(list(&self.webhooks), errors);
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        webhooks_row(&self.metadata, list(&self.webhooks).len(), now)
    }
}
