//! ValidatingWebhookConfiguration: webhooks that may refuse objects.

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;

use crate::kind::{Info, Resource};

impl Resource for ValidatingWebhookConfiguration {
    const INFO: Info = Info {
        categories: &["api-extensions"],
        has_generation: true,
        ..Info::cluster("validatingwebhookconfigurations", "validatingwebhookconfiguration")
    };
}
