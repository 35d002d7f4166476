//! ResourceQuota and LimitRange at the door: what is charged, what is refused and in which words, and rivals for the last of it.

use serde_json::{Value, json};

use crate::harness::{Server, config_map, pod};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const RANGES: &str = "/api/v1/namespaces/default/limitranges";
const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";

/// A quota as its controller leaves it: nothing used.
async fn quota(server: &Server, hard: Value, more: Value) {
    let mut spec = more;
    spec["hard"] = hard.clone();
    let made = server.ok(&format!("POST {QUOTAS}"), json!({"metadata": {"name": "q"}, "spec": spec})).await;
    let used: serde_json::Map<String, Value> =
        hard.as_object().expect("limits by resource").keys().map(|name| (name.clone(), json!("0"))).collect();
    let mut counted = made;
    counted["status"] = json!({"hard": hard, "used": used});
    server.ok(&format!("PUT {QUOTAS}/q/status"), counted).await;
}

async fn used(server: &Server) -> Value {
    server.get(&format!("{QUOTAS}/q")).await["status"]["used"].clone()
}

fn asking(name: &str, resources: Value) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["resources"] = resources;
    pod
}

#[tokio::test]
async fn what_is_made_is_charged_and_no_more_than_is_left() {
    let server = Server::start().await;
    quota(&server, json!({"pods": "2", "requests.cpu": "1", "configmaps": "1"}), json!({})).await;
    let post = format!("POST {PODS}");
    server.ok(&post, asking("a", json!({"requests": {"cpu": "700m"}}))).await;
    assert_eq!(used(&server).await, json!({"pods": "1", "requests.cpu": "700m", "configmaps": "0"}));
    let why = "pods \"b\" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=700m, limited: requests.cpu=1";
    server.refused(&post, asking("b", json!({"requests": {"cpu": "500m"}})), 403, "Forbidden", why).await;
    let why = "pods \"b\" is forbidden: failed quota: q: must specify requests.cpu for: c";
    server.refused(&post, pod("b"), 403, "Forbidden", why).await;
    // A dry run is judged and not charged.
    let fits = || asking("b", json!({"requests": {"cpu": "300m"}}));
    server.ok(&format!("{post}?dryRun=All"), fits()).await;
    server.ok(&post, fits()).await;
    assert_eq!(used(&server).await, json!({"pods": "2", "requests.cpu": "1", "configmaps": "0"}));
    let why = "pods \"c\" is forbidden: exceeded quota: q, requested: pods=1,requests.cpu=1m, used: pods=2,requests.cpu=1, limited: pods=2,requests.cpu=1";
    server.refused(&post, asking("c", json!({"requests": {"cpu": "1m"}})), 403, "Forbidden", why).await;
    server.ok(&format!("POST {MAPS}"), config_map("one", json!({}))).await;
    let why = "configmaps \"two\" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=1, limited: configmaps=1";
    server.refused(&format!("POST {MAPS}"), config_map("two", json!({})), 403, "Forbidden", why).await;
    // What the quota does not count is free.
    server.ok(&format!("PUT {MAPS}/one"), config_map("one", json!({"a": "b"}))).await;
    server.ok("POST /api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}})).await;
}

#[tokio::test]
async fn a_quota_that_was_not_counted_yet_lets_nothing_pass() {
    let server = Server::start().await;
    let made = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "2"}}});
    let mut counted = server.ok(&format!("POST {QUOTAS}"), made).await;
    // Without a status it is about nothing.
    server.ok(&format!("POST {PODS}"), pod("a")).await;
    counted["status"] = json!({"hard": {"pods": "2"}});
    server.ok(&format!("PUT {QUOTAS}/q/status"), counted).await;
    let why = "pods \"b\" is forbidden: status unknown for quota: q, resources: pods";
    server.refused(&format!("POST {PODS}"), pod("b"), 403, "Forbidden", why).await;
}

#[tokio::test]
async fn a_service_is_charged_again_when_its_type_changes() {
    let server = Server::start().await;
    quota(&server, json!({"services": "3", "services.nodeports": "1"}), json!({})).await;
    let service = |kind: &str, ports: &[i32]| {
        let ports: Vec<Value> = ports.iter().map(|p| json!({"name": format!("p{p}"), "port": p})).collect();
        json!({"metadata": {"name": "s"}, "spec": {"type": kind, "ports": ports, "clusterIP": "10.43.0.9"}})
    };
    server.ok(&format!("POST {SERVICES}"), service("ClusterIP", &[80, 81])).await;
    assert_eq!(used(&server).await, json!({"services": "1", "services.nodeports": "0"}));
    let why = "services \"s\" is forbidden: exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=0, limited: services.nodeports=1";
    server.refused(&format!("PUT {SERVICES}/s"), service("NodePort", &[80, 81]), 403, "Forbidden", why).await;
    server.ok(&format!("PUT {SERVICES}/s"), service("NodePort", &[80])).await;
    assert_eq!(used(&server).await, json!({"services": "1", "services.nodeports": "1"}));
}

#[tokio::test]
async fn a_scope_leaves_others_alone() {
    let server = Server::start().await;
    quota(&server, json!({"pods": "0"}), json!({"scopes": ["BestEffort"]})).await;
    let post = format!("POST {PODS}");
    server.ok(&post, asking("a", json!({"requests": {"cpu": "1m"}}))).await;
    let why = "pods \"b\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0";
    server.refused(&post, pod("b"), 403, "Forbidden", why).await;
}

#[tokio::test]
async fn rivals_get_exactly_what_is_left() {
    const RIVALS: usize = 60;
    let server = Server::start().await;
    quota(&server, json!({"configmaps": "40"}), json!({})).await;
    let line = format!("POST {MAPS}");
    let tries = (0..RIVALS).map(|i| server.ask(&line, config_map(&format!("m{i}"), json!({}))));
    let answers = futures::future::join_all(tries).await;
    let count = |code: u16| answers.iter().filter(|answer| answer.code == code).count();
    assert_eq!((count(201), count(403)), (40, 20));
    assert_eq!(used(&server).await, json!({"configmaps": "40"}));
}

#[tokio::test]
async fn a_limit_range_fills_in_and_bounds() {
    let server = Server::start().await;
    let limits = json!([
        {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m", "memory": "1Mi"}, "max": {"cpu": "800m"}},
        {"type": "Pod", "max": {"cpu": "900m"}},
    ]);
    server.ok(&format!("POST {RANGES}"), json!({"metadata": {"name": "r"}, "spec": {"limits": limits}})).await;
    let post = format!("POST {PODS}");
    let made = server.ok(&post, pod("a")).await;
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m", "memory": "1Mi"}})
    );
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu, memory request for container c; cpu limit for container c"
    );
    assert_eq!(made["status"]["qosClass"], "Burstable");
    let why = "pods \"b\" is forbidden: [maximum cpu usage per Container is 800m, but limit is 1, maximum cpu usage per Pod is 900m, but limit is 1]";
    server.refused(&post, asking("b", json!({"limits": {"cpu": "1"}})), 403, "Forbidden", why).await;
}
