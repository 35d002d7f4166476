//! How many pods per second the scheduler places on one core, for small and large clusters. Prints a JSON line per case:
//! `cargo run --release -p coracle-scheduler --example schedule_bench`.

use std::time::Instant;

use coracle_scheduler::labels::LabelQuery;
use coracle_scheduler::pod::PodInfo;
use coracle_scheduler::{Change, Decision, NodeInfo, Scheduler};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

/// What the pods of a case ask for.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Requests only.
    Simple,
    /// Those of a Deployment: default spreading by its selector.
    Deployment,
    /// Hard topology spread over zones.
    Spread,
    /// Anti-affinity to their own kind by host.
    Apart,
    /// More than any node has.
    Unschedulable,
}

fn main() {
    for (nodes, pods) in [(100, 2_000), (5_000, 10_000)] {
        for (name, kind) in [
            ("simple", Kind::Simple),
            ("deployment", Kind::Deployment),
            ("spread", Kind::Spread),
            ("apart", Kind::Apart),
            ("unschedulable", Kind::Unschedulable),
        ] {
            // Pods that keep apart by host cannot be more than there are hosts.
            let pods = if kind == Kind::Apart { pods.min(nodes) } else { pods };
            let cpu = cpu_seconds();
            let seconds = run(nodes, pods, kind);
            let cpu_us_each = (cpu_seconds() - cpu) / pods as f64 * 1e6;
            let rate = (pods as f64 / seconds).round();
            println!(
                "{}",
                json!({"bench": "schedule", "pods": name, "nodes": nodes, "count": pods, "seconds": seconds, "per_second": rate,
                    "cpu_us_each": cpu_us_each.round()})
            );
        }
    }
}

/// What this thread has had of a core, the making of the objects included: it says more than a clock on a busy machine.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

fn run(nodes: usize, pods: usize, kind: Kind) -> f64 {
    let now = Timestamp::UNIX_EPOCH;
    let mut scheduler = Scheduler::new(Vec::new(), StdRng::seed_from_u64(1)).expect("the default profile");
    for i in 0..nodes {
        scheduler.handle(Change::NodeUpserted(NodeInfo::parse(&node(i))), now);
    }
    if kind == Kind::Unschedulable {
        // Every node has a pod, so that each must be looked at for its own sake.
        for i in 0..nodes {
            let mut there = pod(i, Kind::Simple);
            there.metadata.uid = Some(format!("there-{i}"));
            there.spec.get_or_insert_default().node_name = Some(format!("node-{i}"));
            scheduler.handle(Change::PodUpserted(Box::new(PodInfo::parse(&there))), now);
        }
    }
    let pods: Vec<Pod> = (0..pods).map(|i| pod(i, kind)).collect();
    let begin = Instant::now();
    for pod in &pods {
        let query = pod.metadata.labels.as_ref().map(LabelQuery::from_pairs);
        let info = PodInfo::parse(pod).with_default_spread(query.filter(|_| kind == Kind::Deployment));
        scheduler.handle(Change::PodUpserted(Box::new(info)), now);
    }
    let (mut bound, mut refused) = (0, 0);
    while let Some(decision) = scheduler.poll(now) {
        match decision {
            Decision::Bind { .. } => bound += 1,
            _ => refused += 1,
        }
    }
    assert_eq!((bound, refused), if kind == Kind::Unschedulable { (0, pods.len()) } else { (pods.len(), 0) });
    begin.elapsed().as_secs_f64()
}

fn node(i: usize) -> Node {
    parse(json!({
        "metadata": {"name": format!("node-{i}"), "labels": {
            "kubernetes.io/hostname": format!("node-{i}"),
            "topology.kubernetes.io/zone": format!("zone-{}", i % 3),
        }},
        "status": {"allocatable": {"cpu": "32", "memory": "128Gi", "pods": "110"}},
    }))
}

fn pod(i: usize, kind: Kind) -> Pod {
    let labels = json!({"app": "a", "pod-template-hash": "12345"});
    let selector = json!({"matchLabels": {"app": "a"}});
    let mut spec = json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}}]});
    match kind {
        Kind::Spread => {
            spec["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}]);
        }
        Kind::Apart => {
            spec["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                [{"topologyKey": "kubernetes.io/hostname", "labelSelector": selector}]}});
        }
        Kind::Unschedulable => spec["containers"][0]["resources"]["requests"]["cpu"] = json!("31.95"),
        Kind::Simple | Kind::Deployment => {}
    }
    parse(
        json!({"metadata": {"name": format!("p-{i}"), "namespace": "default", "uid": format!("uid-{i}"), "labels": labels}, "spec": spec}),
    )
}

fn parse<T: k8s_openapi::serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a well-formed object")
}
