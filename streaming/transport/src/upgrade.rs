//! The HTTP requests that become streaming connections: what a client asks for, and how it is told that it has it.

use base64::Engine as _;
use http::header::{CONNECTION, HeaderMap, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Names the protocol of a SPDY connection.
pub const STREAM_PROTOCOL_HEADER: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// What exec and attach may speak, the best first; `v1`, `channel.k8s.io`, ended with no error stream.
pub const REMOTE_COMMAND_PROTOCOLS: [&str; 4] =
    ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
/// What port-forward speaks over SPDY.
pub const PORT_FORWARD_PROTOCOL: &str = "portforward.k8s.io";
/// SPDY for port-forward, carried in messages of a WebSocket connection.
pub const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

const SPDY: &str = "SPDY/3.1";
const WEBSOCKET: &str = "websocket";
const WEBSOCKET_VERSION: &str = "13";

/// What a request wants to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A WebSocket connection.
    WebSocket,
    /// A SPDY connection.
    Spdy,
    /// Some other protocol that is none of this program's.
    Other,
}

/// What a request wants to become; `None` for one that stays a request.
#[must_use]
pub fn wanted(headers: &HeaderMap) -> Option<Wanted> {
    let words =
        |name| headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    if !words(CONNECTION).any(|word| word.trim().eq_ignore_ascii_case("upgrade")) {
        return None;
    }
    let mut wishes = words(UPGRADE).map(str::trim).peekable();
    wishes.peek()?;
    Some(
        wishes
            .find_map(|wish| match wish {
                wish if wish.eq_ignore_ascii_case(WEBSOCKET) => Some(Wanted::WebSocket),
                wish if wish.eq_ignore_ascii_case(SPDY) => Some(Wanted::Spdy),
                _ => None,
            })
            .unwrap_or(Wanted::Other),
    )
}

/// The protocols that a client of SPDY names, in its order.
pub fn stream_protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(STREAM_PROTOCOL_HEADER).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty())
}

/// The first protocol of the client's that is offered. A client of the first days names none, and gets none.
///
/// # Errors
/// Nothing it names is offered: the words are the kubelet's.
pub fn choose_protocol(headers: &HeaderMap, offered: &[&'static str]) -> Result<Option<&'static str>, String> {
    let named: Vec<&str> = stream_protocols(headers).collect();
    let chosen = named.iter().find_map(|name| offered.iter().find(|offer| **offer == *name).copied());
    match chosen {
        None if !named.is_empty() => Err(format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server supports [{}]",
            named.join(" "),
            offered.join(" ")
        )),
        chosen => Ok(chosen),
    }
}

/// The protocols that a client of WebSocket names, in its order. Names with dots and all stand as they are; only
/// `base64url.bearer.authorization.k8s.io.` carries a token and is none.
#[must_use]
pub fn websocket_protocols(headers: &HeaderMap) -> Vec<&str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).map(str::trim);
    names.filter(|name| !name.is_empty() && !name.starts_with("base64url.bearer.authorization.k8s.io.")).collect()
}

/// The answer that makes a connection one of WebSocket.
///
/// # Errors
/// The request is no proper handshake (RFC 6455, section 4.2.1).
pub fn websocket_accepted(headers: &HeaderMap, protocol: &str) -> Result<Response<()>, &'static str> {
    if headers.get(http::header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != WEBSOCKET_VERSION) {
        return Err("the WebSocket version is not 13");
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or("the request has no Sec-WebSocket-Key")?;
    let decoded = base64::engine::general_purpose::STANDARD.decode(key.as_bytes());
    if decoded.map_or(0, |key| key.len()) != 16 {
        return Err("the Sec-WebSocket-Key is not one of 16 bytes");
    }
    let mut response = switching(WEBSOCKET);
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| "a broken Sec-WebSocket-Key")?;
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(name) = HeaderValue::from_str(protocol).ok().filter(|name| !name.is_empty()) {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, name);
    }
    Ok(response)
}

/// The answer that makes a connection one of SPDY.
#[must_use]
pub fn spdy_accepted(protocol: Option<HeaderValue>) -> Response<()> {
    let mut response = switching(SPDY);
    if let Some(protocol) = protocol {
        response.headers_mut().insert(STREAM_PROTOCOL_HEADER, protocol);
    }
    response
}

fn switching(to: &'static str) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(to));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn wishes_are_read() {
        let check = |all: &[(&'static str, &'static str)], expect| assert_eq!(wanted(&headers(all)), expect, "{all:?}");
        check(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")], Some(Wanted::WebSocket));
        check(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")], Some(Wanted::Spdy));
        check(&[("connection", "upgrade"), ("upgrade", "h2c")], Some(Wanted::Other));
        check(&[("connection", "upgrade")], None);
        check(&[("upgrade", "websocket")], None);
    }

    #[test]
    fn the_protocol_is_agreed_on() {
        let named = |name| headers(&[("x-stream-protocol-version", name)]);
        let offered = REMOTE_COMMAND_PROTOCOLS;
        assert_eq!(
            choose_protocol(&named("v9.channel.k8s.io, v3.channel.k8s.io"), &offered),
            Ok(Some("v3.channel.k8s.io"))
        );
        assert_eq!(choose_protocol(&headers(&[]), &offered), Ok(None));
        let refused = choose_protocol(&named("v9.channel.k8s.io"), &[PORT_FORWARD_PROTOCOL]).unwrap_err();
        assert!(
            refused.ends_with("client supports [v9.channel.k8s.io], server supports [portforward.k8s.io]"),
            "{refused}"
        );
    }

    /// The example of RFC 6455, section 1.3.
    #[test]
    fn a_handshake_is_answered() {
        let request = headers(&[("sec-websocket-version", "13"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]);
        let answer = websocket_accepted(&request, "v4.channel.k8s.io").unwrap();
        assert_eq!(answer.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(answer.headers()[SEC_WEBSOCKET_PROTOCOL], "v4.channel.k8s.io");
        assert!(websocket_accepted(&headers(&[("sec-websocket-version", "13")]), "").is_err());
    }
}
