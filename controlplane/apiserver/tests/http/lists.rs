//! LIST and WATCH: selectors, pages, versions, bookmarks.

use coracle_store::Store as _;
use serde_json::{Value, json};

use crate::harness::{Server, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn with_maps(count: usize) -> Server {
    let server = Server::start().await;
    for i in 0..count {
        server.ok(&format!("POST {MAPS}"), config_map(&format!("m{i}"), json!({}))).await;
    }
    server
}

#[tokio::test]
async fn unknown_field_selectors_are_named() {
    let server = Server::start().await;
    let check = async |uri: &str, message: &str| {
        server.refused(&format!("GET {uri}"), Value::Null, 400, "BadRequest", message).await;
    };
    check("/api/v1/pods?fieldSelector=spec.foo%3Dbar", "field label not supported: spec.foo").await;
    check(
        &format!("{MAPS}?fieldSelector=data%3Dx"),
        "\"data\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
    )
    .await;
}

#[tokio::test]
async fn pages_show_one_state() {
    let server = with_maps(5).await;
    let first = server.get(&format!("{MAPS}?limit=2")).await;
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    server.ok(&format!("DELETE {MAPS}/m3"), Value::Null).await;
    let rest = server.get(&format!("{MAPS}?limit=9&continue={token}")).await;
    assert_eq!(rest["items"].as_array().unwrap().len(), 3, "as it was at the first page");
    assert_eq!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(rest["metadata"].get("continue"), None);
    let bad = format!("GET {MAPS}?continue=!!");
    server.refused(&bad, Value::Null, 400, "BadRequest", "invalid continue token: continue key is not valid").await;
}

#[tokio::test]
async fn a_page_that_is_gone_offers_the_present() {
    let server = with_maps(5).await;
    let first = server.get(&format!("{MAPS}?limit=2")).await;
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    server.ok(&format!("DELETE {MAPS}/m3"), Value::Null).await;
    server.store.compact(server.store.revision()).await.unwrap();
    let gone = server.ask(&format!("GET {MAPS}?limit=2&continue={token}"), Value::Null).await;
    assert_eq!((gone.code, gone.body["reason"].as_str().unwrap()), (410, "Expired"));
    let message = gone.body["message"].as_str().unwrap();
    assert!(
        message.starts_with("The provided continue parameter is too old to display a consistent list result."),
        "{message}"
    );
    let next = gone.body["metadata"]["continue"].as_str().unwrap().to_owned();
    let rest = server.get(&format!("{MAPS}?limit=9&continue={next}")).await;
    let names: Vec<_> = rest["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["m2", "m4"], "the rest as it is now");
}

/// The events of a watch that ends by itself.
async fn events(server: &Server, query: &str) -> Vec<Value> {
    let answer = server.ask(&format!("GET {MAPS}?watch=1&{query}"), Value::Null).await;
    assert_eq!(answer.code, 200, "{answer:?}");
    answer.text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test]
async fn watches_end_in_time_and_tell_where_they_are() {
    let server = with_maps(2).await;
    let list = server.get(MAPS).await;
    let seen = events(&server, "timeoutSeconds=1").await;
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|e| e["type"] == "ADDED"));
    let initial = "timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let seen = events(&server, initial).await;
    assert_eq!(seen.len(), 3);
    let mark = &seen[2];
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["kind"], "ConfigMap");
    assert_eq!(mark["object"]["metadata"]["annotations"], json!({"k8s.io/initial-events-end": "true"}));
    assert_eq!(mark["object"]["metadata"]["resourceVersion"], list["metadata"]["resourceVersion"]);
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    assert!(events(&server, &format!("timeoutSeconds=1&resourceVersion={version}")).await.is_empty());
}

#[tokio::test]
async fn a_watch_from_a_time_that_is_gone_says_so_in_its_stream() {
    let server = with_maps(2).await;
    let first = server.get(&format!("{MAPS}/m0")).await;
    server.ok(&format!("DELETE {MAPS}/m1"), Value::Null).await;
    server.store.compact(server.store.revision()).await.unwrap();
    let version = first["metadata"]["resourceVersion"].as_str().unwrap();
    let seen = events(&server, &format!("resourceVersion={version}")).await;
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0]["type"], "ERROR");
    assert_eq!(seen[0]["object"]["code"], 410);
    assert_eq!(seen[0]["object"]["reason"], "Expired");
}

#[tokio::test]
async fn versions_that_are_not_there_yet_time_out() {
    let server = with_maps(1).await;
    let answer =
        server.ask(&format!("GET {MAPS}?resourceVersion=999999&resourceVersionMatch=NotOlderThan"), Value::Null).await;
    assert_eq!((answer.code, answer.body["reason"].as_str().unwrap()), (504, "Timeout"));
    let message = answer.body["message"].as_str().unwrap();
    assert!(message.starts_with("Timeout: Too large resource version: 999999, current: "), "{message}");
    assert_eq!(answer.body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}
