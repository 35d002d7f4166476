//! Amounts of resources, and Kubernetes' formula for what a pod requests (containers, init containers, sidecars, overhead,
//! pod-level resources, and what a pod under in-place resize holds). Never looks at a node.

use std::collections::BTreeMap;

use coracle_api::quantity::Amount;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// What a container without a CPU request counts as when nodes are scored, in millicores.
const DEFAULT_MILLI_CPU: i64 = 100;
/// What a container without a memory request counts as when nodes are scored, in bytes.
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

type QuantityMap = BTreeMap<String, Quantity>;

/// A vector of resources. CPU in millicores, the rest in bytes or pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Millicores.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of local scratch storage.
    pub ephemeral_storage: i64,
    /// Extended resources, huge pages and the like, by name.
    pub extended: Vec<(Box<str>, i64)>,
}

impl Resources {
    /// Reads a node's `status.allocatable`; the number of pods stands apart.
    pub(crate) fn allocatable(map: Option<&QuantityMap>) -> (Self, i64) {
        let mut pods = 0;
        let mut all = Sparse::default();
        for (name, quantity) in map.into_iter().flatten() {
            match name.as_str() {
                "pods" => pods = value(quantity),
                _ => all.set(name, quantity),
            }
        }
        (all.into_resources(), pods)
    }

    /// The amount of an extended resource.
    pub fn extended(&self, name: &str) -> i64 {
        let at = self.extended.binary_search_by(|(n, _)| (**n).cmp(name));
        at.map_or(0, |i| self.extended[i].1)
    }

    /// Whether nothing is asked for.
    pub fn is_zero(&self) -> bool {
        self.milli_cpu == 0 && self.memory == 0 && self.ephemeral_storage == 0 && self.extended.is_empty()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.merge(other, i64::saturating_add);
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
        self.merge(other, i64::saturating_sub);
        self.extended.retain(|(_, amount)| *amount != 0);
    }

    fn merge(&mut self, other: &Self, op: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = op(self.milli_cpu, other.milli_cpu);
        self.memory = op(self.memory, other.memory);
        self.ephemeral_storage = op(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.extended {
            match self.extended.binary_search_by(|(n, _)| n.cmp(name)) {
                Ok(i) => self.extended[i].1 = op(self.extended[i].1, *amount),
                Err(i) => self.extended.insert(i, (name.clone(), op(0, *amount))),
            }
        }
    }
}

/// What a pod asks of a node: exactly, and as scoring sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests {
    /// What the node must have free.
    pub exact: Resources,
    /// CPU for scoring: containers that name none count as 100 millicores.
    pub scored_milli_cpu: i64,
    /// Memory for scoring: containers that name none count as 200 MiB.
    pub scored_memory: i64,
}

impl Requests {
    /// The requests of a pod (`PodRequests` of k8s.io/component-helpers/resource).
    pub fn of_pod(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let holdings = Holdings::of(pod);
        let exact = pod_requests(spec, &holdings, &[]);
        let pod_level = pod_level_requests(spec);
        let mut defaults = vec![("cpu", DEFAULT_MILLI_CPU), ("memory", DEFAULT_MEMORY)];
        if pod_level.is_some() {
            defaults.retain(|(name, _)| !exact.0.contains_key(*name));
        }
        let scored = pod_requests(spec, &holdings, &defaults);
        Self { scored_milli_cpu: scored.get("cpu"), scored_memory: scored.get("memory"), exact: exact.into_resources() }
    }
}

/// Amounts by name, in the unit [`Resources`] has for them. Absent and zero differ.
#[derive(Debug, Clone, Default)]
struct Sparse(BTreeMap<String, i64>);

impl Sparse {
    fn of(map: Option<&QuantityMap>) -> Self {
        let mut all = Self::default();
        for (name, quantity) in map.into_iter().flatten() {
            all.set(name, quantity);
        }
        all
    }

