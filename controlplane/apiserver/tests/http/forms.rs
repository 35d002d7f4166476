//! The forms of requests and answers: methods, media types, paths, sizes, indentation.

use serde_json::{Value, json};

use crate::harness::{Server, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn what_is_not_there_or_not_allowed_is_refused() {
    let server = Server::start().await;
    server.ok(&format!("POST {MAPS}"), config_map("a", json!({}))).await;
    let check = async |line: &str, code: u16, reason: &str, message: &str| {
        server.refused(line, Value::Null, code, reason, message).await;
    };
    let nothing = "the server could not find the requested resource";
    check("GET /api/v1/namespaces/default/nothings", 404, "NotFound", nothing).await;
    check("GET /apis/none.io/v1/things", 404, "NotFound", nothing).await;
    check(&format!("GET {MAPS}/a/status"), 404, "NotFound", nothing).await;
    check("GET /api/v1/configmaps/a", 404, "NotFound", nothing).await;
    check(&format!("GET {MAPS}/b"), 404, "NotFound", "configmaps \"b\" not found").await;
    let not_allowed = "the server does not allow this method on the requested resource";
    check(&format!("POST {MAPS}/a"), 405, "MethodNotAllowed", not_allowed).await;
    check(&format!("PUT {MAPS}"), 405, "MethodNotAllowed", not_allowed).await;
    check(&format!("OPTIONS {MAPS}/a"), 405, "MethodNotAllowed", not_allowed).await;
}

#[tokio::test]
async fn media_types_are_negotiated() {
    let server = Server::start().await;
    let unknown = server.send(&format!("POST {MAPS}"), &[("content-type", "text/plain")], "x").await;
    assert_eq!((unknown.code, unknown.body["reason"].as_str().unwrap()), (415, "UnsupportedMediaType"));
    let accept = server.send(&format!("GET {MAPS}"), &[("accept", "text/html")], "").await;
    assert_eq!((accept.code, accept.body["reason"].as_str().unwrap()), (406, "NotAcceptable"));
    assert_eq!(
        accept.body["message"],
        "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
    );
    let large = format!("{{\"data\":{{\"k\":\"{}\"}}}}", "x".repeat(3 * 1024 * 1024));
    let large = server.send(&format!("POST {MAPS}"), &[("content-type", "application/json")], &large).await;
    assert_eq!((large.code, large.body["reason"].as_str().unwrap()), (413, "RequestEntityTooLarge"));
    assert_eq!(large.body["message"], "Request entity too large: limit is 3145728");
}

#[tokio::test]
async fn paths_may_end_in_a_slash() {
    let server = Server::start().await;
    server.ok(&format!("POST {MAPS}/"), config_map("a", json!({}))).await;
    assert_eq!(server.get(&format!("{MAPS}/a/")).await["metadata"]["name"], "a");
    assert_eq!(server.get(&format!("{MAPS}/")).await["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn answers_are_indented_for_people() {
    let server = Server::start().await;
    server.ok(&format!("POST {MAPS}"), config_map("a", json!({"k": "v"}))).await;
    let plain = server.send(&format!("GET {MAPS}/a"), &[], "").await;
    assert!(!plain.text.contains('\n'));
    for (query, agent) in [("?pretty=true", "x"), ("", "curl/8.0")] {
        let pretty = server.send(&format!("GET {MAPS}/a{query}"), &[("user-agent", agent)], "").await;
        assert!(pretty.text.contains("\n  \"metadata\": {\n    \"resourceVersion\": "), "{}", pretty.text);
        assert_eq!(pretty.body, plain.body);
    }
    let missing = server.send(&format!("GET {MAPS}/b?pretty=1"), &[], "").await;
    assert!(missing.text.contains("\n  \"code\": 404"), "{}", missing.text);
}

#[tokio::test]
async fn what_clients_write_in_paths_is_never_a_label() {
    let server = Server::start().await;
    let anybody = server.as_user(coracle_apiserver::auth::User::anonymous());
    for n in 0..20 {
        let line = format!("GET /apis/made-up{n}.io/v1/namespaces/default/made-up{n}s/x/made-up{n}");
        assert_eq!(anybody.send(&line, &[], "").await.code, 403);
        assert_eq!(server.send(&line, &[], "").await.code, 404);
        let below = format!("GET {MAPS}/x/made-up{n}");
        assert_eq!(anybody.send(&below, &[], "").await.code, 403);
    }
    let page = server.send("GET /metrics", &[], "").await.text;
    assert!(!page.contains("made-up"), "{page}");
    let refused = page.lines().find(|line| line.contains("resource=\"configmaps\"") && line.contains("code=\"403\""));
    assert!(refused.is_some_and(|line| line.ends_with(" 20")), "{page}");
}
