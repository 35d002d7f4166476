//! `pods/proxy` and `services/proxy`: a request goes on to a port of a pod, and its answer back, as it is; one that becomes another
//! protocol is joined to the pod. The path below `proxy/` is the pod's; who asks is not told.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use coracle_api::ApiError;
use coracle_api::status::Reason;
use coracle_store::ListRange;
use http::header::{self, HeaderName};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rand::Rng as _;
use tokio::net::TcpStream;

use super::behind_proxy;
use crate::api::Call;
use crate::body::Body;
use crate::registry::Stored;
use crate::request::ResourcePath;
use crate::writes::current;

/// How long a pod may take to accept.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// The port of a URL that names none.
const HTTP_PORT: u16 = 80;
/// What is about one connection and not about the request (RFC 9110, section 7.6.1), and the caller's credentials.
const OWN: [HeaderName; 8] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::AUTHORIZATION,
];

/// `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT` (`SplitSchemeNamePort` of Kubernetes).
#[derive(Debug, PartialEq, Eq)]
struct Target<'a> {
    name: &'a str,
    port: &'a str,
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
        "" | "http" => Ok(Target { name, port }),
        "https" => Err(ApiError::new(
            Reason::MethodNotAllowed,
            "the proxy of this server speaks to pods over http only: use `kubectl port-forward` for https",
        )),
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
    pass_on(call, method, body, SocketAddr::new(allowed(ip)?, port)).await
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
    pass_on(call, method, body, SocketAddr::new(allowed(Some(chosen.ip()))?, chosen.port())).await
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

async fn pass_on(call: &Call<'_>, method: &Method, body: Bytes, to: SocketAddr) -> Result<Response<Body>, ApiError> {
    let failed = |error: &dyn std::fmt::Display| {
        ApiError::unavailable(format!("error trying to reach service: dial tcp {to}: {error}"))
    };
    let upgrade = call.upgrade.lock().take().filter(|_| coracle_streaming::wanted(call.headers).is_some());
    let permit = upgrade.as_ref().map(|_| call.api.sessions.permit()).transpose()?;
    let request = request(call, method, body, to, upgrade.is_some())?;
    let dialed =
        tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(to)).await.map_err(|_| failed(&"i/o timeout"))?;
    let stream = dialed.map_err(|error| failed(&error))?;
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
    drop_own(response.headers_mut(), Keep::Nothing);
    Ok(response.map(Body::wrap))
}

fn request(
    call: &Call<'_>,
    method: &Method,
    body: Bytes,
    to: SocketAddr,
    upgrades: bool,
) -> Result<Request<Full<Bytes>>, ApiError> {
    let path = behind_proxy(&call.path.rest, call.query);
    let request = Request::builder().method(method).uri(path).body(Full::new(body));
    let mut request = request.map_err(|error| ApiError::bad_request(error.to_string()))?;
    *request.headers_mut() = call.headers.clone();
    drop_own(request.headers_mut(), if upgrades { Keep::Upgrade } else { Keep::Nothing });
    request.headers_mut().remove(header::CONTENT_LENGTH);
    if !request.headers().contains_key(header::HOST) {
        let host = to.to_string().parse().map_err(|_| ApiError::internal("an address that is no header"))?;
        request.headers_mut().insert(header::HOST, host);
    }
    Ok(request)
}

/// What of a connection's own headers stays.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Nothing,
    Upgrade,
}

fn drop_own(headers: &mut HeaderMap, keep: Keep) {
    for name in OWN {
        if keep == Keep::Nothing || !(name == header::CONNECTION || name == header::UPGRADE) {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_kubernetes_reads_them() {
        let check = |id: &str, expect: Option<(&str, &str)>| {
            let found = target(id, "pod").ok();
            assert_eq!(found.as_ref().map(|found| (found.name, found.port)), expect, "{id}");
        };
        check("web", Some(("web", "")));
        check("web:80", Some(("web", "80")));
        check("http:web:80", Some(("web", "80")));
        check("http:web:", Some(("web", "")));
        check("https:web:443", None);
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
