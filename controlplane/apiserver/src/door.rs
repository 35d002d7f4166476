//! The door for callers inside the process: the same requests and answers as over a socket, with an identity that needs no proof.

use std::convert::Infallible;
use std::fmt::Display;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::USER_AGENT;
use http::{HeaderValue, Request, Response};

use crate::api::{ApiServer, Caller};
use crate::auth::User;
use crate::body::Body;

/// The user agent of a caller that names none.
const AGENT: &str = "coracle";
/// The same of a node's, as Kubernetes calls it.
const NODE_AGENT: &str = "kubelet";

/// A `tower` service that is the API server to one caller.
#[derive(Clone)]
pub struct Door {
    api: Arc<ApiServer>,
    user: Arc<User>,
}

impl Door {
    /// The door for `user`.
    #[must_use]
    pub fn new(api: Arc<ApiServer>, user: User) -> Self {
        Self { api, user: Arc::new(user) }
    }
}

impl<B> tower::Service<Request<B>> for Door
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Display,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // What it calls itself goes into the managed fields of what it writes.
        let name = if self.user.node_name().is_some() { NODE_AGENT } else { AGENT };
        request.headers_mut().entry(USER_AGENT).or_insert(HeaderValue::from_static(name));
        let (api, caller) = (Arc::clone(&self.api), Caller::Known(Arc::clone(&self.user)));
        Box::pin(async move { Ok(api.handle(request, caller).await) })
    }
}
