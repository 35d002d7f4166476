//! The client of a container runtime's streaming server: the request is made again there, and what it becomes is passed on.

use std::time::Duration;

use bytes::Bytes;
use coracle_streaming::{BoxedStream, STREAM_PROTOCOL_HEADER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Refused, named};

/// How long the runtime may take to answer: its server is on this machine, and waits for the container's own streams only later.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest refusal that is passed on.
const MAX_REFUSAL_BYTES: usize = 16 * 1024;

/// Makes a connection of the client's request to `url`.
pub(super) async fn connect(url: &str, headers: &HeaderMap) -> Result<(Option<HeaderValue>, BoxedStream), Refused> {
    let failed = |error: &dyn std::fmt::Display| {
        Refused(StatusCode::INTERNAL_SERVER_ERROR, format!("the container runtime's streaming server: {error}"))
    };
    let url: Uri = url.parse().map_err(|error| failed(&error))?;
    let (Some("http"), Some(authority)) = (url.scheme_str(), url.authority()) else {
        return Err(failed(&format!("{url} is no address of the sort http://HOST:PORT/")));
    };
    let request = request(&url, authority.as_str(), headers).map_err(|error| failed(&error))?;
    let address = authority.as_str().to_owned();
    let asking = async {
        let stream = TcpStream::connect(&address).await.map_err(|error| failed(&error))?;
        // Keystrokes are not joined to lines.
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        // The connection is driven until it is upgraded, or refused and the sender gone.
        let asked = async move { answer(sender.send_request(request).await).await };
        let (answer, _) = tokio::join!(asked, connection.with_upgrades());
        answer.map_err(|error| failed(&error))?
    };
    tokio::time::timeout(ANSWER_TIMEOUT, asking).await.map_err(|_| failed(&"it did not answer in time"))?
}

fn request(url: &Uri, host: &str, headers: &HeaderMap) -> http::Result<Request<Empty<Bytes>>> {
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::HOST, host)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "SPDY/3.1");
    for protocol in named(headers) {
        request = request.header(STREAM_PROTOCOL_HEADER, protocol);
    }
    request.body(Empty::new())
}

type Answered = Result<(Option<HeaderValue>, BoxedStream), Refused>;

async fn answer(response: hyper::Result<Response<Incoming>>) -> hyper::Result<Answered> {
    let response = response?;
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let protocol = response.headers().get(STREAM_PROTOCOL_HEADER).cloned();
        let upgraded = hyper::upgrade::on(response).await?;
        return Ok(Ok((protocol, Box::new(TokioIo::new(upgraded)))));
    }
    let words = match Limited::new(response.into_body(), MAX_REFUSAL_BYTES).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    // What is no refusal is none of the answers to such a request.
    let status = if status.as_u16() < 400 { StatusCode::INTERNAL_SERVER_ERROR } else { status };
    Ok(Err(Refused(status, words)))
}
