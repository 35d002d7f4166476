//! Whom preemption picks, where, and what it says when it cannot help.

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::*;
use crate::schedule::{Cursor, schedule};
use crate::testing::{both, node, pod, requests, snapshot};

/// A pod of `app: NAME's first letter` with a priority, CPUs and a start time in minutes.
fn p(name: &str, priority: i32, cpu: &str, minute: u8) -> PodInfo {
    let start = format!("2026-01-01T00:{minute:02}:00Z");
    let about = json!({"metadata": {"labels": {"app": &name[..1]}}, "spec": {"priority": priority}, "status": {"startTime": start}});
    pod(name, both(about, requests(json!({"cpu": cpu}))))
}

fn budget(app: &str, allowed: i32) -> Budget {
    let budget: PodDisruptionBudget = serde_json::from_value(json!({
        "metadata": {"name": app, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": app}}},
        "status": {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1},
    }))
    .expect("a budget");
    Budget::parse(&budget)
}

fn run(
    nodes: &[&str],
    pods: Vec<(&str, PodInfo)>,
    who: &PodInfo,
    budgets: &[Budget],
) -> Result<(String, Vec<String>), String> {
    let mut snapshot = snapshot(nodes.iter().map(|n| node(n, json!({}))).collect(), pods);
    let before: Vec<_> = snapshot.nodes().map(|n| (n.name().clone(), n.requested().clone(), n.pods().len())).collect();
    let profile = Profile::default();
    let mut rng = StdRng::seed_from_u64(7);
    let refused = schedule(&snapshot, &profile, who, &mut Cursor::default(), &mut rng).expect_err("it does not fit");
    let found = preempt(&mut snapshot, &profile, who, &refused, budgets, &mut rng);
    let after: Vec<_> = snapshot.nodes().map(|n| (n.name().clone(), n.requested().clone(), n.pods().len())).collect();
    assert_eq!(before, after, "the snapshot is as it was");
    match found {
        Ok(found) => {
            let mut victims: Vec<_> = found.victims.iter().map(|v| v.name.to_string()).collect();
            victims.sort();
            Ok((found.node.to_string(), victims))
        }
        Err(reason) => Err(refused.message(Some(&reason.to_string()))),
    }
}

fn check(nodes: &[&str], pods: Vec<(&str, PodInfo)>, who: PodInfo, budgets: &[Budget], expect: (&str, &[&str])) {
    let got = run(nodes, pods, &who, budgets);
    assert_eq!(got, Ok((expect.0.to_owned(), expect.1.iter().map(ToString::to_string).collect())));
}

#[test]
fn the_fewest_and_least_important_go() {
    let pods = vec![("n", p("a", 1, "1", 0)), ("n", p("b", 2, "1", 0)), ("n", p("c", 3, "2", 0))];
    check(&["n"], pods.clone(), p("x", 10, "1", 0), &[], ("n", &["a"]));
    check(&["n"], pods.clone(), p("x", 10, "2", 0), &[], ("n", &["a", "b"]));
    // Those of equal or higher priority stay.
    check(&["n"], pods.clone(), p("x", 2, "1", 0), &[], ("n", &["a"]));
    let message = run(&["n"], pods, &p("x", 1, "1", 0), &[]).expect_err("nobody is lower");
    assert_eq!(
        message,
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
         1 No preemption victims found for incoming pod."
    );
}

#[test]
fn the_younger_goes_first() {
    let pods = vec![("n", p("a", 1, "2", 0)), ("n", p("b", 1, "2", 5))];
    check(&["n"], pods, p("x", 10, "2", 0), &[], ("n", &["b"]));
}

#[test]
fn nodes_in_order_of_harm() {
    let nodes = &["m", "n"];
    let x = || p("x", 100, "4", 0);
    // Fewer broken budgets beat everything.
    let pods = vec![("m", p("a", 1, "4", 0)), ("n", p("b", 9, "4", 0))];
    check(nodes, pods.clone(), x(), &[budget("a", 0)], ("n", &["b"]));
    // Then the lowest highest priority.
    check(nodes, pods.clone(), x(), &[], ("m", &["a"]));
    check(nodes, pods, x(), &[budget("a", 1)], ("m", &["a"]));
    // Then the lowest sum of priorities, which also means fewer pods.
    let pods = vec![("m", p("a", 5, "2", 0)), ("m", p("b", 5, "2", 0)), ("n", p("c", 5, "4", 0))];
    check(nodes, pods, x(), &[], ("n", &["c"]));
    // Then the one whose most important victims started last.
    let pods = vec![("m", p("a", 5, "4", 9)), ("n", p("b", 5, "4", 1))];
    check(nodes, pods, x(), &[], ("m", &["a"]));
}

#[test]
fn budgets_spare_a_pod_on_its_node() {
    let pods = vec![("n", p("a", 1, "2", 0)), ("n", p("b", 1, "2", 5))];
    check(&["n"], pods, p("x", 10, "2", 0), &[budget("b", 0)], ("n", &["a"]));
}

#[test]
fn where_it_cannot_help_it_says_so() {
    let tainted = |name: &str| node(name, json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}));
    let mut snapshot = snapshot(vec![tainted("m"), node("n", json!({}))], vec![("n", p("a", 1, "4", 0))]);
    let profile = Profile::default();
    let mut rng = StdRng::seed_from_u64(7);
    let mut message = |who: &PodInfo| {
        let refused =
            schedule(&snapshot, &profile, who, &mut Cursor::default(), &mut rng).expect_err("it does not fit");
        let reason = preempt(&mut snapshot, &profile, who, &refused, &[], &mut rng).expect_err("no help");
        refused.message(Some(&reason.to_string()))
    };
    // More than an empty node has.
    assert_eq!(
        message(&p("x", 10, "5", 0)),
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s). preemption: \
         0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    );
    assert_eq!(
        message(&p("x", 0, "1", 0)),
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s). preemption: \
         0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
    );
    let never = p("x", 10, "1", 0);
    let never = PodInfo { preemption_policy: PreemptionPolicy::Never, ..never };
    assert_eq!(
        message(&never),
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s). preemption: \
         not eligible due to preemptionPolicy=Never."
    );
}

#[test]
fn it_waits_for_the_victims_it_has() {
    let ending: Value = json!({
        "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": PREEMPTION_REASON}]},
    });
    let victim = pod("v", both(requests(json!({"cpu": "4"})), ending));
    let who = pod(
        "x",
        both(requests(json!({"cpu": "4"})), json!({"spec": {"priority": 10}, "status": {"nominatedNodeName": "n"}})),
    );
    let message = run(&["n"], vec![("n", victim)], &who, &[]).expect_err("it waits");
    assert_eq!(
        message,
        "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to a terminating pod on the nominated node."
    );
}

#[test]
fn an_anti_affinity_is_ended_by_evicting_who_has_it() {
    let apart = json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "x"}}}]}}}});
    let hermit = pod("h", both(apart, requests(json!({"cpu": "1"}))));
    check(&["n"], vec![("n", hermit), ("n", p("a", 1, "1", 0))], p("x", 10, "1", 0), &[], ("n", &["h"]));
}
