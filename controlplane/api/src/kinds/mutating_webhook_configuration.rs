//! MutatingWebhookConfiguration: webhooks that may change objects.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;

use crate::kind::{Info, Resource};

impl Resource for MutatingWebhookConfiguration {
    const INFO: Info = Info {
        categories: &["api-extensions"],
        has_generation: true,
        ..Info::cluster("mutatingwebhookconfigurations", "mutatingwebhookconfiguration")
    };
}
