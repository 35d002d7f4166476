//! ClusterRole: rights in the whole cluster, or to be bound in a namespace.

use k8s_openapi::api::rbac::v1::ClusterRole;

use crate::kind::{Info, NameRule, Resource};

impl Resource for ClusterRole {
    const INFO: Info = Info {
        name_rule: NameRule::PathSegment,
        create_on_update: true,
        ..Info::cluster("clusterroles", "clusterrole")
    };
}
