//! The snapshot kept by events equals one built at once, whatever the events were.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::testing::{both, node, pod, requests};

/// All that can be asked of a snapshot, in an order that does not depend on its history.
fn digest(snapshot: &Snapshot) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let name =
        |id: NodeId| snapshot.nodes[id.index()].as_ref().map(|n| n.name().to_string()).expect("counted nodes exist");
    let counts = |counts: &NodeCounts| counts.iter().map(|(id, n)| (name(id), n)).collect::<BTreeMap<_, _>>();
    for node in snapshot.nodes.iter().flatten() {
        let mut ports = node.ports().to_vec();
        ports.sort();
        let mut pods: Vec<_> =
            node.pods().iter().filter_map(|s| snapshot.resident(*s)).map(|r| &r.placed.pod.name).collect();
        pods.sort();
        let sums = (node.requested(), node.scored_milli_cpu(), node.scored_memory());
        out.insert(
            format!("node {}", node.name()),
            format!("{} {:?} {sums:?} {ports:?} {pods:?}", node.exists(), node.info()),
        );
        for key in ["zone", "kubernetes.io/hostname", ZONE] {
            let column = snapshot.column(key);
            let value = column.of(node.id()).map(|d| column.value(d).to_owned());
            assert_eq!(value.as_deref(), node.info().labels.get(key), "the column is what the labels say");
        }
    }
    for group in snapshot.groups.iter() {
        let key = format!("group {} {:?} {}", group.namespace(), group.labels(), group.is_terminating());
        out.insert(key, format!("{:?}", counts(&group.counts)));
    }
    for carried in snapshot.required_apart().iter().chain(snapshot.attractions()) {
        out.insert(format!("term {:?}", carried.term), format!("{:?}", counts(&carried.carriers)));
    }
    let image = snapshot.image("img:latest");
    let held = snapshot.nodes().filter(|n| image.is_some_and(|i| i.is_on(n.id()))).map(|n| n.name().to_string());
    out.insert("image".into(), format!("{:?}", held.collect::<std::collections::BTreeSet<_>>()));
    let mut order: Vec<String> = snapshot.order().iter().map(|id| name(*id)).collect();
    order.sort();
    out.insert("order".into(), format!("{} {order:?}", snapshot.len()));
    out.insert("priorities".into(), format!("{:?}", snapshot.priorities));
    out
}

const ZONE: &str = "topology.kubernetes.io/zone";

#[derive(Debug, Clone)]
enum Step {
    Node(u8, u8),
    NodeGone(u8),
    Pod(u8, u8, u8),
    PodGone(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..5_u8, 0..4_u8).prop_map(|(n, v)| Step::Node(n, v)),
        (0..5_u8).prop_map(Step::NodeGone),
        (0..12_u8, 0..6_u8, 0..8_u8).prop_map(|(p, n, v)| Step::Pod(p, n, v)),
        (0..12_u8).prop_map(Step::PodGone),
    ]
}

fn a_node(n: u8, variant: u8) -> NodeInfo {
    let images = if variant.is_multiple_of(2) { json!([{"names": ["img:latest"], "sizeBytes": 7}]) } else { json!([]) };
    let over = json!({"metadata": {"labels": {ZONE: format!("z{}", variant / 2)}}, "status": {"images": images}});
    node(&format!("n{n}"), over)
}

fn a_pod(p: u8, variant: u8) -> PodInfo {
    let term = json!({"topologyKey": ZONE, "labelSelector": {"matchLabels": {"app": "0"}}});
    let mut over: Value = json!({"metadata": {"labels": {"app": format!("{}", variant % 2)}}});
    if variant & 2 != 0 {
        over = both(
            over,
            json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}}),
        );
    }
    if variant & 4 != 0 {
        over = both(over, requests(json!({"cpu": "1", "x.io/gpu": "1"})));
        over["spec"]["containers"][0]["ports"] = json!([{"containerPort": 1, "hostPort": 80}]);
    }
    if variant == 7 {
        over["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    pod(&format!("p{p}"), over)
}

proptest! {
    #[test]
    fn incremental_equals_from_scratch(steps in proptest::collection::vec(step(), 1..80)) {
        let mut snapshot = Snapshot::default();
        let mut nodes = BTreeMap::new();
        let mut pods = BTreeMap::new();
        for step in steps {
            match step {
                Step::Node(n, v) => {
                    nodes.insert(n, v);
                    snapshot.upsert_node(a_node(n, v));
                }
                Step::NodeGone(n) => {
                    nodes.remove(&n);
                    snapshot.delete_node(&a_node(n, 0).name);
                }
                Step::Pod(p, n, v) => {
                    pods.insert(p, (n, v));
                    snapshot.place(&a_pod(p, v), &a_node(n, 0).name);
                }
                Step::PodGone(p) => {
                    pods.remove(&p);
                    snapshot.remove(&a_pod(p, 0).pod().uid);
                }
            }
            let mut fresh = Snapshot::default();
            nodes.iter().for_each(|(n, v)| { fresh.upsert_node(a_node(*n, *v)); });
            pods.iter().for_each(|(p, (n, v))| fresh.place(&a_pod(*p, *v), &a_node(*n, 0).name));
            prop_assert_eq!(digest(&snapshot), digest(&fresh));
        }
    }
}

#[test]
fn zones_take_turns() {
    let mut snapshot = Snapshot::default();
    for (name, zone) in [("a", "1"), ("b", "1"), ("c", "1"), ("d", "2"), ("e", "3")] {
        snapshot.upsert_node(node(name, json!({"metadata": {"labels": {ZONE: zone}}})));
    }
    let names: Vec<_> =
        snapshot.order().iter().filter_map(|id| snapshot.node_at(*id)).map(|n| n.name().to_string()).collect();
    assert_eq!(names, ["a", "d", "e", "b", "c"]);
}

#[test]
fn what_nobody_uses_is_given_back() {
    let mut snapshot = Snapshot::default();
    for round in 0..50_u32 {
        let name = format!("n{round}");
        snapshot.upsert_node(node(&name, json!({})));
        let p = pod("p", json!({"metadata": {"labels": {"round": name}}}));
        snapshot.place(&p, &name.as_str().into());
        snapshot.remove(&p.pod().uid);
        snapshot.delete_node(&name.as_str().into());
    }
    assert_eq!((snapshot.slots(), snapshot.pods.len(), snapshot.groups.iter().count()), (1, 1, 0));
    assert!(snapshot.column("kubernetes.io/hostname").domains() <= 2);
}
