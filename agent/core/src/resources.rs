//! Requests, limits and QoS of pods. It only adds and compares; what a node has is given by the caller.

use std::collections::BTreeMap;

use coracle_api::quantity::Amount;
use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::workload::ResourceLimits;

/// A quantity per resource name.
pub type ResourceMap = BTreeMap<String, Quantity>;

/// Thousandths of a resource; `None` when the map lacks it or it does not parse.
pub fn milli(map: Option<&ResourceMap>, name: &str) -> Option<i64> {
    Amount::of(map?.get(name)?).ok().map(Amount::milli)
}

/// Whole units of a resource; `None` when the map lacks it or it does not parse.
pub fn units(map: Option<&ResourceMap>, name: &str) -> Option<i64> {
    Amount::of(map?.get(name)?).ok().map(Amount::value)
}

/// Whether an init container is a sidecar (`restartPolicy: Always`).
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What a container may use.
pub fn limits(container: &Container) -> ResourceLimits {
    let resources = container.resources.as_ref();
    let requests = resources.and_then(|r| r.requests.as_ref());
    let limits = resources.and_then(|r| r.limits.as_ref());
    let cpu_limit_milli = milli(limits, "cpu");
    let memory_limit_bytes = units(limits, "memory");
    ResourceLimits {
        cpu_request_milli: milli(requests, "cpu").or(cpu_limit_milli).unwrap_or(0),
        cpu_limit_milli,
        memory_request_bytes: units(requests, "memory").or(memory_limit_bytes).unwrap_or(0),
        memory_limit_bytes,
        ephemeral_storage_limit_bytes: units(limits, "ephemeral-storage"),
    }
}

/// What a pod asks of a node, per resource in thousandths: containers and sidecars together, or the largest init step if
/// that is more, plus overhead. Source: KEP-753, "Resources calculation".
pub fn pod_requests(spec: &PodSpec) -> BTreeMap<String, i128> {
    let mut total: BTreeMap<String, i128> = BTreeMap::new();
    for container in &spec.containers {
        add(&mut total, &requests(container));
    }
    let mut sidecars = BTreeMap::new();
    let mut largest_step: BTreeMap<String, i128> = BTreeMap::new();
    for container in spec.init_containers.iter().flatten() {
        let own = requests(container);
        let mut step = sidecars.clone();
        add(&mut step, &own);
        if is_sidecar(container) {
            add(&mut total, &own);
            sidecars = step.clone();
        }
        for (name, amount) in step {
            let largest = largest_step.entry(name).or_insert(0);
            *largest = amount.max(*largest);
        }
    }
    for (name, amount) in largest_step {
        let entry = total.entry(name).or_insert(0);
        *entry = amount.max(*entry);
    }
    if let Some(overhead) = &spec.overhead {
        add(&mut total, &parsed(overhead));
    }
    total
}

/// `status.qosClass`: what the API server set, else computed from cpu and memory of all containers.
pub fn qos_class(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else { return "BestEffort" };
    let (mut any, mut guaranteed) = (false, true);
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let resources = container.resources.as_ref();
        let limits = resources.and_then(|r| r.limits.as_ref());
        let requests = resources.and_then(|r| r.requests.as_ref());
        for name in ["cpu", "memory"] {
            let limit = milli(limits, name).filter(|amount| *amount > 0);
            let request = milli(requests, name).filter(|amount| *amount > 0).or(limit);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && limit == request;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn requests(container: &Container) -> BTreeMap<String, i128> {
    let resources = container.resources.as_ref();
    let mut own = resources.and_then(|r| r.limits.as_ref()).map(parsed).unwrap_or_default();
    if let Some(requests) = resources.and_then(|r| r.requests.as_ref()) {
        own.extend(parsed(requests));
    }
    own
}

fn parsed(map: &ResourceMap) -> BTreeMap<String, i128> {
    map.iter().filter_map(|(name, quantity)| Some((name.clone(), thousandths(quantity)?))).collect()
}

/// Thousandths of a quantity. Sizes beyond what fits in thousandths are counted in whole units.
pub fn thousandths(quantity: &Quantity) -> Option<i128> {
    let amount = Amount::of(quantity).ok()?;
    let units = i128::from(amount.value());
    let small = units.unsigned_abs() < 1 << 40;
    Some(if small { i128::from(amount.milli()) } else { units * 1000 })
}

fn add(total: &mut BTreeMap<String, i128>, more: &BTreeMap<String, i128>) {
    for (name, amount) in more {
        *total.entry(name.clone()).or_insert(0) += amount;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({ "spec": spec })).expect("a pod")
    }

    #[test]
    fn sidecars_add_up_and_init_steps_only_count_when_larger() {
        let cpu = |n: &str| json!({"requests": {"cpu": n}});
        let spec = json!({
            "initContainers": [
                {"name": "i1", "resources": cpu("300m")},
                {"name": "s", "restartPolicy": "Always", "resources": cpu("100m")},
                {"name": "i2", "resources": cpu("500m")},
            ],
            "containers": [{"name": "a", "resources": cpu("200m")}, {"name": "b", "resources": cpu("150m")}],
        });
        assert_eq!(pod_requests(pod(spec).spec.as_ref().unwrap())["cpu"], 600);
    }

    #[test]
    fn qos_follows_requests_and_limits() {
        let check = |resources, expect| {
            let spec = json!({"containers": [{"name": "a", "resources": resources}]});
            assert_eq!(qos_class(&pod(spec)), expect);
        };
        check(json!({}), "BestEffort");
        check(json!({"requests": {"cpu": "1"}}), "Burstable");
        check(json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed");
        check(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), "Burstable");
    }
}
