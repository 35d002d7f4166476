//! `exec`, `attach` and `portforward` of pods. A client of SPDY is joined to the node as it is, one of WebSocket speaks to a
//! translator here (`StreamTranslatorHandler` and `TunnelingHandler` of Kubernetes).

use coracle_api::ApiError;
use coracle_api::selector::FieldSelector;
use coracle_streaming::channel::{self, PORT_FORWARD, Protocol, REMOTE_COMMAND};
use coracle_streaming::{
    BoxedStream, IDLE_TIMEOUT, PORT_FORWARD_PROTOCOL, REMOTE_COMMAND_PROTOCOLS, STREAM_PROTOCOL_HEADER, Streams,
    TUNNEL_PROTOCOL, Wanted, spdy_accepted, stream_protocols, wanted, websocket_accepted, websocket_protocols,
};
use http::{Method, Request, Response};
use k8s_openapi::api::core::v1::Pod;

use super::{container, encode, node_refused, node_unreachable};
use crate::api::Call;
use crate::auth::Attributes;
use crate::body::Body;
use crate::nodes::Connected;
use crate::request::Verb;
use crate::writes::current;

/// The most ports of one connection: each has two channels, numbered in one byte.
const MAX_PORTS: usize = 127;

/// How a client is spoken to.
enum Client {
    Spdy,
    Command(Protocol, Streams),
    Ports(Protocol, Vec<u16>),
    Tunnel,
}

impl Client {
    /// What the node is asked to speak.
    fn protocols<'a>(&self, call: &'a Call<'_>) -> Vec<&'a str> {
        match self {
            Self::Spdy => stream_protocols(call.headers).collect(),
            Self::Command(..) => vec![REMOTE_COMMAND_PROTOCOLS[0]],
            Self::Ports(..) | Self::Tunnel => vec![PORT_FORWARD_PROTOCOL],
        }
    }

    fn accepted(&self, call: &Call<'_>, protocol: Option<http::HeaderValue>) -> Result<Response<()>, ApiError> {
        let name = match self {
            Self::Spdy => return Ok(spdy_accepted(protocol)),
            Self::Command(protocol, _) | Self::Ports(protocol, _) => protocol.name,
            Self::Tunnel => TUNNEL_PROTOCOL,
        };
        websocket_accepted(call.headers, name).map_err(ApiError::bad_request)
    }

    async fn serve(self, client: BoxedStream, node: BoxedStream) {
        match self {
            Self::Spdy => coracle_streaming::splice(client, node, IDLE_TIMEOUT).await,
            Self::Command(protocol, streams) => {
                let socket = coracle_streaming::websocket(client).await;
                coracle_streaming::remote_command(socket, protocol, streams, node, IDLE_TIMEOUT).await;
            }
            Self::Ports(protocol, ports) => {
                let socket = coracle_streaming::websocket(client).await;
                coracle_streaming::port_forward(socket, protocol, &ports, node, IDLE_TIMEOUT).await;
            }
            Self::Tunnel => {
                let socket = coracle_streaming::websocket(client).await;
                coracle_streaming::tunnel(socket, node, IDLE_TIMEOUT).await;
            }
        }
    }
}

