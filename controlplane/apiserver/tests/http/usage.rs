//! `metrics.k8s.io`: what nodes tell becomes the answers of metrics-server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_apiserver::{Body, Connected, NodeError, NodeProxy};
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::Server;

const NODES: &str = "/apis/metrics.k8s.io/v1beta1/nodes";
const PODS: &str = "/apis/metrics.k8s.io/v1beta1/pods";
const IN_DEFAULT: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";

/// What a node does when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    Silent,
    Broken,
}

/// Nodes on which a second of ours is a second of theirs, and every container uses half a core.
struct Nodes {
    begun: Instant,
    moods: Mutex<BTreeMap<String, Mood>>,
    asked: Mutex<BTreeMap<String, usize>>,
    /// `NAMESPACE/NAME`, and the second at which its containers began.
    pods: Mutex<BTreeMap<String, f64>>,
}

/// When the nodes' clocks begin, in seconds.
const BEGIN: f64 = 1_000_000.0;

impl Nodes {
    /// Their clock. The timers of tests are late by a thousandth of a second.
    fn second(&self) -> f64 {
        self.begun.elapsed().as_secs_f64().floor() + BEGIN
    }

    fn text(&self) -> String {
        use std::fmt::Write as _;
        let second = self.second();
        let millis = (second * 1e3).round();
        let mut out = format!("node_cpu_usage_seconds_total {} {millis}\n", second * 1.5);
        out.push_str(&format!("node_memory_working_set_bytes 1048576 {millis}\n"));
        for (pod, started) in &*self.pods.lock() {
            let (namespace, name) = pod.split_once('/').expect("a namespace and a name");
            for container in ["a", "b"] {
                let labels = format!("{{container=\"{container}\",namespace=\"{namespace}\",pod=\"{name}\"}}");
                let cpu = (second - started) * 0.5;
                writeln!(out, "container_cpu_usage_seconds_total{labels} {cpu} {millis}").expect("a text has room");
                writeln!(out, "container_memory_working_set_bytes{labels} 4096 {millis}").expect("a text has room");
                writeln!(out, "container_start_time_seconds{labels} {started}").expect("a text has room");
            }
        }
        out
    }

    fn asked(&self, node: &str) -> usize {
        self.asked.lock().get(node).copied().unwrap_or(0)
    }

    fn mood(&self, node: &str, mood: Mood) {
        self.moods.lock().insert(node.to_owned(), mood);
    }
}

/// The API's way to them.
struct Way(Arc<Nodes>);

impl NodeProxy for Way {
    fn request(&self, node: &str, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<Body>, NodeError>> {
        assert_eq!(request.uri().path(), "/metrics/resource");
        *self.0.asked.lock().entry(node.to_owned()).or_default() += 1;
        let mood = self.0.moods.lock().get(node).copied();
        let text = self.0.text();
        Box::pin(async move {
            match mood {
                None => Err(NodeError::Unknown),
                Some(Mood::Silent) => std::future::pending().await,
                Some(Mood::Well) => Ok(Response::new(Body::full(text))),
                Some(Mood::Broken) => {
                    let mut response = Response::new(Body::empty());
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                    Ok(response)
                }
            }
        })
    }

    fn connect(&self, _node: &str, _request: Request<()>) -> BoxFuture<'static, Result<Connected, NodeError>> {
        Box::pin(std::future::ready(Err(NodeError::Unknown)))
    }
}

async fn node(server: &Server, name: &str) {
    let object = json!({"metadata": {"name": name, "labels": {"name": name}}});
    server.ok("POST /api/v1/nodes", object).await;
}

