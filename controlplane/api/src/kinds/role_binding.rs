//! RoleBinding: who has the rights of a role within a namespace.

use k8s_openapi::api::rbac::v1::RoleBinding;

use crate::kind::{Info, NameRule, Resource};

impl Resource for RoleBinding {
    const INFO: Info = Info {
        name_rule: NameRule::PathSegment,
        create_on_update: true,
        ..Info::namespaced("rolebindings", "rolebinding")
    };
}
