//! ClusterRoleBinding: who has the rights of a role everywhere.

use k8s_openapi::api::rbac::v1::ClusterRoleBinding;

use super::access::{CLUSTER_BINDING_COLUMNS, binding_row, default_binding, validate_binding, validate_role_kept};
use super::fields::list;
use crate::kind::{Info, NameRule, Resource, Scope};
use crate::table::Cell;
use crate::validation::Errors;

impl Resource for ClusterRoleBinding {
    const INFO: Info = Info {
        name_rule: NameRule::PathSegment,
        columns: CLUSTER_BINDING_COLUMNS,
        create_on_update: true,
        is_acted_on: false,
        ..Info::cluster("clusterrolebindings", "clusterrolebinding")
    };

    fn apply_defaults(&mut self) {
        default_binding(&mut self.role_ref, self.subjects.as_mut());
    }

    fn validate(&self, errors: &mut Errors) {
        validate_binding(&self.role_ref, list(&self.subjects), Scope::Cluster, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        validate_role_kept(&self.role_ref, &old.role_ref, errors);
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        binding_row(&self.metadata, &self.role_ref, self.subjects.as_ref(), now)
    }
}
