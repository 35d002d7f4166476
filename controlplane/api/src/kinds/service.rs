//! Service: one address for a set of pods.

use k8s_openapi::api::core::v1::Service;

use crate::kind::{Info, Resource, NameRule, Subresource};

impl Resource for Service {
    const INFO: Info = Info {
        short_names: &["svc"],
        categories: &["all"],
        name_rule: NameRule::Label,
        subresources: &[Subresource::Status, Subresource::Proxy],
        selectable_fields: &["spec.clusterIP", "spec.type"],
        create_on_update: true,
        ..Info::namespaced("services", "service")
    };

    fn prepare_create(&mut self) {
        self.status = Some(Default::default());
    }
    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }
    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }
}
