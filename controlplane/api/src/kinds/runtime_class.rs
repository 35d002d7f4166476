//! RuntimeClass: which handler of a node runs a pod.

use k8s_openapi::api::node::v1::RuntimeClass;

use crate::kind::{Info, Resource};

impl Resource for RuntimeClass {
    const INFO: Info = Info::cluster("runtimeclasses", "runtimeclass");
}
