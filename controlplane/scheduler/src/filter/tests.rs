//! Filters, by table: a cluster, a pod, and what is said of each node.

use serde_json::{Value, json};

use crate::event::{ClusterEvent, PodFacts};
use crate::filter::{FILTERS, FilterSet};
use crate::node::{NodeChanges, NodeInfo};
use crate::pod::PodInfo;
use crate::schedule::Checks;
use crate::testing::{app, both, node, node_in, pod, requests, snapshot};

/// Each node's reasons, joined; `ok` where the pod fits.
fn verdicts(nodes: Vec<NodeInfo>, pods: Vec<(&str, PodInfo)>, pod: &PodInfo) -> Vec<String> {
    let names: Vec<_> = nodes.iter().map(|n| n.name.clone()).collect();
    let snapshot = snapshot(nodes, pods);
    let checks = match Checks::prepare(&snapshot, FilterSet::all(), pod) {
        Ok(checks) => checks,
        Err((_, reason)) => return vec![reason.to_string()],
    };
    let verdict = |name: &crate::NodeName| match checks.check(snapshot.node(name.as_str()).expect("it was put there")) {
        Ok(()) => "ok".to_owned(),
        Err((_, refusal)) => refusal.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    };
    names.iter().map(verdict).collect()
}

fn check(nodes: Vec<NodeInfo>, pods: Vec<(&str, PodInfo)>, pod: PodInfo, expect: &[&str]) {
    assert_eq!(verdicts(nodes, pods, &pod), expect, "{pod:?}");
}

const TAINT: &str = "node(s) had untolerated taint(s)";
const AFFINITY: &str = "node(s) didn't match pod affinity rules";
const ANTI: &str = "node(s) didn't match pod anti-affinity rules";
const EXISTING: &str = "node(s) didn't satisfy existing pods anti-affinity rules";
const SPREAD: &str = "node(s) didn't match pod topology spread constraints";
const PORTS: &str = "node(s) didn't have free ports for the requested pod ports";

#[test]
fn node_name() {
    let wants_b = pod("p", json!({"spec": {"nodeName": "b"}}));
    check(
        vec![node("a", json!({})), node("b", json!({}))],
        vec![],
        wants_b,
        &["node(s) didn't match the requested node name", "ok"],
    );
}

#[test]
fn cordon() {
    let cordoned = || vec![node("a", json!({"spec": {"unschedulable": true}}))];
    check(cordoned(), vec![], pod("p", json!({})), &["node(s) were unschedulable"]);
    let key = "node.kubernetes.io/unschedulable";
    let tolerant = json!({"spec": {"tolerations": [{"key": key, "operator": "Exists", "effect": "NoSchedule"}]}});
    check(cordoned(), vec![], pod("p", tolerant), &["ok"]);
}

#[test]
fn taints() {
    let tainted =
        |effect: &str| vec![node("a", json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": effect}]}}))];
    check(tainted("NoSchedule"), vec![], pod("p", json!({})), &[TAINT]);
    check(tainted("NoExecute"), vec![], pod("p", json!({})), &[TAINT]);
    check(tainted("PreferNoSchedule"), vec![], pod("p", json!({})), &["ok"]);
    let tolerant = json!({"spec": {"tolerations": [{"key": "k", "operator": "Equal", "value": "v"}]}});
    check(tainted("NoExecute"), vec![], pod("p", tolerant), &["ok"]);
}

#[test]
fn node_selection() {
    let nodes = || vec![node_in("a", "z1"), node_in("b", "z2")];
    let other = "node(s) didn't match Pod's node affinity/selector";
    check(
        nodes(),
        vec![],
        pod("p", json!({"spec": {"nodeSelector": {"topology.kubernetes.io/zone": "z2"}}})),
        &[other, "ok"],
    );
    let clash = json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": ["a"]},
            {"key": "metadata.name", "operator": "In", "values": ["b"]}]}]}}}}});
    check(nodes(), vec![], pod("p", clash), &["pod affinity terms conflict"]);
}

