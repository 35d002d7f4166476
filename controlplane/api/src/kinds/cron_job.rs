//! CronJob: a Job at each time of a schedule.

use k8s_openapi::api::batch::v1::CronJob;

use super::meta::spec_and_status;
use crate::kind::{Info, Resource, Subresource};

impl Resource for CronJob {
    const INFO: Info = Info {
        short_names: &["cj"],
        categories: &["all"],
        subresources: &[Subresource::Status],
        has_generation: true,
        ..Info::namespaced("cronjobs", "cronjob")
    };

    spec_and_status!();
}
