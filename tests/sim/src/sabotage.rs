//! Promises broken on purpose. Each has a check that must notice; a check that none of these trips watches nothing.

use std::sync::Arc;

use coracle_agent_core::PodUid;
use coracle_agent_core::workload::{Command, ContainerKey};
use coracle_store::{Durability, Op, SqliteStore, Store, Value};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value as Json, json};

use crate::apps::{self, NAMESPACE, path};
use crate::checks::always_serves;
use crate::client::Client;
use crate::followers::Tamper;
use crate::node::Notice;
use crate::objects::{
    all, collection, is_ended, is_ending, is_serving, is_task, label, name_of, namespace_of, node_of, one, uid_of,
};
use crate::world::{Event, Outlives, World};

/// Until machines lose their power: long enough for a short task to end and be told of.
const POWER_CUT: std::time::Duration = std::time::Duration::from_secs(8);

/// A promise to be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A pod's containers run on a second node.
    DoubleRun,
    /// Pods are bound to one node until it is too full.
    OverCommit,
    /// A revision is given out twice.
    RepeatRevision,
    /// A watch loses an event.
    WatchGap,
    /// A watch tells an event twice.
    WatchRepeat,
    /// A write is acknowledged that no disk has.
    LoseWrite,
    /// A healthy container is ended behind the agent's back.
    Restart,
    /// An agent stops a container that nobody asked it to stop.
    Stop,
    /// The container of a pod that has ended is started.
    Rerun,
    /// Nodes tell of ends before they have recorded them, and then lose their power.
    Forgetful,
    /// A pod that has ended is said to run.
    Unend,
    /// A node turns a pod away for want of room.
    TurnAway,
    /// A budget is spent further than it goes.
    Overspend,
    /// A slice sends traffic to a pod that does not serve.
    StaleEndpoint,
    /// A slice loses an endpoint that serves, and nobody mends it.
    LostEndpoint,
    /// A Service loses all its endpoints in a rollout.
    NoEndpoints,
    /// An app is scaled beyond what its rollout may.
    Surge,
    /// An object vanishes that somebody holds.
    Vanish,
    /// An owner vanishes before what blocks its deletion.
    Foreground,
    /// A pod is preempted for nothing.
    Preempt,
    /// An object whose owner is gone stays.
    Orphan,
    /// A namespace never goes.
    Stuck,
}

impl Sabotage {
    /// Every one.
    pub const ALL: &'static [Self] = &[
        Self::DoubleRun,
        Self::OverCommit,
        Self::RepeatRevision,
        Self::WatchGap,
        Self::WatchRepeat,
        Self::LoseWrite,
        Self::Restart,
        Self::Stop,
        Self::Rerun,
        Self::Forgetful,
        Self::Unend,
        Self::TurnAway,
        Self::Overspend,
        Self::StaleEndpoint,
        Self::LostEndpoint,
        Self::NoEndpoints,
        Self::Surge,
        Self::Vanish,
        Self::Foreground,
        Self::Preempt,
        Self::Orphan,
        Self::Stuck,
    ];

    /// What the check says that must notice.
    #[must_use]
    pub fn complaint(self) -> &'static str {
        match self {
            Self::DoubleRun => "runs on node-",
            Self::OverCommit => "is over-committed",
            Self::RepeatRevision => "was written at revision",
            Self::WatchGap | Self::WatchRepeat => "a watch of",
            Self::LoseWrite => "a crash lost",
            Self::Restart => "was started again",
            Self::Stop => "was stopped though nobody deleted its pod",
            Self::Rerun | Self::Forgetful => "was started though its pod has ended",
            Self::Unend => "left its final phase",
            Self::TurnAway => "was turned away by its node",
            Self::Overspend => "was evicted against the budget",
            Self::StaleEndpoint => "which does not serve",
            Self::LostEndpoint => "serves and is no endpoint",
            Self::NoEndpoints => "lost all its endpoints",
            Self::Surge => "broke its limits",
            Self::Vanish => "vanished though somebody holds it",
            Self::Foreground => "which it must take with it",
            Self::Preempt => "was preempted for nothing more important",
            Self::Orphan => "outlived its owner",
            Self::Stuck => "is still being deleted",
        }
    }

    /// Whether the manager must be gone, as it would mend what is broken before anybody can see it.
    fn without_manager(self) -> bool {
        matches!(self, Self::LostEndpoint | Self::NoEndpoints | Self::Surge | Self::Orphan)
    }
}

