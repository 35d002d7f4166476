//! Node: a machine that runs pods.

use k8s_openapi::api::core::v1::Node;

use crate::kind::{Info, Resource, Subresource};

impl Resource for Node {
    const INFO: Info = Info {
        short_names: &["no"],
        subresources: &[Subresource::Status, Subresource::Proxy],
        selectable_fields: &["spec.unschedulable"],
        ..Info::cluster("nodes", "node")
    };

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }
    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }
}
