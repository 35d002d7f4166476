//! Endpoints: the addresses behind a Service, all in one object.

use k8s_openapi::api::core::v1::Endpoints;

use crate::kind::{Info, Resource};

impl Resource for Endpoints {
    const INFO: Info = Info {
        short_names: &["ep"],
        create_on_update: true,
        ..Info::namespaced("endpoints", "endpoints")
    };
}