/// Makes the request a stream.
pub(super) async fn answer(call: &Call<'_>, method: &Method) -> Result<Response<Body>, ApiError> {
    if !matches!(*method, Method::GET | Method::POST) {
        return Err(ApiError::method_not_known());
    }
    // A GET that becomes a WebSocket connection does what a POST does, and takes the same right.
    call.api.allow(
        call.user,
        Attributes::Resource { verb: Verb::Create, path: call.path, fields: &FieldSelector::default() },
    )?;
    let stored = current(call)?;
    let pod = stored.typed::<Pod>().ok_or_else(ApiError::no_such_path)?;
    let path = node_path(call, pod)?;
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty());
    let node =
        node.ok_or_else(|| ApiError::bad_request(format!("pod {} does not have a host assigned", call.path.name)))?;
    let client = client(call)?;
    let upgrade = call.upgrade.lock().take();
    let upgrade = upgrade.ok_or_else(|| ApiError::bad_request("Upgrade request required"))?;
    let permit = call.api.sessions.permit()?;
    let mut request = Request::builder().method(Method::POST).uri(path);
    for protocol in client.protocols(call) {
        request = request.header(STREAM_PROTOCOL_HEADER, protocol);
    }
    let request = request.body(()).map_err(|e| ApiError::bad_request(e.to_string()))?;
    let nodes = call.api.nodes.get().ok_or_else(|| ApiError::unavailable("no way to reach the nodes yet"))?;
    let connected = nodes.connect(node, request).await.map_err(|error| node_unreachable(node, error))?;
    let (protocol, stream, held) = match connected {
        Connected::Upgraded { protocol, stream, held } => (protocol, stream, held),
        Connected::Refused(response) => return Err(node_refused(response).await),
    };
    let accepted = client.accepted(call, protocol)?;
    call.api.sessions.spawn(permit, upgrade, async move |io| {
        let _held = held;
        client.serve(io, stream).await;
    });
    Ok(accepted.map(|()| Body::empty()))
}

/// The request as the node knows it.
fn node_path(call: &Call<'_>, pod: &Pod) -> Result<String, ApiError> {
    let (namespace, name) = (encode(&call.path.namespace), encode(&call.path.name));
    if call.path.subresource == "portforward" {
        let ports: Vec<String> = call.query.all("ports").map(encode).collect();
        let query = if ports.is_empty() { String::new() } else { format!("?port={}", ports.join(",")) };
        return Ok(format!("/portForward/{namespace}/{name}{query}"));
    }
    let container = encode(&container(call, pod)?);
    let mut path = format!("/{}/{namespace}/{name}/{container}?", call.path.subresource);
    for (name, of_node) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if call.query.flag(name) {
            path.push_str(&format!("{of_node}=1&"));
        }
    }
    for command in call.query.all("command").filter(|_| call.path.subresource == "exec") {
        path.push_str(&format!("command={}&", encode(command)));
    }
    Ok(path)
}

fn client(call: &Call<'_>) -> Result<Client, ApiError> {
    match wanted(call.headers) {
        Some(Wanted::Spdy) => return Ok(Client::Spdy),
        Some(Wanted::WebSocket) => {}
        Some(Wanted::Other) | None => return Err(ApiError::bad_request("Upgrade request required")),
    }
    let names = websocket_protocols(call.headers);
    let unknown = || ApiError::bad_request(format!("none of the protocols {names:?} is offered"));
    if call.path.subresource != "portforward" {
        let protocol = channel::agree(&REMOTE_COMMAND, &names).ok_or_else(unknown)?;
        let flag = |name| call.query.flag(name);
        let tty = flag("tty");
        let streams = Streams { stdin: flag("stdin"), stdout: flag("stdout"), stderr: flag("stderr") && !tty, tty };
        return Ok(Client::Command(protocol, streams));
    }
    if names.contains(&TUNNEL_PROTOCOL) {
        return Ok(Client::Tunnel);
    }
    let protocol = channel::agree(&PORT_FORWARD, &names).ok_or_else(unknown)?;
    let mut ports = Vec::new();
    for text in call.query.all("ports").flat_map(|value| value.split(',')) {
        match text.parse::<u16>() {
            Ok(port) if port > 0 => ports.push(port),
            Ok(_) => return Err(ApiError::bad_request(format!("port {text:?} must be > 0"))),
            Err(_) => return Err(ApiError::bad_request(format!("unable to parse {text:?} as a port"))),
        }
    }
    if ports.is_empty() || ports.len() > MAX_PORTS {
        return Err(ApiError::bad_request(format!(
            "query parameter \"ports\" is required, with at most {MAX_PORTS} of them"
        )));
    }
    Ok(Client::Ports(protocol, ports))
}
