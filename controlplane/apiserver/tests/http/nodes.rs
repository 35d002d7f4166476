//! What an agent may read and write.

use coracle_apiserver::auth::User;
use serde_json::{Value, json};

use crate::harness::{Server, config_map};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

fn secret(name: &str) -> Value {
    json!({"metadata": {"name": name}, "stringData": {"a": "b"}})
}

/// A pod on a node that refers to one of each.
fn pod(name: &str, node: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "nodeName": node,
        "serviceAccountName": "robot",
        "containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": "known"}}]}],
        "volumes": [
            {"name": "m", "configMap": {"name": "known"}},
            {"name": "d", "persistentVolumeClaim": {"claimName": "known"}},
            {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "vault"}}]}},
        ],
    }})
}

async fn cluster() -> Server {
    let server = Server::start().await;
    let here = "/api/v1/namespaces/default";
    for name in ["known", "other"] {
        server.ok(&format!("POST {here}/secrets"), secret(name)).await;
        server.ok(&format!("POST {here}/configmaps"), config_map(name, json!({}))).await;
        let claim = json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}});
        server.ok(&format!("POST {here}/persistentvolumeclaims"), claim).await;
    }
    for name in ["robot", "admin"] {
        server.ok(&format!("POST {here}/serviceaccounts"), json!({"metadata": {"name": name}})).await;
    }
    server.ok("POST /api/v1/namespaces", json!({"metadata": {"name": "kube-node-lease"}})).await;
    for node in ["n1", "n2"] {
        server.ok("POST /api/v1/nodes", json!({"metadata": {"name": node}})).await;
        server.ok(&format!("POST {LEASES}"), json!({"metadata": {"name": node}})).await;
    }
    server.ok(&format!("POST {here}/pods"), pod("mine", "n1")).await;
    server
}

