//! Job: pods that run to an end.

use k8s_openapi::api::batch::v1::Job;

use super::meta::spec_and_status;
use crate::kind::{Info, Resource, Subresource};

impl Resource for Job {
    const INFO: Info = Info {
        categories: &["all"],
        subresources: &[Subresource::Status],
        selectable_fields: &["status.successful"],
        has_generation: true,
        ..Info::namespaced("jobs", "job")
    };

    spec_and_status!();
}
