//! Probes and HTTP hooks from the node: one connection each, none kept, every one under a time limit, only so many at
//! once. What a result means is decided in `agent/core`.

mod grpc;
mod tls;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use coracle_agent_core::effect::{Outcome, Target};
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};

/// Probes under way at once: with ten thousand pods a burst must not use up the file handles.
const MAX_CONCURRENT: usize = 256;
/// Most of an answer that is shown in an event, as the kubelet's `maxRespBodyLength`.
const MAX_BODY_BYTES: usize = 10 * 1024;

/// Carries out probes and HTTP hooks.
#[derive(Clone)]
pub(crate) struct Prober {
    slots: Arc<Semaphore>,
    tls: tls::Connector,
}

/// A probe that did not pass, or could not be tried.
enum Failed {
    /// It was tried.
    Answer(String),
    /// It was not.
    Error(String),
}

impl Prober {
    pub(crate) fn new() -> Self {
        Self { slots: Arc::new(Semaphore::new(MAX_CONCURRENT)), tls: tls::Connector::new() }
    }

    /// Tries a target once.
    pub(crate) async fn probe(&self, target: &Target, limit: Duration) -> Outcome {
        // The semaphore is never closed; a permit is held for one probe.
        let Ok(_permit) = self.slots.acquire().await else {
            return Outcome::Error { message: "the prober has stopped".to_owned() };
        };
        let work = async {
            match target {
                Target::Tcp { host, port } => connect(host, *port).await.map(drop),
                Target::Http { .. } => self.http(target).await,
                Target::Grpc { host, port, service } => {
                    grpc::check(connect(host, *port).await?, host, *port, service).await
                }
            }
        };
        match timeout(limit, work).await {
            Ok(Ok(())) => Outcome::Success,
            Ok(Err(Failed::Answer(output))) => Outcome::Failure { output },
            Ok(Err(Failed::Error(message))) => Outcome::Error { message },
            Err(_) => Outcome::Failure { output: timed_out(target, limit) },
        }
    }

    async fn http(&self, target: &Target) -> Result<(), Failed> {
        let Target::Http { scheme, host, port, path, headers } = target else { return Ok(()) };
        let request = request(host, *port, path, headers)?;
        let url = format!("{scheme}://{}:{port}{path}", bracketed(host));
        let stream = connect(host, *port).await.map_err(|failed| named(failed, &url))?;
        if scheme == "https" {
            let stream = self.tls.connect(host, stream).await.map_err(|error| get_failed(&url, &error))?;
            exchange(stream, request, &url).await
        } else {
            exchange(stream, request, &url).await
        }
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, Failed> {
    TcpStream::connect((host, port)).await.map_err(|error| {
        let why = if error.kind() == std::io::ErrorKind::ConnectionRefused {
            "connect: connection refused".to_owned()
        } else {
            error.to_string()
        };
        Failed::Answer(format!("dial tcp {}:{port}: {why}", bracketed(host)))
    })
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>, url: &str) -> Result<(), Failed>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| get_failed(url, &error))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| get_failed(url, &error))?;
        let status = response.status();
        if status.is_success() || status.is_redirection() {
            return Ok(());
        }
        // The answer's text is not part of the message, but it is read so that the server sees an orderly end.
        let _ = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
        Err(Failed::Answer(format!("HTTP probe failed with statuscode: {}", status.as_u16())))
    };
    // The connection is driven here: no task per probe.
    tokio::pin!(connection, answer);
    tokio::select! {
        biased;
        done = &mut answer => done,
        ended = &mut connection => match ended {
            Err(error) => Err(get_failed(url, &error)),
            Ok(()) => answer.await,
        },
    }
}

fn request(host: &str, port: u16, path: &str, headers: &[(String, String)]) -> Result<Request<Empty<Bytes>>, Failed> {
    let error = |error: &dyn std::fmt::Display| Failed::Error(error.to_string());
    let mut request =
        Request::builder().method(Method::GET).uri(path).body(Empty::new()).map_err(|wrong| error(&wrong))?;
    let defaults = [
        (header::HOST, format!("{}:{port}", bracketed(host))),
        (header::USER_AGENT, "kube-probe/1.36".to_owned()),
        (header::ACCEPT, "*/*".to_owned()),
        (header::CONNECTION, "close".to_owned()),
    ];
    for (name, value) in defaults {
        request.headers_mut().insert(name, HeaderValue::from_str(&value).map_err(|wrong| error(&wrong))?);
    }
    for (name, value) in headers {
        let name = header::HeaderName::from_bytes(name.as_bytes()).map_err(|wrong| error(&wrong))?;
        request.headers_mut().insert(name, HeaderValue::from_str(value).map_err(|wrong| error(&wrong))?);
    }
    Ok(request)
}

fn get_failed(url: &str, error: &dyn std::fmt::Display) -> Failed {
    Failed::Answer(format!("Get {url:?}: {error}"))
}

fn named(failed: Failed, url: &str) -> Failed {
    match failed {
        Failed::Answer(text) => Failed::Answer(format!("Get {url:?}: {text}")),
        error => error,
    }
}

fn timed_out(target: &Target, limit: Duration) -> String {
    match target {
        Target::Http { scheme, host, port, path, .. } => format!(
            "Get \"{scheme}://{}:{port}{path}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            bracketed(host)
        ),
        Target::Tcp { host, port } => format!("dial tcp {}:{port}: i/o timeout", bracketed(host)),
        Target::Grpc { host, port, .. } => {
            format!(
                "timeout: failed to connect service \"{}:{port}\" within {limit:?}: context deadline exceeded",
                bracketed(host)
            )
        }
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    async fn serve(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = vec![0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        port
    }

    async fn get(port: u16) -> Outcome {
        let target = Target::Http {
            scheme: "http".into(),
            host: "127.0.0.1".into(),
            port,
            path: "/healthz".into(),
            headers: vec![("X-A".into(), "b".into())],
        };
        Prober::new().probe(&target, Duration::from_millis(300)).await
    }

    #[tokio::test]
    async fn http_answers_are_judged_as_the_kubelet_judges_them() {
        let ok = serve("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(get(ok).await, Outcome::Success);
        let moved = serve("HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(get(moved).await, Outcome::Success);
        let bad = serve("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno").await;
        assert_eq!(get(bad).await, Outcome::Failure { output: "HTTP probe failed with statuscode: 503".into() });
        let Outcome::Failure { output } = get(serve("").await).await else { panic!("an empty answer passes") };
        assert!(output.starts_with("Get \"http://127.0.0.1:"), "{output}");
    }

    #[tokio::test]
    async fn a_closed_port_is_refused_and_a_silent_one_times_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let Outcome::Failure { output } = get(port).await else { panic!("silence passes") };
        assert!(output.ends_with("(Client.Timeout exceeded while awaiting headers)"), "{output}");
        let tcp = Target::Tcp { host: "127.0.0.1".into(), port };
        assert_eq!(Prober::new().probe(&tcp, Duration::from_secs(1)).await, Outcome::Success);
        drop(listener);
        let expect = Outcome::Failure { output: format!("dial tcp 127.0.0.1:{port}: connect: connection refused") };
        assert_eq!(Prober::new().probe(&tcp, Duration::from_secs(1)).await, expect);
    }
}
