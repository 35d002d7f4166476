//! Whether the node takes a pod that was bound to it: selector and affinity, resources, host ports, operating system. A
//! pod it does not take fails with the kubelet's reason and words.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec};

use crate::resources::{pod_requests, thousandths};

/// Why a pod is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// `status.reason`.
    pub reason: &'static str,
    /// `status.message`.
    pub message: String,
}

impl Rejection {
    const PREFIX: &'static str = "Pod was rejected: ";

    fn new(reason: &'static str, message: impl std::fmt::Display) -> Self {
        Self { reason, message: format!("{}{message}", Self::PREFIX) }
    }

    /// The message as the event has it: the kubelet puts the prefix before the status' alone.
    pub(crate) fn words(&self) -> &str {
        self.message.strip_prefix(Self::PREFIX).unwrap_or(&self.message)
    }
}

/// What the active pods of the node take of it together: kept up to date pod by pod, so that admitting one costs the same
/// beside ten others and beside ten thousand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pods: i128,
    /// Thousandths per resource.
    resources: BTreeMap<String, i128>,
    /// How many pods use a port: admission lets in one, what came before it may be more.
    ports: BTreeMap<(String, i32), usize>,
}

impl Taken {
    /// Counts a pod. To be taken back with the same specification.
    pub fn add(&mut self, pod: &Pod) {
        let Some(spec) = &pod.spec else { return };
        self.pods += 1;
        for port in host_ports(spec) {
            *self.ports.entry(port).or_insert(0) += 1;
        }
        for (name, amount) in pod_requests(spec) {
            *self.resources.entry(name).or_insert(0) += amount;
        }
    }

    /// Takes back what [`Taken::add`] counted.
    pub fn remove(&mut self, pod: &Pod) {
        let Some(spec) = &pod.spec else { return };
        self.pods -= 1;
        for port in host_ports(spec) {
            if let Some(users) = self.ports.get_mut(&port) {
                *users -= 1;
            }
        }
        self.ports.retain(|_, users| *users > 0);
        for (name, amount) in pod_requests(spec) {
            if let Some(used) = self.resources.get_mut(&name) {
                *used -= amount;
            }
        }
    }
}

/// Decides whether `pod` fits beside what is taken of the node.
pub fn admit(pod: &Pod, node: &Node, taken: &Taken) -> Result<(), Rejection> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    if !matches_node(spec, node) {
        return Err(Rejection::new(
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        ));
    }
    if let Some(os) = spec.os.as_ref().filter(|os| os.name != "linux") {
        let message = format!("Failed to admit pod as the pod's OS {:?} doesn't match the node's", os.name);
        return Err(Rejection::new("PodOSNotSupported", message));
    }
    if host_ports(spec).any(|port| taken.ports.contains_key(&port)) {
        let message = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return Err(Rejection::new("NodePorts", message));
    }
    fits(spec, node, &taken.resources, taken.pods)
}

fn fits(spec: &PodSpec, node: &Node, used: &BTreeMap<String, i128>, count: i128) -> Result<(), Rejection> {
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let room = |name: &str| allocatable.and_then(|map| map.get(name)).and_then(thousandths);
    let short = |reason, name: &str, requested: i128, used: i128, capacity: i128| {
        let message = format!(
            "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Err(Rejection::new(reason, message))
    };
    if let Some(capacity) = room("pods").map(|pods| pods / 1000).filter(|capacity| count + 1 > *capacity) {
        return short("OutOfpods", "pods", 1, count, capacity);
    }
    for (name, requested) in pod_requests(spec) {
        // An extended resource the node does not have at all is left to the scheduler's word.
        let (Some(capacity), used) = (room(&name), used.get(&name).copied().unwrap_or(0)) else { continue };
        if requested > 0 && requested + used > capacity {
            let unit = if name == "cpu" { 1 } else { 1000 };
            let reason = match name.as_str() {
                "cpu" => "OutOfcpu",
                "memory" => "OutOfmemory",
                "ephemeral-storage" => "OutOfephemeral-storage",
                _ => "UnexpectedAdmissionError",
            };
            return short(reason, &name, requested / unit, used / unit, capacity / unit);
        }
    }
    Ok(())
}

fn host_ports(spec: &PodSpec) -> impl Iterator<Item = (String, i32)> {
    let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    ports.filter_map(|port| {
        let number = port.host_port.filter(|port| *port > 0)?;
        Some((port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), number))
    })
}

