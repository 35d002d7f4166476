//! Outgoing `wasi:http`: each request goes over a connection of its own, from the pod's address, with names resolved by the
//! pod's resolver. It follows no redirects and keeps no connections.

use std::{
    future::{Future, poll_fn},
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, Request, Response, Uri, uri::Scheme};
use http_body_util::BodyExt;
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1::{Builder, Connection, SendRequest},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_rustls::TlsConnector;
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, RequestOptions, WasiBody, WasiHttpHooks, io::TokioIo,
    p2::bindings::http::types as p2, p3::bindings::http::types as p3,
};

use crate::{
    GuestConfig, LookupError, PodNetwork, descriptors,
    name_lookup::lookup,
    network::{Refused, Transport},
};

/// Each of the three time-outs of a request whose guest sets none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// Pieces of a body that wait for the connection at most; one more is being taken.
const BODY_BUFFER_CHUNKS: usize = 15;

/// Most bytes of one piece: with the pieces above, what a body may hold in the host's own memory is 1 MiB.
const BODY_CHUNK_BYTES: usize = 64 * 1024;

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// What outgoing requests of all pods share: the certificate authorities.
#[derive(Debug)]
pub struct HttpClient {
    tls: Arc<ClientConfig>,
}

impl HttpClient {
    /// Trusts the public certificate authorities and those given, such as the cluster's own.
    pub fn new(extra_roots: Vec<CertificateDer<'static>>) -> Result<Arc<Self>, rustls::Error> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() };
        for root in extra_roots {
            roots.add(root)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(Self { tls: Arc::new(tls) }))
    }
}

/// The hooks of one guest.
pub(crate) struct OutgoingHttp {
    config: Arc<GuestConfig>,
}

impl OutgoingHttp {
    pub(crate) fn new(config: Arc<GuestConfig>) -> Self {
        Self { config }
    }
}

type IoFuture = Box<dyn Future<Output = Result<(), Error>> + Send>;
type SendResult = Result<(Response<WasiBody>, IoFuture), Error>;

impl WasiHttpHooks for OutgoingHttp {
    /// The same headers as wasmtime's own rule, which makes a closure for each header it looks at.
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        DEFAULT_FORBIDDEN_HEADERS.contains(name)
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: IoFuture,
    ) -> Box<dyn Future<Output = SendResult> + Send> {
        let config = self.config.clone();
        Box::new(async move { send(&config.http, &config.network, request, options.unwrap_or_default()).await })
    }

    /// A small answer is taken whole, so that the guest that writes it ends without waiting for the connection.
    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        BODY_BUFFER_CHUNKS
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES
    }

    fn p2_error_from_hyper(&mut self, error: &hyper::Error) -> p2::ErrorCode {
        tracing::debug!("outgoing request: {error}");
        p2::ErrorCode::HttpProtocolError
    }

    fn p2_error_from_connect(&mut self, error: &io::Error) -> p2::ErrorCode {
        match error.kind() {
            io::ErrorKind::TimedOut => p2::ErrorCode::ConnectionTimeout,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                p2::ErrorCode::DestinationIpUnroutable
            }
            io::ErrorKind::PermissionDenied => p2::ErrorCode::DestinationIpProhibited,
            _ => p2::ErrorCode::ConnectionRefused,
        }
    }

    fn p2_error_from_tls(&mut self, error: &io::Error) -> p2::ErrorCode {
        tracing::debug!("outgoing request: {error}");
        if is_certificate_error(error) { p2::ErrorCode::TlsCertificateError } else { p2::ErrorCode::TlsProtocolError }
    }

    fn p3_error_from_hyper(&mut self, error: &hyper::Error) -> p3::ErrorCode {
        tracing::debug!("outgoing request: {error}");
        p3::ErrorCode::HttpProtocolError
    }

    fn p3_error_from_connect(&mut self, error: &io::Error) -> p3::ErrorCode {
        match error.kind() {
            io::ErrorKind::TimedOut => p3::ErrorCode::ConnectionTimeout,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                p3::ErrorCode::DestinationIpUnroutable
            }
            io::ErrorKind::PermissionDenied => p3::ErrorCode::DestinationIpProhibited,
            _ => p3::ErrorCode::ConnectionRefused,
        }
    }

    fn p3_error_from_tls(&mut self, error: &io::Error) -> p3::ErrorCode {
        tracing::debug!("outgoing request: {error}");
        if is_certificate_error(error) { p3::ErrorCode::TlsCertificateError } else { p3::ErrorCode::TlsProtocolError }
    }
}

