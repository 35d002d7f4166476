//! The queue on a clock of its own.

use serde_json::json;

use super::*;
use crate::filter::FILTERS;
use crate::node::NodeChanges;
use crate::testing::{node, pod, requests, snapshot};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("in range")
}

fn with_priority(name: &str, priority: i32) -> Arc<PodInfo> {
    Arc::new(pod(name, json!({"spec": {"priority": priority}})))
}

fn pop(queue: &mut Queue, seconds: i64) -> Option<String> {
    queue.pop(at(seconds)).map(|p| p.pod().name.to_string())
}

/// The rows of the table with this name.
fn filter(name: &str) -> FilterSet {
    let mut set = FilterSet::default();
    set.insert(FILTERS.iter().position(|f| f.name == name).expect("a filter of this name"));
    set
}

#[test]
fn priority_then_age() {
    let mut queue = Queue::default();
    for (name, priority, second) in [("old", 0, 1), ("new", 0, 2), ("high", 9, 3), ("twin", 0, 1)] {
        queue.upsert(with_priority(name, priority), at(second));
    }
    let order: Vec<_> = std::iter::from_fn(|| pop(&mut queue, 4)).collect();
    assert_eq!(order, ["high", "old", "twin", "new"]);
}

#[test]
fn backoff_doubles_up_to_ten_seconds() {
    let got: Vec<u64> = (1..=6).map(|n| backoff(n).as_secs()).collect();
    assert_eq!(got, [1, 2, 4, 8, 10, 10]);
}

#[test]
fn a_rejected_pod_waits_for_an_event_that_helps() {
    let mut queue = Queue::default();
    queue.upsert(Arc::new(pod("p", requests(json!({"cpu": "3"})))), at(0));
    assert_eq!(pop(&mut queue, 0).as_deref(), Some("p"));
    queue.rejected(&"p".into(), filter("NodeResourcesFit"), at(0));
    assert_eq!(pop(&mut queue, 100), None, "it waits");

    let small = node("small", json!({"status": {"allocatable": {"cpu": "1"}}}));
    let snapshot = snapshot(vec![small, node("large", json!({}))], vec![]);
    let changes = NodeChanges { added: true, ..NodeChanges::default() };
    let mut come = |name: &str| {
        queue.on_event(&snapshot, &ClusterEvent::Node { name: &name.into(), changes }, at(100));
        pop(&mut queue, 100)
    };
    assert_eq!(come("small"), None, "a node that is too small is no hope");
    assert_eq!(come("large").as_deref(), Some("p"));
}

#[test]
fn events_of_another_kind_do_not_wake() {
    let mut queue = Queue::default();
    queue.upsert(with_priority("p", 0), at(0));
    pop(&mut queue, 0);
    queue.rejected(&"p".into(), filter("TaintToleration"), at(0));
    let snapshot = snapshot(vec![node("a", json!({}))], vec![]);
    let changes = NodeChanges { allocatable: true, ..NodeChanges::default() };
    queue.on_event(&snapshot, &ClusterEvent::Node { name: &"a".into(), changes }, at(50));
    assert_eq!(queue.lengths().unschedulable, 1);
    let changes = NodeChanges { taints: true, ..NodeChanges::default() };
    queue.on_event(&snapshot, &ClusterEvent::Node { name: &"a".into(), changes }, at(50));
    assert_eq!(queue.lengths().active, 1);
}

#[test]
fn a_backoff_is_cut_short_only_when_nobody_else_waits() {
    let mut queue = Queue::default();
    queue.upsert(with_priority("p", 5), at(0));
    pop(&mut queue, 0);
    queue.rejected(&"p".into(), FilterSet::default(), at(0));
    queue.wake(&"p".into(), at(0));
    queue.upsert(with_priority("q", 0), at(0));
    assert_eq!(queue.next_timer(), Some(at(1)));
    assert_eq!(pop(&mut queue, 0).as_deref(), Some("q"));
    assert_eq!(pop(&mut queue, 0).as_deref(), Some("p"));
}

#[test]
fn an_error_is_not_retried_early() {
    let mut queue = Queue::default();
    queue.upsert(with_priority("p", 0), at(0));
    pop(&mut queue, 0);
    queue.failed(&"p".into(), at(0));
    assert!(!queue.is_ready());
    assert_eq!(pop(&mut queue, 0), None);
    assert_eq!(queue.next_timer(), Some(at(1)));
    assert_eq!(pop(&mut queue, 1).as_deref(), Some("p"));
}

#[test]
fn after_five_minutes_it_is_tried_anyway() {
    let mut queue = Queue::default();
    queue.upsert(with_priority("p", 0), at(0));
    pop(&mut queue, 0);
    queue.rejected(&"p".into(), filter("NodeName"), at(0));
    assert_eq!(queue.next_timer(), Some(at(300)));
    assert_eq!(pop(&mut queue, 299), None);
    assert_eq!(pop(&mut queue, 300).as_deref(), Some("p"));
}

#[test]
fn gates_hold_a_pod_until_the_last_is_gone() {
    let mut queue = Queue::default();
    let gated = pod("p", json!({"spec": {"schedulingGates": [{"name": "g"}]}}));
    queue.upsert(Arc::new(gated), at(0));
    assert_eq!((pop(&mut queue, 0), queue.lengths().gated), (None, 1));
    queue.upsert(with_priority("p", 0), at(0));
    assert_eq!(queue.lengths(), QueueLengths { active: 1, ..QueueLengths::default() });
}

#[test]
fn a_change_of_its_wishes_wakes_a_pod_but_a_status_does_not() {
    let mut queue = Queue::default();
    queue.upsert(with_priority("p", 0), at(0));
    pop(&mut queue, 0);
    queue.rejected(&"p".into(), filter("TaintToleration"), at(0));
    queue.upsert(with_priority("p", 0), at(60));
    assert_eq!(pop(&mut queue, 60), None);
    let tolerant = pod("p", json!({"spec": {"tolerations": [{"operator": "Exists"}]}}));
    queue.upsert(Arc::new(tolerant), at(60));
    assert_eq!(pop(&mut queue, 60).as_deref(), Some("p"));
}

#[test]
fn removed_pods_leave_nothing_behind() {
    let mut queue = Queue::default();
    for name in ["a", "b", "c"] {
        queue.upsert(with_priority(name, 0), at(0));
    }
    pop(&mut queue, 0);
    queue.rejected(&"a".into(), FilterSet::default(), at(0));
    for name in ["a", "b", "c"] {
        assert!(queue.remove(&name.into()).is_some());
    }
    assert_eq!((queue.lengths(), queue.next_timer()), (QueueLengths::default(), None));
}
