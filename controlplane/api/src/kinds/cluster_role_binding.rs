//! ClusterRoleBinding: who has the rights of a role everywhere.

use k8s_openapi::api::rbac::v1::ClusterRoleBinding;

use crate::kind::{Info, NameRule, Resource};

impl Resource for ClusterRoleBinding {
    const INFO: Info = Info {
        name_rule: NameRule::PathSegment,
        create_on_update: true,
        ..Info::cluster("clusterrolebindings", "clusterrolebinding")
    };
}
