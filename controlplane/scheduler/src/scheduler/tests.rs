//! The scheduler from changes to decisions.

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::*;
use crate::testing::{both, node, pod, requests};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("in range")
}

fn with_nodes(nodes: Vec<NodeInfo>) -> Scheduler<StdRng> {
    let mut scheduler = Scheduler::new(Vec::new(), StdRng::seed_from_u64(3)).expect("the default profile");
    for node in nodes {
        scheduler.handle(Change::NodeUpserted(node), at(0));
    }
    scheduler
}

fn put(scheduler: &mut Scheduler<StdRng>, pod: PodInfo, seconds: i64) {
    scheduler.handle(Change::PodUpserted(Box::new(pod)), at(seconds));
}

fn cpu(name: &str, cpu: &str, over: Value) -> PodInfo {
    pod(name, both(requests(json!({"cpu": cpu})), over))
}

/// The decision in short.
fn next(scheduler: &mut Scheduler<StdRng>, seconds: i64) -> String {
    match scheduler.poll(at(seconds)) {
        None => "-".into(),
        Some(Decision::Bind { pod, node }) => format!("bind {} {node}", pod.name),
        Some(Decision::Unschedulable { pod, message, nomination }) => {
            format!("no {} {nomination:?} {message}", pod.name)
        }
        Some(Decision::Preempt { pod, node, victims, demoted, .. }) => {
            let names = |pods: Vec<PodRef>| pods.iter().map(|p| p.name.to_string()).collect::<Vec<_>>().join(",");
            format!("preempt {} {node} [{}] [{}]", pod.name, names(victims), names(demoted))
        }
    }
}

fn bound(pod: PodInfo, node: &str) -> PodInfo {
    PodInfo { node: Some(node.into()), ..pod }
}

#[test]
fn an_assumed_pod_holds_its_place_and_a_failed_binding_gives_it_back() {
    let mut s = with_nodes(vec![node("n", json!({}))]);
    put(&mut s, cpu("a", "3", json!({})), 0);
    put(&mut s, cpu("b", "3", json!({})), 1);
    assert_eq!(next(&mut s, 1), "bind a n");
    assert!(next(&mut s, 1).starts_with("no b Keep 0/1 nodes are available: 1 Insufficient cpu."));
    // A stale version of the pod, still without a node, does not bring it back into the queue.
    put(&mut s, cpu("a", "3", json!({})), 2);
    assert_eq!(next(&mut s, 2), "-");
    s.handle(Change::BindFailed("a".into()), at(2));
    assert_eq!(next(&mut s, 2), "bind b n", "the room is free again");
    assert!(next(&mut s, 4).starts_with("no a "));
}

#[test]
fn a_bind_that_failed_after_all_succeeded() {
    let mut s = with_nodes(vec![node("n", json!({}))]);
    put(&mut s, cpu("a", "3", json!({})), 0);
    assert_eq!(next(&mut s, 0), "bind a n");
    put(&mut s, bound(cpu("a", "3", json!({})), "n"), 1);
    s.handle(Change::BindFailed("a".into()), at(1));
    assert_eq!(s.snapshot().placed_pods(), 1);
    assert_eq!(next(&mut s, 60), "-");
}

#[test]
fn a_pod_that_ends_makes_room() {
    let mut s = with_nodes(vec![node("n", json!({}))]);
    put(&mut s, bound(cpu("a", "4", json!({})), "n"), 0);
    put(&mut s, cpu("b", "1", json!({})), 0);
    assert!(next(&mut s, 0).starts_with("no b"));
    put(&mut s, bound(cpu("a", "4", json!({"status": {"phase": "Succeeded"}})), "n"), 9);
    assert_eq!(next(&mut s, 9), "bind b n");
}

#[test]
fn no_nodes_then_one() {
    let mut s = with_nodes(vec![]);
    put(&mut s, cpu("a", "1", json!({})), 0);
    assert_eq!(next(&mut s, 0), "no a Keep no nodes available to schedule pods");
    s.handle(Change::NodeUpserted(node("n", json!({}))), at(5));
    assert_eq!(next(&mut s, 5), "bind a n");
}