/// A pod that runs and serves, as its node knows it.
fn some_pod(store: &SqliteStore) -> Option<Arc<Pod>> {
    let served = |pod: &Arc<Pod>| {
        let slices = all::<EndpointSlice>(store);
        let app = label(&pod.metadata, "app");
        slices.iter().any(|slice| label(&slice.metadata, "kubernetes.io/service-name") == app)
    };
    all::<Pod>(store).into_iter().find(|pod| {
        node_of(pod).is_some() && is_serving(pod) && namespace_of(&pod.metadata) == NAMESPACE && served(pod)
    })
}

/// A task that has ended.
fn ended_task(store: &SqliteStore) -> Option<Arc<Pod>> {
    all::<Pod>(store).into_iter().find(|pod| is_task(pod) && is_ended(pod) && !is_ending(&pod.metadata))
}

/// What is broken through the API: requests that no controller would send.
async fn requests(sabotage: Sabotage, client: &Client, store: &SqliteStore) -> Option<()> {
    match sabotage {
        Sabotage::OverCommit => {
            for number in 0..12 {
                let pod = json!({
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": {"name": format!("heavy{number}"), "namespace": NAMESPACE},
                    "spec": {"nodeName": "node-0", "containers": [{
                        "name": "main", "image": "app:v1", "resources": {"requests": {"cpu": "500m"}},
                    }]},
                });
                client.post(&path(NAMESPACE, "pods", ""), &pod).await.ok()?;
            }
        }
        Sabotage::Forgetful => {
            let task = apps::task_of("again", "quick:v1", "OnFailure");
            client.post(&path(NAMESPACE, "pods", ""), &task).await.ok()?;
        }
        Sabotage::Unend | Sabotage::TurnAway => {
            let (pod, status) = match sabotage {
                Sabotage::Unend => (ended_task(store)?, json!({"phase": "Running"})),
                _ => (some_pod(store)?, json!({"phase": "Failed", "reason": "OutOfcpu"})),
            };
            let at = format!("{}/status", path(NAMESPACE, "pods", name_of(&pod.metadata)));
            client.strategic(&at, &json!({"status": status})).await.ok()?;
        }
        Sabotage::Overspend => overspend(client, store).await?,
        Sabotage::StaleEndpoint => {
            let slice = slice_of(store)?;
            let (pod, mut endpoints) = (some_pod(store)?, json!(slice.endpoints));
            endpoints[0]["targetRef"]["uid"] = format!("{}0", pod.metadata.uid.as_deref()?).into();
            set_endpoints(client, &slice, endpoints).await?;
        }
        Sabotage::LostEndpoint | Sabotage::NoEndpoints => {
            let slice = slice_of(store)?;
            let app = label(&slice.metadata, "kubernetes.io/service-name")?;
            let promised = one::<Deployment>(store, NAMESPACE, app).is_some_and(|app| always_serves(&app));
            (promised || sabotage == Sabotage::LostEndpoint).then_some(())?;
            set_endpoints(client, &slice, json!([])).await?;
        }
        Sabotage::Surge => {
            let set = all::<ReplicaSet>(store)
                .into_iter()
                .find(|set| set.spec.as_ref().and_then(|spec| spec.replicas) > Some(0))?;
            let at = path(namespace_of(&set.metadata), "replicasets", name_of(&set.metadata));
            client.merge(&at, &json!({"spec": {"replicas": 30}})).await.ok()?;
        }
        Sabotage::Preempt => {
            let pod = some_pod(store)?;
            let at = format!("{}/status", path(NAMESPACE, "pods", name_of(&pod.metadata)));
            let condition = json!({
                "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
                "lastTransitionTime": client.now(),
            });
            client.strategic(&at, &json!({"status": {"conditions": [condition]}})).await.ok()?;
        }
        Sabotage::Orphan => {
            let orphan = apps::owned(NAMESPACE, "orphan", ("nobody", "11111111-2222-4333-8444-555555555555"));
            client.post(&path(NAMESPACE, "configmaps", ""), &orphan).await.ok()?;
        }
        Sabotage::Stuck => {
            client.post("/api/v1/namespaces", &apps::namespace("stuck")).await.ok()?;
            let mut held = apps::held("stuck", "held");
            held["metadata"]["finalizers"] = json!(["nobody.example.com/knows"]);
            client.post(&path("stuck", "configmaps", ""), &held).await.ok()?;
            client.delete("/api/v1/namespaces/stuck", &Json::Null).await.ok()?;
        }
        _ => {}
    }
    Some(())
}

