//! tmp
use std::sync::Arc;
use coracle_apiserver::*;
use coracle_apiserver::auth::{*, authenticate::*, authorize::*, token::Signer};
#[tokio::main]
async fn main() {
    let dir = std::path::PathBuf::from(std::env::args().nth(1).unwrap());
    std::fs::create_dir_all(&dir).unwrap();
    let store: Arc<dyn coracle_store::Store> = Arc::new(coracle_store::SqliteStore::open(&dir, coracle_store::Options::default()).unwrap());
    let now = jiff::Timestamp::now();
    let ca = pki::Authority::generate(now).unwrap();
    let server = ca.server(&["localhost".into()], &["127.0.0.1".parse().unwrap()], now).unwrap();
    let admin = ca.client("admin", &[MASTERS], now).unwrap();
    for (n, t) in [("ca.crt", &ca.identity().certificate), ("admin.crt", &admin.certificate), ("admin.key", &admin.key)] { std::fs::write(dir.join(n), t).unwrap(); }
    use admission::*;
    let chain = Chain::new(vec![Box::new(namespace_lifecycle::NamespaceLifecycle), Box::new(node_restriction::NodeRestriction), Box::new(pod_defaults::ServiceAccounts), Box::new(pod_defaults::DefaultTolerationSeconds), Box::new(pod_defaults::Priority), Box::new(pod_defaults::RuntimeClasses), Box::new(service_addresses::ServiceAddresses::new("10.43.0.0/16".parse().unwrap(), 30000..=32767))]);
    let api = ApiServer::new(Parts { store, authenticator: Authenticator::new(Signer::new(&Signer::generate_key().unwrap(), "https://x").unwrap(), vec![FixedToken{token:"t".into(), user: Arc::new(User::authenticated("admin", &[MASTERS]))}]), authorizer: Arc::new(BuiltInIdentities), admission: chain });
    let l = tokio::net::TcpListener::bind("127.0.0.1:7443").await.unwrap();
    let tls = listen::tls_config(&server, &ca.identity().certificate).unwrap();
    listen::serve(api, l, tls, tokio_util::sync::CancellationToken::new()).await;
}
