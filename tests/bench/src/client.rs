//! A client that costs little: HTTP/1.1 over TLS on one connection, with ready-made bodies. It looks at status codes and
//! hands bodies on as bytes; it pools nothing and retries nothing.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, Uri,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use kube::{
    Config,
    client::ConfigExt as _,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{net::TcpStream, task::AbortHandle, time::timeout};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

/// No single answer may take longer: a server that hangs is an error, not a slow one.
const CALL_LIMIT: Duration = Duration::from_secs(120);
/// How much of a refusal's body is shown.
const SHOWN_BYTES: usize = 400;

/// Where a server is, and who asks.
#[derive(Clone)]
pub(crate) struct Endpoint {
    address: String,
    host: HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    authorization: Option<HeaderValue>,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    method: Method,
    path: String,
    body: Bytes,
    content_type: &'static str,
}

impl Call {
    fn new(method: Method, path: String, body: Bytes, content_type: &'static str) -> Self {
        Self { method, path, body, content_type }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path.into(), Bytes::new(), "application/json")
    }

    pub(crate) fn post(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self::new(Method::POST, path.into(), body.into(), "application/json")
    }

    pub(crate) fn merge_patch(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self::new(Method::PATCH, path.into(), body.into(), "application/merge-patch+json")
    }

    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path.into(), Bytes::new(), "application/json")
    }

    /// What was attempted, for messages.
    fn shown(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

impl Endpoint {
    /// The API server of a kubeconfig's current context; `None` reads `$KUBECONFIG`, else `~/.kube/config`.
    pub(crate) async fn from_kubeconfig(path: Option<&Path>) -> Result<Self> {
        let options = KubeConfigOptions::default();
        let config = match path {
            Some(path) => Config::from_custom_kubeconfig(read(path)?, &options).await,
            None => Config::from_kubeconfig(&options).await,
        };
        let config = config.context("the kubeconfig names no usable cluster and user")?;
        let mut endpoint = Self::of_url(&config.cluster_url)?;
        if config.cluster_url.scheme_str() == Some("https") {
            let mut tls = config.rustls_client_config().context("the certificates of the kubeconfig")?;
            tls.alpn_protocols = vec![b"http/1.1".to_vec()];
            let host = config.cluster_url.host().unwrap_or_default().trim_matches(['[', ']']);
            let name = ServerName::try_from(host.to_owned()).context("the server's name in the kubeconfig")?;
            endpoint.tls = Some((TlsConnector::from(Arc::new(tls)), name));
        }
        // A secret shows itself to a serialiser only.
        if let Some(token) = serde_json::to_value(&config.auth_info)?["token"].as_str() {
            endpoint.authorization = Some(HeaderValue::from_str(&format!("Bearer {token}"))?);
        }
        Ok(endpoint)
    }

    /// A server without TLS.
    pub(crate) fn plain(url: &str) -> Result<Self> {
        let url: Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
        if url.scheme_str() != Some("http") {
            bail!("{url} is not an http URL");
        }
        Self::of_url(&url)
    }

    fn of_url(url: &Uri) -> Result<Self> {
        let host = url.host().with_context(|| format!("{url} names no host"))?;
        let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("https") { 443 } else { 80 });
        let address = format!("{host}:{port}");
        Ok(Self { host: HeaderValue::from_str(&address)?, address, tls: None, authorization: None })
    }

    /// A connection of its own.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        timeout(CALL_LIMIT, self.dial())
            .await
            .map_err(anyhow::Error::from)
            .flatten()
            .with_context(|| format!("cannot connect to {}", self.address))
    }

    async fn dial(&self) -> Result<Connection> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, driver) = match &self.tls {
            Some((tls, name)) => {
                let stream = tls.connect(name.clone(), stream).await?;
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                (sender, tokio::spawn(async move { connection.await.map_err(drop) }))
            }
            None => {
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                (sender, tokio::spawn(async move { connection.await.map_err(drop) }))
            }
        };
        let (host, authorization) = (self.host.clone(), self.authorization.clone());
        Ok(Connection { sender, host, authorization, driver: driver.abort_handle() })
    }
}

fn read(path: &Path) -> Result<Kubeconfig> {
    Kubeconfig::read_from(path).with_context(|| format!("cannot read the kubeconfig {}", path.display()))
}

/// A connection with one request at a time. It is closed when this is dropped.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Sends a request and reads its answer to the end; the answer's length in bytes. Anything but success is an error.
    pub(crate) async fn run(&mut self, call: Call) -> Result<usize> {
        let shown = (call.method.clone(), call.path.clone());
        let work = async {
            let mut response = self.send(call).await?;
            let mut length = 0;
            while let Some(frame) = response.body_mut().frame().await {
                length += frame?.data_ref().map_or(0, Bytes::len);
            }
            Ok(length)
        };
        within(work).await.with_context(|| format!("{} {}", shown.0, shown.1))
    }

    /// Sends a request and keeps its answer.
    pub(crate) async fn fetch(&mut self, call: Call) -> Result<Bytes> {
        let shown = call.shown();
        let work = async { Ok(self.send(call).await?.into_body().collect().await?.to_bytes()) };
        within(work).await.context(shown)
    }

    /// Sends a request; the status code and body of whatever comes back.
    pub(crate) async fn attempt(&mut self, call: Call) -> Result<(u16, Bytes)> {
        let shown = call.shown();
        let work = async {
            let response = self.sender.send_request(self.request(call)?).await?;
            let status = response.status().as_u16();
            Ok((status, response.into_body().collect().await?.to_bytes()))
        };
        within(work).await.context(shown)
    }

    /// Sends a request whose answer goes on, a watch's; returns with its head.
    pub(crate) async fn open(&mut self, call: Call) -> Result<Incoming> {
        let shown = call.shown();
        let work = async { Ok(self.send(call).await?.into_body()) };
        within(work).await.context(shown)
    }

    async fn send(&mut self, call: Call) -> Result<Response<Incoming>> {
        self.sender.ready().await?;
        let request = self.request(call)?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.into_body().collect().await?.to_bytes();
        bail!("{status}: {}", String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES)]))
    }

    fn request(&self, call: Call) -> Result<Request<Full<Bytes>>> {
        let uri = Uri::from_maybe_shared(Bytes::from(call.path))?;
        let mut request = Request::new(Full::new(call.body));
        *request.method_mut() = call.method;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(call.content_type));
        if let Some(value) = &self.authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        Ok(request)
    }
}

/// Bounds one call.
async fn within<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    match timeout(CALL_LIMIT, work).await {
        Ok(result) => result,
        Err(_) => bail!("no answer in {} seconds", CALL_LIMIT.as_secs()),
    }
}
