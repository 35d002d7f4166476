//! Probes and HTTP hooks from the node: one connection each, none kept, every one under a time limit, only so many begun at
//! once. What a result means is decided in `agent/core`.

mod grpc;
mod redirect;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use coracle_agent_core::effect::{Outcome, Target};
use futures::future::Either;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};

use self::redirect::{MAX_REDIRECTS, Next, Place};

/// Probes begun at once: with ten thousand pods a burst would take the machine's time from what is probed.
const MAX_CONCURRENT: usize = 256;
/// How long a probe counts among those. One that is slower waits for its container beside them: a container has one probe of
/// a kind at a time, and those that hang keep nobody else's from beginning.
const COUNTED: Duration = Duration::from_secs(1);
/// Most of an answer that is shown in an event, as the kubelet's `maxRespBodyLength`.
const MAX_BODY_BYTES: usize = 10 * 1024;

/// Carries out probes and HTTP hooks.
#[derive(Clone)]
pub(crate) struct Prober {
    slots: Arc<Semaphore>,
    tls: coracle_streaming::Unverified,
}

/// An answer to a GET.
struct Answer {
    status: StatusCode,
    location: Option<String>,
    body: String,
    /// It redirects to another host, and is not followed.
    elsewhere: bool,
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
        Self { slots: Arc::new(Semaphore::new(MAX_CONCURRENT)), tls: coracle_streaming::Unverified::new() }
    }

    /// Tries a target once, as a probe.
    pub(crate) async fn probe(&self, target: &Target, limit: Duration) -> Outcome {
        let work = async {
            match target {
                Target::Tcp { host, port } => connect(host, *port).await.map(|_| Outcome::Success),
                Target::Http { .. } => self.http(target).await.and_then(judged),
                Target::Grpc { host, port, service } => {
                    let stream = connect(host, *port).await?;
                    grpc::check(stream, host, *port, service).await.map(|()| Outcome::Success)
                }
            }
        };
        self.one(target, limit, work).await
    }

    /// Calls a hook: any answer will do (`runHTTPHandler` of the kubelet).
    pub(crate) async fn call(&self, target: &Target, limit: Duration) -> Outcome {
        self.one(target, limit, async { self.http(target).await.map(|_| Outcome::Success) }).await
    }

    async fn one(
        &self,
        target: &Target,
        limit: Duration,
        work: impl Future<Output = Result<Outcome, Failed>>,
    ) -> Outcome {
        // The semaphore is never closed.
        let Ok(permit) = self.slots.acquire().await else {
            return Outcome::Error { message: "the prober has stopped".to_owned() };
        };
        let work = std::pin::pin!(timeout(limit, work));
        let counted = std::pin::pin!(tokio::time::sleep(COUNTED));
        let done = match futures::future::select(work, counted).await {
            Either::Left((done, _)) => done,
            Either::Right(((), work)) => {
                drop(permit);
                work.await
            }
        };
        match done {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(Failed::Answer(output))) => Outcome::Failure { output },
            Ok(Err(Failed::Error(message))) => Outcome::Error { message },
            Err(_) => Outcome::Failure { output: timed_out(target, limit) },
        }
    }

    /// The answer of whoever is asked in the end: redirects within the host are followed.
    async fn http(&self, target: &Target) -> Result<Answer, Failed> {
        let Target::Http { scheme, host, port, path, headers } = target else {
            return Err(Failed::Error("invalid handler".to_owned()));
        };
        let mut place =
            Place { scheme: scheme.clone(), host: host.clone(), port: *port, path: path.clone(), own_host: true };
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.get(&place, headers).await?;
            match place.next(&answer) {
                Next::Here => return Ok(answer),
                Next::Elsewhere => return Ok(Answer { elsewhere: true, ..answer }),
                Next::There(next) => place = next,
            }
        }
        Err(get_failed(&place.url(), &format!("stopped after {MAX_REDIRECTS} redirects")))
    }

    async fn get(&self, place: &Place, headers: &[(String, String)]) -> Result<Answer, Failed> {
        let (host, port, url) = (place.host.as_str(), place.port, place.url());
        let request = request(place, headers)?;
        let stream = connect(host, port).await.map_err(|failed| named(failed, &url))?;
        if place.scheme == "https" {
            let stream = self.tls.connect(host, stream).await.map_err(|error| get_failed(&url, &error))?;
            exchange(stream, request, &url).await
        } else {
            exchange(stream, request, &url).await
        }
    }
}

