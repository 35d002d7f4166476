//! The door for callers inside the process: the same requests and answers as over a socket, with an identity that needs no proof.

use std::convert::Infallible;
use std::fmt::Display;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};

use crate::api::{ApiServer, Caller};
use crate::auth::User;
use crate::body::Body;

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

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (api, caller) = (Arc::clone(&self.api), Caller::Known(Arc::clone(&self.user)));
        Box::pin(async move { Ok(api.handle(request, caller).await) })
    }
}
