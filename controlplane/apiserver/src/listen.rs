//! The TLS listener: accepts connections, proves client certificates, and serves HTTP/1.1 and HTTP/2 on them.
//! Slow and vanished clients are bounded here: handshakes and headers have deadlines, dead peers are found by keep-alives.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{ApiServer, Caller};
use crate::auth::authenticate::certificate_user;
use crate::body::Body;
use crate::pki::{Identity, PkiError};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// The most connections at once: each costs tens of kilobytes.
const MAX_CONNECTIONS: usize = 10_000;
/// Streams of one HTTP/2 connection, as Go's server has it.
const MAX_STREAMS: u32 = 250;
const KEEP_ALIVE_PERIOD: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest headers: bearer tokens and selectors, never data.
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// How long answers under way may take after the server was told to stop.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// The listener cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The certificates are broken.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// TLS refuses them.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

/// The certificate the server presents; it can be exchanged while connections come.
#[derive(Debug)]
pub struct Presented(ArcSwap<CertifiedKey>);

impl Presented {
    /// One to begin with.
    ///
    /// # Errors
    /// The certificate or its key is broken, or they do not belong together.
    pub fn new(identity: &Identity) -> Result<Arc<Self>, ListenError> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(certified(identity)?))))
    }

    /// Presents another to those who connect from now on.
    ///
    /// # Errors
    /// As [`Presented::new`]; the old one stays.
    pub fn set(&self, identity: &Identity) -> Result<(), ListenError> {
        self.0.store(Arc::new(certified(identity)?));
        Ok(())
    }
}

impl ResolvesServerCert for Presented {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn certified(identity: &Identity) -> Result<CertifiedKey, ListenError> {
    let (chain, key) = identity.der()?;
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())
        .map_err(|e| ListenError::Tls(e.to_string()))
}

/// TLS as the API server speaks it: its own certificate, and client certificates of the cluster's CA if a client has one.
///
/// # Errors
/// The authority's certificate is broken.
pub fn tls_config(server: Arc<Presented>, ca_certificate: &str) -> Result<ServerConfig, ListenError> {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;
    let tls = |e: &dyn std::fmt::Display| ListenError::Tls(e.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_certificate.as_bytes()) {
        roots.add(certificate.map_err(|e| tls(&e))?).map_err(|e| tls(&e))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|e| tls(&e))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| tls(&e))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(server);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Serves connections until told to stop, then lets answers under way end.
pub async fn serve(api: Arc<ApiServer>, listener: TcpListener, tls: ServerConfig, stop: CancellationToken) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let tracker = TaskTracker::new();
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Some(permit) = select(&stop, Arc::clone(&room).acquire_owned()).await else { break };
        let Ok(permit) = permit else { break };
        let Some(accepted) = select(&stop, listener.accept()).await else { break };
        match accepted {
            Ok((stream, _)) => {
                let (api, acceptor, stop) = (Arc::clone(&api), acceptor.clone(), stop.clone());
                tracker.spawn(async move {
                    connection(api, acceptor, stream, stop).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of descriptors, or a client that left before it was accepted.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    tracker.close();
    if tokio::time::timeout(DRAIN_DEADLINE, tracker.wait()).await.is_err() {
        tracing::info!("connections that did not end in time are cut");
    }
}

async fn select<T>(stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        () = stop.cancelled() => None,
        done = work => Some(done),
    }
}

async fn connection(api: Arc<ApiServer>, acceptor: TlsAcceptor, stream: TcpStream, stop: CancellationToken) {
    // Answers are written whole: waiting to join small ones only delays watchers.
    let _ = stream.set_nodelay(true);
    let tls = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let user = tls.get_ref().1.peer_certificates().and_then(|chain| certificate_user(chain.first()?)).map(Arc::new);
    let caller = Caller::Connection(user);
    let service = service_fn(move |request: Request<Incoming>| {
        let (api, caller) = (Arc::clone(&api), caller.clone());
        async move { Ok::<Response<Body>, std::convert::Infallible>(api.handle(request, caller).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(KEEP_ALIVE_PERIOD)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .max_header_list_size(u32::try_from(MAX_HEADER_BYTES).unwrap_or(u32::MAX));
    let graceful = GracefulShutdown::new();
    let connection = graceful.watch(builder.serve_connection_with_upgrades(TokioIo::new(tls), service).into_owned());
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            // Tells HTTP/2 clients to go and closes idle HTTP/1.1 connections; watches are cut by the deadline.
            let finish = async { tokio::join!(graceful.shutdown(), connection).1 };
            match tokio::time::timeout(DRAIN_DEADLINE, finish).await {
                Ok(result) => result,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}
