//! The HTTP server in front of a `wasi:http` component: HTTP/1.1 and HTTP/2 without TLS on the pod's addresses. An instance
//! a request unless told otherwise. It bounds connections, heads, bodies and running instances, and drains before it ends.

mod slow;

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use coracle_engine::GuestRuntime;
use futures::future::{Either, select};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wasmtime_wasi_http::{Error, WasiBody};

use crate::{
    GuestConfig, PodNetwork, SetupError,
    request::{Instance, SharedProgram, handle, plain},
    stdio::StdStream,
};

/// Connections the kernel holds before they are accepted.
const BACKLOG: i32 = 1024;

/// How often HTTP/2 clients are asked whether they are there, and how long they may take to say so.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// A connection on which no request comes is ended after this. Other servers keep them for about a minute, and clients open
/// another one when they need it.
const IDLE: Duration = Duration::from_secs(120);

/// Pause after the system had no descriptor left for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Whether instances are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstancePolicy {
    /// A new instance for every request: no request sees what another one left.
    PerRequest,
    /// An instance serves one request after the other.
    Reuse {
        /// Requests after which an instance is dropped.
        max_requests: u32,
        /// Most idle instances kept.
        max_idle: usize,
    },
}

/// Bounds of a server.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// Most connections at once; more wait in the kernel.
    pub max_connections: usize,
    /// Most instances at work at once; more requests wait.
    pub max_instances: usize,
    /// How long a request waits for an instance before it is refused with 503.
    pub max_wait: Duration,
    /// Most bytes of a request's head.
    pub max_head_bytes: usize,
    /// Most bytes of a request's body; `None` is no limit, for bodies are not gathered.
    pub max_body_bytes: Option<u64>,
    /// How long a client may take to send a request's head.
    pub head_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_instances: 1024,
            max_wait: Duration::from_secs(10),
            max_head_bytes: 64 * 1024,
            max_body_bytes: None,
            head_timeout: Duration::from_secs(30),
        }
    }
}

/// Counters of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// Requests begun.
    pub requests: u64,
    /// Requests that the guest failed.
    pub failures: u64,
}

/// Instances of one server and what they are made of.
pub(crate) struct Pool {
    pub(crate) program: SharedProgram,
    pub(crate) config: Arc<GuestConfig>,
    policy: InstancePolicy,
    limits: ServerLimits,
    idle: Mutex<Vec<Instance>>,
    at_work: Arc<Semaphore>,
    requests: AtomicU64,
    failures: AtomicU64,
}

impl Pool {
    /// An idle instance, if there is one.
    pub(crate) fn take(&self) -> Option<Instance> {
        match self.policy {
            InstancePolicy::PerRequest => None,
            InstancePolicy::Reuse { .. } => self.idle.lock().pop(),
        }
    }

    /// Keeps an instance for another request, or drops it.
    pub(crate) fn put_back(&self, instance: Instance) {
        if let InstancePolicy::Reuse { max_requests, max_idle } = self.policy
            && instance.served < max_requests
        {
            let mut idle = self.idle.lock();
            if idle.len() < max_idle {
                idle.push(instance);
            }
        }
    }

    pub(crate) fn count_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes a line of the host's own into the container's log.
    pub(crate) fn log(&self, stream: StdStream, line: &str) {
        self.config.log.write(stream, line.as_bytes());
    }

    fn uploaded(&self, body: Incoming) -> slow::Uploaded {
        slow::Uploaded::new(body, self.at_work.clone())
    }

    async fn respond(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<WasiBody>, Infallible> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let permit = match self.at_work.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => match tokio::time::timeout(self.limits.max_wait, self.at_work.clone().acquire_owned()).await {
                Ok(Ok(permit)) => permit,
                _ => return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once\n")),
            },
        };
        if !has_authority(&request) {
            return Ok(plain(StatusCode::BAD_REQUEST, "the request names no host\n"));
        }
        let request = match self.limits.max_body_bytes {
            None => request.map(|body| self.uploaded(body).boxed_unsync()),
            Some(most) => {
                if content_length(&request).is_some_and(|length| length > most) {
                    return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE, "the request's body is too long\n"));
                }
                let most_bytes = usize::try_from(most).unwrap_or(usize::MAX);
                request.map(|body| {
                    let limited = Limited::new(self.uploaded(body), most_bytes);
                    limited.map_err(move |_| Error::HttpRequestBodySize(Some(most))).boxed_unsync()
                })
            }
        };
        Ok(handle(&self, permit, request).await)
    }
}

/// Guests are told the authority, so a request must have one: RFC 9112, section 3.2, wants the same of HTTP/1.1.
fn has_authority<B>(request: &Request<B>) -> bool {
    let host = request.headers().get(http::header::HOST);
    request.uri().authority().is_some() || host.is_some_and(|host| host.to_str().is_ok())
}

