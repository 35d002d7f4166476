//! `metadata.managedFields` through every sort of write.

use serde_json::{Value, json};

use crate::harness::{Server, config_map, pod};

/// `manager[/subresource] operation apiVersion seconds` of each record.
fn managers(object: &Value) -> Vec<String> {
    let list = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|e| {
            assert_eq!(e["fieldsType"], "FieldsV1");
            let part = e["subresource"].as_str().map(|s| format!("/{s}")).unwrap_or_default();
            let [manager, operation, version, time] =
                ["manager", "operation", "apiVersion", "time"].map(|f| e[f].as_str().expect(f));
            format!("{manager}{part} {operation} {version} {}", &time[17..19])
        })
        .collect()
}

fn fields(object: &Value, manager: &str) -> Value {
    let list = object["metadata"]["managedFields"].as_array().expect("managers");
    list.iter().find(|e| e["manager"] == manager).unwrap_or_else(|| panic!("no {manager} in {list:?}"))["fieldsV1"]
        .clone()
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn every_write_is_recorded_under_its_managers_name() {
    let server = Server::start().await;
    let agent = [("user-agent", "kubectl/v1.32.0 (linux/amd64)"), ("content-type", "application/json")];
    let map = config_map("a", json!({"k": "1"}));
    let made = server.send(&format!("POST {MAPS}"), &agent, &map.to_string()).await;
    assert_eq!(managers(&made.body), ["kubectl Update v1 00"]);
    server.wait(1);
    let changed = config_map("a", json!({"k": "1", "l": "2"}));
    let put = server.ok(&format!("PUT {MAPS}/a?fieldManager=two"), changed).await;
    assert_eq!(managers(&put), ["kubectl Update v1 00", "two Update v1 01"]);
    assert_eq!(fields(&put, "two"), json!({"f:data": {"f:l": {}}}));
    server.wait(1);
    let patched = server.ok(&format!("PATCH {MAPS}/a"), json!({"data": {"k": "2"}})).await;
    assert_eq!(managers(&patched), ["kubectl Update v1 00", "two Update v1 01", "unknown Update v1 02"]);
    assert_eq!(fields(&patched, "kubectl"), json!({"f:data": {}}));
    // Nothing changed, so nothing is written.
    server.wait(1);
    let again = server.ok(&format!("PATCH {MAPS}/a?fieldManager=five"), json!({"data": {"k": "2"}})).await;
    assert_eq!(again, patched);
    assert_eq!(server.get(&format!("{MAPS}/a")).await, patched);
    let list = server.get(MAPS).await;
    assert_eq!(list["items"][0]["metadata"]["managedFields"], patched["metadata"]["managedFields"]);
}

#[tokio::test]
async fn what_the_server_adds_is_nobodys() {
    let server = Server::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let made = server.ok(&format!("POST {pods}?fieldManager=me"), pod("a")).await;
    assert!(made["spec"]["tolerations"].is_array(), "admission added some");
    let owned = fields(&made, "me");
    assert!(owned.get("f:status").is_none() && owned["f:spec"].get("f:tolerations").is_none(), "{owned}");
    // Defaults were there before admission.
    assert_eq!(owned["f:spec"]["f:restartPolicy"], json!({}));
    let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n"}});
    server.ok(&format!("POST {pods}/a/binding?fieldManager=scheduler"), binding).await;
    server.wait(1);
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let running = server.ok(&format!("PATCH {pods}/a/status?fieldManager=kubelet"), status).await;
    assert_eq!(managers(&running), ["me Update v1 00", "kubelet/status Update v1 01"]);
    assert_eq!(
        fields(&running, "kubelet"),
        json!({"f:status": {"f:conditions": {"k:{\"type\":\"Ready\"}": {".": {}, "f:status": {}, "f:type": {}}}}})
    );
    let labelled =
        server.ok(&format!("PATCH {pods}/a?fieldManager=kubelet"), json!({"metadata": {"labels": {"x": "y"}}})).await;
    assert_eq!(managers(&labelled), ["me Update v1 00", "kubelet Update v1 01", "kubelet/status Update v1 01"]);
}

#[tokio::test]
async fn a_scale_takes_the_replicas() {
    let server = Server::start().await;
    let sets = "/apis/apps/v1/namespaces/default/deployments";
    let set = json!({
        "metadata": {"name": "d"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    });
    let made = server.ok(&format!("POST {sets}?fieldManager=me"), set).await;
    assert_eq!(fields(&made, "me")["f:spec"]["f:replicas"], json!({}));
    let scale = json!({"spec": {"replicas": 3}});
    server.wait(1);
    server.ok(&format!("PATCH {sets}/d/scale?fieldManager=kubectl"), scale).await;
    let scaled = server.get(&format!("{sets}/d")).await;
    assert_eq!(managers(&scaled), ["me Update apps/v1 00", "kubectl/scale Update apps/v1 01"]);
    assert_eq!(fields(&scaled, "kubectl"), json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(fields(&scaled, "me")["f:spec"].get("f:replicas"), None);
}

#[tokio::test]
async fn clients_clear_them_and_put_them_back() {
    let server = Server::start().await;
    let map = server.ok(&format!("POST {MAPS}?fieldManager=me"), config_map("a", json!({"k": "1"}))).await;
    // What was read is put back as it was, and changes nothing.
    let same = server.ok(&format!("PUT {MAPS}/a?fieldManager=you"), map.clone()).await;
    assert_eq!(same, map);
    let json_patch = [("content-type", "application/json-patch+json")];
    let clear = json!([{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]).to_string();
    let cleared = server.send(&format!("PATCH {MAPS}/a"), &json_patch, &clear).await.body;
    assert_eq!(cleared["metadata"].get("managedFields"), None, "{cleared}");
    assert_ne!(cleared["metadata"]["resourceVersion"], map["metadata"]["resourceVersion"]);
    let later = server.ok(&format!("PATCH {MAPS}/a?fieldManager=me"), json!({"data": {"k": "2"}})).await;
    assert_eq!(later["metadata"].get("managedFields"), None);
    let mut restored = later.clone();
    restored["metadata"]["managedFields"] = map["metadata"]["managedFields"].clone();
    let restored = server.ok(&format!("PUT {MAPS}/a?fieldManager=you"), restored).await;
    assert_eq!(restored["metadata"]["managedFields"], map["metadata"]["managedFields"]);
    let test = json!([{"op": "test", "path": "/metadata/managedFields/0/manager", "value": "me"}]).to_string();
    assert_eq!(server.send(&format!("PATCH {MAPS}/a"), &json_patch, &test).await.code, 200);
}

#[tokio::test]
async fn they_are_in_every_shape_and_every_version() {
    let server = Server::start().await;
    let made = server.ok(&format!("POST {MAPS}?fieldManager=me"), config_map("a", json!({"k": "1"}))).await;
    let expected = &made["metadata"]["managedFields"];
    let partial = [("accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")];
    let answer = server.send(&format!("GET {MAPS}/a"), &partial, "").await;
    assert_eq!(&answer.body["metadata"]["managedFields"], expected);
    assert_eq!(answer.body["metadata"]["name"], "a");
    let table = [("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")];
    for uri in [MAPS, &format!("{MAPS}/a")] {
        let answer = server.send(&format!("GET {uri}"), &table, "").await;
        assert_eq!(&answer.body["rows"][0]["object"]["metadata"]["managedFields"], expected, "{}", answer.text);
    }
    let dry = server.ok(&format!("POST {MAPS}?dryRun=All&fieldManager=me"), config_map("b", json!({"k": "1"}))).await;
    assert_eq!(&dry["metadata"]["managedFields"], expected);
    let events = "/apis/events.k8s.io/v1/namespaces/default/events";
    let event = json!({
        "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "reason": "r", "type": "Normal", "action": "a",
        "reportingController": "x/y", "reportingInstance": "i", "note": "n",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
    });
    let event = server.ok(&format!("POST {events}?fieldManager=me"), event).await;
    assert_eq!(managers(&event), ["me Update events.k8s.io/v1 00"]);
    assert_eq!(fields(&event, "me")["f:note"], json!({}));
    let old = server.get("/api/v1/namespaces/default/events/e").await;
    assert_eq!(old["metadata"]["managedFields"], event["metadata"]["managedFields"]);
    assert_eq!(server.get(&format!("{events}/e")).await, event);
}

#[tokio::test]
async fn a_deletion_that_waits_keeps_them() {
    let server = Server::start().await;
    let mut map = config_map("a", json!({"k": "1"}));
    map["metadata"]["finalizers"] = json!(["a.b/c"]);
    let made = server.ok(&format!("POST {MAPS}?fieldManager=me"), map).await;
    let waits = server.ok(&format!("DELETE {MAPS}/a"), Value::Null).await;
    assert_eq!(waits["metadata"]["managedFields"], made["metadata"]["managedFields"]);
    let gone = server.ok(&format!("PATCH {MAPS}/a?fieldManager=you"), json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(fields(&gone, "me").get("f:metadata"), None);
}
