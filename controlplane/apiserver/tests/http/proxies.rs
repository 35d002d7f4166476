//! Requests that go on to pods: `pods/proxy` and `services/proxy`.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use coracle_apiserver::pki::Authority;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::harness::{Server, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";
const PAGE: &str = "<a href=\"/rewriteme\">test</a>";

/// What a container answers: what it was asked, or what its path says.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let response = Response::builder().header(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*").header("x-of-pod", "yes");
    let page = response.header(header::CONTENT_TYPE, "text/html; charset=utf-8");
    let done = match head.uri.path() {
        "/page" => page.body(PAGE.into()),
        "/packed" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(PAGE.as_bytes()).expect("memory");
            page.header(header::CONTENT_ENCODING, "gzip").body(encoder.finish().expect("memory").into())
        }
        "/long" => page.body(PAGE.repeat(200_000).into()),
        "/away" => page.status(302).header(header::LOCATION, "/there/?x=1").body("<a href=\"/there/\">".into()),
        _ => {
            let header = |name: &str| head.headers.get(name).map(|value| value.to_str().expect("text").to_owned());
            let seen = json!({
                "method": head.method.as_str(),
                "uri": head.uri.to_string(),
                "body": String::from_utf8_lossy(&body),
                "forwarded": header("x-forwarded-uri"),
                "authorization": header("authorization"),
                "mine": header("x-mine"),
            });
            page.header(header::CONTENT_TYPE, "application/json").status(201).body(seen.to_string().into())
        }
    };
    Ok(done.expect("an answer"))
}

/// Serves on an address that pods of this machine may have.
async fn serve(tls: Option<TlsAcceptor>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::new(127, 64, 0, 1), 0)).await.expect("an address");
    let address = listener.local_addr().expect("it has one");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let service = service_fn(answer);
                // Those who ask may leave before they have read all.
                let _ = match tls {
                    None => http1::Builder::new().serve_connection(TokioIo::new(stream), service).await,
                    Some(tls) => {
                        let stream = tls.accept(stream).await.expect("a handshake");
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
                    }
                };
            });
        }
    });
    address
}

/// Serves with a certificate that nobody knows.
async fn serve_tls() -> SocketAddr {
    let now = jiff::Timestamp::now();
    let identity = Authority::generate(now).and_then(|of| of.server(&["anybody".to_owned()], &[], now));
    let (chain, key) = identity.and_then(|identity| identity.der()).expect("a certificate");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    serve(Some(TlsAcceptor::from(Arc::new(config)))).await
}

/// A cluster whose one pod is at an address.
async fn cluster(address: SocketAddr) -> Server {
    let server = Server::start().await;
    server.ok(&format!("POST {PODS}"), pod("web")).await;
    let ip = address.ip().to_string();
    let status = json!({"status": {"podIP": ip, "podIPs": [{"ip": ip}]}});
    server.ok(&format!("PATCH {PODS}/web/status"), status).await;
    let here = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let service = json!({"metadata": {"name": "front"}, "spec": {"clusterIP": "None",
        "ports": [{"name": "main", "port": 80, "targetPort": address.port()}]}});
    server.ok("POST /api/v1/namespaces/default/services", service).await;
    let slice = json!({"metadata": {"name": "front-1", "labels": {"kubernetes.io/service-name": "front"}},
        "addressType": "IPv4", "ports": [{"name": "main", "port": address.port()}],
        "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}]});
    server.ok(&format!("POST {here}"), slice).await;
    server
}

#[tokio::test]
async fn a_request_goes_on_as_it_came() {
    let address = serve(None).await;
    let server = cluster(address).await;
    let of_pod = format!("{PODS}/web:{}/proxy", address.port());
    let of_service = "/api/v1/namespaces/default/services/front:main/proxy".to_owned();
    for proxy in [&of_pod, &of_service] {
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
            let line = format!("{method} {proxy}//a%2Fb/c-d/?x=%20&y");
            let headers = [("authorization", "Bearer secret"), ("x-mine", "kept"), ("content-type", "text/plain")];
            let answer = server.send(&line, &headers, "said").await;
            assert_eq!(answer.code, 201, "{line}: {answer:?}");
            assert_eq!(answer.headers["x-of-pod"], "yes");
            assert!(!answer.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN), "that is not the pod's to say");
            let expect = json!({"method": method.as_str(), "uri": "//a%2Fb/c-d/?x=%20&y", "body": "said",
                "forwarded": format!("{proxy}//a%2Fb/c-d/"), "authorization": null, "mine": "kept"});
            assert_eq!(answer.body, expect, "{line}");
        }
        let head = server.send(&format!("HEAD {proxy}/page"), &[], "").await;
        assert_eq!((head.code, head.text.as_str()), (200, ""));
    }
}

