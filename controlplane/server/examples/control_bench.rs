//! Measures a whole control plane in this process, without sockets: what store, API server, manager and scheduler cost
//! together. Nodes and kubelets are played. Prints one JSON line per figure.
//! `cargo run --profile fast -p coracle-server --example control_bench -- [--dir DIR] [CASE]…`, where a case is one of
//! `configmaps`, `pods`, `schedule`, `schedule-large`, `deployment`, `idle`; all of them without any.
#![allow(clippy::unwrap_used, reason = "a measurement ends at the first surprise")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use coracle_apiserver::Door;
use coracle_server::{Server, ServerConfig};
use coracle_store::{Collection, ListRange, Store, WatchEvent, WatchFrom};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::Service;

/// Requests under way at once, as from that many connections.
const CONNECTIONS: usize = 16;

struct Bench {
    server: Server,
    door: Door,
    store: Arc<dyn Store>,
    _dir: tempfile::TempDir,
}

/// What a request was answered with.
struct Answer {
    code: u16,
    body: Bytes,
}

impl Bench {
    async fn start(base: &Path) -> Self {
        let dir = tempfile::tempdir_in(base).unwrap();
        let begun = Instant::now();
        let mut config = ServerConfig::new(dir.path().to_owned());
        config.bind = [127, 0, 0, 1].into();
        config.port = 0;
        let server = Server::start(config).await.unwrap();
        report("server start", json!({ "ms": millis(begun.elapsed()), "kib": resident_kib() }));
        let (door, store) = (server.door(), Arc::clone(server.store()));
        Self { server, door, store, _dir: dir }
    }

    async fn send(&self, method: Method, path: &str, kind: &str, body: Vec<u8>) -> Answer {
        let request = Request::builder().method(method).uri(path).header(http::header::CONTENT_TYPE, kind);
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let Ok(response) = self.door.clone().call(request).await;
        let code = response.status().as_u16();
        Answer { code, body: response.into_body().collect().await.unwrap().to_bytes() }
    }

    async fn create(&self, path: &str, object: &Value) {
        let answer = self.send(Method::POST, path, "application/json", object.to_string().into_bytes()).await;
        assert_eq!(answer.code, 201, "{}", String::from_utf8_lossy(&answer.body));
    }

