//! Pulls against a small registry in this process.

use std::{collections::BTreeMap, convert::Infallible, net::SocketAddr};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::*;
use crate::{
    StoreLimits,
    manifest::{MANIFEST, for_component},
};

fn anonymous(_: &str) -> Vec<Login> {
    Vec::new()
}

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0 and more";

/// `user:secret`.
const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";

/// Path to answer; a path is `manifests/REFERENCE` or `blobs/DIGEST`.
#[derive(Clone, Default)]
struct Registry {
    content: BTreeMap<String, Vec<u8>>,
    needs_login: bool,
    needs_token: bool,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    fn with(tag: &str, component: &[u8]) -> Self {
        let mut registry = Self::default();
        let digest = Digest::of(component);
        let (_, manifest) = for_component(&digest, component.len() as u64);
        registry.content.insert(format!("blobs/{digest}"), component.to_vec());
        registry.content.insert(format!("manifests/{}", Digest::of(&manifest)), manifest.clone());
        registry.content.insert(format!("manifests/{tag}"), manifest);
        registry
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        self.requests.lock().push(request.uri().to_string());
        let respond = |status: StatusCode, body: Vec<u8>| {
            let response = Response::builder().status(status).header("content-type", MANIFEST);
            response.header("www-authenticate", "Basic realm=\"x\"").body(Full::new(body.into())).unwrap()
        };
        let login = request.headers().get("authorization").is_some_and(|value| value == BASIC);
        if self.needs_token {
            let host = request.headers()["host"].to_str().unwrap();
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
            let bearer = request.headers().get("authorization").is_some_and(|value| value == "Bearer granted");
            let unauthorized =
                || Response::builder().status(StatusCode::UNAUTHORIZED).header("www-authenticate", challenge.clone());
            match (path.as_str(), login, bearer) {
                ("/token", true, _) => return respond(StatusCode::OK, br#"{"token":"granted"}"#.to_vec()),
                (_, _, true) => {}
                _ => return unauthorized().body(Full::default()).unwrap(),
            }
        }
        if self.needs_login && !login {
            return respond(StatusCode::UNAUTHORIZED, Vec::new());
        }
        let content = path.strip_prefix("/v2/team/hello/").and_then(|path| self.content.get(path));
        match content {
            _ if path == "/v2/" => respond(StatusCode::OK, Vec::new()),
            Some(content) => respond(StatusCode::OK, content.clone()),
            None => {
                let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
                respond(StatusCode::NOT_FOUND, body.to_vec())
            }
        }
    }

    async fn serve(self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let registry = self.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let response = registry.answer(&request);
                        async { Ok::<_, Infallible>(response) }
                    });
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        address
    }
}

struct Setup {
    puller: Puller,
    store: Arc<ImageStore>,
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    _folder: tempfile::TempDir,
}

impl Setup {
    async fn new(registry: Registry, limits: StoreLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(ImageStore::open(folder.path(), limits).unwrap());
        let requests = registry.requests.clone();
        let address = registry.serve().await;
        Self {
            puller: Puller::new(store.clone(), PullOptions::default(), PullRecords::default()),
            store,
            address,
            requests,
            _folder: folder,
        }
    }

    fn reference(&self, rest: &str) -> ImageReference {
        format!("{}/team/hello{rest}", self.address).parse().unwrap()
    }

    async fn fail(&self, rest: &str) -> PullError {
        self.puller.pull(&self.reference(rest), &anonymous).await.unwrap_err()
    }
}

#[tokio::test]
async fn an_image_is_pulled_once_and_found_by_tag_and_digest() {
    let setup = Setup::new(Registry::with("v1", COMPONENT), StoreLimits::default()).await;
    let reference = setup.reference(":v1");
    let pulled = setup.puller.pull(&reference, &anonymous).await.unwrap();
    assert_eq!(std::fs::read(setup.store.component_path(&pulled.image)).unwrap(), COMPONENT);
    assert_eq!(setup.store.resolve(&reference), Some(pulled.image.clone()));
    let by_digest = setup.reference(&format!("@{}", pulled.image.id));
    assert_eq!(setup.store.resolve(&by_digest), Some(pulled.image.clone()));
    assert_eq!(pulled.image.pinned, Pinned::No);

    // The second time only the manifest is asked for.
    setup.puller.pull(&reference, &anonymous).await.unwrap();
    setup.puller.pull(&by_digest, &anonymous).await.unwrap();
    let blobs = setup.requests.lock().iter().filter(|path| path.contains("/blobs/")).count();
    assert_eq!(blobs, 1);
}

