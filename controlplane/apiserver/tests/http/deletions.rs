//! DELETE of one and of many: preconditions, propagation, grace periods, selectors.

use serde_json::{Value, json};

use crate::harness::{Server, config_map, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn preconditions_hold_or_the_object_stays() {
    let server = Server::start().await;
    let made = server.ok(&format!("POST {MAPS}"), config_map("a", json!({}))).await;
    let (uid, version) =
        (made["metadata"]["uid"].as_str().unwrap(), made["metadata"]["resourceVersion"].as_str().unwrap());
    let line = format!("DELETE {MAPS}/a");
    let why = format!(
        "Operation cannot be fulfilled on ConfigMap \"a\": the UID in the precondition (7) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
    );
    server.refused(&line, json!({"preconditions": {"uid": "7"}}), 409, "Conflict", &why).await;
    let why = format!(
        "Operation cannot be fulfilled on ConfigMap \"a\": the ResourceVersion in the precondition (1) does not match the ResourceVersion in record ({version}). The object might have been modified"
    );
    server.refused(&line, json!({"preconditions": {"resourceVersion": "1"}}), 409, "Conflict", &why).await;
    let both = json!({"preconditions": {"uid": uid, "resourceVersion": version}});
    let done = server.ok(&line, both).await;
    assert_eq!(done["status"], "Success");
    assert_eq!(done["details"], json!({"name": "a", "kind": "configmaps", "uid": uid}));
    server.refused(&line, Value::Null, 404, "NotFound", "configmaps \"a\" not found").await;
}

#[tokio::test]
async fn propagation_shows_in_the_finalizers() {
    let server = Server::start().await;
    let check = async |name: &str, query: &str, expected: Option<&str>| {
        server.ok(&format!("POST {MAPS}"), config_map(name, json!({}))).await;
        server.ok(&format!("DELETE {MAPS}/{name}?{query}"), Value::Null).await;
        let left = server.ask(&format!("GET {MAPS}/{name}"), Value::Null).await;
        let finalizer = left.body["metadata"]["finalizers"][0].as_str();
        assert_eq!(finalizer, expected, "{query}");
        assert_eq!(left.code == 200, expected.is_some());
    };
    check("a", "propagationPolicy=Background", None).await;
    check("b", "propagationPolicy=Foreground", Some("foregroundDeletion")).await;
    check("c", "propagationPolicy=Orphan", Some("orphan")).await;
    check("d", "orphanDependents=true", Some("orphan")).await;
    check("e", "orphanDependents=false", None).await;
}

#[tokio::test]
async fn pods_have_their_grace() {
    let server = Server::start().await;
    server.ok(&format!("POST {PODS}"), pod("a")).await;
    let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n"}});
    server.ok(&format!("POST {PODS}/a/binding"), binding).await;
    let waits = server.ok(&format!("DELETE {PODS}/a"), Value::Null).await;
    assert_eq!(waits["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(waits["metadata"]["deletionTimestamp"], "2026-01-01T00:00:30Z");
    let shorter = server.ok(&format!("DELETE {PODS}/a?gracePeriodSeconds=5"), Value::Null).await;
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let longer = server.ok(&format!("DELETE {PODS}/a?gracePeriodSeconds=50"), Value::Null).await;
    assert_eq!(longer["metadata"]["deletionGracePeriodSeconds"], 5);
    server.ok(&format!("DELETE {PODS}/a?gracePeriodSeconds=0"), Value::Null).await;
    server.refused(&format!("GET {PODS}/a"), Value::Null, 404, "NotFound", "pods \"a\" not found").await;
}

#[tokio::test]
async fn collections_go_by_selectors() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        let mut map = config_map(name, json!({}));
        map["metadata"]["labels"] = json!({"name": name});
        server.ok(&format!("POST {MAPS}"), map).await;
    }
    let names = async || {
        let list = server.get(MAPS).await;
        let items = list["items"].as_array().unwrap().clone();
        items.iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let gone = server.ok(&format!("DELETE {MAPS}?labelSelector=name%20in%20(a)"), Value::Null).await;
    assert_eq!(gone["kind"], "ConfigMapList");
    assert_eq!(gone["items"].as_array().unwrap().len(), 1);
    assert_eq!(names().await, ["b", "c"]);
    server.ok(&format!("DELETE {MAPS}?fieldSelector=metadata.name%3Dc"), Value::Null).await;
    assert_eq!(names().await, ["b"]);
    server.ok(&format!("DELETE {MAPS}"), Value::Null).await;
    assert!(names().await.is_empty());
}
