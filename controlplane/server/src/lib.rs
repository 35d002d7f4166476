//! shell: the composition root of a control plane: store, API server, manager, and the files they live on.
//!
//! [`Server::start`] returns when the API answers and the cluster's first objects exist. Nothing is decided here.

mod bootstrap;
mod certificates;
mod files;
mod kubeconfig;
mod upkeep;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_apiserver::admission::Chain;
use coracle_apiserver::admission::certificate_requests::CertificateRequests;
use coracle_apiserver::admission::limit_ranger::LimitRanger;
use coracle_apiserver::admission::namespace_lifecycle::NamespaceLifecycle;
use coracle_apiserver::admission::node_restriction::NodeRestriction;
use coracle_apiserver::admission::pod_defaults::{DefaultTolerationSeconds, Priority, RuntimeClasses, ServiceAccounts};
use coracle_apiserver::admission::resource_quota::ResourceQuotas;
use coracle_apiserver::admission::service_addresses::ServiceAddresses;
use coracle_apiserver::auth::authenticate::{Authenticator, FixedToken};
use coracle_apiserver::auth::authorize::BuiltInIdentities;
use coracle_apiserver::auth::token::Signer;
use coracle_apiserver::auth::{MASTERS, User};
use coracle_apiserver::listen::Presented;
use coracle_apiserver::{ApiServer, Door, NodeProxy, Parts, listen, pki};
use coracle_store::{Options, SqliteStore, Store, StoreError};
use ipnet::Ipv4Net;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use certificates::Certificates;
pub use certificates::own_address;
pub use files::Files;
use upkeep::Upkeep;

/// The issuer of service account tokens: the API's name inside every cluster.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// What a control plane is told.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where the API listens.
    pub bind: IpAddr,
    /// The API's TCP port; 0 takes a free one.
    pub port: u16,
    /// Pods' addresses; each node gets a part.
    pub pod_range: Ipv4Net,
    /// The length of the prefix of a node's part.
    pub node_prefix: u8,
    /// Services' addresses.
    pub service_range: Ipv4Net,
    /// Services' ports on nodes.
    pub node_ports: std::ops::RangeInclusive<u16>,
    /// More names and addresses by which clients reach the API.
    pub extra_names: Vec<String>,
    /// How long superseded states are kept, for watches and lists that ask for the past.
    pub history: Duration,
}

impl ServerConfig {
    /// The defaults over a data directory.
    #[must_use]
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            bind: IpAddr::from([0, 0, 0, 0]),
            port: 6443,
            pod_range: Ipv4Net::new_assert([10, 42, 0, 0].into(), 16),
            node_prefix: 24,
            service_range: Ipv4Net::new_assert([10, 43, 0, 0].into(), 16),
            node_ports: 30_000..=32_767,
            extra_names: Vec::new(),
            // Kubernetes compacts etcd every five minutes, and clients live with that.
            history: Duration::from_secs(5 * 60),
        }
    }
}

/// Why a control plane does not start; the words say what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The API's address cannot be listened on.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says, and what helps.
        why: String,
    },
    /// A file of the data directory cannot be used.
    #[error("{}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Certificates cannot be made.
    #[error(transparent)]
    Pki(#[from] pki::PkiError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] listen::ListenError),
    /// The first objects could not be made.
    #[error("the cluster's first objects could not be made: {0}")]
    Bootstrap(String),
}