#[test]
fn ports() {
    let with = |ports: Value| json!({"spec": {"containers": [{"name": "c", "image": "i", "ports": ports}]}});
    let port = |ip: Option<&str>, protocol: &str, port: i32| {
        with(json!([{"containerPort": 1, "hostPort": port, "hostIP": ip, "protocol": protocol}]))
    };
    for (there, wanted, expect) in [
        (port(None, "TCP", 80), port(None, "TCP", 80), PORTS),
        (port(None, "TCP", 80), port(None, "UDP", 80), "ok"),
        (port(None, "TCP", 80), port(None, "TCP", 81), "ok"),
        (port(Some("10.0.0.1"), "TCP", 80), port(Some("10.0.0.2"), "TCP", 80), "ok"),
        (port(Some("10.0.0.1"), "TCP", 80), port(Some("10.0.0.1"), "TCP", 80), PORTS),
        (port(Some("10.0.0.1"), "TCP", 80), port(Some("0.0.0.0"), "TCP", 80), PORTS),
        (port(Some("0.0.0.0"), "TCP", 80), port(Some("10.0.0.1"), "TCP", 80), PORTS),
        (with(json!([{"containerPort": 80}])), with(json!([{"containerPort": 80}])), "ok"),
    ] {
        check(vec![node("a", json!({}))], vec![("a", pod("q", there))], pod("p", wanted), &[expect]);
    }
}

#[test]
fn resources() {
    let a = |over| vec![node("a", over)];
    let holds = |r| vec![("a", pod("q", requests(r)))];
    let wants = |r| pod("p", requests(r));
    check(a(json!({})), holds(json!({"cpu": "3"})), wants(json!({"cpu": "1"})), &["ok"]);
    check(a(json!({})), holds(json!({"cpu": "3"})), wants(json!({"cpu": "1001m"})), &["Insufficient cpu"]);
    check(
        a(json!({})),
        holds(json!({"cpu": "3", "memory": "8Gi"})),
        wants(json!({"cpu": "2", "memory": "1"})),
        &["Insufficient cpu; Insufficient memory"],
    );
    check(a(json!({})), vec![], wants(json!({"ephemeral-storage": "1Gi"})), &["Insufficient ephemeral-storage"]);
    check(a(json!({})), vec![], wants(json!({"x.io/gpu": "1"})), &["Insufficient x.io/gpu"]);
    let gpus = json!({"status": {"allocatable": {"x.io/gpu": "2"}}});
    check(a(gpus.clone()), holds(json!({"x.io/gpu": "1"})), wants(json!({"x.io/gpu": "1"})), &["ok"]);
    check(a(gpus), holds(json!({"x.io/gpu": "1"})), wants(json!({"x.io/gpu": "2"})), &["Insufficient x.io/gpu"]);
    // A node that is over-committed still takes a pod that asks for nothing.
    check(a(json!({})), holds(json!({"cpu": "9"})), wants(json!({})), &["ok"]);
    let tiny = json!({"status": {"allocatable": {"pods": "1"}}});
    check(a(tiny), holds(json!({})), wants(json!({"cpu": "9"})), &["Too many pods; Insufficient cpu"]);
}

fn affinity(kind: &str, term: Value) -> Value {
    json!({"spec": {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}})
}

fn term(key: &str, app: &str) -> Value {
    json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}})
}

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

fn zones() -> Vec<NodeInfo> {
    vec![node_in("a", "z1"), node_in("b", "z1"), node_in("c", "z2"), node("d", json!({}))]
}

#[test]
fn pod_affinity() {
    let db = || vec![("a", app("db", "db"))];
    let near = |app: &str, t| pod("p", both(affinity("podAffinity", t), json!({"metadata": {"labels": {"app": app}}})));
    check(zones(), db(), near("web", term(ZONE, "db")), &["ok", "ok", AFFINITY, AFFINITY]);
    check(zones(), db(), near("web", term(HOST, "db")), &["ok", AFFINITY, AFFINITY, AFFINITY]);
    // The first of its kind goes anywhere that has the key.
    check(zones(), vec![], near("db", term(ZONE, "db")), &["ok", "ok", "ok", AFFINITY]);
    check(zones(), vec![], near("web", term(ZONE, "db")), &[AFFINITY; 4]);
    // Only the pod's own namespace counts, unless the term says otherwise.
    let elsewhere = || vec![("a", pod("db", json!({"metadata": {"namespace": "other", "labels": {"app": "db"}}})))];
    check(zones(), elsewhere(), near("web", term(ZONE, "db")), &[AFFINITY; 4]);
    let named = both(term(ZONE, "db"), json!({"namespaces": ["other"]}));
    check(zones(), elsewhere(), near("web", named), &["ok", "ok", AFFINITY, AFFINITY]);
    let all = both(term(ZONE, "db"), json!({"namespaceSelector": {}}));
    check(zones(), elsewhere(), near("web", all), &["ok", "ok", AFFINITY, AFFINITY]);
}

