//! The scopes of quotas: which pods and claims they are about.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, PodAffinityTerm, ResourceQuota, ScopedResourceSelectorRequirement,
};

use super::{Counted, qos_class};

impl Counted<'_> {
    /// Whether all scopes of a quota fit the object. Without scopes a quota is about everything.
    #[must_use]
    pub fn is_in_scope(&self, quota: &ResourceQuota) -> bool {
        let Some(spec) = &quota.spec else { return true };
        let plain = spec.scopes.iter().flatten().all(|scope| self.matches(&exists(scope)));
        plain && spec.scope_selector.iter().flat_map(|s| s.match_expressions.iter().flatten()).all(|r| self.matches(r))
    }

    fn matches(&self, requirement: &ScopedResourceSelectorRequirement) -> bool {
        match self {
            Self::Pod(pod) => pod_matches(pod, requirement),
            Self::Claim(claim) => claim_matches(claim, requirement),
            Self::Service(_) | Self::Other { .. } => false,
        }
    }
}

fn exists(scope: &str) -> ScopedResourceSelectorRequirement {
    ScopedResourceSelectorRequirement {
        operator: "Exists".to_owned(),
        scope_name: scope.to_owned(),
        ..ScopedResourceSelectorRequirement::default()
    }
}

fn pod_matches(pod: &Pod, requirement: &ScopedResourceSelectorRequirement) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let is_terminating = spec.active_deadline_seconds.is_some_and(|s| s >= 0);
    let is_best_effort = || qos_class(spec) == "BestEffort";
    match requirement.scope_name.as_str() {
        "Terminating" => is_terminating,
        "NotTerminating" => !is_terminating,
        "BestEffort" => is_best_effort(),
        "NotBestEffort" => !is_best_effort(),
        "PriorityClass" => {
            let class = spec.priority_class_name.as_deref().filter(|c| !c.is_empty());
            select(requirement, &class.into_iter().collect())
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

fn claim_matches(claim: &PersistentVolumeClaim, requirement: &ScopedResourceSelectorRequirement) -> bool {
    if requirement.scope_name != "VolumeAttributesClass" {
        return false;
    }
    let status = claim.status.as_ref();
    let modified = status.and_then(|s| s.modify_volume_status.as_ref());
    let names = [
        claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_deref()),
        status.and_then(|s| s.current_volume_attributes_class_name.as_deref()),
        modified.and_then(|m| m.target_volume_attributes_class_name.as_deref()),
    ];
    select(requirement, &names.into_iter().flatten().filter(|n| !n.is_empty()).collect())
}

/// The operators of label selectors, over the classes an object names: one that fits is enough.
fn select(requirement: &ScopedResourceSelectorRequirement, names: &BTreeSet<&str>) -> bool {
    let is_listed = |name: &str| requirement.values.iter().flatten().any(|value| value == name);
    match requirement.operator.as_str() {
        "In" => names.iter().any(|name| is_listed(name)),
        "NotIn" => names.is_empty() || names.iter().any(|name| !is_listed(name)),
        "Exists" => !names.is_empty(),
        "DoesNotExist" => names.is_empty(),
        _ => false,
    }
}

fn crosses_namespaces(pod: &Pod) -> bool {
    let Some(affinity) = pod.spec.as_ref().and_then(|s| s.affinity.as_ref()) else { return false };
    let crosses =
        |t: &PodAffinityTerm| t.namespaces.as_ref().is_some_and(|n| !n.is_empty()) || t.namespace_selector.is_some();
    let near = affinity.pod_affinity.iter().any(|a| {
        let preferred = a.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        let required = a.required_during_scheduling_ignored_during_execution.iter().flatten();
        required.chain(preferred.map(|w| &w.pod_affinity_term)).any(crosses)
    });
    near || affinity.pod_anti_affinity.iter().any(|a| {
        let preferred = a.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        let required = a.required_during_scheduling_ignored_during_execution.iter().flatten();
        required.chain(preferred.map(|w| &w.pod_affinity_term)).any(crosses)
    })
}