    fn set(&mut self, name: &str, quantity: &Quantity) {
        let amount = if name == "cpu" { milli(quantity) } else { value(quantity) };
        self.0.insert(name.to_owned(), amount);
    }

    fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let slot = self.0.entry(name.clone()).or_insert(0);
            *slot = slot.saturating_add(*amount);
        }
    }

    fn raise_to(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let slot = self.0.entry(name.clone()).or_insert(*amount);
            *slot = (*slot).max(*amount);
        }
    }

    fn fill(&mut self, defaults: &[(&str, i64)]) {
        for (name, amount) in defaults {
            self.0.entry((*name).to_owned()).or_insert(*amount);
        }
    }

    fn into_resources(self) -> Resources {
        let mut out = Resources::default();
        for (name, amount) in self.0 {
            match name.as_str() {
                "cpu" => out.milli_cpu = amount,
                "memory" => out.memory = amount,
                "ephemeral-storage" => out.ephemeral_storage = amount,
                _ if amount != 0 => out.extended.push((name.into(), amount)),
                _ => {}
            }
        }
        out
    }
}

/// What the kubelet says running containers hold, for pods that are being resized in place.
struct Holdings<'a> {
    containers: &'a [ContainerStatus],
    init_containers: &'a [ContainerStatus],
    resize_infeasible: bool,
}

impl<'a> Holdings<'a> {
    fn of(pod: &'a Pod) -> Self {
        let status = pod.status.as_ref();
        let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        Self {
            containers: status.and_then(|s| s.container_statuses.as_deref()).unwrap_or_default(),
            init_containers: status.and_then(|s| s.init_container_statuses.as_deref()).unwrap_or_default(),
            resize_infeasible: conditions
                .iter()
                .any(|c| c.type_ == "PodResizePending" && c.reason.as_deref() == Some("Infeasible")),
        }
    }

    /// A container's requests: the largest of what it wants and what it still holds; only the latter when the wish can
    /// never be met.
    fn requests(&self, container: &Container, statuses: &[ContainerStatus], defaults: &[(&str, i64)]) -> Sparse {
        let mut wanted = Sparse::of(container.resources.as_ref().and_then(|r| r.requests.as_ref()));
        if let Some(status) = statuses.iter().find(|s| s.name == container.name) {
            let mut held = Sparse::of(status.resources.as_ref().and_then(|r| r.requests.as_ref()));
            held.raise_to(&Sparse::of(status.allocated_resources.as_ref()));
            if !held.0.is_empty() {
                if self.resize_infeasible {
                    wanted = held;
                } else {
                    wanted.raise_to(&held);
                }
            }
        }
        wanted.fill(defaults);
        wanted
    }
}

fn pod_requests(spec: &PodSpec, holdings: &Holdings<'_>, defaults: &[(&str, i64)]) -> Sparse {
    let mut total = Sparse::default();
    for container in &spec.containers {
        total.add(&holdings.requests(container, holdings.containers, defaults));
    }
    // Sidecars run beside all that comes after them, so an init container's need is its own plus the sidecars before it.
    let mut sidecars = Sparse::default();
    let mut init_peak = Sparse::default();
    for container in spec.init_containers.iter().flatten() {
        let mut need = holdings.requests(container, holdings.init_containers, defaults);
        if is_sidecar(container) {
            total.add(&need);
            sidecars.add(&need);
            need = sidecars.clone();
        } else {
            need.add(&sidecars);
        }
        init_peak.raise_to(&need);
    }
    total.raise_to(&init_peak);
    if let Some(pod_level) = pod_level_requests(spec) {
        total.0.extend(pod_level.0);
    }
    total.add(&Sparse::of(spec.overhead.as_ref()));
    total
}

/// Requests set on the pod as a whole, which replace the sum of its containers (KEP-2837: CPU, memory, huge pages).
fn pod_level_requests(spec: &PodSpec) -> Option<Sparse> {
    let mut all = Sparse::of(spec.resources.as_ref()?.requests.as_ref());
    all.0.retain(|name, _| name == "cpu" || name == "memory" || name.starts_with("hugepages-"));
    (!all.0.is_empty()).then_some(all)
}