#[test]
fn preemption_reserves_the_node() {
    let mut s = with_nodes(vec![node("n", json!({}))]);
    put(&mut s, bound(cpu("low", "4", json!({})), "n"), 0);
    put(&mut s, cpu("high", "4", json!({"spec": {"priority": 9}})), 0);
    assert_eq!(next(&mut s, 0), "preempt high n [low] []");
    put(&mut s, cpu("sneak", "4", json!({})), 0);
    s.handle(Change::PodDeleted("low".into()), at(0));
    // The one that backs off comes second, and still finds its room.
    assert_eq!(next(&mut s, 0).split(" 0/").next(), Some("no sneak Keep"));
    assert_eq!(next(&mut s, 0), "bind high n");
    // The reservation is over, the pod itself is there.
    assert!(!s.snapshot().has_nominations());
}

#[test]
fn a_higher_preemptor_takes_the_reservation() {
    let mut s = with_nodes(vec![node("n", json!({}))]);
    put(&mut s, bound(cpu("low", "4", json!({})), "n"), 0);
    put(&mut s, cpu("mid", "4", json!({"spec": {"priority": 5}})), 0);
    assert_eq!(next(&mut s, 0), "preempt mid n [low] []");
    put(&mut s, cpu("high", "4", json!({"spec": {"priority": 9}})), 1);
    assert_eq!(next(&mut s, 1), "preempt high n [low] [mid]");
}

#[test]
fn a_victim_that_cannot_be_evicted() {
    let mut s = with_nodes(vec![node("n", json!({}))]);
    put(&mut s, bound(cpu("low", "4", json!({})), "n"), 0);
    put(&mut s, cpu("high", "4", json!({"spec": {"priority": 9}})), 0);
    assert_eq!(next(&mut s, 0), "preempt high n [low] []");
    s.handle(Change::PreemptionFailed("high".into()), at(5));
    assert_eq!(next(&mut s, 5), "-", "not as fast as it is refused");
    assert_eq!(s.next_timer(at(5)), Some(at(6)));
    assert_eq!(next(&mut s, 6), "preempt high n [low] []", "it tries again");
    s.handle(Change::PreemptionFailed("high".into()), at(6));
    assert_eq!(next(&mut s, 7), "-", "and each time later");
    assert_eq!(next(&mut s, 8), "preempt high n [low] []");
}

#[test]
fn other_schedulers_pods_are_theirs() {
    let mut s = with_nodes(vec![node("n", json!({}))]);
    put(&mut s, cpu("a", "1", json!({"spec": {"schedulerName": "theirs"}})), 0);
    assert_eq!(next(&mut s, 0), "-");
    let mut named = Scheduler::new(vec![Profile::named("theirs")], StdRng::seed_from_u64(1)).expect("one profile");
    named.handle(Change::NodeUpserted(node("n", json!({}))), at(0));
    put(&mut named, cpu("a", "1", json!({"spec": {"schedulerName": "theirs"}})), 0);
    assert_eq!(next(&mut named, 0), "bind a n");
    let twice = Scheduler::new(vec![Profile::default(), Profile::default()], StdRng::seed_from_u64(1));
    assert_eq!(twice.err(), Some(ProfileError::Duplicate("default-scheduler".into())));
}

#[test]
fn equals_share_the_load() {
    let mut s = with_nodes((0..5).map(|i| node(&format!("n{i}"), json!({}))).collect());
    for i in 0..5 {
        put(&mut s, cpu(&format!("p{i}"), "1", json!({})), 0);
    }
    let mut nodes: Vec<String> =
        (0..5).map(|_| next(&mut s, 0)).map(|d| d.split(' ').next_back().unwrap_or("").into()).collect();
    nodes.sort();
    assert_eq!(nodes, ["n0", "n1", "n2", "n3", "n4"]);
}

#[test]
fn a_daemon_pod_waits_for_its_node_only() {
    let mut s = with_nodes(vec![node("a", json!({})), node("b", json!({"status": {"allocatable": {"pods": "0"}}}))]);
    let pinned = json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}]}}}}});
    put(&mut s, cpu("d", "1", pinned), 0);
    assert_eq!(
        next(&mut s, 0),
        "no d Keep 0/2 nodes are available: 1 Too many pods, 1 node(s) didn't satisfy plugin(s) [NodeAffinity]. preemption: \
         0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
    );
    s.handle(Change::NodeUpserted(node("b", json!({}))), at(9));
    assert_eq!(next(&mut s, 9), "bind d b");
}

#[derive(Debug, Clone)]
enum Step {
    Create(u8, u8, u8),
    Delete(u8),
    NodeSeen(u8),
    Poll,
    BindFails(u8),
    BindSeen(u8),
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..30_u8, 1..5_u8, 0..3_u8).prop_map(|(p, cpus, priority)| Step::Create(p, cpus, priority)),
        2 => (0..30_u8).prop_map(Step::Delete),
        1 => (0..4_u8).prop_map(Step::NodeSeen),
        8 => Just(Step::Poll),
        1 => (0..30_u8).prop_map(Step::BindFails),
        2 => (0..30_u8).prop_map(Step::BindSeen),
        1 => Just(Step::Wait),
    ]
}