fn is_certificate_error(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

async fn send(
    client: &HttpClient,
    network: &PodNetwork,
    mut request: Request<WasiBody>,
    options: RequestOptions,
) -> SendResult {
    let connect_timeout = options.connect_timeout.unwrap_or(DEFAULT_TIMEOUT);
    let stream = timeout(connect_timeout, connect(client, network, request.uri()));
    let stream = stream.await.map_err(|_| Error::ConnectionTimeout)??;
    let (sender, connection) = Builder::new().handshake(TokioIo::new(stream)).await?;
    // An origin server wants the path alone; the host is in its header.
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    let mut connection = Some(connection);
    let response = first_byte(sender, &mut connection, request, options).await?;
    let io = async move {
        match connection {
            Some(connection) => connection.await.map_err(Error::from),
            None => Ok(()),
        }
    };
    Ok((response, Box::new(io)))
}

/// Sends the request and waits for the response's head. The connection makes progress only while it is polled.
async fn first_byte(
    mut sender: SendRequest<WasiBody>,
    connection: &mut Option<Connection<TokioIo<Stream>, WasiBody>>,
    request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<Response<WasiBody>, Error> {
    let between_bytes = options.between_bytes_timeout.unwrap_or(DEFAULT_TIMEOUT);
    let respond = timeout(options.first_byte_timeout.unwrap_or(DEFAULT_TIMEOUT), sender.send_request(request));
    let mut respond = pin!(respond);
    let response = poll_fn(|cx| {
        if let Poll::Ready(response) = respond.as_mut().poll(cx) {
            return Poll::Ready(response.map_err(|_| Error::ConnectionReadTimeout)?.map_err(Error::from));
        }
        if let Some(running) = connection {
            let ended = ready!(Pin::new(running).poll(cx));
            *connection = None;
            ended?;
        }
        respond
            .as_mut()
            .poll(cx)
            .map(|response| response.map_err(|_| Error::ConnectionReadTimeout)?.map_err(Error::from))
    });
    let response = response.await?;
    Ok(response.map(|body| TimedBody { body, between_bytes, deadline: Box::pin(sleep(between_bytes)) }.boxed_unsync()))
}

/// A connection to the request's host, over TLS for `https`.
async fn connect(client: &HttpClient, network: &PodNetwork, uri: &Uri) -> Result<Stream, Error> {
    let host = uri.host().ok_or(Error::HttpRequestUriInvalid)?;
    let tls = uri.scheme() == Some(&Scheme::HTTPS);
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let addresses = lookup(&**network.resolver(), host).await.map_err(dns_error)?;
    let stream = connect_any(network, &addresses, port).await?;
    if !tls {
        return Ok(Box::new(stream));
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let name = ServerName::try_from(bare.to_owned()).map_err(|_| Error::HttpRequestUriInvalid)?;
    let stream = TlsConnector::from(client.tls.clone()).connect(name, stream).await.map_err(Error::Tls)?;
    Ok(Box::new(stream))
}

/// Tries the addresses in order.
async fn connect_any(network: &PodNetwork, addresses: &[IpAddr], port: u16) -> Result<TcpStream, Error> {
    let mut last = Error::DestinationNotFound;
    for ip in addresses.iter().take(MAX_ADDRESSES) {
        match connect_one(network, SocketAddr::new(*ip, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_one(network: &PodNetwork, remote: SocketAddr) -> Result<TcpStream, Error> {
    let route = network.route(remote, Transport::Tcp).map_err(|refused| match refused {
        Refused::NotBindable | Refused::Unreachable => Error::DestinationIpUnroutable,
    })?;
    if !network.may_reach(route.to) {
        return Err(Error::DestinationIpProhibited);
    }
    if descriptors::are_scarce() {
        return Err(Error::Connect(descriptors::scarcity()));
    }
    let socket = if route.to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(Error::Connect)?;
    if let Some(from) = route.from {
        socket.bind(SocketAddr::new(from, 0)).map_err(Error::Connect)?;
    }
    let stream = socket.connect(route.to).await.map_err(Error::Connect)?;
    // Requests are written whole: waiting for more only delays them.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

fn dns_error(error: LookupError) -> Error {
    let rcode = match error {
        LookupError::Invalid => return Error::HttpRequestUriInvalid,
        LookupError::NotFound => "NXDOMAIN",
        LookupError::Temporary => "SERVFAIL",
        LookupError::Permanent => "REFUSED",
    };
    Error::DnsError { rcode: Some(rcode.to_owned()), info_code: None }
}

/// A connection, encrypted or not.
type Stream = Box<dyn Duplex>;

trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Duplex for T {}

/// A response's body that fails when nothing comes for too long.
struct TimedBody {
    body: Incoming,
    between_bytes: Duration,
    deadline: Pin<Box<Sleep>>,
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.deadline.as_mut().reset(Instant::now() + this.between_bytes);
                Poll::Ready(frame.map(|frame| frame.map_err(Error::from)))
            }
            Poll::Pending => {
                ready!(this.deadline.as_mut().poll(cx));
                Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