#[tokio::test]
async fn links_and_redirects_lead_back_through_the_proxy() {
    let address = serve(None).await;
    let server = cluster(address).await;
    let proxy = format!("{PODS}/http:web:{}/proxy", address.port());
    let page = format!("<a href=\"{proxy}/rewriteme\">test</a>");
    for path in ["/page", "/packed"] {
        let answer = server.send(&format!("GET {proxy}{path}"), &[], "").await;
        assert_eq!((answer.code, answer.text.as_str()), (200, page.as_str()), "{path}");
        assert_eq!(answer.headers[header::CONTENT_LENGTH], page.len().to_string());
        assert!(!answer.headers.contains_key(header::CONTENT_ENCODING));
    }
    let long = server.send(&format!("GET {proxy}/long"), &[], "").await;
    assert_eq!(
        (long.code, long.text.len()),
        (200, PAGE.len() * 200_000),
        "what is too long to be held goes on as it is"
    );
    let away = server.send(&format!("GET {proxy}/away"), &[], "").await;
    assert_eq!(
        (away.code, away.headers[header::LOCATION].to_str().unwrap()),
        (302, format!("{proxy}/there/?x=1").as_str())
    );
    // A browser needs the slash to find what is relative; others are answered at once.
    let bare = server.send(&format!("GET {proxy}?a=b"), &[], "").await;
    assert_eq!((bare.code, bare.headers[header::LOCATION].to_str().unwrap()), (301, format!("{proxy}/?a=b").as_str()));
    let answer = server.send(&format!("POST {proxy}?a=b"), &[], "").await;
    assert_eq!((answer.code, &answer.body["uri"]), (201, &Value::from("/?a=b")));
}

#[tokio::test]
async fn pods_are_asked_over_tls_where_the_name_says_so() {
    let address = serve_tls().await;
    let server = cluster(address).await;
    for proxy in [
        format!("{PODS}/https:web:{}/proxy", address.port()),
        "/api/v1/namespaces/default/services/https:front:80/proxy".to_owned(),
    ] {
        let answer = server.send(&format!("GET {proxy}/page"), &[], "").await;
        assert_eq!((answer.code, answer.text), (200, format!("<a href=\"{proxy}/rewriteme\">test</a>")));
    }
    let plain = server.send(&format!("GET {PODS}/web:{}/proxy/page", address.port()), &[], "").await;
    assert_eq!(plain.code, 503, "{plain:?}");
}

#[tokio::test]
async fn what_is_not_there_is_said() {
    let address = serve(None).await;
    let server = cluster(address).await;
    let services = "/api/v1/namespaces/default/services";
    server
        .refused(
            &format!("GET {services}/front:other/proxy/"),
            Value::Null,
            503,
            "ServiceUnavailable",
            "no service port \"other\" found for service \"front\"",
        )
        .await;
    server
        .ok(
            &format!("POST {services}"),
            json!({"metadata": {"name": "empty"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}}),
        )
        .await;
    server
        .refused(
            &format!("GET {services}/empty/proxy/"),
            Value::Null,
            503,
            "ServiceUnavailable",
            "no endpoints available for service \"empty\"",
        )
        .await;
    assert_eq!(server.ask(&format!("GET {PODS}/nobody/proxy/"), Value::Null).await.code, 404);
    assert_eq!(server.ask(&format!("GET {PODS}/ftp:web:21/proxy/"), Value::Null).await.code, 400);
}
