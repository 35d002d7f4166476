//! The way from the API server to an agent: the port through which logs and the node's own API are asked for.
//! How a node is reached (in the process, over its connection) is the composition root's business.

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};

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

/// Reaches agents.
pub trait NodeProxy: Send + Sync + 'static {
    /// Sends a request of the kubelet's API (`/containerLogs/…`) to a node's agent.
    fn request(&self, node: &str, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<Body>, NodeError>>;
}
