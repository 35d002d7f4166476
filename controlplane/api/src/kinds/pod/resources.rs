//! A pod's resources as a whole: what its containers ask for together, its quality of service, and the defaults of its
//! own requests and limits (`k8s.io/component-helpers/resource`, `pkg/apis/core/helper/qos`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};

use crate::kinds::fields::{ResourceList, list};
use crate::quantity::Amount;

/// Whether an init container stays beside the others.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Resources that a pod as a whole may ask for.
pub(crate) fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// Whether more may be asked for than there is: only native resources that are no huge pages.
pub(crate) fn is_overcommit_allowed(name: &str) -> bool {
    is_native(name) && !name.starts_with("hugepages-")
}

/// Named without a domain or in that of Kubernetes.
pub(crate) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

type Amounts<'a> = BTreeMap<&'a str, Amount>;

#[derive(Clone, Copy)]
enum Side {
    Requests,
    Limits,
}

fn amounts(container: &Container, side: Side) -> impl Iterator<Item = (&str, Amount)> {
    let resources = container.resources.as_ref();
    let of = match side {
        Side::Requests => resources.and_then(|r| r.requests.as_ref()),
        Side::Limits => resources.and_then(|r| r.limits.as_ref()),
    };
    of.into_iter().flatten().map(|(name, q)| (name.as_str(), Amount::of(q).unwrap_or_default()))
}

/// The sum over the containers that run side by side, or what an init container needs beside the sidecars before it, if
/// that is more.
fn aggregate(spec: &PodSpec, side: Side) -> Amounts<'_> {
    let mut total = Amounts::new();
    for (name, amount) in spec.containers.iter().flat_map(|c| amounts(c, side)) {
        *total.entry(name).or_default() += amount;
    }
    let (mut sidecars, mut init_peak) = (Amounts::new(), Amounts::new());
    for container in list(&spec.init_containers) {
        let mut needed = sidecars.clone();
        for (name, amount) in amounts(container, side) {
            if is_sidecar(container) {
                *total.entry(name).or_default() += amount;
                *sidecars.entry(name).or_default() += amount;
            }
            *needed.entry(name).or_default() += amount;
        }
        for (name, amount) in needed {
            let peak = init_peak.entry(name).or_default();
            *peak = (*peak).max(amount);
        }
    }
    for (name, amount) in init_peak {
        let sum = total.entry(name).or_default();
        *sum = (*sum).max(amount);
    }
    total
}

/// What the containers request together.
pub(crate) fn aggregate_requests(spec: &PodSpec) -> BTreeMap<&str, Amount> {
    aggregate(spec, Side::Requests)
}

fn is_empty(resources: Option<&ResourceList>) -> bool {
    resources.is_none_or(BTreeMap::is_empty)
}

/// Requests and limits of the pod itself, when it has some of them.
pub(crate) fn default_pod_level(spec: &mut PodSpec) {
    let Some(own) = &spec.resources else { return };
    let had_limits = !is_empty(own.limits.as_ref());
    if !had_limits && is_empty(own.requests.as_ref()) {
        return;
    }
    let mut own = own.clone();
    let requested =
        |own: &ResourceRequirements, name: &str| own.requests.as_ref().is_some_and(|r| r.contains_key(name));
    let limited = |own: &ResourceRequirements, name: &str| own.limits.as_ref().is_some_and(|r| r.contains_key(name));
    let limits = aggregate(spec, Side::Limits);
    for (name, amount) in limits.iter().filter(|(n, _)| n.starts_with("hugepages-")) {
        if !requested(&own, name) && !limited(&own, name) {
            own.limits.get_or_insert_default().insert((*name).to_owned(), amount.to_quantity());
        }
    }
    if !is_empty(own.limits.as_ref()) {
        for (name, amount) in aggregate(spec, Side::Requests) {
            if matches!(name, "cpu" | "memory") && !requested(&own, name) {
                own.requests.get_or_insert_default().insert(name.to_owned(), amount.to_quantity());
            }
        }
        for (name, limit) in own.limits.clone().unwrap_or_default() {
            if is_pod_level(&name) {
                own.requests.get_or_insert_default().entry(name).or_insert(limit);
            }
        }
    } else {
        let all_limited = |name: &str| {
            let sidecars = list(&spec.init_containers).iter().filter(|c| is_sidecar(c));
            spec.containers.iter().chain(sidecars).all(|c| amounts(c, Side::Limits).any(|(n, _)| n == name))
        };
        for (name, amount) in limits {
            if matches!(name, "cpu" | "memory") && all_limited(name) {
                own.limits.get_or_insert_default().insert(name.to_owned(), amount.to_quantity());
            }
        }
    }
    spec.resources = Some(own);
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub(crate) fn qos_class(spec: &PodSpec) -> &'static str {
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    let mut guaranteed = true;
    let own = spec.resources.as_ref();
    let each: Vec<Option<&ResourceRequirements>> = match own {
        Some(own) if !is_empty(own.requests.as_ref()) || !is_empty(own.limits.as_ref()) => vec![Some(own)],
        _ => spec.containers.iter().chain(list(&spec.init_containers)).map(|c| c.resources.as_ref()).collect(),
    };
    for resources in each {
        for (name, amount) in compute(resources.and_then(|r| r.requests.as_ref())) {
            *requests.entry(name).or_default() += amount;
        }
        let mut found = 0;
        for (name, amount) in compute(resources.and_then(|r| r.limits.as_ref())) {
            *limits.entry(name).or_default() += amount;
            found += 1;
        }
        guaranteed &= found == 2;
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if guaranteed && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// The positive amounts of cpu and memory.
fn compute(resources: Option<&ResourceList>) -> impl Iterator<Item = (&str, Amount)> {
    resources
        .into_iter()
        .flatten()
        .filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory"))
        .map(|(name, q)| (name.as_str(), Amount::of(q).unwrap_or_default()))
        .filter(|(_, amount)| *amount > Amount::ZERO)
}
