//! Role: rights within a namespace.

use k8s_openapi::api::rbac::v1::Role;

use crate::kind::{Info, NameRule, Resource};

impl Resource for Role {
    const INFO: Info = Info {
        name_rule: NameRule::PathSegment,
        create_on_update: true,
        ..Info::namespaced("roles", "role")
    };
}