#[test]
fn pod_anti_affinity() {
    let apart = |name: &str, app: &str, t| {
        pod(name, both(affinity("podAntiAffinity", t), json!({"metadata": {"labels": {"app": app}}})))
    };
    check(zones(), vec![("a", app("q", "web"))], apart("p", "web", term(ZONE, "web")), &[ANTI, ANTI, "ok", "ok"]);
    check(zones(), vec![("a", app("q", "web"))], apart("p", "web", term(HOST, "web")), &[ANTI, "ok", "ok", "ok"]);
    // Symmetry: a pod that is there keeps others out, too.
    check(
        zones(),
        vec![("a", apart("q", "db", term(ZONE, "web")))],
        app("p", "web"),
        &[EXISTING, EXISTING, "ok", "ok"],
    );
    check(zones(), vec![("a", apart("q", "db", term(ZONE, "web")))], app("p", "other"), &["ok"; 4]);
    // matchLabelKeys: only pods of the same revision.
    let keyed = both(term(HOST, "web"), json!({"matchLabelKeys": ["rev"]}));
    let p =
        pod("p", both(affinity("podAntiAffinity", keyed), json!({"metadata": {"labels": {"app": "web", "rev": "2"}}})));
    let old = pod("q", json!({"metadata": {"labels": {"app": "web", "rev": "1"}}}));
    let new = pod("r", json!({"metadata": {"labels": {"app": "web", "rev": "2"}}}));
    check(zones(), vec![("a", old), ("b", new)], p, &["ok", ANTI, "ok", "ok"]);
}