    /// Creates `count` objects from a text with `@` where the number belongs; gives the time each took.
    async fn create_many(self: &Arc<Self>, path: &'static str, text: String, count: usize) -> Vec<Duration> {
        let (next, text) = (Arc::new(AtomicUsize::new(0)), Arc::new(text));
        let worker = || {
            let (bench, next, text) = (Arc::clone(self), Arc::clone(&next), Arc::clone(&text));
            tokio::spawn(async move {
                let mut times = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return times;
                    }
                    let body = text.replace('@', &number.to_string()).into_bytes();
                    let begun = Instant::now();
                    let answer = bench.send(Method::POST, path, "application/json", body).await;
                    assert_eq!(answer.code, 201, "{}", String::from_utf8_lossy(&answer.body));
                    times.push(begun.elapsed());
                }
            })
        };
        let workers: Vec<_> = (0..CONNECTIONS).map(|_| worker()).collect();
        let mut times = Vec::new();
        for worker in workers {
            times.extend(worker.await.unwrap());
        }
        times.sort_unstable();
        times
    }

    async fn creates(self: &Arc<Self>, what: &str, path: &'static str, text: String, count: usize) {
        let (cpu, begun) = (cpu_time(), Instant::now());
        let times = self.create_many(path, text, count).await;
        let took = begun.elapsed();
        let used = cpu_time() - cpu;
        report(
            what,
            json!({
                "count": count, "per_second": rate(count, took), "cpu_us_each": used.as_micros() as f64 / count as f64,
                "p50_us": times[count / 2].as_micros() as u64, "p99_us": times[count * 99 / 100].as_micros() as u64,
            }),
        );
    }

    async fn nodes(&self, count: usize) {
        for number in 0..count {
            let name = format!("node-{number}");
            let labels =
                json!({ "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("z{}", number % 3) });
            self.create(
                "/api/v1/nodes",
                &json!({
                    "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": labels },
                }),
            )
            .await;
            let amounts = json!({ "cpu": "64", "memory": "256Gi", "pods": "250" });
            let status = json!({ "status": {
                "capacity": amounts, "allocatable": amounts,
                "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady",
                    "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z" }],
            }});
            let path = format!("/api/v1/nodes/{name}/status");
            let patch = status.to_string().into_bytes();
            let answer = self.send(Method::PATCH, &path, "application/merge-patch+json", patch).await;
            assert_eq!(answer.code, 200, "{}", String::from_utf8_lossy(&answer.body));
        }
        self.settle().await;
    }

    /// Waits until nothing has been written for a while.
    async fn settle(&self) {
        loop {
            let revision = self.store.revision();
            let next = self.store.wait_for(revision.next());
            if tokio::time::timeout(Duration::from_millis(300), next).await.is_err() {
                return;
            }
        }
    }

    async fn namespace(&self, name: &str) {
        self.create(
            "/api/v1/namespaces",
            &json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name },
            }),
        )
        .await;
        self.settle().await;
    }

    /// Pods created by many, until a watch has seen them all bound.
    async fn schedule(self: &Arc<Self>, nodes: usize, pods: usize) {
        self.namespace("bench").await;
        self.nodes(nodes).await;
        let mut watch = self.store.watch(&Collection::new("", "pods"), WatchFrom::Now).unwrap();
        let (cpu, begun) = (cpu_time(), Instant::now());
        let before = self.store.stats().snapshot();
        let creating = {
            let bench = Arc::clone(self);
            tokio::spawn(async move {
                let times = bench.create_many("/api/v1/namespaces/bench/pods", pod_text(), pods).await;
                (begun.elapsed(), times)
            })
        };
        let mut bound = 0;
        while bound < pods {
            for event in watch.next().await.unwrap() {
                let WatchEvent::Put { entry, previous: Some(previous) } = event else { continue };
                bound += usize::from(has_node(&entry.bytes) && !has_node(&previous.bytes));
            }
        }
        let took = begun.elapsed();
        let used = cpu_time() - cpu;
        let (created, _) = creating.await.unwrap();
        self.settle().await;
        let after = self.store.stats().snapshot();
        report(
            "pods created, then bound",
            json!({
                "nodes": nodes, "pods": pods, "per_second": rate(pods, took), "created_per_second": rate(pods, created),
                "cpu_us_each": used.as_micros() as f64 / pods as f64,
                "cpu_us_each_with_events": (cpu_time() - cpu).as_micros() as f64 / pods as f64,
                "transactions": after.transactions - before.transactions, "batches": after.batches - before.batches,
                "kib": resident_kib(),
            }),
        );
    }

    /// A Deployment of many replicas whose pods become ready as soon as they are bound, and its end.
    async fn deployment(self: &Arc<Self>, replicas: usize) {
        self.namespace("deploy").await;
        self.nodes(10).await;
        self.create(
            "/api/v1/namespaces/deploy/services",
            &json!({
                "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
                "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80 }] },
            }),
        )
        .await;
        let watch = self.store.watch(&Collection::new("", "pods"), WatchFrom::Now).unwrap();
        let (cpu, begun) = (cpu_time(), Instant::now());
        let before = self.store.stats().snapshot();
        let playing = tokio::spawn(play_kubelets(Arc::clone(self), watch, replicas, begun));
        self.create("/apis/apps/v1/namespaces/deploy/deployments", &json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
            "spec": {
                "replicas": replicas, "selector": { "matchLabels": { "app": "web" } },
                "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{
                    "name": "c", "image": "example.com/web:1", "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } },
                }] } },
            },
        })).await;
        let (created, bound, ready) = playing.await.unwrap();
        let available = self.until_available(replicas, begun).await;
        let after = self.store.stats().snapshot();
        report(
            "deployment",
            json!({
                "replicas": replicas, "created_ms": millis(created), "bound_ms": millis(bound), "ready_ms": millis(ready),
                "available_ms": millis(available), "cpu_ms": millis(cpu_time() - cpu),
                "transactions": after.transactions - before.transactions,
                "failed": after.failed - before.failed, "rows": after.durable_rows - before.durable_rows,
            }),
        );
        self.settle().await;
        self.delete_deployment(replicas).await;
    }

    async fn until_available(&self, replicas: usize, begun: Instant) -> Duration {
        let deployments = Collection::new("apps", "deployments");
        loop {
            let revision = self.store.revision();
            let entry = self.store.get(&deployments.key("deploy", "web")).unwrap();
            let object: Value = serde_json::from_slice(&entry.bytes).unwrap();
            if object["status"]["availableReplicas"].as_u64() == Some(replicas as u64) {
                return begun.elapsed();
            }
            self.store.wait_for(revision.next()).await.unwrap();
        }
    }

    async fn delete_deployment(&self, replicas: usize) {
        let (cpu, begun) = (cpu_time(), Instant::now());
        let path = "/apis/apps/v1/namespaces/deploy/deployments/web";
        assert_eq!(self.send(Method::DELETE, path, "application/json", Vec::new()).await.code, 200);
        let pods = Collection::new("", "pods");
        loop {
            let revision = self.store.revision();
            let left = self.store.list(&pods, &ListRange::namespace("deploy")).entries;
            if left.is_empty() {
                break;
            }
            for entry in left.iter().filter(|entry| contains(&entry.bytes, b"\"deletionTimestamp\"")) {
                let path = format!("/api/v1/namespaces/deploy/pods/{}?gracePeriodSeconds=0", entry.key.object_name());
                self.send(Method::DELETE, &path, "application/json", Vec::new()).await;
            }
            if self.store.revision() == revision {
                self.store.wait_for(revision.next()).await.unwrap();
            }
        }
        let (took, used) = (millis(begun.elapsed()), millis(cpu_time() - cpu));
        report("deployment deleted", json!({ "replicas": replicas, "ms": took, "cpu_ms": used }));
    }

    async fn idle(&self, seconds: u64) {
        self.settle().await;
        let (cpu, before) = (cpu_time(), self.store.stats().snapshot());
        let (revision, switches) = (self.store.revision(), wakeups());
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let after = self.store.stats().snapshot();
        report(
            "idle",
            json!({
                "seconds": seconds, "cpu_percent": (cpu_time() - cpu).as_secs_f64() / seconds as f64 * 100.0,
                "commits": after.batches - before.batches, "revisions": self.store.revision().0 - revision.0,
                "wakeups_per_second": (wakeups() - switches) as f64 / seconds as f64, "kib": resident_kib(),
            }),
        );
    }
}