/// What is broken below the API: writes that it would refuse.
async fn below(sabotage: Sabotage, client: &Client, vault: &dyn Store) -> Option<()> {
    let maps = path(NAMESPACE, "configmaps", "");
    let name = match sabotage {
        Sabotage::Vanish => {
            client.post(&maps, &apps::held(NAMESPACE, "held-fast")).await.ok()?;
            "held-fast"
        }
        Sabotage::Foreground => {
            let head = client.post(&maps, &apps::config_map(NAMESPACE, "head")).await.ok()?;
            let uid = head["metadata"]["uid"].as_str()?;
            client.post(&maps, &apps::owned(NAMESPACE, "tail", ("head", uid))).await.ok()?;
            // What keeps the tail also keeps the head until the deletion below.
            client
                .merge(&format!("{maps}/tail"), &json!({"metadata": {"finalizers": ["example.com/x"]}}))
                .await
                .ok()?;
            client.delete(&format!("{maps}/head"), &apps::deletion("Foreground")).await.ok()?;
            // Until everybody has had the time to see the tail.
            tokio::time::sleep(crate::books::LAG * 2).await;
            "head"
        }
        _ => return Some(()),
    };
    let key = collection::<ConfigMap>().key(NAMESPACE, name);
    let expected = vault.get(&key)?.revision;
    vault.commit(vec![Op::Delete { key, expected }], Durability::Durable).await.ok().map(drop)
}

async fn overspend(client: &Client, store: &SqliteStore) -> Option<()> {
    let budgets = all::<PodDisruptionBudget>(store);
    let pods = all::<Pod>(store);
    let (budget, names) = budgets.iter().find_map(|budget| {
        let app = name_of(&budget.metadata);
        let own = pods.iter().filter(|pod| label(&pod.metadata, "app") == Some(app) && is_serving(pod));
        let names: Vec<String> = own.map(|pod| name_of(&pod.metadata).to_owned()).collect();
        (!names.is_empty()).then_some((budget, names))
    })?;
    let disrupted: serde_json::Map<String, Json> =
        names.into_iter().map(|name| (name, json!(format!("{:.0}", client.now())))).collect();
    let at = path(namespace_of(&budget.metadata), "poddisruptionbudgets", name_of(&budget.metadata));
    client.merge(&format!("{at}/status"), &json!({"status": {"disruptedPods": disrupted}})).await.ok()
}

fn slice_of(store: &SqliteStore) -> Option<Arc<EndpointSlice>> {
    let app = label(&some_pod(store)?.metadata, "app")?.to_owned();
    let slices = all::<EndpointSlice>(store);
    slices.into_iter().find(|slice| {
        namespace_of(&slice.metadata) == NAMESPACE
            && label(&slice.metadata, "kubernetes.io/service-name") == Some(&app)
            && slice.endpoints.iter().flatten().next().is_some()
    })
}

async fn set_endpoints(client: &Client, slice: &EndpointSlice, endpoints: Json) -> Option<()> {
    let at = path(namespace_of(&slice.metadata), "endpointslices", name_of(&slice.metadata));
    client.merge(&at, &json!({"endpoints": endpoints})).await.ok()
}

