//! What is made while its namespace goes.

use std::sync::{Arc, OnceLock};

use coracle_api::ApiError;
use coracle_apiserver::admission::{Operation, Plugin, Review};
use coracle_store::{Collection, Durability, ListRange, Op, SqliteStore, Store as _};
use serde_json::{Value, json};

use crate::harness::{Server, config_map};

/// Takes a namespace away between a request's admission and its commit.
struct Rival(Arc<OnceLock<Arc<SqliteStore>>>);

impl Plugin for Rival {
    fn name(&self) -> &'static str {
        "Rival"
    }

    fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        let Some(store) = self.0.get().filter(|_| review.operation == Operation::Create) else { return Ok(()) };
        let key = Collection::new("", "namespaces").key("", review.namespace);
        if let Some(entry) = store.get(&key) {
            let gone = Op::Delete { key, expected: entry.revision };
            store.commit_sync(vec![gone], Durability::Durable).expect("the namespace goes");
        }
        Ok(())
    }
}

#[tokio::test]
async fn nothing_is_left_in_a_namespace_that_went_meanwhile() {
    let armed = Arc::new(OnceLock::new());
    let server = Server::start_with(vec![Box::new(Rival(Arc::clone(&armed)))]).await;
    server.ok("POST /api/v1/namespaces", json!({"metadata": {"name": "doomed"}})).await;
    let line = "POST /api/v1/namespaces/doomed/configmaps";
    server.ok(line, config_map("before", json!({}))).await;
    assert!(armed.set(Arc::clone(&server.store)).is_ok());
    let body = config_map("late", json!({}));
    server.refused(line, body, 404, "NotFound", "namespaces \"doomed\" not found").await;
    let names: Vec<String> = server
        .store
        .list(&Collection::new("", "configmaps"), &ListRange::namespace("doomed"))
        .entries
        .iter()
        .map(|entry| entry.key.object_name().to_owned())
        .collect();
    assert_eq!(names, ["before"]);
    assert_eq!(server.ask("GET /api/v1/namespaces/doomed", Value::Null).await.code, 404);
}
