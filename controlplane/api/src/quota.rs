//! What ResourceQuotas count: which of their resources an object is charged with, how much of each, and which quotas are
//! about it (`k8s.io/kubernetes/pkg/quota/v1/evaluator/core`). It decides about no request.

mod scopes;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, PersistentVolumeClaim, Pod, ResourceQuota, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
pub use usage::stops_counting_at;

use crate::kind::{Kind, Object};
pub use crate::kinds::{PodTotals, charged_totals, declared_totals, qos_class};
use crate::quantity::Amount;

/// Amounts by resource.
pub type Amounts = BTreeMap<String, Amount>;

/// Resources of the core group that are counted under their plain name too.
const PLAIN_COUNTS: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];
/// What is charged to a storage class is named `CLASS.storageclass.storage.k8s.io/RESOURCE`.
const CLASS_INFIX: &str = ".storageclass.storage.k8s.io/";
/// Resources of pods.
const OF_PODS: [&str; 11] = [
    "count/pods",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "pods",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
/// Resources that every container must set where a quota counts them.
const DEMANDED: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

/// An object as quotas see it.
#[derive(Debug, Clone, Copy)]
pub enum Counted<'a> {
    /// A pod, charged with what it asks for.
    Pod(&'a Pod),
    /// A Service, charged with its node ports and load balancers.
    Service(&'a Service),
    /// A claim, charged with its storage.
    Claim(&'a PersistentVolumeClaim),
    /// Another object, which only counts as one.
    Other {
        /// Its API group.
        group: &'a str,
        /// Its plural.
        plural: &'a str,
    },
}

impl<'a> Counted<'a> {
    /// An object of a kind; `None` for what quotas never count.
    #[must_use]
    pub fn of(kind: &'a Kind, object: &'a dyn Object) -> Option<Self> {
        // Events have never been counted (pkg/quota/v1/install, ignoredResources).
        if !kind.namespaced() || (kind.group.is_empty() && kind.info.plural == "events") {
            return None;
        }
        let any = object.as_any();
        Some(if let Some(pod) = any.downcast_ref() {
            Self::Pod(pod)
        } else if let Some(service) = any.downcast_ref() {
            Self::Service(service)
        } else if let Some(claim) = any.downcast_ref() {
            Self::Claim(claim)
        } else {
            Self::Other { group: kind.group, plural: kind.info.plural }
        })
    }

    /// Whether objects of this sort are charged with a resource.
    #[must_use]
    pub fn is_charged_with(&self, resource: &str) -> bool {
        match self {
            Self::Pod(_) => {
                let is_extended = resource.strip_prefix("requests.").is_some_and(|r| !is_native(r));
                OF_PODS.contains(&resource)
                    || resource.starts_with("hugepages-")
                    || resource.starts_with("requests.hugepages-")
                    || is_extended
            }
            Self::Service(_) => {
                matches!(resource, "count/services" | "services" | "services.nodeports" | "services.loadbalancers")
            }
            Self::Claim(_) => {
                let plain = resource.split_once(CLASS_INFIX).map_or(resource, |(_, plain)| plain);
                resource == "count/persistentvolumeclaims"
                    || matches!(plain, "persistentvolumeclaims" | "requests.storage")
            }
            Self::Other { group, plural } => {
                (group.is_empty() && PLAIN_COUNTS.contains(&resource) && resource == *plural)
                    || resource == count_name(group, plural)
            }
        }
    }

    /// Whether a quota is about this object: it counts something that the object is charged with, and all its scopes fit.
    #[must_use]
    pub fn is_subject_to(&self, quota: &ResourceQuota) -> bool {
        let hard = quota.status.as_ref().and_then(|s| s.hard.as_ref());
        hard.into_iter().flatten().any(|(name, _)| self.is_charged_with(name)) && self.is_in_scope(quota)
    }

    /// What a pod must say where a quota limits these resources.
    ///
    /// # Errors
    /// `must specify RESOURCE for: CONTAINERS; …`.
    pub fn meets(&self, limited: &BTreeSet<&str>) -> Result<(), String> {
        let Self::Pod(pod) = self else { return Ok(()) };
        let Some(spec) = &pod.spec else { return Ok(()) };
        let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            for resource in limited.iter().filter(|r| DEMANDED.contains(r) && !has(container, r)) {
                missing.entry(resource).or_default().insert(&container.name);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let line = |(resource, names): (&&str, &BTreeSet<&str>)| {
            format!("{resource} for: {}", names.iter().copied().collect::<Vec<_>>().join(","))
        };
        Err(format!("must specify {}", missing.iter().map(line).collect::<Vec<_>>().join("; ")))
    }
}

fn has(container: &Container, resource: &str) -> bool {
    let resources = container.resources.as_ref();
    let (list, name) = match resource.split_once('.') {
        Some(("limits", name)) => (resources.and_then(|r| r.limits.as_ref()), name),
        Some((_, name)) => (resources.and_then(|r| r.requests.as_ref()), name),
        None => (resources.and_then(|r| r.requests.as_ref()), resource),
    };
    list.is_some_and(|list| list.contains_key(name))
}

/// The name under which the objects of a resource are counted.
#[must_use]
pub fn count_name(group: &str, plural: &str) -> String {
    if group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{group}") }
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// The amounts of a list of quantities; what is no quantity counts as nothing.
#[must_use]
pub fn amounts<'a>(list: impl IntoIterator<Item = (&'a String, &'a Quantity)>) -> Amounts {
    list.into_iter().map(|(name, quantity)| (name.clone(), Amount::of(quantity).unwrap_or_default())).collect()
}
