//! One process of the server: the real API server over the store, with a clock and dice of the world, and an end.

use std::sync::{Arc, OnceLock};

use coracle_apiserver::admission::Chain;
use coracle_apiserver::admission::limit_ranger::LimitRanger;
use coracle_apiserver::admission::namespace_lifecycle::NamespaceLifecycle;
use coracle_apiserver::admission::node_restriction::NodeRestriction;
use coracle_apiserver::admission::pod_defaults::{DefaultTolerationSeconds, Priority, RuntimeClasses, ServiceAccounts};
use coracle_apiserver::admission::resource_quota::ResourceQuotas;
use coracle_apiserver::admission::service_addresses::ServiceAddresses;
use coracle_apiserver::auth::authenticate::Authenticator;
use coracle_apiserver::auth::authorize::BuiltInIdentities;
use coracle_apiserver::auth::token::Signer;
use coracle_apiserver::{Ambient, ApiServer, Parts};
use coracle_store::{SqliteStore, Store};
use ipnet::Ipv4Net;
use tokio_util::sync::CancellationToken;

use crate::books::Books;
use crate::clock::Clock;
use crate::vault::{Pace, Vault};

/// What all processes of one server share.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) disk: Arc<SqliteStore>,
    pub(crate) books: Arc<Books>,
    pub(crate) pace: Arc<Pace>,
    pub(crate) clock: Clock,
}

/// A process.
pub(crate) struct Process {
    pub(crate) api: Arc<ApiServer>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) dead: CancellationToken,
}

impl Process {
    /// A process whose names, uids and addresses follow from `seed`.
    pub(crate) fn start(ground: &Ground, seed: u64) -> Result<Self, String> {
        let dead = CancellationToken::new();
        let (disk, books, pace) = (Arc::clone(&ground.disk), Arc::clone(&ground.books), Arc::clone(&ground.pace));
        let store: Arc<dyn Store> = Arc::new(Vault::new(disk, books, pace, dead.clone()));
        let parts = Parts {
            store: Arc::clone(&store),
            authenticator: Authenticator::new(signer()?, Vec::new()),
            authorizer: Arc::new(BuiltInIdentities::new(Arc::clone(&store))),
            admission: admission(),
        };
        let api = ApiServer::with_ambient(parts, Ambient::seeded(ground.clock.shared(), seed));
        Ok(Self { api, store, dead })
    }

    /// Ends it at once: nothing that it was about to write is written.
    pub(crate) fn kill(&self) {
        self.dead.cancel();
    }
}

/// Signs tokens, which nobody here asks for; a key is made once, as that takes time and the system's dice.
fn signer() -> Result<Signer, String> {
    static KEY: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    let key = KEY.get_or_init(|| Signer::generate_key().map_err(|error| error.to_string()));
    Signer::new(&key.clone()?, "https://kubernetes.default.svc").map_err(|error| error.to_string())
}

/// As the server has it.
fn admission() -> Chain {
    Chain::new(vec![
        Box::new(NamespaceLifecycle),
        Box::new(LimitRanger),
        Box::new(NodeRestriction),
        Box::new(ServiceAccounts),
        Box::new(DefaultTolerationSeconds),
        Box::new(Priority),
        Box::new(RuntimeClasses),
        Box::new(ServiceAddresses::new(Ipv4Net::new_assert([10, 43, 0, 0].into(), 16), 30_000..=32_767)),
        Box::new(ResourceQuotas),
    ])
}
