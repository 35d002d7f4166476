//! The way into the API: the door inside the process, without a client's layers and tasks. It knows HTTP and what a refusal
//! looks like, and nothing of what is written.

use std::fmt::Display;

use bytes::Bytes;
use coracle_apiserver::{Body, StreamError};
use http::header::{CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

/// What this process writes has no fields that do not exist, nor any twice: nobody need look for them.
const TRUSTED: &str = "fieldValidation=Ignore";

type Door = BoxCloneSyncService<Request<Full<Bytes>>, Response<Body>, String>;

/// A request that is ready to be sent; it can be sent again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Write {
    /// The verb.
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) uri: String,
    /// The media type of the body.
    pub(crate) content_type: &'static str,
    /// The body.
    pub(crate) body: Bytes,
}

/// Why a write was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The HTTP code; 0 if there is no answer.
    pub(crate) code: u16,
    /// The server's message.
    pub(crate) message: String,
    /// The reasons of its causes.
    pub(crate) causes: Vec<String>,
}

/// Sends writes for one part of the control plane.
#[derive(Clone)]
pub(crate) struct Writer {
    door: Door,
    /// The API server notes the part before the slash as the manager of the fields.
    agent: HeaderValue,
}

impl Writer {
    /// The writer of the part that is called `name`, as Kubernetes' own processes are.
    pub(crate) fn new<S, B>(door: S, name: &'static str) -> Self
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Display,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<StreamError>,
    {
        let door = door.map_response(|response| response.map(Body::wrap)).map_err(|error| error.to_string());
        Self { door: BoxCloneSyncService::new(door), agent: HeaderValue::from_static(name) }
    }

    /// Sends one write; returns when it is durable.
    pub(crate) async fn send(&self, write: Write) -> Result<(), Refused> {
        let request = Request::builder()
            .method(write.method)
            .uri(format!("{}?{TRUSTED}", write.uri))
            .header(CONTENT_TYPE, HeaderValue::from_static(write.content_type))
            .header(USER_AGENT, self.agent.clone())
            .body(Full::new(write.body));
        let unsent = |message: String| Refused { code: 0, message, causes: Vec::new() };
        let request = request.map_err(|error| {
            tracing::error!(uri = write.uri, %error, "a name does not fit a URL");
            unsent(error.to_string())
        })?;
        let response = self.door.clone().oneshot(request).await.map_err(unsent)?;
        let code = response.status();
        if code.is_success() {
            // The text of the object is shared with the store; nobody here reads it.
            return Ok(());
        }
        let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        Err(refusal(code, &body))
    }
}

/// What the server says in a `Status`.
fn refusal(code: StatusCode, body: &[u8]) -> Refused {
    let status: Status = serde_json::from_slice(body).unwrap_or_default();
    let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
    Refused {
        code: code.as_u16(),
        message: status.message.unwrap_or_else(|| code.to_string()),
        causes: causes.into_iter().filter_map(|cause| cause.reason).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_the_status_says() {
        let body =
            br#"{"kind":"Status","code":403,"message":"no","details":{"causes":[{"reason":"NamespaceTerminating"}]}}"#;
        let expect = Refused { code: 403, message: "no".into(), causes: vec!["NamespaceTerminating".into()] };
        assert_eq!(refusal(StatusCode::FORBIDDEN, body), expect);
        let expect = Refused { code: 500, message: "500 Internal Server Error".into(), causes: Vec::new() };
        assert_eq!(refusal(StatusCode::INTERNAL_SERVER_ERROR, b"oops"), expect);
    }
}
