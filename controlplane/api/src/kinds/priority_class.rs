//! PriorityClass: a name for the priority of pods.

use k8s_openapi::api::scheduling::v1::PriorityClass;

use crate::kind::{Info, Resource};

impl Resource for PriorityClass {
    const INFO: Info = Info {
        short_names: &["pc"],
        has_generation: true,
        ..Info::cluster("priorityclasses", "priorityclass")
    };
}