fn spread(over: Value) -> PodInfo {
    let base = json!({"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}});
    let spec = json!({"topologySpreadConstraints": [both(base, over.get("constraint").cloned().unwrap_or(json!({})))]});
    let over = both(
        json!({"metadata": {"labels": {"app": "web"}}, "spec": spec}),
        over.get("pod").cloned().unwrap_or(json!({})),
    );
    pod("p", over)
}

#[test]
fn topology_spread() {
    let label = "node(s) didn't match pod topology spread constraints (missing required label)";
    let one = || vec![("a", app("q", "web"))];
    check(zones(), one(), spread(json!({})), &[SPREAD, SPREAD, "ok", label]);
    check(zones(), one(), spread(json!({"constraint": {"maxSkew": 2}})), &["ok", "ok", "ok", label]);
    check(zones(), vec![], spread(json!({})), &["ok", "ok", "ok", label]);
    // Fewer domains than wanted: the emptiest counts as zero.
    let both_zones = || vec![("a", app("q", "web")), ("c", app("r", "web"))];
    check(zones(), both_zones(), spread(json!({})), &["ok", "ok", "ok", label]);
    check(zones(), both_zones(), spread(json!({"constraint": {"minDomains": 3}})), &[SPREAD, SPREAD, SPREAD, label]);
    // Ending pods do not count.
    let ending = json!({"metadata": {"labels": {"app": "web"}, "deletionTimestamp": "2026-01-01T00:00:00Z"}});
    check(zones(), vec![("a", pod("q", ending))], spread(json!({})), &["ok", "ok", "ok", label]);
    // A zone that the pod cannot use does not hold the others back, unless the policy says so.
    let pinned = json!({"spec": {"nodeSelector": {ZONE: "z1"}}});
    let outside = "node(s) didn't match Pod's node affinity/selector";
    check(zones(), one(), spread(json!({"pod": pinned})), &["ok", "ok", outside, outside]);
    let ignore = json!({"pod": pinned, "constraint": {"nodeAffinityPolicy": "Ignore"}});
    check(zones(), one(), spread(ignore), &[SPREAD, SPREAD, outside, outside]);
}

#[test]
fn topology_spread_and_taints() {
    let nodes = || {
        let taint =
            json!({"metadata": {"labels": {ZONE: "z2"}}, "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
        vec![node_in("a", "z1"), node("c", taint)]
    };
    let one = || vec![("a", app("q", "web"))];
    check(nodes(), one(), spread(json!({})), &[SPREAD, TAINT]);
    check(nodes(), one(), spread(json!({"constraint": {"nodeTaintsPolicy": "Honor"}})), &["ok", TAINT]);
}

#[test]
fn reserved_nodes_count_both_ways() {
    let mut snapshot = snapshot(vec![node("a", json!({}))], vec![]);
    let high = json!({"spec": {"priority": 10}});
    let coming = pod("coming", both(requests(json!({"cpu": "3"})), high.clone()));
    snapshot.nominate(std::sync::Arc::new(coming), "a".into());
    let fits = |pod: &PodInfo| {
        let checks = Checks::prepare(&snapshot, FilterSet::all(), pod).unwrap_or_else(|(_, reason)| panic!("{reason}"));
        checks.check(snapshot.node("a").expect("it is there")).is_ok()
    };
    assert!(!fits(&pod("p", requests(json!({"cpu": "2"})))), "what is reserved is not free");
    assert!(fits(&pod("p", requests(json!({"cpu": "1"})))));
    let higher = json!({"spec": {"priority": 11}});
    assert!(fits(&pod("p", both(requests(json!({"cpu": "2"})), higher))), "nor reserved against higher priority");
}

/// Whether a filter sees hope for the pod in an event, with the event's node `a` and its pod already in the snapshot.
fn hopeful(name: &str, pod: &PodInfo, nodes: Vec<NodeInfo>, event: &ClusterEvent<'_>) -> bool {
    let row = FILTERS.iter().find(|f| f.name == name).expect("a filter of this name");
    row.is_hopeful(&snapshot(nodes, vec![]), pod, event)
}

#[test]
fn hints() {
    let (db, web) = (app("db", "db"), app("web", "web"));
    let a = "a".into();
    let added = ClusterEvent::PodAdded(PodFacts::from(&db));
    let removed = ClusterEvent::PodRemoved { node: &a, pod: PodFacts::from(&db) };
    let other_added = ClusterEvent::PodAdded(PodFacts::from(&web));
    let other_removed = ClusterEvent::PodRemoved { node: &a, pod: PodFacts::from(&web) };
    let node_added = ClusterEvent::Node { name: &a, changes: NodeChanges { added: true, ..NodeChanges::default() } };
    let labels = ClusterEvent::Node { name: &a, changes: NodeChanges { labels: true, ..NodeChanges::default() } };
    let room = ClusterEvent::Node { name: &a, changes: NodeChanges { allocatable: true, ..NodeChanges::default() } };

    let near = pod("p", affinity("podAffinity", term(ZONE, "db")));
    let apart = pod("p", affinity("podAntiAffinity", term(ZONE, "db")));
    let even = spread(json!({"constraint": {"labelSelector": {"matchLabels": {"app": "db"}}}}));
    let large = pod("p", requests(json!({"cpu": "9"})));
    let plain = pod("p", json!({}));
    let hermit = pod("h", affinity("podAntiAffinity", term(ZONE, "web")));
    let hermit_removed = ClusterEvent::PodRemoved { node: &a, pod: PodFacts::from(&hermit) };

    for (name, pod, event, expect) in [
        ("InterPodAffinity", &near, &added, true),
        ("InterPodAffinity", &near, &other_added, false),
        ("InterPodAffinity", &near, &removed, false),
        ("InterPodAffinity", &near, &node_added, true),
        ("InterPodAffinity", &near, &room, false),
        ("InterPodAffinity", &apart, &removed, true),
        ("InterPodAffinity", &apart, &other_removed, false),
        ("InterPodAffinity", &apart, &added, false),
        ("InterPodAffinity", &web, &hermit_removed, true),
        ("InterPodAffinity", &plain, &hermit_removed, false),
        ("PodTopologySpread", &even, &added, true),
        ("PodTopologySpread", &even, &other_removed, false),
        ("PodTopologySpread", &even, &labels, true),
        ("NodeResourcesFit", &plain, &removed, true),
        ("NodeResourcesFit", &large, &removed, false),
        ("NodeResourcesFit", &plain, &added, false),
        ("NodeResourcesFit", &large, &room, false),
        ("NodeAffinity", &plain, &labels, true),
        ("TaintToleration", &plain, &labels, false),
    ] {
        let got = hopeful(name, pod, vec![node_in("a", "z1")], event);
        assert_eq!(got, expect, "{name} for {} on {event:?}", pod.pod());
    }
}