#[tokio::test]
async fn credentials_are_tried_in_order() {
    let registry = Registry { needs_login: true, ..Registry::with("v1", COMPONENT) };
    let setup = Setup::new(registry, StoreLimits::default()).await;
    assert!(matches!(setup.fail(":v1").await, PullError::Denied { .. }));
    let reference = setup.reference(":v1");
    let pull = async |passwords: &[&str]| {
        let of = |password: &&str| ("user".to_owned(), (*password).to_owned());
        let logins: Vec<Login> = passwords.iter().map(of).collect();
        let known = reference.repository();
        setup.puller.pull(&reference, &|repository| if repository == known { logins.clone() } else { Vec::new() }).await
    };
    let denied = pull(&["wrong", "older"]).await;
    assert!(matches!(denied, Err(PullError::Denied { .. })), "{denied:?}");
    let image = pull(&["wrong", "secret"]).await.unwrap().image;
    let may_use = |password: &str| {
        let logins = [("user".to_owned(), password.to_owned())];
        setup.puller.records().may_use(image.id.as_str(), &reference.repository(), &logins)
    };
    assert!(may_use("secret") && !may_use("wrong"), "what a login has opened is open to that login");
}

#[tokio::test]
async fn a_registry_that_gives_tokens_gives_one_for_the_login() {
    let registry = Registry { needs_token: true, ..Registry::with("v1", COMPONENT) };
    let setup = Setup::new(registry, StoreLimits::default()).await;
    let reference = setup.reference(":v1");
    let pull = async |password: &str| {
        let logins = vec![("user".to_owned(), password.to_owned())];
        setup.puller.pull(&reference, &move |_| logins.clone()).await
    };
    assert!(matches!(setup.fail(":v1").await, PullError::Denied { .. }));
    assert!(matches!(pull("wrong").await, Err(PullError::Denied { .. })));
    pull("secret").await.unwrap();
    let asked =
        setup.requests.lock().iter().any(|path| path == "/token?scope=repository%3Ateam%2Fhello%3Apull&service=s");
    assert!(asked, "{:?}", setup.requests.lock());
}

#[tokio::test]
async fn a_mirror_is_asked_first_under_the_name_it_has_there_and_with_its_own_login() {
    let mirror = Registry { needs_login: true, ..Registry::with("v1", COMPONENT) }.serve().await;
    let setup = Setup::new(Registry::default(), StoreLimits::default()).await;
    let text = format!(
        "mirrors:\n  {}:\n    endpoint: ['http://127.0.0.1:1', 'http://{mirror}']\n    rewrite: {{'^far/(.*)$': 'team/$1'}}\n\
         configs:\n  {mirror}: {{auth: {{username: user, password: secret}}}}\n",
        setup.address
    );
    let registries = Arc::new(crate::Registries::of(&text));
    let puller = Puller::new(setup.store.clone(), PullOptions { registries }, PullRecords::default());
    let reference: ImageReference = format!("{}/far/hello:v1", setup.address).parse().unwrap();
    let image = puller.pull(&reference, &anonymous).await.unwrap().image;
    assert!(image.names.contains(&reference.to_string()), "it has the name it was asked by: {image:?}");
    assert!(setup.requests.lock().is_empty(), "the registry itself was not asked");
    let absent: ImageReference = format!("{}/far/absent:v1", setup.address).parse().unwrap();
    let error = puller.pull(&absent, &anonymous).await.unwrap_err();
    assert!(matches!(error.of_registry(), PullError::NotFound { .. }), "{error}");
    assert!(error.to_string().contains(&format!("http://{mirror}/v2/: ")), "{error}");
}

