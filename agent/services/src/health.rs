//! `healthCheckNodePort`: load balancers ask here whether this node has endpoints of a Service of its own
//! (pkg/proxy/healthcheck). One listener per port; what it answers is always the latest that is known.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::table::HealthCheck;

/// Requests answered at once on one port.
const MAX_CONNECTIONS: usize = 32;
/// A client that sends no request in this time is let go.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The listeners.
#[derive(Default)]
pub(crate) struct HealthServers {
    ports: HashMap<u16, watch::Sender<HealthCheck>>,
    tasks: JoinSet<()>,
}

impl HealthServers {
    /// Answers for exactly these from now on.
    pub(crate) fn set(&mut self, wanted: &BTreeMap<u16, HealthCheck>) {
        // A listener whose sender is gone ends.
        self.ports.retain(|port, _| wanted.contains_key(port));
        while self.tasks.try_join_next().is_some() {}
        for (port, check) in wanted {
            match self.ports.get(port) {
                Some(sender) => drop(sender.send_replace(check.clone())),
                None => {
                    let (sender, latest) = watch::channel(check.clone());
                    self.ports.insert(*port, sender);
                    self.tasks.spawn(listen(*port, latest));
                }
            }
        }
    }
}

async fn listen(port: u16, mut latest: watch::Receiver<HealthCheck>) {
    let listener = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(port, %error, "a healthCheckNodePort cannot be served: its port is in use"),
    };
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
                let latest = latest.clone();
                connections.spawn(async move {
                    serve(stream, latest).await;
                    drop(permit);
                });
            }
            Some(_) = connections.join_next() => {}
            changed = latest.changed() => if changed.is_err() { return },
        }
    }
}

async fn serve(stream: TcpStream, latest: watch::Receiver<HealthCheck>) {
    let service = service_fn(move |_: Request<Incoming>| {
        let answer = answer(&latest.borrow());
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let _ = connection.await;
}

fn answer(check: &HealthCheck) -> Response<Full<Bytes>> {
    let (namespace, name) = &check.service;
    let body = json!({
        "service": {"namespace": namespace, "name": name},
        "localEndpoints": check.local_endpoints,
        "serviceProxyHealthy": true,
    });
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    if check.local_endpoints == 0 {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("X-Content-Type-Options", HeaderValue::from_static("nosniff"));
    headers.insert("X-Load-Balancing-Endpoint-Weight", HeaderValue::from(check.local_endpoints));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn ask(port: u16) -> String {
        loop {
            if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await {
                stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).await.unwrap();
                return text;
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_node_without_endpoints_of_its_own_says_so() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let mut servers = HealthServers::default();
        for (local_endpoints, status) in [(2, "HTTP/1.1 200 OK"), (0, "HTTP/1.1 503 Service Unavailable")] {
            let check = HealthCheck { port, service: ("ns".into(), "s".into()), local_endpoints };
            servers.set(&[(port, check)].into());
            let answer = ask(port).await;
            assert!(answer.starts_with(status), "{answer}");
            assert!(
                answer.to_lowercase().contains(&format!("x-load-balancing-endpoint-weight: {local_endpoints}\r\n"))
            );
            let body: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
            assert_eq!(body["service"], json!({"namespace": "ns", "name": "s"}));
            assert_eq!(body["localEndpoints"], local_endpoints);
        }
        servers.set(&BTreeMap::new());
        while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
