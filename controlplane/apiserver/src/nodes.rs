//! The way from the API server to an agent: the port through which logs and the node's own API are asked for.
//! How a node is reached (in the process, over its connection) is the composition root's business.

use bytes::Bytes;
use coracle_streaming::BoxedStream;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response};

use crate::body::Body;

/// Why a node did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// No node of that name is connected.
    #[error("no such node")]
    Unknown,
    /// It is known, and cannot be reached now.
    #[error("{0}")]
    Unreachable(String),
}

/// What became of a request for a stream.
pub enum Connected {
    /// It is a SPDY connection.
    Upgraded {
        /// What is spoken over it, if the client named anything.
        protocol: Option<HeaderValue>,
        /// The connection.
        stream: BoxedStream,
        /// What has to be kept as long as it lasts.
        held: Box<dyn Send + Sync>,
    },
    /// The agent refused it.
    Refused(Response<Body>),
}

/// Reaches agents.
pub trait NodeProxy: Send + Sync + 'static {
    /// Sends a request of the kubelet's API (`/containerLogs/…`) to a node's agent.
    fn request(&self, node: &str, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<Body>, NodeError>>;

    /// Asks a node's agent for a streaming connection of the kubelet's API (`/exec/…`, `/attach/…`, `/portForward/…`).
    fn connect(&self, node: &str, request: Request<()>) -> BoxFuture<'static, Result<Connected, NodeError>>;
}