proptest! {
    /// Whatever happens, no node holds more than it has, and no pod is bound while it is somewhere.
    #[test]
    fn never_over_commits(steps in proptest::collection::vec(step(), 1..200)) {
        let mut s = with_nodes((0..3).map(|n| node(&format!("n{n}"), json!({}))).collect());
        let mut alive: std::collections::BTreeMap<String, (u8, Option<NodeName>)> = Default::default();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Create(p, cpus, priority) => {
                    let name = format!("p{p}");
                    if let std::collections::btree_map::Entry::Vacant(slot) = alive.entry(name.clone()) {
                        slot.insert((cpus, None));
                        put(&mut s, cpu(&name, &cpus.to_string(), json!({"spec": {"priority": priority}})), now);
                    }
                }
                Step::Delete(p) => {
                    let name = format!("p{p}");
                    alive.remove(&name);
                    s.handle(Change::PodDeleted(name.as_str().into()), at(now));
                }
                Step::NodeSeen(n) => s.handle(Change::NodeUpserted(node(&format!("n{n}"), json!({}))), at(now)),
                Step::Poll => match s.poll(at(now)) {
                    Some(Decision::Bind { pod, node }) => {
                        let entry = alive.get_mut(&*pod.name).expect("only pods that are there are bound");
                        prop_assert!(entry.1.is_none(), "{} is bound already", pod.name);
                        entry.1 = Some(node);
                    }
                    Some(Decision::Preempt { victims, .. }) => for victim in victims {
                        alive.remove(&*victim.name);
                        s.handle(Change::PodDeleted(victim.uid), at(now));
                    },
                    _ => {}
                },
                Step::BindFails(p) => {
                    let name = format!("p{p}");
                    if let Some((_, node)) = alive.get_mut(&name).filter(|(_, node)| node.is_some()) {
                        *node = None;
                        let uid: Uid = name.as_str().into();
                        let seen = s.queue.get(&uid).is_none();
                        s.handle(Change::BindFailed(uid.clone()), at(now));
                        if seen {
                            *node = s.snapshot.node_of(&uid).cloned();
                        }
                    }
                }
                Step::BindSeen(p) => {
                    let name = format!("p{p}");
                    if let Some((cpus, Some(node))) = alive.get(&name) {
                        put(&mut s, bound(cpu(&name, &cpus.to_string(), json!({})), node.as_str()), now);
                    }
                }
                Step::Wait => now += 11,
            }
            for node in s.snapshot.nodes() {
                prop_assert!(node.requested().milli_cpu <= node.info().allocatable.milli_cpu);
            }
            let held: i64 = s.snapshot.nodes().map(|n| n.requested().milli_cpu).sum();
            let expected: i64 = alive.values().filter(|(_, n)| n.is_some()).map(|(c, _)| i64::from(*c) * 1000).sum();
            prop_assert_eq!(held, expected, "what is held is what was bound");
        }
    }
}

#[test]
fn a_reservation_that_is_given_up_lets_others_in() {
    let mut s = with_nodes(vec![node("n", json!({}))]);
    put(&mut s, bound(cpu("low", "4", json!({})), "n"), 0);
    put(&mut s, cpu("high", "4", json!({"spec": {"priority": 9}})), 0);
    assert_eq!(next(&mut s, 0), "preempt high n [low] []");
    s.handle(Change::PodDeleted("low".into()), at(0));
    put(&mut s, cpu("other", "4", json!({"spec": {"priority": 10, "preemptionPolicy": "Never"}})), 0);
    s.handle(Change::PodDeleted("high".into()), at(0));
    assert_eq!(next(&mut s, 0), "bind other n");
    assert!(!s.snapshot().has_nominations());

    put(&mut s, cpu("late", "4", json!({"spec": {"priority": 11}})), 20);
    assert_eq!(next(&mut s, 20), "preempt late n [other] []");
    s.handle(Change::PodDeleted("other".into()), at(20));
    put(&mut s, cpu("small", "1", json!({})), 20);
    assert!(next(&mut s, 20).starts_with("no small"), "the room is reserved");
    s.handle(Change::PodDeleted("late".into()), at(30));
    assert_eq!(next(&mut s, 30), "bind small n");
}