/// Makes each pod ready once it is bound; gives when all were created, bound and ready.
async fn play_kubelets(
    bench: Arc<Bench>,
    mut watch: coracle_store::Watch,
    replicas: usize,
    begun: Instant,
) -> (Duration, Duration, Duration) {
    let (mut created, mut bound, mut running) = ((0, Duration::ZERO), (0, Duration::ZERO), tokio::task::JoinSet::new());
    while bound.0 < replicas {
        for event in watch.next().await.unwrap() {
            let WatchEvent::Put { entry, previous } = event else { continue };
            if previous.is_none() {
                created = (created.0 + 1, begun.elapsed());
            }
            if !has_node(&entry.bytes) || previous.is_some_and(|previous| has_node(&previous.bytes)) {
                continue;
            }
            bound = (bound.0 + 1, begun.elapsed());
            let (bench, name, number) = (Arc::clone(&bench), entry.key.object_name().to_owned(), bound.0);
            running.spawn(async move { bench.make_ready(&name, number).await });
        }
    }
    while running.join_next().await.is_some() {}
    (created.1, bound.1, begun.elapsed())
}

impl Bench {
    async fn make_ready(&self, name: &str, number: usize) {
        let ip = format!("10.42.{}.{}", number / 250, number % 250 + 1);
        let condition =
            |type_: &str| json!({ "type": type_, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" });
        let status = json!({ "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
            "conditions": [condition("PodScheduled"), condition("Initialized"), condition("ContainersReady"), condition("Ready")],
        }});
        let path = format!("/api/v1/namespaces/deploy/pods/{name}/status");
        let patch = status.to_string().into_bytes();
        let answer = self.send(Method::PATCH, &path, "application/strategic-merge-patch+json", patch).await;
        assert_eq!(answer.code, 200, "{}", String::from_utf8_lossy(&answer.body));
    }
}

fn pod_text() -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "pod-@", "labels": { "app": "bench" } },
        "spec": { "containers": [{
            "name": "c", "image": "example.com/web:1", "resources": { "requests": { "cpu": "100m", "memory": "64Mi" } },
        }] },
    })
    .to_string()
}

fn config_map_text() -> String {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "map-@" }, "data": { "key": "x".repeat(1024) },
    })
    .to_string()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn has_node(pod: &[u8]) -> bool {
    contains(pod, b"\"nodeName\":\"node-")
}

fn report(what: &str, mut figures: Value) {
    figures["what"] = what.into();
    println!("{figures}");
}

fn rate(count: usize, took: Duration) -> u64 {
    (count as f64 / took.as_secs_f64()) as u64
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn status_field(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn resident_kib() -> u64 {
    status_field("VmRSS")
}

/// How often any thread of this process has gone to sleep.
fn wakeups() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let of_task = |task: std::fs::DirEntry| {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0)
    };
    tasks.map(|task| of_task(task.unwrap())).sum()
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut base = std::env::temp_dir();
    if let Some(at) = arguments.iter().position(|argument| argument == "--dir") {
        base = PathBuf::from(arguments.remove(at + 1));
        arguments.remove(at);
    }
    let wants = |case: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == case);
    for case in ["configmaps", "pods", "schedule", "schedule-large", "deployment", "idle"] {
        if !wants(case) {
            continue;
        }
        let bench = Arc::new(Bench::start(&base).await);
        match case {
            "configmaps" => {
                bench.namespace("bench").await;
                bench
                    .creates("ConfigMap create", "/api/v1/namespaces/bench/configmaps", config_map_text(), 40_000)
                    .await;
            }
            "pods" => {
                bench.namespace("bench").await;
                bench.creates("Pod create", "/api/v1/namespaces/bench/pods", pod_text(), 20_000).await;
            }
            "schedule" => bench.schedule(100, 2_000).await,
            "schedule-large" => bench.schedule(5_000, 10_000).await,
            "deployment" => bench.deployment(1_000).await,
            _ => bench.idle(20).await,
        }
        let bench = Arc::try_unwrap(bench).unwrap_or_else(|_| panic!("nothing uses the server any more"));
        bench.server.stop().await.unwrap();
    }
}
