//! Small cluster objects for tests, written as the JSON a user would write.

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::labels::Labels;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// Lays `over` upon `base`, object by object.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

/// A node with 4 CPUs, 8 GiB and room for 10 pods, overlaid with `over`.
pub(crate) fn node(name: &str, over: Value) -> NodeInfo {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}},
    });
    merge(&mut node, over);
    NodeInfo::parse(&serde_json::from_value::<Node>(node).expect("a node"))
}

/// A node in a zone.
pub(crate) fn node_in(name: &str, zone: &str) -> NodeInfo {
    node(name, json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}}))
}

/// A pod of one container without requests, overlaid with `over`. Its uid is its name.
pub(crate) fn pod(name: &str, over: Value) -> PodInfo {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"containers": [{"name": "c", "image": "img"}]},
    });
    merge(&mut pod, over);
    PodInfo::parse(&serde_json::from_value::<Pod>(pod).expect("a pod"))
}

/// A pod with a label `app`.
pub(crate) fn app(name: &str, app: &str) -> PodInfo {
    pod(name, json!({"metadata": {"labels": {"app": app}}}))
}

/// What a pod of one container with requests looks like.
pub(crate) fn requests(requests: Value) -> Value {
    json!({"spec": {"containers": [{"name": "c", "image": "img", "resources": {"requests": requests}}]}})
}

/// Both overlays.
pub(crate) fn both(mut a: Value, b: Value) -> Value {
    merge(&mut a, b);
    a
}

/// A snapshot of nodes and of pods on them.
pub(crate) fn snapshot(nodes: Vec<NodeInfo>, pods: Vec<(&str, PodInfo)>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.upsert_namespace("default", Labels::default());
    for node in nodes {
        snapshot.upsert_node(node);
    }
    for (node, pod) in pods {
        snapshot.place(&pod, &node.into());
    }
    snapshot
}