fn content_length<B>(request: &Request<B>) -> Option<u64> {
    request.headers().get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A running server.
pub struct HttpServer {
    pool: Arc<Pool>,
    addresses: Vec<SocketAddr>,
    /// Stops accepting and lets what is under way finish.
    drain: CancellationToken,
    /// Ends everything.
    kill: CancellationToken,
    tasks: TaskTracker,
}

impl HttpServer {
    /// Listens on `port` of the pod's addresses and serves on `runtime`.
    pub fn start(
        runtime: &GuestRuntime,
        program: SharedProgram,
        config: Arc<GuestConfig>,
        port: u16,
        policy: InstancePolicy,
        limits: ServerLimits,
    ) -> Result<Self, SetupError> {
        let listeners = listen(runtime, &config.network, port)?;
        let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let pool = Arc::new(Pool {
            program,
            config,
            policy,
            limits,
            idle: Mutex::new(Vec::new()),
            at_work: Arc::new(Semaphore::new(limits.max_instances)),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        });
        let server = Self {
            pool,
            addresses,
            drain: CancellationToken::new(),
            kill: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        for listener in listeners {
            let accept = Acceptor {
                pool: server.pool.clone(),
                drain: server.drain.clone(),
                kill: server.kill.clone(),
                tasks: server.tasks.clone(),
                connections: Arc::new(Semaphore::new(limits.max_connections)),
                builder: Arc::new(builder(limits)),
            };
            server.tasks.spawn_on(accept.run(listener), runtime.handle());
        }
        server.tasks.close();
        Ok(server)
    }

    /// The addresses it listens on.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What it has done so far.
    pub fn stats(&self) -> ServerStats {
        ServerStats {
            requests: self.pool.requests.load(Ordering::Relaxed),
            failures: self.pool.failures.load(Ordering::Relaxed),
        }
    }

    /// Stops accepting; requests under way go on.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Ends all connections and their instances now.
    pub fn kill(&self) {
        self.drain.cancel();
        self.kill.cancel();
    }

    /// Ready when nothing of it runs any more, which is after [`HttpServer::drain`] or [`HttpServer::kill`].
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let tasks = self.tasks.clone();
        async move { tasks.wait().await }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One listening socket per address family of the pod.
fn listen(runtime: &GuestRuntime, network: &PodNetwork, port: u16) -> Result<Vec<TcpListener>, SetupError> {
    let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    // A pod may lack one family.
    let addresses = any.into_iter().filter_map(|ip| network.bind(SocketAddr::new(ip, port)).ok());
    let _context = runtime.handle().enter();
    let listen = |address: SocketAddr| -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    addresses
        .map(|address| listen(address).map_err(|source| SetupError::Listen { address: address.to_string(), source }))
        .collect()
}

fn builder(limits: ServerLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        // hyper wants room for at least 8 KiB.
        .max_buf_size(limits.max_head_bytes.max(8 * 1024));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .keep_alive_timeout(KEEP_ALIVE)
        .max_concurrent_streams(128)
        .max_header_list_size(u32::try_from(limits.max_head_bytes).unwrap_or(u32::MAX));
    builder
}

/// Accepts connections of one socket.
struct Acceptor {
    pool: Arc<Pool>,
    drain: CancellationToken,
    kill: CancellationToken,
    tasks: TaskTracker,
    connections: Arc<Semaphore>,
    builder: Arc<Builder<TokioExecutor>>,
}

impl Acceptor {
    async fn run(self, listener: TcpListener) {
        loop {
            let Some(accepted) = self.drain.run_until_cancelled(self.accept(&listener)).await else { return };
            let Some((stream, permit)) = accepted else { continue };
            let connection =
                connection(self.builder.clone(), self.pool.clone(), stream, self.drain.clone(), self.kill.clone());
            self.tasks.spawn(async move {
                connection.await;
                drop(permit);
            });
        }
    }

    async fn accept(&self, listener: &TcpListener) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
        let permit = self.connections.clone().acquire_owned().await.ok()?;
        match listener.accept().await {
            Ok((stream, _)) => Some((stream, permit)),
            Err(error) => {
                tracing::debug!("a connection could not be accepted: {error}");
                // Out of descriptors, most likely: they come back as connections end.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }
}

/// One connection, to its end, to the end of the request under way once `drain` is given, or to `kill`.
async fn connection(
    builder: Arc<Builder<TokioExecutor>>,
    pool: Arc<Pool>,
    stream: TcpStream,
    drain: CancellationToken,
    kill: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let (asked, places) = (slow::Asked::new(), pool.at_work.clone());
    let asking = asked.clone();
    let service = service_fn(move |request| {
        asking.now();
        pool.clone().respond(request)
    });
    let stream = slow::Taken::new(stream, places);
    let serve = async {
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let last = async {
            tokio::select! {
                () = drain.cancelled() => {}
                () = asked.nothing_for(IDLE) => {}
            }
        };
        let result = match select(connection.as_mut(), pin!(last)).await {
            Either::Left((result, _)) => result,
            Either::Right(((), _)) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!("a connection ended: {error}");
        }
    };
    kill.run_until_cancelled(serve).await;
}
