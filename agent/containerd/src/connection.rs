//! The connection to the runtime: one channel over its unix socket, which dials again by itself when the runtime was away.
//! Each call has a deadline, so that a runtime that hangs never holds a pod for ever.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;

use crate::cri::{
    events::events_client::EventsClient,
    v1::{
        VersionRequest, VersionResponse, image_service_client::ImageServiceClient,
        runtime_service_client::RuntimeServiceClient,
    },
};

/// How long a call may take (`--runtime-request-timeout` of the kubelet).
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a dial may take: the socket is on this machine.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Lists of many containers are larger than the 4 MiB that gRPC allows by default (the kubelet has 16 MiB).
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// The runtime cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no such socket: no runtime is installed, or it is not running.
    #[error("no container runtime answers at {path}: {source}")]
    Absent {
        /// The socket.
        path: PathBuf,
        /// What dialing it gave.
        source: io::Error,
    },
    /// What answers there does not speak CRI v1: containerd's plugin is switched off, or it is too old.
    #[error("what answers at {path} does not speak CRI v1: {message}")]
    NotCri {
        /// The socket.
        path: PathBuf,
        /// What it said.
        message: String,
    },
}

/// Clients of the runtime's services. Clones share one connection.
#[derive(Clone)]
pub(crate) struct Connection {
    channel: Channel,
}

impl Connection {
    /// A connection that is made when it is first used, and again whenever it broke.
    pub(crate) fn lazy(socket: &Path) -> Self {
        let socket = socket.to_owned();
        let dial = service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // The authority is never resolved, but HTTP/2 wants one.
        let endpoint = Endpoint::from_static("http://localhost").connect_timeout(DIAL_TIMEOUT);
        Self { channel: endpoint.connect_with_connector_lazy(dial) }
    }

    /// Asks the runtime who it is.
    pub(crate) async fn version(&self, socket: &Path) -> Result<VersionResponse, ConnectError> {
        let path = || socket.to_owned();
        UnixStream::connect(socket).await.map_err(|source| ConnectError::Absent { path: path(), source })?;
        let request = timed(VersionRequest { version: String::new() }, CALL_TIMEOUT);
        match self.runtime().version(request).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => Err(ConnectError::NotCri { path: path(), message: words(&status) }),
        }
    }

    /// Sandboxes and containers.
    pub(crate) fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Images.
    pub(crate) fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The way to services of containerd's own.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// containerd's own events.
    pub(crate) fn events(&self) -> EventsClient<Channel> {
        EventsClient::new(self.channel.clone())
    }
}

/// A request with a deadline, which the runtime is told of too.
pub(crate) fn timed<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// A request with the usual deadline.
pub(crate) fn call<T>(message: T) -> Request<T> {
    timed(message, CALL_TIMEOUT)
}

/// The runtime's own words.
pub(crate) fn words(status: &Status) -> String {
    match status.code() {
        Code::Unavailable => format!("the container runtime is unavailable: {}", status.message()),
        _ => status.message().to_owned(),
    }
}

/// The runtime is away, or was in the middle of the call: the same call may succeed later.
pub(crate) fn may_pass(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Aborted | Code::ResourceExhausted
    )
}
