//! A pod's resources as a whole: what its containers ask for together, its quality of service, and the defaults of its
//! own requests and limits (`k8s.io/component-helpers/resource`, `pkg/apis/core/helper/qos`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus, ResourceRequirements};

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

/// What a pod asks for as a whole and what it may use at most, by resource (`PodRequests`, `PodLimits`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodTotals {
    /// What it requests.
    pub requests: BTreeMap<String, Amount>,
    /// What it is limited to.
    pub limits: BTreeMap<String, Amount>,
}

/// The sums over the containers of a pod, or what it says of itself as a whole.
#[must_use]
pub fn declared_totals(spec: &PodSpec) -> PodTotals {
    let own = |side| {
        let resources = spec.resources.as_ref();
        let list = match side {
            Side::Requests => resources.and_then(|r| r.requests.as_ref()),
            Side::Limits => resources.and_then(|r| r.limits.as_ref()),
        };
        list.into_iter().flatten().filter(|(name, _)| is_pod_level(name))
    };
    let total = |side| {
        let mut sums: BTreeMap<String, Amount> =
            aggregate(spec, side).into_iter().map(|(name, amount)| (name.to_owned(), amount)).collect();
        sums.extend(own(side).map(|(name, q)| (name.clone(), Amount::of(q).unwrap_or_default())));
        sums
    };
    PodTotals { requests: total(Side::Requests), limits: total(Side::Limits) }
}

/// What a pod is charged with: as it declares, or as much as its node still holds for it while it is made smaller, and
/// its runtime's overhead.
#[must_use]
pub fn charged_totals(pod: &Pod) -> PodTotals {
    let Some(spec) = &pod.spec else { return PodTotals::default() };
    let mut totals = match held_spec(spec, pod.status.as_ref()) {
        Some(held) => declared_totals(&held),
        None => declared_totals(spec),
    };
    for (name, quantity) in spec.overhead.iter().flatten() {
        let overhead = Amount::of(quantity).unwrap_or_default();
        *totals.requests.entry(name.clone()).or_default() += overhead;
        if let Some(limit) = totals.limits.get_mut(name) {
            *limit += overhead;
        }
    }
    totals
}

/// The spec with each container's resources raised to what its status says it has; `None` where that is nothing more.
fn held_spec(spec: &PodSpec, status: Option<&PodStatus>) -> Option<PodSpec> {
    let status = status?;
    let statuses = || list(&status.container_statuses).iter().chain(list(&status.init_container_statuses));
    if statuses().all(|s| s.resources.is_none() && s.allocated_resources.is_none()) {
        return None;
    }
    let mut held = spec.clone();
    let containers = held.containers.iter_mut().chain(held.init_containers.iter_mut().flatten());
    for container in containers {
        let Some(status) = statuses().find(|s| s.name == container.name) else { continue };
        let resources = container.resources.get_or_insert_default();
        let actual = status.resources.as_ref();
        for more in [actual.and_then(|r| r.requests.as_ref()), status.allocated_resources.as_ref()] {
            raise(&mut resources.requests, more);
        }
        raise(&mut resources.limits, actual.and_then(|r| r.limits.as_ref()));
    }
    Some(held)
}

/// Raises what is named on both sides.
fn raise(list: &mut Option<ResourceList>, more: Option<&ResourceList>) {
    for (name, quantity) in more.into_iter().flatten() {
        if let Some(have) = list.as_mut().and_then(|l| l.get_mut(name))
            && Amount::of(have).unwrap_or_default() < Amount::of(quantity).unwrap_or_default()
        {
            have.clone_from(quantity);
        }
    }
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
#[must_use]
pub fn qos_class(spec: &PodSpec) -> &'static str {
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
