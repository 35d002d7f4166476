//! The links between agents and the server: they carry requests, answers and streams late, or lose them. What arrives
//! is put into the world's inbox.

use std::sync::Arc;
use std::time::Duration;

use coracle_apiserver::ApiServer;
use coracle_apiserver::auth::User;
use http::Method;
use http_body_util::BodyExt;
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::WatchEvent;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, JSON, Refusal};
use crate::clock::Clock;
use crate::node::Ask;

/// What may wait for the world: far more than is ever under way.
pub(crate) const INBOX: usize = 65_536;
/// The longest a message takes on a link that is well.
const USUAL: Duration = Duration::from_millis(30);
/// How long it takes to notice that a stream was cut.
const NOTICED_MILLIS: std::ops::Range<u64> = 2_000..8_000;
/// How long a watch lives, as kube's clients ask for it.
const WATCH_SECONDS: u32 = 295;

/// One life of one agent.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) number: usize,
    pub(crate) name: String,
    /// Counts the agent's lives: what is meant for an earlier one is not heard.
    pub(crate) life: u32,
}

/// Something that arrived at an agent.
pub(crate) struct Arrival {
    pub(crate) number: usize,
    pub(crate) life: u32,
    pub(crate) what: Arrived,
}

pub(crate) enum Arrived {
    /// The answer to a request.
    Reply(u64, Result<(), Refusal>),
    /// What there is at the beginning of a stream.
    Listing(u64, Vec<Arc<Pod>>),
    /// What changed since; whether the pod is still there.
    Changes(u64, Vec<(Arc<Pod>, bool)>),
    /// The stream is over.
    Broken(u64),
}

impl Arrived {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Reply(_, Ok(())) => "yes",
            Self::Reply(_, Err(_)) => "no",
            Self::Listing(..) => "pods",
            Self::Changes(..) => "changes",
            Self::Broken(_) => "end of a stream",
        }
    }
}

/// How a link is.
#[derive(Clone, Copy, Default)]
pub(crate) struct Condition {
    pub(crate) slow: Option<Duration>,
    pub(crate) loss: f64,
    pub(crate) partitioned: bool,
}

struct State {
    links: Vec<Condition>,
    rng: SmallRng,
    server: Option<Arc<ApiServer>>,
}

/// All links.
pub(crate) struct Net {
    state: Mutex<State>,
    inbox: mpsc::Sender<Arrival>,
    clock: Clock,
}

impl Net {
    pub(crate) fn new(nodes: usize, seed: u64, inbox: mpsc::Sender<Arrival>, clock: Clock) -> Arc<Self> {
        let links = vec![Condition::default(); nodes];
        let state = State { links, rng: SmallRng::seed_from_u64(seed), server: None };
        Arc::new(Self { state: Mutex::new(state), inbox, clock })
    }

    /// The server that answers from now on.
    pub(crate) fn set_server(&self, server: Option<Arc<ApiServer>>) {
        self.state.lock().server = server;
    }

    /// Changes how a link is.
    pub(crate) fn change(&self, number: usize, change: impl FnOnce(&mut Condition)) {
        change(&mut self.state.lock().links[number]);
    }

    fn server(&self) -> Option<Arc<ApiServer>> {
        self.state.lock().server.clone()
    }

    /// How long a message takes; `None` if it is lost.
    fn carried(&self, number: usize) -> Option<Duration> {
        let State { links, rng, .. } = &mut *self.state.lock();
        let link = links[number];
        if link.partitioned || link.loss > 0.0 && rng.random_bool(link.loss) {
            return None;
        }
        let most = link.slow.unwrap_or(USUAL).as_millis();
        Some(Duration::from_millis(rng.random_range(1..=u64::try_from(most).unwrap_or(1).max(1))))
    }

    /// Takes a message to the other end; whether it arrived.
    async fn carry(&self, number: usize) -> bool {
        let Some(delay) = self.carried(number) else { return false };
        tokio::time::sleep(delay).await;
        true
    }

    async fn deliver(&self, to: &Address, what: Arrived) {
        // The inbox is closed only when the world is over.
        let _ = self.inbox.send(Arrival { number: to.number, life: to.life, what }).await;
    }

    /// Sends a request of an agent; its answer arrives later, or never.
    pub(crate) fn send(self: &Arc<Self>, from: Address, id: u64, ask: Ask) {
        let net = Arc::clone(self);
        tokio::spawn(async move {
            if !net.carry(from.number).await {
                return;
            }
            let Some(server) = net.server() else { return };
            let client = Client::new(Arc::clone(&server), User::node(&from.name), net.clock);
            let result = ask.carry_out(&client, &from.name).await;
            // A server that died meanwhile does not answer.
            let same = net.server().is_some_and(|now| Arc::ptr_eq(&now, &server));
            if same && net.carry(from.number).await {
                net.deliver(&from, Arrived::Reply(id, result)).await;
            }
        });
    }

    /// Lists and watches the pods of an agent's node until something breaks, or the agent asks anew.
    pub(crate) fn follow(self: &Arc<Self>, from: Address, stream: u64, stop: CancellationToken) {
        let net = Arc::clone(self);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = net.stream(&from, stream) => {}
            }
            let noticed = net.state.lock().rng.random_range(NOTICED_MILLIS);
            tokio::time::sleep(Duration::from_millis(noticed)).await;
            net.deliver(&from, Arrived::Broken(stream)).await;
        });
    }

    async fn stream(&self, from: &Address, stream: u64) -> Option<()> {
        self.carry(from.number).await.then_some(())?;
        let client = Client::new(self.server()?, User::node(&from.name), self.clock);
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}", from.name);
        let list: List<Pod> = client.get(&path).await.ok()?;
        let version = list.metadata.resource_version?;
        let pods = list.items.into_iter().map(Arc::new).collect();
        self.carry(from.number).await.then_some(())?;
        self.deliver(from, Arrived::Listing(stream, pods)).await;
        let path =
            format!("{path}&watch=1&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={version}");
        let response = client.send(Method::GET, &path, JSON, &Value::Null).await;
        if !response.status().is_success() {
            return None;
        }
        let mut body = response.into_body();
        let mut text: Vec<u8> = Vec::new();
        while let Some(frame) = body.frame().await {
            text.extend_from_slice(frame.ok()?.data_ref()?);
            let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let lines: Vec<u8> = text.drain(..end).collect();
            let mut changes = Vec::new();
            for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                match serde_json::from_slice(line).ok()? {
                    WatchEvent::Added(pod) | WatchEvent::Modified(pod) => changes.push((Arc::new(pod), true)),
                    WatchEvent::Deleted(pod) => changes.push((Arc::new(pod), false)),
                    WatchEvent::Bookmark { .. } => {}
                    WatchEvent::ErrorStatus(_) | WatchEvent::ErrorOther(_) => return None,
                }
            }
            self.carry(from.number).await.then_some(())?;
            self.deliver(from, Arrived::Changes(stream, changes)).await;
        }
        None
    }
}
