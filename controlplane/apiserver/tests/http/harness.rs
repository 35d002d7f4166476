//! A server without sockets on a clock that stands still until it is moved, and one way to ask it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use coracle_apiserver::admission::Chain;
use coracle_apiserver::admission::certificate_requests::CertificateRequests;
use coracle_apiserver::admission::limit_ranger::LimitRanger;
use coracle_apiserver::admission::namespace_lifecycle::NamespaceLifecycle;
use coracle_apiserver::admission::node_restriction::NodeRestriction;
use coracle_apiserver::admission::pod_defaults::{DefaultTolerationSeconds, Priority};
use coracle_apiserver::admission::resource_quota::ResourceQuotas;
use coracle_apiserver::auth::authenticate::Authenticator;
use coracle_apiserver::auth::authorize::BuiltInIdentities;
use coracle_apiserver::auth::token::Signer;
use coracle_apiserver::auth::{MASTERS, User};
use coracle_apiserver::{Ambient, ApiServer, Caller, Parts};
use coracle_store::{Options, SqliteStore, Store};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use jiff::Timestamp;
use serde_json::{Value, json};

/// When the clock begins: 2026-01-01T00:00:00Z.
const BEGIN: i64 = 1_767_225_600;

/// A server with the namespace `default`.
pub(crate) struct Server {
    api: Arc<ApiServer>,
    pub(crate) store: Arc<SqliteStore>,
    seconds: Arc<AtomicI64>,
    user: Arc<User>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) body: Value,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(Vec::new()).await
    }

    /// A server with more rules of admission, the last of all.
    pub(crate) async fn start_with(more: Vec<Box<dyn coracle_apiserver::admission::Plugin>>) -> Self {
        let store = Arc::new(SqliteStore::in_memory(Options::default()).expect("a store in memory"));
        let signer = Signer::new(&Signer::generate_key().expect("a key"), "https://test").expect("a signer");
        let mut admission: Vec<Box<dyn coracle_apiserver::admission::Plugin>> = vec![
            Box::new(NamespaceLifecycle),
            Box::new(LimitRanger),
            Box::new(NodeRestriction),
            Box::new(CertificateRequests),
            Box::new(DefaultTolerationSeconds),
            Box::new(Priority),
            Box::new(ResourceQuotas),
        ];
        admission.extend(more);
        let parts = Parts {
            store: Arc::clone(&store) as Arc<dyn Store>,
            authenticator: Authenticator::new(signer, Vec::new()),
            authorizer: Arc::new(BuiltInIdentities::new(Arc::clone(&store) as Arc<dyn Store>)),
            admission: Chain::new(admission),
        };
        let seconds = Arc::new(AtomicI64::new(BEGIN));
        let clock = Arc::clone(&seconds);
        let now = move || Timestamp::from_second(clock.load(Ordering::Relaxed)).expect("a time");
        let api = ApiServer::with_ambient(parts, Ambient::seeded(Arc::new(now), 1));
        let user = Arc::new(User::authenticated("admin", &[MASTERS]));
        let server = Self { api, store, seconds, user };
        server.ok("POST /api/v1/namespaces", json!({"metadata": {"name": "default"}})).await;
        server
    }

    /// The same server to somebody else.
    pub(crate) fn as_user(&self, user: User) -> Self {
        let (api, store) = (Arc::clone(&self.api), Arc::clone(&self.store));
        Self { api, store, seconds: Arc::clone(&self.seconds), user: Arc::new(user) }
    }

    /// Gives it a way to the nodes.
    pub(crate) fn set_nodes(&self, nodes: Arc<dyn coracle_apiserver::NodeProxy>) {
        self.api.set_nodes(nodes);
    }

    /// Lets time pass.
    pub(crate) fn wait(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Sends a request: its line, headers and body.
    pub(crate) async fn send(&self, line: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.send_from(Caller::Known(Arc::clone(&self.user)), line, headers, body).await
    }

    /// The same over a connection that the user's certificate proved.
    pub(crate) async fn send_proved(&self, line: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.send_from(Caller::Connection(Some(Arc::clone(&self.user))), line, headers, body).await
    }

    pub(crate) async fn send_from(&self, caller: Caller, line: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let (method, uri) = line.split_once(' ').expect("a method and a path");
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("a request");
        let response = self.api.handle(request, caller).await;
        let (code, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        let body = serde_json::from_str(&text).unwrap_or_default();
        Answer { code, headers, text, body }
    }

    /// Sends JSON; `Value::Null` is no body. A PATCH is a strategic merge.
    pub(crate) async fn ask(&self, line: &str, body: Value) -> Answer {
        let media = match line.split(' ').next() {
            Some("PATCH") => "application/strategic-merge-patch+json",
            _ => "application/json",
        };
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.send(line, &[("content-type", media)], &text).await
    }

    /// Sends JSON that must be accepted, and gives the answer's.
    pub(crate) async fn ok(&self, line: &str, body: Value) -> Value {
        let answer = self.ask(line, body).await;
        assert!((200..300).contains(&answer.code), "{line}: {answer:?}");
        answer.body
    }

    pub(crate) async fn get(&self, uri: &str) -> Value {
        self.ok(&format!("GET {uri}"), Value::Null).await
    }

    /// Sends JSON that must be refused with this code, reason and message.
    pub(crate) async fn refused(&self, line: &str, body: Value, code: u16, reason: &str, message: &str) -> Value {
        let answer = self.ask(line, body).await;
        let said = answer.body["message"].as_str().unwrap_or_default();
        assert_eq!(
            (answer.code, answer.body["reason"].as_str().unwrap_or_default(), said),
            (code, reason, message),
            "{line}"
        );
        assert_eq!(answer.body["code"], code, "{line}");
        assert_eq!(answer.body["kind"], "Status", "{line}");
        assert_eq!(answer.body["status"], "Failure", "{line}");
        answer.body
    }
}

/// A ConfigMap.
pub(crate) fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

/// A pod with one container.
pub(crate) fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    })
}