/// What an answer means to a probe (`DoHTTPProbe` of the kubelet).
fn judged(answer: Answer) -> Result<Outcome, Failed> {
    if answer.elsewhere {
        let output = format!("Probe terminated redirects, Response body: {}", answer.body);
        return Ok(Outcome::Warning { output });
    }
    if answer.status.is_success() || answer.status.is_redirection() {
        return Ok(Outcome::Success);
    }
    Err(Failed::Answer(format!("HTTP probe failed with statuscode: {}", answer.status.as_u16())))
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

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>, url: &str) -> Result<Answer, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| get_failed(url, &error))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| get_failed(url, &error))?;
        let (head, body) = response.into_parts();
        let location = head.headers.get(header::LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        // Few need the text, but it is read so that the server sees an orderly end. What is cut off counts as read.
        let text = Limited::new(body, MAX_BODY_BYTES).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let body = String::from_utf8_lossy(&text).into_owned();
        Ok(Answer { status: head.status, location, body, elsewhere: false })
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

fn request(place: &Place, headers: &[(String, String)]) -> Result<Request<Empty<Bytes>>, Failed> {
    let error = |error: &dyn std::fmt::Display| Failed::Error(error.to_string());
    let mut request =
        Request::builder().method(Method::GET).uri(&place.path).body(Empty::new()).map_err(|wrong| error(&wrong))?;
    let defaults = [
        (header::HOST, place.authority()),
        (header::USER_AGENT, "kube-probe/1.36".to_owned()),
        (header::ACCEPT, "*/*".to_owned()),
        (header::CONNECTION, "close".to_owned()),
    ];
    for (name, value) in defaults {
        request.headers_mut().insert(name, HeaderValue::from_str(&value).map_err(|wrong| error(&wrong))?);
    }
    for (name, value) in headers {
        let name = header::HeaderName::from_bytes(name.as_bytes()).map_err(|wrong| error(&wrong))?;
        if name == header::HOST && !place.own_host {
            continue;
        }
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

    /// A server that answers by the path it is asked for.
    async fn serve(answer: impl Fn(&str, u16) -> String + Send + 'static) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = vec![0; 4096];
                let size = stream.read(&mut head).await.unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..size]).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let _ = stream.write_all(answer(&path, port).as_bytes()).await;
            }
        });
        port
    }

    fn fixed(answer: &'static str) -> impl Fn(&str, u16) -> String {
        move |_, _| answer.to_owned()
    }

    fn target(port: u16, path: &str) -> Target {
        let headers = vec![("X-A".into(), "b".into())];
        Target::Http { scheme: "http".into(), host: "127.0.0.1".into(), port, path: path.into(), headers }
    }

    async fn get(port: u16) -> Outcome {
        Prober::new().probe(&target(port, "/healthz"), Duration::from_millis(300)).await
    }

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn http_answers_are_judged_as_the_kubelet_judges_them() {
        let ok = serve(fixed("HTTP/1.1 204 No Content\r\n\r\n")).await;
        assert_eq!(get(ok).await, Outcome::Success);
        let unchanged = serve(fixed("HTTP/1.1 304 Not Modified\r\ncontent-length: 0\r\n\r\n")).await;
        assert_eq!(get(unchanged).await, Outcome::Success);
        let bad = serve(fixed("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno")).await;
        assert_eq!(get(bad).await, Outcome::Failure { output: "HTTP probe failed with statuscode: 503".into() });
        let Outcome::Failure { output } = get(serve(fixed("")).await).await else { panic!("an empty answer passes") };
        assert!(output.starts_with("Get \"http://127.0.0.1:"), "{output}");
    }

    #[tokio::test]
    async fn redirects_within_the_host_are_followed_and_others_end_the_probe() {
        let to = |status: u16, location: &str| {
            format!("HTTP/1.1 {status} Moved\r\nlocation: {location}\r\ncontent-length: 2\r\n\r\nhi")
        };
        let port = serve(move |path, port| match path {
            "/login" => "HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "/a/ok" => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "/to-login" => to(302, "/login"),
            "/a/relative" => to(307, "ok"),
            "/full" => to(301, &format!("http://127.0.0.1:{port}/a/ok")),
            "/away" => to(302, "http://localhost:1/x"),
            "/nowhere" => "HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
            _ => to(302, "/round"),
        })
        .await;
        let failure = |output: String| Outcome::Failure { output };
        for (path, expect) in [
            ("/to-login", failure("HTTP probe failed with statuscode: 500".into())),
            ("/a/relative", Outcome::Success),
            ("/full", Outcome::Success),
            ("/nowhere", Outcome::Success),
            ("/away", Outcome::Warning { output: "Probe terminated redirects, Response body: hi".into() }),
            ("/round", failure(format!("Get \"http://127.0.0.1:{port}/round\": stopped after 10 redirects"))),
        ] {
            assert_eq!(Prober::new().probe(&target(port, path), PATIENCE).await, expect, "{path}");
        }
    }

    #[tokio::test]
    async fn any_answer_to_a_hook_will_do() {
        let broken = serve(fixed("HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n")).await;
        assert_eq!(Prober::new().call(&target(broken, "/"), PATIENCE).await, Outcome::Success);
        let silent = Prober::new().call(&target(serve(fixed("")).await, "/"), PATIENCE).await;
        assert!(matches!(silent, Outcome::Failure { .. }), "{silent:?}");
    }

    /// Containers that hang, as many as there are places for probes, do not keep others from being probed.
    #[tokio::test]
    async fn probes_that_hang_hold_up_nobody() {
        let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = hanging.local_addr().unwrap().port();
        let prober = Prober::new();
        let mut hung = tokio::task::JoinSet::new();
        let mut connections = Vec::new();
        for _ in 0..MAX_CONCURRENT {
            let prober = prober.clone();
            hung.spawn(async move { prober.probe(&target(port, "/"), Duration::from_secs(3600)).await });
            connections.push(hanging.accept().await.unwrap());
        }
        let ok = serve(fixed("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await;
        assert_eq!(prober.probe(&target(ok, "/"), PATIENCE).await, Outcome::Success);
        assert!(hung.try_join_next().is_none(), "they hang on");
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