async fn check(node: &Server, lines: &[(&str, u16)]) {
    for (line, code) in lines {
        let answer = node.ask(line, Value::Null).await;
        assert_eq!(answer.code, *code, "{line}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_node_reads_what_its_pods_refer_to() {
    let server = cluster().await;
    let (one, two) = (server.as_user(User::node("n1")), server.as_user(User::node("n2")));
    for kind in ["secrets", "configmaps", "persistentvolumeclaims"] {
        let known = format!("GET /api/v1/namespaces/default/{kind}/known");
        let other = format!("GET /api/v1/namespaces/default/{kind}/other");
        check(&one, &[(&known, 200), (&other, 403)]).await;
        check(&two, &[(&known, 403), (&other, 403)]).await;
    }
    let by_name = |name: &str| format!("GET /api/v1/namespaces/default/secrets?fieldSelector=metadata.name%3D{name}");
    check(&one, &[(&by_name("known"), 200), (&by_name("other"), 403)]).await;
    check(&one, &[("GET /api/v1/secrets", 403), ("GET /api/v1/namespaces/default/secrets", 403)]).await;
    let why = "secrets \"other\" is forbidden: User \"system:node:n1\" cannot get resource \"secrets\" in API group \"\" in the namespace \"default\": no relationship found between node 'n1' and this object";
    one.refused("GET /api/v1/namespaces/default/secrets/other", Value::Null, 403, "Forbidden", why).await;
    // What the pods of the node refer to follows the pods.
    let known = "GET /api/v1/namespaces/default/secrets/known";
    server.ok("POST /api/v1/namespaces/default/pods", pod("theirs", "n2")).await;
    check(&two, &[(known, 200)]).await;
    let now = json!({"gracePeriodSeconds": 0});
    server.ok("DELETE /api/v1/namespaces/default/pods/mine", now).await;
    check(&one, &[(known, 403)]).await;
    check(&two, &[(known, 200)]).await;
}

#[tokio::test]
async fn a_node_reads_its_own_pods_and_itself() {
    let server = cluster().await;
    server.ok("POST /api/v1/namespaces/default/pods", pod("theirs", "n2")).await;
    let one = server.as_user(User::node("n1"));
    let lines = [
        ("GET /api/v1/namespaces/default/pods/mine", 200),
        ("GET /api/v1/namespaces/default/pods/theirs", 403),
        ("GET /api/v1/pods", 403),
        ("GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn1", 200),
        ("GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn2", 403),
        ("GET /api/v1/pods?fieldSelector=spec.nodeName%21%3Dn1", 403),
        ("GET /api/v1/nodes", 403),
        ("GET /api/v1/nodes/n1", 200),
        ("GET /api/v1/nodes/n2", 403),
        ("GET /api/v1/nodes?fieldSelector=metadata.name%3Dn1", 200),
        ("GET /api/v1/services", 200),
        ("GET /api/v1/namespaces/default/configmaps/known/status", 403),
    ];
    check(&one, &lines).await;
    let (own, other) = (format!("GET {LEASES}/n1"), format!("GET {LEASES}/n2"));
    check(&one, &[(&own, 200), (&other, 403), (&format!("GET {LEASES}"), 403)]).await;
    let elsewhere = "POST /apis/coordination.k8s.io/v1/namespaces/default/leases";
    assert_eq!(one.ask(elsewhere, json!({"metadata": {"name": "n1"}})).await.code, 403, "the election of others");
}

#[tokio::test]
async fn a_node_writes_of_itself_and_not_its_rank() {
    let server = cluster().await;
    let one = server.as_user(User::node("n1"));
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    one.ok("PATCH /api/v1/nodes/n1/status", ready.clone()).await;
    let why = "nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\"";
    one.refused("PATCH /api/v1/nodes/n2/status", ready, 403, "Forbidden", why).await;
    let labels = |key: &str| json!({"metadata": {"labels": {key: "x"}}});
    one.ok("PATCH /api/v1/nodes/n1", labels("example.com/a")).await;
    let why = "nodes \"n1\" is forbidden: is not allowed to modify labels: node-role.kubernetes.io/a";
    one.refused("PATCH /api/v1/nodes/n1", labels("node-role.kubernetes.io/a"), 403, "Forbidden", why).await;
    let tainted = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    let why = "nodes \"n1\" is forbidden: node \"n1\" is not allowed to modify taints";
    one.refused("PATCH /api/v1/nodes/n1", tainted, 403, "Forbidden", why).await;
    let three = server.as_user(User::node("n3"));
    let ranked = json!({"metadata": {"name": "n3", "labels": {"node-restriction.kubernetes.io/a": "x"}}});
    let why = "nodes \"n3\" is forbidden: node \"n3\" is not allowed to set the following labels: node-restriction.kubernetes.io/a";
    three.refused("POST /api/v1/nodes", ranked, 403, "Forbidden", why).await;
    assert_eq!(one.ask("DELETE /api/v1/nodes/n1", Value::Null).await.code, 403);
}

#[tokio::test]
async fn a_node_says_how_its_own_pods_are() {
    let server = cluster().await;
    server.ok("POST /api/v1/namespaces/default/pods", pod("theirs", "n2")).await;
    let one = server.as_user(User::node("n1"));
    let running = json!({"status": {"phase": "Running"}});
    one.ok("PATCH /api/v1/namespaces/default/pods/mine/status", running.clone()).await;
    let why = "pods \"theirs\" is forbidden: node \"n1\" can only update pod status for pods with spec.nodeName set to itself";
    let line = "PATCH /api/v1/namespaces/default/pods/theirs/status";
    one.refused(line, running, 403, "Forbidden", why).await;
    let labelled = json!({"metadata": {"labels": {"app": "web"}}});
    let why = "pods \"mine\" is forbidden: node \"n1\" cannot update labels through pod status";
    let line = "PATCH /api/v1/namespaces/default/pods/mine/status";
    one.refused(line, labelled.clone(), 403, "Forbidden", why).await;
    check(&one, &[("DELETE /api/v1/namespaces/default/pods/theirs", 403)]).await;
    assert_eq!(one.ask("PATCH /api/v1/namespaces/default/pods/mine", labelled).await.code, 403);
    check(&one, &[("DELETE /api/v1/namespaces/default/pods/mine", 200)]).await;
}

#[tokio::test]
async fn a_node_makes_pods_that_only_show_what_it_runs() {
    let server = cluster().await;
    let uid = server.get("/api/v1/nodes/n1").await["metadata"]["uid"].clone();
    let one = server.as_user(User::node("n1"));
    let plain = json!({
        "metadata": {"name": "s", "annotations": {"kubernetes.io/config.mirror": "x"}, "ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid, "controller": true}]},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
    });
    let line = "POST /api/v1/namespaces/default/pods";
    let refused = async |at: &str, value: Value, why: &str| {
        let mut changed = plain.clone();
        *changed.pointer_mut(at).expect("a field") = value;
        let why = format!("pods \"s\" is forbidden: {why}");
        one.refused(line, changed, 403, "Forbidden", &why).await;
    };
    let mirrors =
        "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"n1\" can only create mirror pods";
    refused("/metadata/annotations", json!({}), mirrors).await;
    refused("/spec/nodeName", json!("n2"), "node \"n1\" can only create pods with spec.nodeName set to itself").await;
    let owner = "node \"n1\" can only create pods with an owner reference set to itself";
    refused("/metadata/ownerReferences", json!([]), owner).await;
    let mismatch = format!("node n1 UID mismatch: expected u got {}", uid.as_str().unwrap_or_default());
    refused("/metadata/ownerReferences/0/uid", json!("u"), &mismatch).await;
    let containers = json!([{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": "other"}}]}]);
    refused("/spec/containers", containers, "node \"n1\" can not create pods that reference secrets").await;
    one.ok(line, plain.clone()).await;
}

#[tokio::test]
async fn a_node_gets_tokens_for_its_pods_only() {
    let server = cluster().await;
    let theirs = server.ok("POST /api/v1/namespaces/default/pods", pod("theirs", "n2")).await;
    let mine = server.get("/api/v1/namespaces/default/pods/mine").await;
    let one = server.as_user(User::node("n1"));
    let line = "POST /api/v1/namespaces/default/serviceaccounts/robot/token";
    let request = |pod: &Value, audience: &str| {
        json!({"spec": {"audiences": [audience], "boundObjectRef": {
            "apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}}})
    };
    one.ok(line, request(&mine, "vault")).await;
    let refused = async |body: Value, why: &str| {
        let why = format!("serviceaccounts \"robot\" is forbidden: {why}");
        one.refused(line, body, 403, "Forbidden", &why).await;
    };
    refused(json!({"spec": {"audiences": ["vault"]}}), "node requested token not bound to a pod").await;
    let mut unnamed = request(&mine, "vault");
    unnamed["spec"]["boundObjectRef"]["uid"] = json!("");
    refused(unnamed, "node requested token with a pod binding without a uid").await;
    let elsewhere = "node requested token bound to a pod scheduled on a different node";
    refused(request(&theirs, "vault"), elsewhere).await;
    refused(request(&mine, "bank"), "audience \"bank\" not found in pod spec volume").await;
    let admin = "POST /api/v1/namespaces/default/serviceaccounts/admin/token";
    assert_eq!(one.ask(admin, request(&mine, "vault")).await.code, 403);
}
