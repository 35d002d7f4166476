//! ControllerRevision: a state a StatefulSet or DaemonSet can go back to. It never changes but for its number.

use k8s_openapi::api::apps::v1::ControllerRevision;

use crate::kind::{Info, Resource};

impl Resource for ControllerRevision {
    const INFO: Info = Info {
        ..Info::namespaced("controllerrevisions", "controllerrevision")
    };
}
