//! Role: rights within a namespace.

use k8s_openapi::api::rbac::v1::Role;

use super::access::validate_rules;
use super::fields::list;
use crate::kind::{Info, NameRule, Resource, Scope};
use crate::validation::Errors;

impl Resource for Role {
    const INFO: Info = Info {
        name_rule: NameRule::PathSegment,
        create_on_update: true,
        is_acted_on: false,
        ..Info::namespaced("roles", "role")
    };

    fn validate(&self, errors: &mut Errors) {
        validate_rules(list(&self.rules), Scope::Namespaced, errors);
    }
}
