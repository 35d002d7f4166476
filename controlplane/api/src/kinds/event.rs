//! Event of the core group: something that happened to an object.

use k8s_openapi::api::core::v1::Event;

use crate::kind::{Info, Resource};

impl Resource for Event {
    const INFO: Info = Info {
        short_names: &["ev"],
        selectable_fields: &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        create_on_update: true,
        ..Info::namespaced("events", "event")
    };
}
