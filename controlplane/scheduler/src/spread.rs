//! Topology spread constraints, compiled, with Kubernetes' defaults.
//! Counting pods is the plugins' business; this only says what to count and how.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::labels::{LabelQuery, Labels, Operator, Requirement};

/// The label that names a node's host.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// The label that names a node's zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// The label that names a node's region.
pub const REGION: &str = "topology.kubernetes.io/region";

/// What becomes of a pod that would break a constraint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenUnsatisfiable {
    /// It waits.
    DoNotSchedule,
    /// It goes where it breaks it least.
    ScheduleAnyway,
}

/// Whether nodes that the pod could not use anyway still count as domains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InclusionPolicy {
    /// They do not count.
    Honor,
    /// They count.
    Ignore,
}

/// One constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpreadConstraint {
    /// How many more pods a domain may have than the emptiest.
    pub max_skew: i64,
    /// The node label whose equal values make one domain.
    pub topology_key: Box<str>,
    /// What becomes of a pod that would break it.
    pub when_unsatisfiable: WhenUnsatisfiable,
    /// Which pods of the pod's namespace are counted.
    pub selector: LabelQuery,
    /// With fewer domains than this, the emptiest counts as zero.
    pub min_domains: usize,
    /// Whether nodes outside the pod's node selection count.
    pub node_affinity: InclusionPolicy,
    /// Whether nodes with taints that the pod does not tolerate count.
    pub node_taints: InclusionPolicy,
}

impl SpreadConstraint {
    fn parse(c: &core::TopologySpreadConstraint, labels: &Labels) -> Self {
        let policy = |text: Option<&str>, default| match text {
            Some("Honor") => InclusionPolicy::Honor,
            Some("Ignore") => InclusionPolicy::Ignore,
            _ => default,
        };
        let same = c
            .match_label_keys
            .iter()
            .flatten()
            .filter_map(|key| labels.get(key).map(|v| Requirement::new(key, Operator::In([v.into()].into()))));
        Self {
            max_skew: c.max_skew.into(),
            topology_key: c.topology_key.as_str().into(),
            when_unsatisfiable: match c.when_unsatisfiable.as_str() {
                "ScheduleAnyway" => WhenUnsatisfiable::ScheduleAnyway,
                _ => WhenUnsatisfiable::DoNotSchedule,
            },
            selector: LabelQuery::from_selector(c.label_selector.as_ref()).and(same),
            min_domains: c.min_domains.and_then(|n| usize::try_from(n).ok()).unwrap_or(1),
            node_affinity: policy(c.node_affinity_policy.as_deref(), InclusionPolicy::Honor),
            node_taints: policy(c.node_taints_policy.as_deref(), InclusionPolicy::Ignore),
        }
    }

    /// A constraint of the scheduler's own defaults.
    fn default_for(topology_key: &str, max_skew: i64, selector: &LabelQuery) -> Self {
        Self {
            max_skew,
            topology_key: topology_key.into(),
            when_unsatisfiable: WhenUnsatisfiable::ScheduleAnyway,
            selector: selector.clone(),
            min_domains: 1,
            node_affinity: InclusionPolicy::Honor,
            node_taints: InclusionPolicy::Ignore,
        }
    }
}

/// Compiles a pod's own constraints.
pub(crate) fn parse(
    constraints: Option<&Vec<core::TopologySpreadConstraint>>,
    labels: &Labels,
) -> Box<[SpreadConstraint]> {
    constraints.into_iter().flatten().map(|c| SpreadConstraint::parse(c, labels)).collect()
}

/// The defaults for pods that set no constraint: gently over hosts (skew 3) and zones (skew 5).
pub(crate) fn defaults(selector: &LabelQuery) -> [SpreadConstraint; 2] {
    [SpreadConstraint::default_for(HOSTNAME, 3, selector), SpreadConstraint::default_for(ZONE, 5, selector)]
}

/// The query whose pods the default constraints keep apart: the selectors of the Services that select the pod, joined
/// with its owner's (ReplicaSet, StatefulSet, ReplicationController). None, or an empty one, means no default spreading.
pub fn default_selector<'a>(
    pod_labels: &Labels,
    services: impl IntoIterator<Item = &'a BTreeMap<String, String>>,
    owner: Option<&LabelSelector>,
) -> Option<LabelQuery> {
    let mut query = LabelQuery::All(Box::default());
    for selector in services {
        let service = LabelQuery::from_pairs(selector);
        if !selector.is_empty() && service.matches(pod_labels) {
            query = query.and_query(service);
        }
    }
    if let Some(owner) = owner {
        query = query.and_query(LabelQuery::from_selector(Some(owner)));
    }
    (!query.is_unconditional()).then_some(query)
}
