//! shell: runs the controllers and the scheduler of one control plane.
//!
//! It reads the store's mirror, keeps indexes over it, asks the pure crates what to write, and carries that out through the
//! API like any other client. It decides nothing about objects itself.

mod binder;
mod catalog;
mod clock;
mod correlator;
mod executor;
mod index;
mod metrics;
mod observer;
mod queue;
mod recorder;
mod request;
mod runner;
mod scheduling;
#[cfg(test)]
mod tests;
mod view;
mod writer;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_apiserver::StreamError;
use coracle_controllers::Config;
use coracle_store::Store;
use http::{Request, Response};
use http_body_util::Full;
use ipnet::Ipv4Net;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

pub use metrics::Metrics;
use writer::Writer;

/// How long writes under way may take when the manager is asked to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// The manager's settings.
#[derive(Clone)]
pub struct ManagerConfig {
    /// The range that pods get their addresses from.
    pub cluster_cidr: Ipv4Net,
    /// The size of a node's part of it, as a prefix length.
    pub node_prefix: u8,
    /// The cluster's CA as PEM; published to every namespace.
    pub root_ca: String,
    /// Everything else the controllers can be told.
    pub controllers: Config,
    /// Profiles of the scheduler; none for the default one.
    pub profiles: Vec<coracle_scheduler::Profile>,
    /// What chance is seeded with; `None` for the system's.
    pub seed: Option<u64>,
    /// The wall clock; `None` for the system's.
    pub clock: Option<coracle_apiserver::Clock>,
    /// Where the manager counts; the caller keeps a clone to show it.
    pub metrics: Metrics,
}

impl Default for ManagerConfig {
    fn default() -> Self {
        Self {
            cluster_cidr: Ipv4Net::new_assert([10, 42, 0, 0].into(), 16),
            node_prefix: 24,
            root_ca: String::new(),
            controllers: Config::default(),
            profiles: Vec::new(),
            seed: None,
            clock: None,
            metrics: Metrics::default(),
        }
    }
}

/// The controllers and the scheduler of one control plane.
#[derive(Debug)]
pub struct Manager;

impl Manager {
    /// Runs until `stop`. Writes that are under way then have a few seconds to end; what they leave undone is found again
    /// by the next run, as nothing here remembers anything that the objects don't say.
    ///
    /// `door` is the API as a tower service; it answers with `Status` objects where it refuses.
    pub async fn run<S, B>(store: Arc<dyn Store>, door: S, config: ManagerConfig, stop: CancellationToken)
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Display,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<StreamError>,
    {
        let tasks = TaskTracker::new();
        let clock = clock::Clock::new(config.clock);
        let seed = config.seed.unwrap_or_else(rand::random);
        let settings = Config {
            cluster_cidr: Some(config.cluster_cidr.into()),
            node_cidr_prefix: config.node_prefix,
            root_ca_pem: config.root_ca,
            ..config.controllers
        };
        let writer = Writer::new(door.clone(), "kube-controller-manager");
        let (recorder, events) = recorder::channel();
        tasks.spawn(recorder::run(writer.clone(), events, clock.clone(), stop.child_token()));
        let executor = executor::Executor::new(writer, recorder.clone());
        let chance = (seed, clock.clone());
        let metrics = config.metrics;
        let runner =
            runner::Runner::new(Arc::clone(&store), executor, settings, chance, metrics.clone(), tasks.clone());
        tasks.spawn(runner.run(stop.child_token()));
        let binder = binder::Binder::new(Writer::new(door, "kube-scheduler"), recorder, clock.clone());
        match scheduling::Scheduling::new(store, config.profiles, (seed, clock), metrics, binder, tasks.clone()) {
            Ok(scheduling) => drop(tasks.spawn(scheduling.run(stop.child_token()))),
            Err(error) => tracing::error!(%error, "the scheduler's profiles can't be used; nothing is scheduled"),
        }
        tasks.close();
        stop.cancelled().await;
        if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
            tracing::warn!("writes were still under way when the manager stopped");
        }
    }
}