/// A running control plane.
pub struct Server {
    api: Arc<ApiServer>,
    store: Arc<dyn Store>,
    files: Files,
    address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// Starts everything; returns when `/readyz` answers ok.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub async fn start(config: ServerConfig) -> Result<Self, ServerError> {
        // The address first: a server that cannot be reached should touch nothing.
        let (listener, address) = bind(&config).await?;
        let files = Files::open(&config.data_dir)?;
        files.check_store()?;
        let dir = files.store_dir();
        let options = Options { keep_history: Some(config.history), ..Options::default() };
        let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&dir, options)).await;
        let store: Arc<dyn Store> = match opened {
            Ok(store) => Arc::new(store?),
            Err(join) => return Err(ServerError::Bootstrap(join.to_string())),
        };
        let certificates = Certificates::load(&files, &config, jiff::Timestamp::now())?;
        let signer = Signer::new(&files.token_key()?, ISSUER)
            .map_err(|e| ServerError::File { path: files.token_key_path(), why: e.to_string() })?;
        let admin = Arc::new(User::authenticated("admin", &[MASTERS]));
        let tokens = vec![FixedToken { token: files.admin_token()?, user: admin }];
        let api = ApiServer::new(Parts {
            store: Arc::clone(&store),
            authenticator: Authenticator::new(signer, tokens),
            authorizer: Arc::new(BuiltInIdentities::new(Arc::clone(&store))),
            admission: admission(&config),
        });
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let presented = Presented::new(certificates.server())?;
        let tls = listen::tls(Arc::clone(&presented), certificates.ca())?;
        tasks.spawn(listen::serve(Arc::clone(&api), listener, tls, stop.child_token()));
        let server = Self { api, store, files, address, stop, tasks };
        bootstrap::reconcile(&server.client(), &config, address).await.map_err(ServerError::Bootstrap)?;
        server.start_manager(&config, certificates.ca().to_owned());
        let upkeep =
            Upkeep { client: server.client(), files: server.files.clone(), config, address, certificates, presented };
        upkeep.write_kubeconfig()?;
        server.tasks.spawn(upkeep.run(server.stop.child_token()));
        server.api.set_ready();
        Ok(server)
    }

    fn start_manager(&self, config: &ServerConfig, ca_certificate: String) {
        let metrics = coracle_manager::Metrics::default();
        self.api.add_metrics(Arc::clone(metrics.registry()));
        let manager = coracle_manager::ManagerConfig {
            cluster_cidr: config.pod_range,
            node_prefix: config.node_prefix,
            root_ca: ca_certificate,
            metrics,
            ..coracle_manager::ManagerConfig::default()
        };
        let (store, stop) = (Arc::clone(&self.store), self.stop.child_token());
        self.tasks.spawn(coracle_manager::Manager::run(store, self.door(), manager, stop));
    }

    /// A client inside the process that may do everything.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.client_as(User::authenticated("system:coracle", &[MASTERS]))
    }

    /// A client inside the process for the agent of a node.
    #[must_use]
    pub fn node_client(&self, node: &str) -> kube::Client {
        self.client_as(User::node(node))
    }

    fn client_as(&self, user: User) -> kube::Client {
        kube::Client::new(Door::new(Arc::clone(&self.api), user), "default")
    }

    /// The API's door for the administrator, for callers inside the process that bring their own requests.
    #[must_use]
    pub fn door(&self) -> Door {
        Door::new(Arc::clone(&self.api), User::authenticated("system:coracle", &[MASTERS]))
    }

    /// Where the objects are, for readers inside the process.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// How the API reaches agents. Set once.
    pub fn set_nodes(&self, nodes: Arc<dyn NodeProxy>) {
        self.api.set_nodes(nodes);
    }

    /// Where the API listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.files.kubeconfig_path()
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.files.dir()
    }

    /// Stops in order: no new connections, answers under way end, the store writes down what it holds.
    ///
    /// # Errors
    /// The store could not write.
    pub async fn stop(self) -> Result<(), ServerError> {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.store.close().await?;
        Ok(())
    }
}

fn admission(config: &ServerConfig) -> Chain {
    Chain::new(vec![
        Box::new(NamespaceLifecycle),
        Box::new(LimitRanger),
        Box::new(NodeRestriction),
        Box::new(CertificateRequests),
        Box::new(ServiceAccounts),
        Box::new(DefaultTolerationSeconds),
        Box::new(Priority),
        Box::new(RuntimeClasses),
        Box::new(ServiceAddresses::new(config.service_range, config.node_ports.clone())),
        // The last: it charges what the others have made of an object.
        Box::new(ResourceQuotas),
    ])
}

async fn bind(config: &ServerConfig) -> Result<(TcpListener, SocketAddr), ServerError> {
    let address = SocketAddr::new(config.bind, config.port);
    let fail = |e: &std::io::Error| {
        let why = match e.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!(
                    "port {} is in use; stop what uses it (another coracle server?), or choose another with --port",
                    config.port
                )
            }
            std::io::ErrorKind::PermissionDenied => {
                "permission denied; choose a port above 1023 with --port".to_owned()
            }
            std::io::ErrorKind::AddrNotAvailable => {
                "this machine has no such address; choose another with --bind".to_owned()
            }
            _ => e.to_string(),
        };
        ServerError::Listen { address, why }
    };
    let listener = TcpListener::bind(address).await.map_err(|e| fail(&e))?;
    let address = listener.local_addr().map_err(|e| fail(&e))?;
    Ok((listener, address))
}