fn matches_node(spec: &PodSpec, node: &Node) -> bool {
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let selector = spec.node_selector.iter().flatten();
    if !selector.into_iter().all(|(key, value)| labels.get(key) == Some(value)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    let name = node.metadata.name.as_deref().unwrap_or_default();
    required.is_none_or(|required| required.node_selector_terms.iter().any(|term| term_matches(term, labels, name)))
}

fn term_matches(term: &NodeSelectorTerm, labels: &BTreeMap<String, String>, name: &str) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    // A term without any requirement matches nothing.
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|one| requirement_matches(one, labels.get(&one.key).map(String::as_str)))
        && fields.iter().all(|one| requirement_matches(one, (one.key == "metadata.name").then_some(name)))
}

fn requirement_matches(one: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = one.values.as_deref().unwrap_or_default();
    let listed = || value.is_some_and(|value| values.iter().any(|known| known == value));
    let number = |text: &str| text.parse::<i64>().ok();
    let bound = || values.first().and_then(|bound| number(bound));
    match one.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => value.and_then(number).zip(bound()).is_some_and(|(value, bound)| value > bound),
        "Lt" => value.and_then(number).zip(bound()).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node() -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n", "labels": {"disk": "ssd", "cores": "8"}},
            "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "3"}},
        }))
        .unwrap()
    }

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({ "spec": spec })).unwrap()
    }

    fn check(spec: Value, active: &[Pod], expect: Option<(&str, &str)>) {
        let mut taken = Taken::default();
        active.iter().for_each(|pod| taken.add(pod));
        let got = admit(&pod(spec), &node(), &taken).err();
        assert_eq!(got.as_ref().map(|r| (r.reason, r.message.as_str())), expect);
    }

    #[test]
    fn what_does_not_fit_is_refused_in_the_kubelets_words() {
        let cpu = |n: &str| json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": n}}}]});
        check(cpu("2"), &[], None);
        let message =
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000";
        check(cpu("1500m"), &[pod(cpu("1"))], Some(("OutOfcpu", message)));
        let full = [pod(cpu("0")), pod(cpu("0")), pod(cpu("0"))];
        let message = "Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3";
        check(cpu("0"), &full, Some(("OutOfpods", message)));
    }

    #[test]
    fn affinity_and_ports_are_checked() {
        let affinity =
            "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        check(json!({"nodeSelector": {"disk": "hdd"}}), &[], Some(("NodeAffinity", affinity)));
        check(json!({"nodeSelector": {"disk": "ssd"}}), &[], None);
        let gt = |n: &str| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [{"key": "cores", "operator": "Gt", "values": [n]}]}]}}}})
        };
        check(gt("4"), &[], None);
        check(gt("8"), &[], Some(("NodeAffinity", affinity)));
        let ports = json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "hostPort": 80}]}]});
        let message =
            "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        check(ports.clone(), &[pod(ports)], Some(("NodePorts", message)));
    }

    #[test]
    fn what_is_taken_back_leaves_nothing() {
        let one = pod(json!({"containers": [
            {"name": "a", "ports": [{"containerPort": 1, "hostPort": 80}], "resources": {"requests": {"cpu": "1"}}},
        ]}));
        let mut taken = Taken::default();
        taken.add(&one);
        taken.add(&one);
        taken.remove(&one);
        let spec = serde_json::to_value(one.spec.as_ref().unwrap()).unwrap();
        assert!(admit(&pod(spec.clone()), &node(), &taken).is_err(), "the port is still used");
        taken.remove(&one);
        assert_eq!(admit(&pod(spec), &node(), &taken), Ok(()));
        assert!(taken.ports.is_empty() && taken.pods == 0 && taken.resources.values().all(|amount| *amount == 0));
    }
}
