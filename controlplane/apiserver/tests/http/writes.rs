//! Create, update and patch: what is refused, and in which words.

use coracle_api::managed;
use coracle_store::{Collection, Store as _};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use serde_json::{Value, json};

use crate::harness::{Server, config_map, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn who_comes_second_is_told_so() {
    let server = Server::start().await;
    let made = server.ok(&format!("POST {MAPS}"), config_map("a", json!({}))).await;
    let status = server
        .refused(
            &format!("POST {MAPS}"),
            config_map("a", json!({})),
            409,
            "AlreadyExists",
            "configmaps \"a\" already exists",
        )
        .await;
    assert_eq!(status["details"], json!({"name": "a", "kind": "configmaps"}));
    server.ok(&format!("PATCH {MAPS}/a"), json!({"data": {"k": "1"}})).await;
    let modified = "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again";
    let status = server.refused(&format!("PUT {MAPS}/a"), made.clone(), 409, "Conflict", modified).await;
    assert_eq!(status["details"], json!({"name": "a", "kind": "configmaps"}));
    let version = json!({"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"k": "2"}});
    server.refused(&format!("PATCH {MAPS}/a"), version, 409, "Conflict", modified).await;
}

#[tokio::test]
async fn names_and_namespaces_must_agree() {
    let server = Server::start().await;
    server.ok(&format!("POST {MAPS}"), config_map("a", json!({}))).await;
    let check = async |line: &str, body: Value, message: &str| {
        server.refused(line, body, 400, "BadRequest", message).await;
    };
    let put = format!("PUT {MAPS}/a");
    check(&put, config_map("b", json!({})), "the name of the object (b) does not match the name on the URL (a)").await;
    check(&put, json!({}), "the name of the object (a based on URL) was undeterminable: name must be provided").await;
    let elsewhere = json!({"metadata": {"name": "a", "namespace": "other"}});
    check(
        &put,
        elsewhere.clone(),
        "the namespace of the object (other) does not match the namespace on the request (default)",
    )
    .await;
    check(
        &format!("POST {MAPS}"),
        elsewhere,
        "the namespace of the provided object does not match the namespace sent on the request",
    )
    .await;
    let versioned = json!({"metadata": {"name": "b", "resourceVersion": "7"}});
    check(&format!("POST {MAPS}"), versioned, "resourceVersion should not be set on objects to be created").await;
    // A namespace on a kind that has none is dropped.
    let made = server.ok("POST /api/v1/namespaces", json!({"metadata": {"name": "x", "namespace": "y"}})).await;
    assert_eq!(made["metadata"].get("namespace"), None);
}

#[tokio::test]
async fn bodies_that_are_no_object_of_the_kind_are_refused() {
    let server = Server::start().await;
    let check = async |body: &str, message: &str| {
        let answer = server.send(&format!("POST {MAPS}"), &[("content-type", "application/json")], body).await;
        assert_eq!((answer.code, answer.body["message"].as_str().unwrap()), (400, message), "{body}");
    };
    check(
        r#"{"apiVersion":"v1","kind":"Service"}"#,
        "Service in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Service) to (ConfigMap): unknown conversion",
    )
    .await;
    check(
        r#"{"apiVersion":"v9","kind":"ConfigMap"}"#,
        "ConfigMap in version \"v9\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is registered for version \"v9\" in scheme",
    )
    .await;
    check(
        "{,",
        "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: key must be a string at line 1 column 2 (7b2c)",
    )
    .await;
    check(
        "",
        "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: EOF while parsing a value at line 1 column 0 (<empty>)",
    )
    .await;
    let wrong = server.ask(&format!("POST {MAPS}"), json!({"metadata": {"name": "a"}, "data": {"k": 7}})).await;
    let message = wrong.body["message"].as_str().unwrap();
    assert!(message.starts_with("ConfigMap in version \"v1\" cannot be handled as a ConfigMap: "), "{message}");
}

#[tokio::test]
async fn unknown_and_double_fields_are_told() {
    let server = Server::start().await;
    let body = r#"{"metadata":{"name":"a"},"spec":{"x":1},"data":{"k":"1","k":"2"}}"#;
    let json = [("content-type", "application/json")];
    let line = |mode: &str| format!("POST {MAPS}?fieldValidation={mode}");
    let strict = server.send(&line("Strict"), &json, body).await;
    assert_eq!(
        (strict.code, strict.body["message"].as_str().unwrap()),
        (
            400,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"spec\", duplicate field \"data.k\""
        )
    );
    let warned = server.send(&line("Warn"), &json, body).await;
    let warnings: Vec<&str> = warned.headers.get_all("warning").iter().map(|w| w.to_str().unwrap()).collect();
    assert_eq!(warnings, [r#"299 - "unknown field \"spec\"""#, r#"299 - "duplicate field \"data.k\"""#]);
    assert_eq!(warned.code, 201);
    let ignored = server.send(&line("Ignore"), &json, &body.replace("\"a\"", "\"b\"")).await;
    assert_eq!((ignored.code, ignored.headers.get("warning")), (201, None));
}

#[tokio::test]
async fn dry_runs_write_nothing() {
    let server = Server::start().await;
    let made = server.ok(&format!("POST {MAPS}"), config_map("a", json!({"k": "1"}))).await;
    let dry = server.ok(&format!("POST {MAPS}?dryRun=All"), config_map("b", json!({}))).await;
    assert!(dry["metadata"]["uid"].is_string() && dry["metadata"].get("resourceVersion").is_none(), "{dry}");
    let put = server.ok(&format!("PUT {MAPS}/a?dryRun=All"), config_map("a", json!({"k": "2"}))).await;
    assert_eq!(put["data"]["k"], "2");
    let patched = server.ok(&format!("PATCH {MAPS}/a?dryRun=All"), json!({"data": {"k": "3"}})).await;
    assert_eq!(patched["data"]["k"], "3");
    server.ok(&format!("DELETE {MAPS}/a?dryRun=All"), Value::Null).await;
    server.ok(&format!("DELETE {MAPS}/a"), json!({"dryRun": ["All"]})).await;
    server.ok(&format!("DELETE {MAPS}?dryRun=All"), Value::Null).await;
    let listed = server.get(MAPS).await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert_eq!(server.get(&format!("{MAPS}/a")).await, made);
    let taken = format!("POST {MAPS}?dryRun=All");
    server.refused(&taken, config_map("a", json!({})), 409, "AlreadyExists", "configmaps \"a\" already exists").await;
}

#[tokio::test]
async fn patches_that_do_not_fit_are_refused() {
    let server = Server::start().await;
    server.ok(&format!("POST {MAPS}"), config_map("a", json!({"k": "1"}))).await;
    let check = async |media: &str, body: &str, code: u16, message: &str| {
        let answer = server.send(&format!("PATCH {MAPS}/a"), &[("content-type", media)], body).await;
        assert_eq!((answer.code, answer.body["message"].as_str().unwrap()), (code, message), "{media} {body}");
    };
    let json = "application/json-patch+json";
    let did_not_fit = "the server rejected our request due to an error in our request";
    check(json, r#"[{"op":"test","path":"/data/k","value":"2"}]"#, 422, did_not_fit).await;
    check(json, r#"[{"op":"remove","path":"/data/x"}]"#, 422, did_not_fit).await;
    let missing = server.ask(&format!("PATCH {MAPS}/b"), json!({})).await;
    assert_eq!((missing.code, missing.body["message"].as_str().unwrap()), (404, "configmaps \"b\" not found"));
    let plain = server.send(&format!("PATCH {MAPS}/a"), &[("content-type", "application/json")], "{}").await;
    assert_eq!((plain.code, plain.body["reason"].as_str().unwrap()), (415, "UnsupportedMediaType"));
    check(
        "application/merge-patch+json",
        r#"{"metadata":{"name":"b"}}"#,
        400,
        "the name of the object (b) does not match the name on the URL (a)",
    )
    .await;
}

#[tokio::test]
async fn uids_are_preconditions_of_updates() {
    let server = Server::start().await;
    let made = server.ok(&format!("POST {MAPS}"), config_map("a", json!({}))).await;
    let mut other = config_map("a", json!({"k": "1"}));
    other["metadata"]["uid"] = "7".into();
    let have = made["metadata"]["uid"].as_str().unwrap();
    let why = format!(
        "Operation cannot be fulfilled on configmaps \"a\": Precondition failed: UID in precondition: 7, UID in object meta: {have}"
    );
    server.refused(&format!("PUT {MAPS}/a"), other, 409, "Conflict", &why).await;
}

/// Whether the store has the decoded form of an object without anybody having read it; it must be what its text says.
fn is_shared<T: coracle_api::Resource>(server: &Server, collection: &Collection, name: &str) -> bool {
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    let entry = server.store.get(&collection.key(namespace, name)).expect("it was written");
    let decoded: T = serde_json::from_slice(&managed::without(&entry.bytes)).expect("an object of the kind");
    let known = entry.known_as::<T>();
    assert!(known.as_deref().is_none_or(|known| *known == decoded), "{known:?} is not {decoded:?}");
    known.is_some()
}

#[tokio::test]
async fn what_was_written_is_shared_with_its_readers() {
    let server = Server::start().await;
    let (pods, maps, nodes) = ["pods", "configmaps", "nodes"].map(|plural| Collection::new("", plural)).into();
    let check = |when: &str| assert!(is_shared::<Pod>(&server, &pods, "default/a"), "{when}");
    server.ok("POST /api/v1/namespaces/default/pods", pod("a")).await;
    check("made");
    let target = json!({"target": {"kind": "Node", "name": "n"}});
    server.ok("POST /api/v1/namespaces/default/pods/a/binding", target).await;
    check("bound");
    let status = json!({"status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{
        "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    server.ok("PATCH /api/v1/namespaces/default/pods/a/status", status).await;
    check("running");
    let mut read = server.get("/api/v1/namespaces/default/pods/a").await;
    read["metadata"]["labels"]["more"] = json!("yes");
    server.ok("PUT /api/v1/namespaces/default/pods/a", read).await;
    check("put");
    server.ok("DELETE /api/v1/namespaces/default/pods/a", Value::Null).await;
    check("on its way out");
    let generated = json!({"metadata": {"generateName": "g-"}, "spec": pod("g")["spec"]});
    let made = server.ok("POST /api/v1/namespaces/default/pods", generated).await;
    let name = format!("default/{}", made["metadata"]["name"].as_str().expect("a name"));
    assert!(is_shared::<Pod>(&server, &pods, &name));
    server.ok("POST /api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    assert!(is_shared::<Node>(&server, &nodes, "n"));
    // Large ones would fill the memory.
    server.ok(&format!("POST {MAPS}"), config_map("small", json!({"k": "v"}))).await;
    server.ok(&format!("POST {MAPS}"), config_map("large", json!({"k": "v".repeat(20_000)}))).await;
    assert!(is_shared::<ConfigMap>(&server, &maps, "default/small"));
    assert!(!is_shared::<ConfigMap>(&server, &maps, "default/large"));
}
