//! Requests to the API as anyone sends them, without a socket.

use std::sync::Arc;

use bytes::Bytes;
use coracle_apiserver::auth::User;
use coracle_apiserver::{ApiServer, Body, Caller};
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use jiff::Timestamp;
use k8s_openapi::serde::de::DeserializeOwned;
use serde_json::Value;

use crate::clock::Clock;

pub(crate) const JSON: &str = "application/json";
pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The HTTP code; 0 if there was no answer.
    pub(crate) code: u16,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn none_came() -> Self {
        Self { code: 0, message: "no answer".into() }
    }
}

/// A client with an identity.
#[derive(Clone)]
pub(crate) struct Client {
    api: Arc<ApiServer>,
    user: Arc<User>,
    clock: Clock,
}

impl Client {
    pub(crate) fn new(api: Arc<ApiServer>, user: User, clock: Clock) -> Self {
        Self { api, user: Arc::new(user), clock }
    }

    /// The wall clock of whoever holds the client.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    /// Sends a request; its answer as it comes.
    pub(crate) async fn send(&self, method: Method, path: &str, media: &str, body: &Value) -> Response<Body> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let built = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, media);
        let request = built.body(Full::new(body)).expect("every name here fits a URL");
        self.api.handle(request, Caller::Known(Arc::clone(&self.user))).await
    }

    /// Sends a request and reads its whole answer.
    async fn call(&self, method: Method, path: &str, media: &str, body: &Value) -> Result<Bytes, Refusal> {
        let response = self.send(method, path, media, body).await;
        let code = response.status();
        let bytes = match response.into_body().collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) => return Err(Refusal { code: 0, message: error.to_string() }),
        };
        if code.is_success() {
            return Ok(bytes);
        }
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let message = value["message"].as_str().unwrap_or_default().to_owned();
        Err(Refusal { code: code.as_u16(), message })
    }

    /// An object, read as what the caller wants to see of it.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Refusal> {
        let bytes = self.call(Method::GET, path, JSON, &Value::Null).await?;
        serde_json::from_slice(&bytes).map_err(|error| Refusal { code: 0, message: error.to_string() })
    }

    pub(crate) async fn post(&self, path: &str, object: &Value) -> Result<Value, Refusal> {
        let bytes = self.call(Method::POST, path, JSON, object).await?;
        Ok(serde_json::from_slice(&bytes).unwrap_or_default())
    }

    pub(crate) async fn merge(&self, path: &str, patch: &Value) -> Result<(), Refusal> {
        self.call(Method::PATCH, path, MERGE, patch).await.map(drop)
    }

    pub(crate) async fn strategic(&self, path: &str, patch: &Value) -> Result<(), Refusal> {
        self.call(Method::PATCH, path, STRATEGIC, patch).await.map(drop)
    }

    pub(crate) async fn delete(&self, path: &str, options: &Value) -> Result<(), Refusal> {
        self.call(Method::DELETE, path, JSON, options).await.map(drop)
    }
}