/// Whether an init container is a sidecar (restartPolicy Always).
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

// Quantities were validated when the object was written; one that still cannot be read asks for nothing.
fn milli(quantity: &Quantity) -> i64 {
    Amount::parse(&quantity.0).map_or(0, |a| a.milli())
}

fn value(quantity: &Quantity) -> i64 {
    Amount::parse(&quantity.0).map_or(0, |a| a.value())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(spec: Value, cpu: i64, memory: i64, scored: (i64, i64)) {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("a pod");
        let got = Requests::of_pod(&pod);
        assert_eq!((got.exact.milli_cpu, got.exact.memory), (cpu, memory), "{spec}");
        assert_eq!((got.scored_milli_cpu, got.scored_memory), scored, "scored {spec}");
    }

    fn c(name: &str, cpu: &str, memory: &str) -> Value {
        json!({"name": name, "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    fn sidecar(name: &str, cpu: &str, memory: &str) -> Value {
        let mut v = c(name, cpu, memory);
        v["restartPolicy"] = json!("Always");
        v
    }

    #[test]
    fn formula() {
        let default = (DEFAULT_MILLI_CPU, DEFAULT_MEMORY);
        check(json!({"containers": [{"name": "a"}]}), 0, 0, default);
        check(json!({"containers": [c("a", "1", "10"), c("b", "500m", "5")]}), 1500, 15, (1500, 15));
        // An init container counts only where it needs more than all containers together.
        check(json!({"containers": [c("a", "1", "10")], "initContainers": [c("i", "3", "4")]}), 3000, 10, (3000, 10));
        // A sidecar runs beside the containers and beside later init containers.
        check(
            json!({"containers": [c("a", "1", "10")], "initContainers": [sidecar("s", "1", "1"), c("i", "2", "2")]}),
            3000,
            11,
            (3000, 11),
        );
        // One that comes before the sidecar does not share with it.
        check(
            json!({"containers": [c("a", "1", "10")], "initContainers": [c("i", "2", "2"), sidecar("s", "1", "1")]}),
            2000,
            11,
            (2000, 11),
        );
        check(
            json!({"containers": [c("a", "1", "10")], "overhead": {"cpu": "250m", "memory": "7"}}),
            1250,
            17,
            (1250, 17),
        );
        // Pod-level resources replace the sum; a resource they leave out still comes from the containers.
        check(
            json!({"containers": [c("a", "1", "10")], "resources": {"requests": {"cpu": "3"}}}),
            3000,
            10,
            (3000, 10),
        );
        check(
            json!({"containers": [{"name": "a"}], "resources": {"requests": {"cpu": "3"}}}),
            3000,
            0,
            (3000, DEFAULT_MEMORY),
        );
        // An explicit zero is not "missing".
        check(json!({"containers": [c("a", "0", "0")]}), 0, 0, (0, 0));
    }

    #[test]
    fn a_shrinking_pod_keeps_what_it_still_holds() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {"containers": [c("a", "1", "10")]},
            "status": {"containerStatuses": [{"name": "a", "image": "i", "imageID": "i", "ready": true, "restartCount": 0,
                "allocatedResources": {"cpu": "2", "memory": "10"}}]}}))
        .expect("a pod");
        assert_eq!(Requests::of_pod(&pod).exact.milli_cpu, 2000);
    }

    #[test]
    fn add_then_subtract_is_nothing() {
        let mut sum = Resources { milli_cpu: 1, ..Resources::default() };
        let more = Resources { milli_cpu: 2, extended: vec![("gpu".into(), 3)], ..Resources::default() };
        let before = sum.clone();
        sum.add(&more);
        assert_eq!(sum.extended("gpu"), 3);
        sum.subtract(&more);
        assert_eq!(sum, before);
    }
}