#[tokio::test]
async fn failures_say_what_went_wrong() {
    let mut registry = Registry::with("v1", COMPONENT);
    let digest = Digest::of(COMPONENT);
    registry.content.insert(format!("blobs/{digest}"), b"\0asm\x0d\0\x01\0 and evil".to_vec());
    let (_, manifest) = for_component(&Digest::of(b"\0asm\x01\0\0\0"), 8);
    registry.content.insert("manifests/core".into(), manifest);
    registry.content.insert(format!("blobs/{}", Digest::of(b"\0asm\x01\0\0\0")), b"\0asm\x01\0\0\0".to_vec());
    let setup = Setup::new(registry, StoreLimits::default()).await;
    let missing = setup.fail(":v9").await;
    assert!(matches!(missing, PullError::NotFound { .. }), "{missing}");
    assert!(missing.to_string().ends_with("team/hello:v9: not found"), "{missing}");
    let damaged = setup.fail(":v1").await.to_string();
    assert!(damaged.contains("digest") || damaged.contains("Digest"), "{damaged}");
    let core = setup.fail(":core").await.to_string();
    assert!(core.contains("is a core WebAssembly module, not a component"), "{core}");
    assert!(setup.store.list().is_empty());
}

#[tokio::test]
async fn too_big_a_component_is_refused_before_it_is_fetched() {
    let limits = StoreLimits { max_component_bytes: 4, ..StoreLimits::default() };
    let setup = Setup::new(Registry::with("v1", COMPONENT), limits).await;
    let error = setup.fail(":v1").await;
    assert!(matches!(error, PullError::Artifact { source: ArtifactError::TooBig { .. }, .. }), "{error}");
    assert!(!setup.requests.lock().iter().any(|path| path.contains("/blobs/")));
}

/// A registry whose answers never end, to any request; gives its address and what it sent of the last answer.
async fn endless(head: &'static str) -> (SocketAddr, Arc<std::sync::atomic::AtomicUsize>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = sent.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let size = stream.read(&mut request).await.unwrap_or(0);
            if request[..size].starts_with(b"GET /v2/ ") {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
                continue;
            }
            count.store(0, std::sync::atomic::Ordering::Relaxed);
            let _ = stream.write_all(head.as_bytes()).await;
            let zeros = vec![b'0'; 64 * 1024];
            while stream.write_all(b"10000\r\n").await.is_ok() && stream.write_all(&zeros).await.is_ok() {
                count.fetch_add(zeros.len(), std::sync::atomic::Ordering::Relaxed);
                let _ = stream.write_all(b"\r\n").await;
            }
        }
    });
    (address, sent)
}

#[tokio::test]
async fn of_an_answer_without_end_no_more_is_read_than_it_can_need() {
    for (head, refused) in [
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "more than the limit of"),
        ("HTTP/1.1 403 Forbidden\r\ntransfer-encoding: chunked\r\n\r\n", "the registry answered 403 Forbidden"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", "99999999999 bytes, more than the limit of"),
    ] {
        let (address, sent) = endless(head).await;
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(ImageStore::open(folder.path(), StoreLimits::default()).unwrap());
        let limit = usize::try_from(store.limits().max_manifest_bytes).unwrap();
        let reference = format!("{address}/team/hello").parse().unwrap();
        let error = Puller::new(store, PullOptions::default(), PullRecords::default())
            .pull(&reference, &anonymous)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(refused), "{error}");
        // What the sockets of both sides hold is sent and read by nobody.
        let sent = sent.load(std::sync::atomic::Ordering::Relaxed);
        assert!(sent < limit + (16 << 20), "{sent}");
    }
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_unavailable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(ImageStore::open(folder.path(), StoreLimits::default()).unwrap());
    let reference = format!("{address}/team/hello").parse().unwrap();
    let error = Puller::new(store, PullOptions::default(), PullRecords::default())
        .pull(&reference, &anonymous)
        .await
        .unwrap_err();
    assert!(matches!(error, PullError::Unavailable { .. }), "{error}");
}

#[test]
fn registries_of_this_machine_are_known() {
    assert!(is_local("localhost:5000") && is_local("127.0.0.1") && is_local("[::1]:5000") && !is_local("ghcr.io"));
}