impl World {
    /// Breaks the promise of this run.
    pub(crate) async fn sabotage(&mut self) -> Result<(), String> {
        let Some(sabotage) = self.settings.sabotage else { return Ok(()) };
        let now = self.clock.now();
        if sabotage.without_manager() {
            self.control.kill_manager();
        }
        if sabotage == Sabotage::LostEndpoint {
            self.checks.disturb_all(now);
        }
        if sabotage == Sabotage::Forgetful {
            self.nodes.iter_mut().for_each(|node| node.forgetful = true);
            self.after(POWER_CUT, Event::PowerCut);
        }
        self.sabotage_node(sabotage);
        self.sabotage_store(sabotage).await?;
        let (Some(client), Some(server)) = (self.control.admin(), &self.control.server) else { return Ok(()) };
        let (disk, vault) = (Arc::clone(&self.control.ground.disk), Arc::clone(&server.store));
        // Run beside the world, so that it looks at every commit as it comes.
        tokio::spawn(async move {
            let _ = requests(sabotage, &client, &disk).await;
            let _ = below(sabotage, &client, vault.as_ref()).await;
        });
        Ok(())
    }

    /// Every machine loses its power, and comes back without its server.
    pub(crate) fn power_cut(&mut self) {
        for number in 0..self.nodes.len() {
            self.net.change(number, |link| link.partitioned = true);
            self.kill_agent(number, Outlives::Nothing);
            self.nodes[number].start(self.clock.both());
            self.wake(number);
        }
    }

    fn sabotage_node(&mut self, sabotage: Sabotage) {
        if sabotage == Sabotage::Rerun {
            self.rerun();
            return;
        }
        let now = self.clock.both();
        let Some(at) = (0..self.nodes.len()).find(|at| self.nodes[*at].some_running().is_some()) else { return };
        let Some(key) = self.nodes[at].some_running() else { return };
        match sabotage {
            Sabotage::DoubleRun => {
                let uid = key.pod.as_str();
                let pods = all::<Pod>(self.control.ground.disk.as_ref());
                let Some(pod) = pods.into_iter().find(|pod| uid_of(&pod.metadata) == uid) else { return };
                let other = (at + 1) % self.nodes.len();
                self.nodes[other].take_pod(now, pod);
                self.wake(other);
            }
            Sabotage::Restart => {
                self.nodes[at].deaf = true;
                self.nodes[at].runtime.crash(now, &key, 1);
                self.wake(at);
            }
            Sabotage::Stop => {
                self.nodes[at].notices.push(Notice::Stopped(key.clone()));
                let stop = Command::StopContainer { key, grace: std::time::Duration::ZERO };
                self.nodes[at].runtime.submit(now, stop);
            }
            _ => {}
        }
    }

    /// The container of a task that has ended is started where it ran.
    fn rerun(&mut self) {
        let Some(pod) = ended_task(&self.control.ground.disk) else { return };
        let Some(node) = self.nodes.iter_mut().find(|node| Some(node.name.as_str()) == node_of(&pod)) else { return };
        node.notices.push(Notice::Started(ContainerKey {
            pod: PodUid::new(uid_of(&pod.metadata)),
            name: "main".into(),
            attempt: 1,
        }));
    }

    async fn sabotage_store(&mut self, sabotage: Sabotage) -> Result<(), String> {
        let disk = Arc::clone(&self.control.ground.disk);
        let key = collection::<Namespace>().key("", NAMESPACE);
        match (sabotage, disk.get(&key)) {
            (Sabotage::WatchGap, _) => self.followers.tamper = Some(Tamper::Lose),
            (Sabotage::WatchRepeat, _) => self.followers.tamper = Some(Tamper::Repeat),
            (Sabotage::RepeatRevision, Some(entry)) => {
                self.control.ground.books.note(&disk, &entry, Some(&entry), false, Durability::Durable);
            }
            (Sabotage::LoseWrite, Some(entry)) => {
                let op = Op::Update { key, expected: entry.revision, value: Value::plain(entry.bytes.clone()) };
                let written = disk.commit_sync(vec![op], Durability::Volatile).map_err(|error| error.to_string())?;
                // Noted as if the disk had it.
                self.control.ground.books.note(&disk, &written[0], Some(&entry), false, Durability::Durable);
                self.crash()?;
                self.restart().await?;
            }
            _ => {}
        }
        Ok(())
    }
}
