//! ClusterRole: rights in the whole cluster, or to be bound in a namespace.

use k8s_openapi::api::rbac::v1::ClusterRole;

use super::access::validate_rules;
use super::fields::list;
use crate::kind::{Info, NameRule, Resource, Scope};
use crate::validation::{Errors, Path, validate_label_selector};

impl Resource for ClusterRole {
    const INFO: Info = Info {
        name_rule: NameRule::PathSegment,
        create_on_update: true,
        is_acted_on: false,
        ..Info::cluster("clusterroles", "clusterrole")
    };

    fn validate(&self, errors: &mut Errors) {
        validate_rules(list(&self.rules), Scope::Cluster, errors);
        let Some(aggregation) = &self.aggregation_rule else { return };
        let at = Path::new("aggregationRule");
        let at = at.child("clusterRoleSelectors");
        let selectors = list(&aggregation.cluster_role_selectors);
        if selectors.is_empty() {
            errors.required(&at, "at least one clusterRoleSelector required if aggregationRule is non-nil");
        }
        for (i, selector) in selectors.iter().enumerate() {
            validate_label_selector(selector, &at.index(i), errors);
        }
    }
}
