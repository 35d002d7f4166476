//! `pods/proxy` and `services/proxy`: a request goes on to a port of a pod, and its answer back; one that becomes another
//! protocol is joined to the pod. The path below `proxy/` is the pod's, and links of its pages are told so that they lead back
//! here; who asks is not told.

mod rewrite;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use std::io::Read as _;

use bytes::{Bytes, BytesMut};
use coracle_api::ApiError;
use coracle_store::ListRange;
use coracle_streaming::{BoxedStream, Unverified};
use flate2::read::GzDecoder;
use futures::{StreamExt as _, stream};
use http::header::{self, HeaderName};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyDataStream, Full};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rand::Rng as _;
use tokio::net::TcpStream;

use self::rewrite::Root;
use super::{below, own_headers_dropped};
use crate::api::Call;
use crate::body::Body;
use crate::registry::Stored;
use crate::request::ResourcePath;
use crate::writes::current;

/// How long a pod may take to accept.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// The port of a URL that names none.
const HTTP_PORT: u16 = 80;
/// The longest page whose links are told otherwise, also when it is unpacked.
const MAX_PAGE_BYTES: usize = 4 << 20;
/// What a pod may not say in the name of the API server: who else may read its answers.
const CROSS_ORIGIN: [HeaderName; 5] = [
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
];
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT` (`SplitSchemeNamePort` of Kubernetes).
#[derive(Debug, PartialEq, Eq)]
struct Target<'a> {
    name: &'a str,
    port: &'a str,
    tls: bool,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Server {
    address: SocketAddr,
    tls: bool,
}

fn target<'a>(id: &'a str, what: &str) -> Result<Target<'a>, ApiError> {
    let parts: Vec<&str> = id.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return Err(ApiError::bad_request(format!("invalid {what} request {id:?}"))),
    };
    match scheme {
        "" | "http" | "https" => Ok(Target { name, port, tls: scheme == "https" }),
        _ => Err(ApiError::bad_request(format!("invalid {what} request {id:?}"))),
    }
}

/// Passes a request on to a pod.
pub(super) async fn pod(call: &Call<'_>, method: &Method, body: Bytes) -> Result<Response<Body>, ApiError> {
    let target = target(&call.path.name, "pod")?;
    let path = ResourcePath { name: target.name.to_owned(), ..call.path.clone() };
    let stored = current(&call.with(&path, call.served))?;
    let pod = stored.typed::<Pod>().ok_or_else(ApiError::no_such_path)?;
    let port = match target.port {
        "" => first_port(pod).unwrap_or(HTTP_PORT),
        number => number.parse().map_err(|_| ApiError::bad_request(format!("invalid port {number:?}")))?,
    };
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).and_then(|ip| ip.parse().ok());
    pass_on(call, method, body, Server { address: SocketAddr::new(allowed(ip)?, port), tls: target.tls }).await
}

fn first_port(pod: &Pod) -> Option<u16> {
    let ports =
        pod.spec.iter().flat_map(|spec| &spec.containers).flat_map(|container| container.ports.iter().flatten());
    ports.map(|port| port.container_port).next().and_then(|port| u16::try_from(port).ok())
}

/// A pod's address, which is never one of the machine's own services: those of an unprivileged node's pods are 127.64.0.0/10.
fn allowed(ip: Option<IpAddr>) -> Result<IpAddr, ApiError> {
    let is_allowed = |ip: &IpAddr| match ip.to_canonical() {
        IpAddr::V4(ip) if ip.is_loopback() => ip.octets()[1] & 0xC0 == 64,
        IpAddr::V4(ip) => !(ip.is_unspecified() || ip.is_link_local() || ip.is_multicast() || ip.is_broadcast()),
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_unicast_link_local()),
    };
    ip.filter(is_allowed).ok_or_else(|| ApiError::bad_request("address not allowed"))
}

/// Passes a request on to one of a Service's pods.
pub(super) async fn service(call: &Call<'_>, method: &Method, body: Bytes) -> Result<Response<Body>, ApiError> {
    let target = target(&call.path.name, "service")?;
    let path = ResourcePath { name: target.name.to_owned(), ..call.path.clone() };
    let stored = current(&call.with(&path, call.served))?;
    let service = stored.typed::<Service>().ok_or_else(ApiError::no_such_path)?;
    let port = port_name(service, target.port).ok_or_else(|| {
        ApiError::unavailable(format!("no service port {:?} found for service {:?}", target.port, target.name))
    })?;
    let mut addresses = endpoints(call, target.name, &port)?;
    if addresses.is_empty() {
        return Err(ApiError::unavailable(format!("no endpoints available for service {:?}", call.path.name)));
    }
    let chosen = addresses.swap_remove(rand::rng().random_range(0..addresses.len()));
    let address = SocketAddr::new(allowed(Some(chosen.ip()))?, chosen.port());
    pass_on(call, method, body, Server { address, tls: target.tls }).await
}

/// The name of the port that is meant: by its name, its number, or because it is the only one.
fn port_name(service: &Service, wanted: &str) -> Option<String> {
    let ports = service.spec.as_ref()?.ports.as_deref().unwrap_or_default();
    let found = match wanted {
        "" if ports.len() == 1 => ports.first(),
        "" => None,
        wanted => ports.iter().find(|port| {
            port.name.as_deref() == Some(wanted)
                || port.port.to_string() == wanted
                || port.target_port.as_ref() == Some(&IntOrString::String(wanted.to_owned()))
        }),
    };
    found.map(|port| port.name.clone().unwrap_or_default())
}

/// The ready endpoints of a Service's port.
fn endpoints(call: &Call<'_>, service: &str, port: &str) -> Result<Vec<SocketAddr>, ApiError> {
    let served = call.api.registry.of::<EndpointSlice>();
    let list = call.api.store.list(&served.collection, &ListRange::namespace(&call.path.namespace));
    let mut found = Vec::new();
    for entry in list.entries {
        let stored = Stored::of(served.kind, entry)?;
        let Some(slice) = stored.typed::<EndpointSlice>() else { continue };
        let owner = slice.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name"));
        if owner.is_none_or(|owner| owner != service) {
            continue;
        }
        let numbers = slice.ports.iter().flatten().filter(|known| known.name.as_deref().unwrap_or_default() == port);
        for number in numbers.filter_map(|port| port.port).filter_map(|port| u16::try_from(port).ok()) {
            let ready = slice.endpoints.iter().flatten().filter(|endpoint| {
                endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
            });
            let ips = ready.flat_map(|endpoint| &endpoint.addresses).filter_map(|ip| ip.parse::<IpAddr>().ok());
            found.extend(ips.map(|ip| SocketAddr::new(ip, number)));
        }
    }
    Ok(found)
}

async fn pass_on(call: &Call<'_>, method: &Method, body: Bytes, to: Server) -> Result<Response<Body>, ApiError> {
    let upgrade = call.upgrade.lock().take().filter(|_| coracle_streaming::wanted(call.headers).is_some());
    let permit = upgrade.as_ref().map(|_| call.api.sessions.permit()).transpose()?;
    let root = root(call, to);
    let request = request(call, method, body, &root, upgrade.is_some())?;
    let failed = |error: &dyn std::fmt::Display| {
        ApiError::unavailable(format!("error trying to reach service: dial tcp {}: {error}", to.address))
    };
    let stream = tokio::time::timeout(DIAL_TIMEOUT, dial(to))
        .await
        .map_err(|_| failed(&"i/o timeout"))?
        .map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    // It ends when the answer has been read, or nobody is left to read it.
    call.api.sessions.drive(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to a pod ended early");
        }
    });
    let mut response = sender.send_request(request).await.map_err(|error| failed(&error))?;
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(client), Some(permit)) = (response.status(), upgrade, permit) {
        let pod = hyper::upgrade::on(&mut response);
        call.api.sessions.spawn(permit, client, async move |io| {
            if let Ok(pod) = pod.await {
                coracle_streaming::splice(io, TokioIo::new(pod), coracle_streaming::IDLE_TIMEOUT).await;
            }
        });
        return Ok(response.map(|_| Body::empty()));
    }
    Ok(told_from_here(method, response.map(Body::wrap), &root).await)
}

async fn dial(to: Server) -> std::io::Result<BoxedStream> {
    let stream = TcpStream::connect(to.address).await?;
    if !to.tls {
        return Ok(Box::new(stream));
    }
    let stream = Unverified::new().connect(&to.address.ip().to_string(), stream).await?;
    Ok(Box::new(stream))
}

/// Where the pod's root is for who asks.
fn root(call: &Call<'_>, to: Server) -> Root {
    let path = call.uri.path();
    let path = path.strip_suffix(&call.path.rest).unwrap_or(path).to_owned();
    // HTTP/2 has no `Host`.
    let host = call.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let proxy = host.or_else(|| call.uri.authority().map(http::uri::Authority::as_str)).unwrap_or_default().to_owned();
    Root { path, server: to.address.to_string(), proxy }
}

fn request(
    call: &Call<'_>,
    method: &Method,
    body: Bytes,
    root: &Root,
    upgrades: bool,
) -> Result<Request<Full<Bytes>>, ApiError> {
    let path = below(call);
    let request = Request::builder().method(method).uri(&path).body(Full::new(body));
    let mut request = request.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let headers = request.headers_mut();
    *headers = own_headers_dropped(call.headers, upgrades);
    // The body came as a whole, which tells its length.
    headers.remove(header::CONTENT_LENGTH);
    let value = |text: &str| HeaderValue::from_str(text).map_err(|error| ApiError::bad_request(error.to_string()));
    if !headers.contains_key(header::HOST) {
        headers.insert(header::HOST, value(if root.proxy.is_empty() { &root.server } else { &root.proxy })?);
    }
    let path = path.split('?').next().unwrap_or_default();
    headers.insert(FORWARDED_URI, value(&format!("{}{path}", root.path))?);
    Ok(request)
}

/// The answer of a pod as it is told to who asked the API server.
async fn told_from_here(method: &Method, response: Response<Body>, root: &Root) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    head.headers = own_headers_dropped(&head.headers, false);
    for name in CROSS_ORIGIN {
        head.headers.remove(name);
    }
    let text = |name| head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let location = text(header::LOCATION);
    if !location.is_empty() {
        if let Some(Ok(moved)) = root.url(location).map(HeaderValue::try_from) {
            head.headers.insert(header::LOCATION, moved);
        }
        return Response::from_parts(head, body);
    }
    let is_page = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim() == "text/html";
    let packed = match text(header::CONTENT_ENCODING) {
        "" => Some(false),
        "gzip" => Some(true),
        _ => None,
    };
    let Some(packed) = packed.filter(|_| is_page && method != Method::HEAD) else {
        return Response::from_parts(head, body);
    };
    match gathered(body).await {
        Ok(page) => {
            let body = match rewritten(&page, packed, root) {
                Some(rewritten) => {
                    head.headers.remove(header::CONTENT_ENCODING);
                    rewritten.into()
                }
                None => page,
            };
            head.headers.insert(header::CONTENT_LENGTH, body.len().into());
            Response::from_parts(head, Body::full(body))
        }
        Err(body) => Response::from_parts(head, body),
    }
}

/// The page with its links told otherwise; none for one that cannot be unpacked.
fn rewritten(page: &[u8], packed: bool, root: &Root) -> Option<Vec<u8>> {
    if !packed {
        return Some(root.page(page));
    }
    let mut unpacked = Vec::new();
    let most = u64::try_from(MAX_PAGE_BYTES).unwrap_or(u64::MAX);
    let length = GzDecoder::new(page).take(most + 1).read_to_end(&mut unpacked).ok()?;
    (length <= MAX_PAGE_BYTES).then(|| root.page(&unpacked))
}

/// All of a page; or its body, if it is too long to be held, or breaks off.
async fn gathered(body: Body) -> Result<Bytes, Body> {
    let mut pieces = BodyDataStream::new(body);
    let mut page = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) if page.len() + piece.len() <= MAX_PAGE_BYTES => page.extend_from_slice(&piece),
            last => {
                let read = stream::iter([Ok(page.freeze()), last]);
                return Err(Body::stream(read.chain(pieces)));
            }
        }
    }
    Ok(page.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_kubernetes_reads_them() {
        let check = |id: &str, expect: Option<(&str, &str, bool)>| {
            let found = target(id, "pod").ok();
            assert_eq!(found.as_ref().map(|found| (found.name, found.port, found.tls)), expect, "{id}");
        };
        check("web", Some(("web", "", false)));
        check("web:80", Some(("web", "80", false)));
        check("http:web:80", Some(("web", "80", false)));
        check("http:web:", Some(("web", "", false)));
        check("https:web:443", Some(("web", "443", true)));
        check("ftp:web:21", None);
        check("a:b:c:d", None);
    }

    #[test]
    fn the_machine_s_own_services_are_not_reached() {
        let check = |ip: &str, expect: bool| {
            assert_eq!(allowed(Some(ip.parse().unwrap())).is_ok(), expect, "{ip}");
        };
        for (ip, expect) in [
            ("10.42.0.7", true),
            ("127.64.0.7", true),
            ("127.0.0.1", false),
            ("127.192.0.7", false),
            ("::ffff:127.0.0.1", false),
            ("::1", false),
            ("0.0.0.0", false),
            ("169.254.169.254", false),
            ("fe80::1", false),
        ] {
            check(ip, expect);
        }
        assert!(allowed(None).is_err());
    }
}
