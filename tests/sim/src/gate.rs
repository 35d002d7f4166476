//! The manager's way to the API. In most worlds its Events are turned away there, as a server under pressure does:
//! nothing may depend on them.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use coracle_apiserver::auth::{MASTERS, User};
use coracle_apiserver::{ApiServer, Body, Door};
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::Full;
use tower::Service;

use crate::plan::Events;

/// The doors of a manager.
#[derive(Clone)]
pub(crate) struct Gate {
    door: Door,
    /// Where Events go that nobody takes: the door of somebody who may do nothing.
    closed: Option<Door>,
}

impl Gate {
    pub(crate) fn new(api: &Arc<ApiServer>, events: Events) -> Self {
        let door = Door::new(Arc::clone(api), User::authenticated("system:coracle", &[MASTERS]));
        let nobody = || Door::new(Arc::clone(api), User::authenticated("nobody", &[]));
        Self { door, closed: (events == Events::Refused).then(nobody) }
    }
}

impl Service<Request<Full<Bytes>>> for Gate {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Full<Bytes>>>::poll_ready(&mut self.door, context)
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let is_event = request.method() == Method::POST && request.uri().path().ends_with("/events");
        match &mut self.closed {
            Some(closed) if is_event => closed.call(request),
            _ => self.door.call(request),
        }
    }
}