async fn pod(server: &Server, name: &str, node: &str, phase: &str) {
    let pod = json!({"metadata": {"name": name, "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}});
    let pods = "/api/v1/namespaces/default/pods";
    server.ok(&format!("POST {pods}"), pod).await;
    server.ok(&format!("PATCH {pods}/{name}/status"), json!({"status": {"phase": phase}})).await;
}

/// Two nodes, two pods that run on the first, and one that waits; from then on time passes only while everybody waits.
async fn cluster() -> (Server, Arc<Nodes>) {
    let server = Server::start().await;
    for name in ["n1", "n2"] {
        node(&server, name).await;
    }
    pod(&server, "one", "n1", "Running").await;
    pod(&server, "two", "n1", "Running").await;
    pod(&server, "waits", "n1", "Pending").await;
    tokio::time::pause();
    let pods = ["one", "two", "waits"].map(|name| (format!("default/{name}"), BEGIN - 1000.0));
    let nodes = Arc::new(Nodes {
        begun: Instant::now(),
        moods: Mutex::new([("n1".to_owned(), Mood::Well), ("n2".to_owned(), Mood::Well)].into()),
        asked: Mutex::default(),
        pods: Mutex::new(pods.into()),
    });
    server.set_nodes(Arc::new(Way(Arc::clone(&nodes))));
    (server, nodes)
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("a list");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name")).collect()
}

#[tokio::test]
async fn nodes_and_pods_are_told_as_metrics_server_tells_them() {
    let (server, nodes) = cluster().await;
    let list = server.get(NODES).await;
    assert_eq!(list["kind"], "NodeMetricsList");
    assert_eq!(list["apiVersion"], "metrics.k8s.io/v1beta1");
    assert_eq!(list["metadata"], json!({}));
    assert_eq!(names(&list), ["n1", "n2"]);
    let one = &list["items"][0];
    assert_eq!(one["metadata"]["labels"], json!({"name": "n1"}));
    assert_eq!(one["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
    assert_eq!(one["timestamp"], "1970-01-12T13:46:41Z");
    assert_eq!(one["window"], "1s");
    assert_eq!(one["usage"], json!({"cpu": "1500m", "memory": "1Mi"}));
    assert_eq!(nodes.asked("n1"), 2, "the first figures need two answers");
    let list = server.get(IN_DEFAULT).await;
    assert_eq!(list["kind"], "PodMetricsList");
    assert_eq!(names(&list), ["one", "two"], "of what does not run there are no figures");
    let usage = json!({"cpu": "500m", "memory": "4Ki"});
    let containers = json!([{"name": "a", "usage": usage}, {"name": "b", "usage": usage}]);
    assert_eq!(list["items"][0]["containers"], containers);
    assert_eq!(nodes.asked("n1"), 2, "the same figures serve for all");
    let got = server.get(&format!("{IN_DEFAULT}/one")).await;
    assert_eq!((&got["kind"], &got["containers"]), (&json!("PodMetrics"), &containers));
    assert_eq!(server.get(&format!("{NODES}/n2")).await["usage"]["cpu"], "1500m");
}

#[tokio::test]
async fn figures_are_selected_by_what_they_are_of() {
    let (server, nodes) = cluster().await;
    let check = async |path: &str, expect: &[&str]| {
        assert_eq!(names(&server.get(path).await), expect, "{path}");
    };
    check(&format!("{NODES}?labelSelector=name%3Dn2"), &["n2"]).await;
    assert_eq!(nodes.asked("n1"), 0, "only those are asked that are selected");
    check(&format!("{NODES}?fieldSelector=metadata.name%3Dn1"), &["n1"]).await;
    check(&format!("{IN_DEFAULT}?labelSelector=app%21%3Dtwo"), &["one"]).await;
    check(PODS, &["one", "two"]).await;
    check(&format!("{PODS}?fieldSelector=metadata.name%3Dtwo,metadata.namespace%3Ddefault"), &["two"]).await;
    check(&format!("{PODS}?fieldSelector=metadata.namespace%3Dother"), &[]).await;
    check("/apis/metrics.k8s.io/v1beta1/namespaces/other/pods", &[]).await;
    let why = "\"spec.nodeName\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"";
    let line = format!("GET {PODS}?fieldSelector=spec.nodeName%3Dn1");
    server.refused(&line, Value::Null, 400, "BadRequest", why).await;
}

#[tokio::test]
async fn what_has_no_figures_is_not_found() {
    let (server, _nodes) = cluster().await;
    let check = async |line: String, code: u16, reason: &str, message: &str| {
        server.refused(&line, Value::Null, code, reason, message).await;
    };
    check(format!("GET {NODES}/n3"), 404, "NotFound", "nodes \"n3\" not found").await;
    check(format!("GET {IN_DEFAULT}/no"), 404, "NotFound", "pods \"no\" not found").await;
    let message = "pods.metrics.k8s.io \"default/waits\" not found";
    check(format!("GET {IN_DEFAULT}/waits"), 404, "NotFound", message).await;
    let message = "delete is not supported on resources of kind \"nodes.metrics.k8s.io\"";
    check(format!("DELETE {NODES}/n1"), 405, "MethodNotAllowed", message).await;
    let message = "watch is not supported on resources of kind \"pods.metrics.k8s.io\"";
    check(format!("GET {PODS}?watch=true"), 405, "MethodNotAllowed", message).await;
    let nothing = "the server could not find the requested resource";
    check(format!("GET {NODES}/n1/status"), 404, "NotFound", nothing).await;
}

#[tokio::test]
async fn a_table_has_the_columns_of_metrics_server() {
    let (server, _nodes) = cluster().await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let table = server.send(&format!("GET {IN_DEFAULT}"), &accept, "").await.body;
    assert_eq!(table["kind"], "Table");
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .expect("columns")
        .iter()
        .map(|c| c["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(columns, ["Name", "cpu", "memory", "Window"]);
    assert_eq!(table["rows"][0]["cells"], json!(["one", "1", "8Ki", "1s"]));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let table = server.send(&format!("GET {NODES}/n1"), &accept, "").await.body;
    assert_eq!(table["rows"][0]["cells"], json!(["n1", "1500m", "1Mi", "1s"]));
}

#[tokio::test]
async fn a_node_is_asked_once_for_all_who_ask() {
    let (server, nodes) = cluster().await;
    let line = format!("GET {NODES}/n1");
    let many = (0..50).map(|_| server.ok(&line, Value::Null));
    let answers = futures::future::join_all(many).await;
    assert!(answers.iter().all(|answer| answer["usage"]["cpu"] == "1500m"));
    assert_eq!(nodes.asked("n1"), 2);
    tokio::time::advance(Duration::from_secs(4)).await;
    assert_eq!(server.ok(&line, Value::Null).await["window"], "1s");
    assert_eq!(nodes.asked("n1"), 2, "they are fresh");
    tokio::time::advance(Duration::from_secs(11)).await;
    let later = server.ok(&line, Value::Null).await;
    assert_eq!((&later["window"], nodes.asked("n1")), (&json!("15s"), 3), "one more answer ends a window");
    // A pod that came since then is known at once, and its window is its life.
    tokio::time::advance(Duration::from_secs(1)).await;
    nodes.pods.lock().insert("default/waits".to_owned(), nodes.second());
    server.ok("PATCH /api/v1/namespaces/default/pods/waits/status", json!({"status": {"phase": "Running"}})).await;
    tokio::time::advance(Duration::from_secs(8)).await;
    let fresh = server.get(&format!("{IN_DEFAULT}/waits")).await;
    assert_eq!((&fresh["window"], &fresh["containers"][1]["usage"]["cpu"]), (&json!("8s"), &json!("500m")));
    // What was asked long ago begins no window.
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(server.ok(&line, Value::Null).await["window"], "1s");
    assert_eq!(nodes.asked("n1"), 6);
}

#[tokio::test]
async fn a_node_that_does_not_answer_holds_up_nobody_for_long() {
    let (server, nodes) = cluster().await;
    nodes.mood("n2", Mood::Silent);
    let begun = Instant::now();
    assert_eq!(names(&server.get(NODES).await), ["n1"]);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let begun = Instant::now();
    assert_eq!(names(&server.get(NODES).await), ["n1"]);
    let message = "nodes.metrics.k8s.io \"n2\" not found";
    server.refused(&format!("GET {NODES}/n2"), Value::Null, 404, "NotFound", message).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "it is left alone: {:?}", begun.elapsed());
    assert_eq!(nodes.asked("n2"), 1);
    nodes.mood("n2", Mood::Well);
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(names(&server.get(NODES).await), ["n1", "n2"], "it is asked again");
}

#[tokio::test]
async fn figures_outlive_a_failure_for_a_minute() {
    let (server, nodes) = cluster().await;
    let known = server.get(&format!("{NODES}/n2")).await;
    nodes.mood("n2", Mood::Broken);
    tokio::time::advance(Duration::from_secs(20)).await;
    let stale = server.get(&format!("{NODES}/n2")).await;
    assert_eq!(stale["timestamp"], known["timestamp"], "with their own time");
    tokio::time::advance(Duration::from_secs(60)).await;
    let message = "nodes.metrics.k8s.io \"n2\" not found";
    server.refused(&format!("GET {NODES}/n2"), Value::Null, 404, "NotFound", message).await;
}

#[tokio::test]
async fn the_group_is_served_like_any_other() {
    let server = Server::start().await;
    let groups = server.get("/apis").await;
    let groups = groups["groups"].as_array().expect("groups");
    assert!(groups.iter().any(|group| group["name"] == "metrics.k8s.io"), "{groups:?}");
    let resources = server.get("/apis/metrics.k8s.io/v1beta1").await;
    let expect = json!([
        {"name": "nodes", "singularName": "", "namespaced": false, "kind": "NodeMetrics", "verbs": ["get", "list"]},
        {"name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics", "verbs": ["get", "list"]},
    ]);
    assert_eq!(resources["resources"], expect);
    assert_eq!(names(&server.get(NODES).await), [""; 0], "no way to the nodes yet");
}
