//! The control plane: the server that agents and users talk to, and the real manager beside it, each with a life of its
//! own over one store.

use std::sync::Arc;
use std::time::Duration;

use coracle_apiserver::auth::{MASTERS, User};
use coracle_manager::{Manager, ManagerConfig};
use coracle_store::{Options, SqliteStore};
use k8s_openapi::api::core::v1::Namespace;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::books::Books;
use crate::client::Client;
use crate::clock::Clock;
use crate::gate::Gate;
use crate::plan::Events;
use crate::process::{Ground, Process};
use crate::trace::Keep;
use crate::vault::Pace;

/// The control plane.
pub(crate) struct Control {
    pub(crate) ground: Ground,
    pub(crate) server: Option<Process>,
    manager: Option<(Process, CancellationToken)>,
    events: Events,
    rng: SmallRng,
}

impl Control {
    /// A control plane with an empty store; nothing of it runs.
    pub(crate) fn new(seed: u64, clock: Clock, keep: Keep, events: Events) -> Result<Self, String> {
        let options = Options {
            // Short, so that compaction happens within a run.
            keep_history: Some(Duration::from_secs(40)),
            min_superseded: 200,
            ..Options::default()
        };
        let mut rng = SmallRng::seed_from_u64(seed);
        let disk = Arc::new(SqliteStore::in_memory(options).map_err(|error| error.to_string())?);
        let (books, pace) = (Arc::new(Books::new(clock, keep)), Arc::new(Pace::new(rng.random())));
        Ok(Self { ground: Ground { disk, books, pace, clock }, server: None, manager: None, events, rng })
    }

    /// Starts the server; with an empty store it makes the first objects.
    pub(crate) async fn start_server(&mut self) -> Result<(), String> {
        let server = Process::start(&self.ground, self.rng.random())?;
        let admin = Client::new(Arc::clone(&server.api), User::authenticated("admin", &[MASTERS]), self.ground.clock);
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            if admin.get::<Namespace>(&format!("/api/v1/namespaces/{name}")).await.is_ok() {
                continue;
            }
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            admin.post("/api/v1/namespaces", &namespace).await.map_err(|refusal| refusal.message)?;
        }
        server.api.set_ready();
        self.server = Some(server);
        Ok(())
    }

    /// Starts the manager.
    pub(crate) fn start_manager(&mut self) -> Result<(), String> {
        let process = Process::start(&self.ground, self.rng.random())?;
        let stop = CancellationToken::new();
        let config = ManagerConfig {
            root_ca: "a certificate".into(),
            seed: Some(self.rng.random()),
            clock: Some(self.ground.clock.shared()),
            ..ManagerConfig::default()
        };
        let gate = Gate::new(&process.api, self.events);
        tokio::spawn(Manager::run(Arc::clone(&process.store), gate, config, stop.clone()));
        self.manager = Some((process, stop));
        Ok(())
    }

    pub(crate) fn is_up(&self) -> bool {
        self.server.is_some()
    }

    pub(crate) fn is_managed(&self) -> bool {
        self.manager.is_some()
    }

    /// Ends the manager at once.
    pub(crate) fn kill_manager(&mut self) {
        if let Some((process, stop)) = self.manager.take() {
            process.kill();
            stop.cancel();
        }
    }

    /// Ends the server and the manager at once; the store comes back as its disk has it.
    pub(crate) fn crash(&mut self) -> Result<(), String> {
        self.kill_manager();
        if let Some(server) = self.server.take() {
            server.kill();
        }
        let disk = self.ground.disk.crash().map_err(|error| format!("the store did not come back: {error}"))?;
        self.ground.disk = Arc::new(disk);
        let disk = Arc::clone(&self.ground.disk);
        self.ground.books.with(|records| records.ledger.compare_after_crash(&disk))
    }

    /// A client of the server for a user.
    pub(crate) fn client(&self, user: User) -> Option<Client> {
        self.server.as_ref().map(|server| Client::new(Arc::clone(&server.api), user, self.ground.clock))
    }

    /// A client that may do everything.
    pub(crate) fn admin(&self) -> Option<Client> {
        self.client(User::authenticated("admin", &[MASTERS]))
    }
}
