//! One call of `grpc.health.v1.Health/Check`. The two messages are so small that they are written and read by hand: a
//! request holds one string, an answer one number.

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::{Failed, MAX_BODY_BYTES, bracketed};

/// `SERVING` of `HealthCheckResponse.ServingStatus`.
const SERVING: u64 = 1;

/// Asks a service's health over an open connection.
pub(super) async fn check(stream: TcpStream, host: &str, port: u16, service: &str) -> Result<(), Failed> {
    let failed = |error: &dyn std::fmt::Display| Failed::Answer(format!("error: health rpc probe failed: {error}"));
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{}:{port}/grpc.health.v1.Health/Check", bracketed(host)))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "kube-probe/1.36")
        .body(Full::new(Bytes::from(frame(service))))
        .map_err(|error| Failed::Error(error.to_string()))?;
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|error| failed(&error))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let mut code = grpc_status(response.headers());
        let body =
            Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await.map_err(|error| failed(&error))?;
        code = code.or_else(|| body.trailers().and_then(grpc_status));
        match code.as_deref() {
            Some("0") => {}
            Some("12") => {
                return Err(Failed::Answer(
                    "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".into(),
                ));
            }
            code => return Err(failed(&format!("rpc error: code = {}", code.unwrap_or("unknown")))),
        }
        match status(&body.to_bytes()) {
            Some(SERVING) => Ok(()),
            other => {
                let name = match other {
                    Some(2) => "NOT_SERVING",
                    Some(3) => "SERVICE_UNKNOWN",
                    _ => "UNKNOWN",
                };
                Err(Failed::Answer(format!("service unhealthy (responded with {name:?})")))
            }
        }
    };
    tokio::pin!(connection, answer);
    tokio::select! {
        biased;
        done = &mut answer => done,
        ended = &mut connection => match ended {
            Err(error) => Err(failed(&error)),
            Ok(()) => answer.await,
        },
    }
}

fn grpc_status(headers: &http::HeaderMap) -> Option<String> {
    headers.get("grpc-status").and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// A `HealthCheckRequest` in its length-prefixed frame. Service names are below 128 bytes or cut to that.
fn frame(service: &str) -> Vec<u8> {
    let name: Vec<u8> = service.bytes().take(127).collect();
    let mut message = Vec::new();
    if !name.is_empty() {
        // Field 1, length-delimited.
        message.push(0x0a);
        message.push(u8::try_from(name.len()).unwrap_or(127));
        message.extend(name);
    }
    let length = u32::try_from(message.len()).unwrap_or(0).to_be_bytes();
    [&[0], &length[..], &message].concat()
}

/// Field 1 of a framed `HealthCheckResponse`; an absent field is 0.
fn status(body: &[u8]) -> Option<u64> {
    let message = body.get(5..)?;
    match message {
        [] => Some(0),
        [0x08, value, ..] => Some(u64::from(*value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_protobuf_writes_them() {
        assert_eq!(frame(""), [0, 0, 0, 0, 0]);
        assert_eq!(frame("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(status(&[0, 0, 0, 0, 2, 0x08, 1]), Some(SERVING));
        assert_eq!(status(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(status(&[0]), None);
    }
}
