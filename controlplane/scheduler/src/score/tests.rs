//! Scorers, by table: a cluster, a pod, and the normalised score of each node by one scorer.

use serde_json::{Value, json};

use super::SCORES;
use crate::labels::LabelQuery;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::testing::{app, both, node, node_in, pod, requests, snapshot};

fn scores(name: &str, nodes: Vec<NodeInfo>, pods: Vec<(&str, PodInfo)>, pod: &PodInfo) -> Option<Vec<i64>> {
    let names: Vec<_> = nodes.iter().map(|n| n.name.clone()).collect();
    let snapshot = snapshot(nodes, pods);
    let ids: Vec<_> = names.iter().map(|n| snapshot.node(n.as_str()).expect("it was put there").id()).collect();
    let row = SCORES.iter().find(|s| s.name == name).expect("a scorer of this name");
    let scorer = (row.prepare)(&snapshot, pod, &ids)?;
    let mut scores: Vec<i64> = ids.iter().map(|id| scorer.score(snapshot.node_at(*id).expect("it is there"))).collect();
    scorer.normalize(&ids, &mut scores);
    Some(scores)
}

fn check(name: &str, nodes: Vec<NodeInfo>, pods: Vec<(&str, PodInfo)>, pod: PodInfo, expect: &[i64]) {
    assert_eq!(scores(name, nodes, pods, &pod).as_deref(), Some(expect), "{name} {pod:?}");
}

const ZONE: &str = "topology.kubernetes.io/zone";

#[test]
fn taints() {
    let soft = |n: usize| {
        let taints: Vec<Value> =
            (0..n).map(|i| json!({"key": format!("k{i}"), "effect": "PreferNoSchedule"})).collect();
        json!({"spec": {"taints": taints}})
    };
    let nodes = || vec![node("a", json!({})), node("b", soft(1)), node("c", soft(2))];
    check("TaintToleration", nodes(), vec![], pod("p", json!({})), &[100, 50, 0]);
    let tolerant = json!({"spec": {"tolerations": [{"key": "k1", "operator": "Exists"}]}});
    check("TaintToleration", nodes(), vec![], pod("p", tolerant), &[100, 0, 0]);
}

#[test]
fn node_affinity() {
    let prefer = |zone: &str, weight: i32| json!({"weight": weight, "preference": {"matchExpressions": [{"key": ZONE, "operator": "In", "values": [zone]}]}});
    let preferred = json!([prefer("z1", 10), prefer("z2", 40)]);
    let p =
        json!({"spec": {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}}});
    let nodes = vec![node_in("a", "z1"), node_in("b", "z2"), node_in("c", "z3")];
    check("NodeAffinity", nodes, vec![], pod("p", p), &[25, 100, 0]);
    assert_eq!(scores("NodeAffinity", vec![node("a", json!({}))], vec![], &pod("p", json!({}))), None);
}

#[test]
fn least_allocated() {
    // Free after the pod: a: cpu 3/4, memory 6/8 → 75; b: cpu 1/4, memory 6/8 → 50.
    let p = || pod("p", requests(json!({"cpu": "1", "memory": "2Gi"})));
    let nodes = || vec![node("a", json!({})), node("b", json!({}))];
    let q = pod("q", requests(json!({"cpu": "2", "memory": "0"})));
    check("NodeResourcesFit", nodes(), vec![("b", q)], p(), &[75, 50]);
    // Pods without requests count a little each, so that they spread.
    check("NodeResourcesFit", nodes(), vec![("b", pod("q", json!({})))], pod("p", json!({})), &[97, 95]);
}

#[test]
fn balanced() {
    let p = || pod("p", requests(json!({"cpu": "2", "memory": "4Gi"})));
    let q = pod("q", requests(json!({"cpu": "2", "memory": "0"})));
    // b: cpu 100 %, memory 50 % → deviation 25 %.
    check(
        "NodeResourcesBalancedAllocation",
        vec![node("a", json!({})), node("b", json!({}))],
        vec![("b", q)],
        p(),
        &[100, 75],
    );
    let best_effort = pod("p", json!({}));
    assert_eq!(scores("NodeResourcesBalancedAllocation", vec![node("a", json!({}))], vec![], &best_effort), None);
}

#[test]
fn images() {
    let with = |size: i64| json!({"status": {"images": [{"names": ["img:latest"], "sizeBytes": size}]}});
    let mib = 1024 * 1024;
    // On one of two nodes, the image counts half its size: (511.5 − 23) / (1000 − 23) = 50 %.
    check(
        "ImageLocality",
        vec![node("a", with(1023 * mib)), node("b", json!({}))],
        vec![],
        pod("p", json!({})),
        &[50, 0],
    );
    check(
        "ImageLocality",
        vec![node("a", with(2000 * mib)), node("b", with(1))],
        vec![],
        pod("p", json!({})),
        &[100, 100],
    );
    let small = vec![node("a", with(20 * mib)), node("b", json!({}))];
    check("ImageLocality", small, vec![], pod("p", json!({})), &[0, 0]);
}

#[test]
fn spread_by_default() {
    let nodes = || vec![node_in("a", "z1"), node_in("b", "z1"), node_in("c", "z2")];
    let query = LabelQuery::from_pairs(&[("app".to_owned(), "web".to_owned())].into());
    let p = || app("p", "web").with_default_spread(Some(query.clone()));
    // Raw: a = 1·ln 5 + 2 + 1·ln 4 + 4 ≈ 9, b = 2 + ln 4 + 4 ≈ 7, c = 6. Then 100·(9 + 6 − s) / 9.
    check("PodTopologySpread", nodes(), vec![("a", app("q", "web"))], p(), &[66, 88, 100]);
    check("PodTopologySpread", nodes(), vec![], p(), &[100, 100, 100]);
    assert_eq!(scores("PodTopologySpread", nodes(), vec![], &app("p", "web")), None);
}

#[test]
fn spread_as_asked() {
    let nodes = vec![node_in("a", "z1"), node_in("b", "z2"), node("c", json!({}))];
    let constraint = json!([{"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "web"}}}]);
    let p =
        pod("p", json!({"metadata": {"labels": {"app": "web"}}, "spec": {"topologySpreadConstraints": constraint}}));
    // A node without the key gets nothing.
    check("PodTopologySpread", nodes, vec![("a", app("q", "web"))], p, &[0, 100, 0]);
}

#[test]
fn pod_affinity() {
    let nodes = || vec![node_in("a", "z1"), node_in("b", "z2"), node_in("c", "z3")];
    let term = |app: &str| json!({"topologyKey": ZONE, "labelSelector": {"matchLabels": {"app": app}}});
    let weighted = |kind: &str, app: &str, weight: i32| {
        json!({"spec": {"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution":
            [{"weight": weight, "podAffinityTerm": term(app)}]}}}})
    };
    let there = || vec![("a", app("q", "db")), ("b", app("r", "noisy"))];
    let p = pod("p", both(weighted("podAffinity", "db", 30), weighted("podAntiAffinity", "noisy", 10)));
    check("InterPodAffinity", nodes(), there(), p, &[100, 0, 25]);
    // What a pod that is there prefers, or requires, draws others to it.
    let asks = pod("q", both(weighted("podAffinity", "web", 5), json!({})));
    check("InterPodAffinity", nodes(), vec![("a", asks)], app("p", "web"), &[100, 0, 0]);
    let needs = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [term("web")]}}}});
    check("InterPodAffinity", nodes(), vec![("b", pod("q", needs))], app("p", "web"), &[0, 100, 0]);
    assert_eq!(scores("InterPodAffinity", nodes(), there(), &app("p", "web")), None);
}
