//! Deployment: pods kept at a number and rolled from one template to the next.

use k8s_openapi::api::apps::v1::Deployment;

use super::meta::spec_and_status;
use crate::kind::{Info, Resource, Subresource};

impl Resource for Deployment {
    const INFO: Info = Info {
        short_names: &["deploy"],
        categories: &["all"],
        subresources: &[Subresource::Status, Subresource::Scale],
        has_generation: true,
        ..Info::namespaced("deployments", "deployment")
    };

    spec_and_status!();
}
