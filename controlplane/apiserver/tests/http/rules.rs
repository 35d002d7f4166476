//! What Kubernetes asks of single kinds beside their fields.

use serde_json::{Value, json};

use crate::harness::{Server, pod};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
const CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn a_lease_is_replaced_by_who_has_seen_it() {
    let server = Server::start().await;
    let lease = |holder: &str| json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": holder}});
    let made = server.ok(&format!("POST {LEASES}"), lease("a")).await;
    let line = format!("PUT {LEASES}/l");
    let why = "Lease.coordination.k8s.io \"l\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update";
    server.refused(&line, lease("b"), 422, "Invalid", why).await;
    let mut seen = lease("b");
    seen["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    assert_eq!(server.ok(&line, seen).await["spec"]["holderIdentity"], "b");
    // Most kinds may be replaced unseen.
    let map = json!({"metadata": {"name": "m"}, "data": {"k": "v"}});
    server.ok("POST /api/v1/namespaces/default/configmaps", map.clone()).await;
    server.ok("PUT /api/v1/namespaces/default/configmaps/m", map).await;
}

#[tokio::test]
async fn namespaces_are_not_deleted_all_at_once() {
    let server = Server::start().await;
    server.ok("POST /api/v1/namespaces", json!({"metadata": {"name": "a"}})).await;
    assert_eq!(server.ask("DELETE /api/v1/namespaces", Value::Null).await.code, 405);
    assert_eq!(server.get("/api/v1/namespaces/a").await["metadata"].get("deletionTimestamp"), None);
    let verbs = |list: &Value, kind: &str| {
        let row = list["resources"].as_array().and_then(|rows| rows.iter().find(|row| row["name"] == kind).cloned());
        row.is_some_and(|row| row["verbs"].as_array().is_some_and(|verbs| verbs.contains(&json!("deletecollection"))))
    };
    let discovered = server.get("/api/v1").await;
    assert!(!verbs(&discovered, "namespaces") && verbs(&discovered, "pods"));
}

#[tokio::test]
async fn who_makes_what_nothing_acts_on_is_told() {
    let server = Server::start().await;
    let policy = json!({"metadata": {"name": "p"}, "spec": {"podSelector": {}}});
    let told = server.ask("POST /apis/networking.k8s.io/v1/namespaces/default/networkpolicies", policy).await;
    assert_eq!(told.code, 201);
    let warning = "299 - \"NetworkPolicy is stored, but nothing acts on it in this version of Coracle\"";
    assert_eq!(told.headers["warning"], warning);
    let map = json!({"metadata": {"name": "m"}});
    let quiet = server.ask("POST /api/v1/namespaces/default/configmaps", map).await;
    assert_eq!((quiet.code, quiet.headers.get("warning")), (201, None));
}

#[tokio::test]
async fn one_priority_class_is_the_default_and_the_systems_own_stay() {
    let server = Server::start().await;
    let class = |name: &str, value: i32, default: bool| json!({"metadata": {"name": name}, "value": value, "globalDefault": default});
    server.ok(&format!("POST {CLASSES}"), class("one", 1, true)).await;
    let why = "priorityclasses.scheduling.k8s.io \"two\" is forbidden: PriorityClass one is already marked as default. Only one default can exist";
    server.refused(&format!("POST {CLASSES}"), class("two", 2, true), 403, "Forbidden", why).await;
    server.ok(&format!("POST {CLASSES}"), class("two", 2, false)).await;
    server.refused(&format!("PATCH {CLASSES}/two"), json!({"globalDefault": true}), 403, "Forbidden", why).await;
    server.ok(&format!("PATCH {CLASSES}/one"), json!({"description": "still the default"})).await;
    server.ok(&format!("POST {CLASSES}"), class("system-node-critical", 2_000_001_000, false)).await;
    let why = "priorityclasses.scheduling.k8s.io \"system-node-critical\" is forbidden: this is a system priority class and cannot be deleted";
    server.refused(&format!("DELETE {CLASSES}/system-node-critical"), Value::Null, 403, "Forbidden", why).await;
    server.ok(&format!("DELETE {CLASSES}/two"), Value::Null).await;
}

#[tokio::test]
async fn an_evicted_pod_says_why_it_ends() {
    let server = Server::start().await;
    let spec = json!({"nodeName": "n", "containers": [{"name": "c", "image": "i"}]});
    server.ok(&format!("POST {PODS}"), json!({"metadata": {"name": "p"}, "spec": spec})).await;
    server.ok(&format!("PATCH {PODS}/p/status"), json!({"status": {"phase": "Running"}})).await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    server.ok(&format!("POST {PODS}/p/eviction"), eviction.clone()).await;
    let pod = server.get(&format!("{PODS}/p")).await;
    assert!(pod["metadata"]["deletionTimestamp"].is_string(), "{pod}");
    let conditions = pod["status"]["conditions"].as_array().expect("conditions");
    let condition = conditions.iter().find(|c| c["type"] == "DisruptionTarget").expect("why");
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("EvictionByEvictionAPI")));
    assert_eq!(condition["message"], "Eviction API: evicting");
    // A version that is not the pod's any more evicts nobody.
    server.ok(&format!("POST {PODS}"), json!({"metadata": {"name": "q"}, "spec": spec})).await;
    let mut other = eviction;
    other["metadata"]["name"] = json!("q");
    other["deleteOptions"] = json!({"preconditions": {"resourceVersion": "1"}});
    assert_eq!(server.ask(&format!("POST {PODS}/q/eviction"), other).await.code, 409);
    assert_eq!(server.get(&format!("{PODS}/q")).await["metadata"].get("deletionTimestamp"), None);
}

#[tokio::test]
async fn a_patch_of_another_type_is_invalid() {
    let server = Server::start().await;
    let labels = json!({"app": "d"});
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": labels}, "template": {
        "metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    server.ok("POST /apis/apps/v1/namespaces/default/deployments", deployment).await;
    let line = "PATCH /apis/apps/v1/namespaces/default/deployments/d";
    let why = " \"\" is invalid: patch: Invalid value: \"map[spec:map[replicas:x]]\": unrecognized type: int32";
    server.refused(line, json!({"spec": {"replicas": "x"}}), 422, "Invalid", why).await;
}

#[tokio::test]
async fn a_quantity_that_is_none_is_no_object() {
    let server = Server::start().await;
    let mut wrong = pod("p");
    wrong["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "plenty"}});
    let why = "Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    server.refused("POST /api/v1/namespaces/default/pods", wrong, 400, "BadRequest", why).await;
}

#[tokio::test]
async fn who_uses_what_is_deprecated_is_told() {
    let server = Server::start().await;
    let answer = server.ask("GET /api/v1/namespaces/default/endpoints", Value::Null).await;
    let told = answer.headers.get("warning").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let why = "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
    assert_eq!((answer.code, told), (200, why));
    assert!(server.ask("GET /api/v1/pods", Value::Null).await.headers.get("warning").is_none());
}
