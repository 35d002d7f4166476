//! LimitRange: bounds and defaults of resources in a namespace.

use k8s_openapi::api::core::v1::LimitRange;

use crate::kind::{Info, Resource};

impl Resource for LimitRange {
    const INFO: Info = Info {
        short_names: &["limits"],
        create_on_update: true,
        ..Info::namespaced("limitranges", "limitrange")
    };
}
