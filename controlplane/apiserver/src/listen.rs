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
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
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

/// TLS as the API server speaks it: its own certificate, and client certificates if a client has one.
pub struct Tls {
    config: Arc<ServerConfig>,
    /// Knows the certificates of the cluster's CA.
    verifier: Arc<dyn ClientCertVerifier>,
}

/// Lets every client in that holds the key of its certificate, whoever signed that: a handshake that fails tells nobody why,
/// an answer of 401 does. What a certificate is worth is asked once the connection stands.
#[derive(Debug)]
struct Anybody(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Anybody {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

impl Tls {
    /// Who is at the other end, by the certificates that it showed.
    fn caller(&self, chain: Option<&[CertificateDer<'_>]>) -> Caller {
        let Some((first, rest)) = chain.and_then(<[_]>::split_first) else { return Caller::Connection(None) };
        match self.verifier.verify_client_cert(first, rest, UnixTime::now()) {
            Ok(_) => Caller::Connection(certificate_user(first).map(Arc::new)),
            Err(error) => {
                tracing::debug!(%error, "a client's certificate proves nothing here");
                Caller::Refused
            }
        }
    }
}

/// Sets TLS up for a certificate of the server's, and clients of an authority.
///
/// # Errors
/// The authority's certificate is broken.
pub fn tls(server: Arc<Presented>, ca_certificate: &str) -> Result<Tls, ListenError> {
    use rustls_pki_types::pem::PemObject as _;
    let broken = |e: &dyn std::fmt::Display| ListenError::Tls(e.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_certificate.as_bytes()) {
        roots.add(certificate.map_err(|e| broken(&e))?).map_err(|e| broken(&e))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|e| broken(&e))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| broken(&e))?
        .with_client_cert_verifier(Arc::new(Anybody(Arc::clone(&verifier))))
        .with_cert_resolver(server);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Tls { config: Arc::new(config), verifier })
}

/// Serves connections until told to stop, then lets answers under way end.
pub async fn serve(api: Arc<ApiServer>, listener: TcpListener, tls: Tls, stop: CancellationToken) {
    let tls = Arc::new(tls);
    let tracker = TaskTracker::new();
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Some(permit) = select(&stop, Arc::clone(&room).acquire_owned()).await else { break };
        let Ok(permit) = permit else { break };
        let Some(accepted) = select(&stop, listener.accept()).await else { break };
        match accepted {
            Ok((stream, _)) => {
                let (api, tls, stop) = (Arc::clone(&api), Arc::clone(&tls), stop.clone());
                tracker.spawn(async move {
                    connection(api, tls, stream, stop).await;
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
    // Streams have left the connections they began on.
    api.sessions.stop(DRAIN_DEADLINE).await;
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

async fn connection(api: Arc<ApiServer>, tls: Arc<Tls>, stream: TcpStream, stop: CancellationToken) {
    // Answers are written whole: waiting to join small ones only delays watchers.
    let _ = stream.set_nodelay(true);
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let caller = tls.caller(stream.get_ref().1.peer_certificates());
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
    let connection = graceful.watch(builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned());
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

#[cfg(test)]
mod tests {
    use rustls::ClientConfig;
    use rustls_pki_types::ServerName;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::pki::Authority;

    /// What a server of `ours` makes of a client with this identity.
    async fn seen(ours: &Authority, identity: Option<&Identity>) -> Caller {
        use rustls_pki_types::pem::PemObject as _;
        let ca = &ours.identity().certificate;
        let server = ours.server(&["server".to_owned()], &[], jiff::Timestamp::now()).unwrap();
        let tls = tls(Presented::new(&server).unwrap(), ca).unwrap();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(roots);
        let client = match identity.map(|identity| identity.der().unwrap()) {
            Some((chain, key)) => client.with_client_auth_cert(chain, key).unwrap(),
            None => client.with_no_client_auth(),
        };
        let connector = TlsConnector::from(Arc::new(client));
        let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
        let name = ServerName::try_from("server").unwrap();
        let (accepted, connected) = tokio::join!(acceptor.accept(near), connector.connect(name, far));
        connected.unwrap();
        tls.caller(accepted.unwrap().get_ref().1.peer_certificates())
    }

    #[tokio::test]
    async fn a_certificate_of_somebody_else_is_let_in_and_proves_nothing() {
        let now = jiff::Timestamp::now();
        let (ours, theirs) = (Authority::generate(now).unwrap(), Authority::generate(now).unwrap());
        let me = |authority: &Authority| authority.client("me", "mine", now).unwrap();
        assert!(matches!(seen(&ours, None).await, Caller::Connection(None)));
        let own = seen(&ours, Some(&me(&ours))).await;
        assert!(matches!(own, Caller::Connection(Some(user)) if user.name == "me"));
        assert!(matches!(seen(&ours, Some(&me(&theirs))).await, Caller::Refused));
    }
}
