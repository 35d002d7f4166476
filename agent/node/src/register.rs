//! The node's own object: registration, its range of pod addresses, status when it says something new, and the Lease that
//! shows it is alive. It runs as one task; a control plane that is away is tried again for ever, at a bounded rate.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use coracle_agent_core::workload::{ImageInfo, Workload};
use futures::{StreamExt, stream::BoxStream};
use ipnet::Ipv4Net;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, NodeStatus},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    NodeConfig,
    addresses::Addresses,
    beat::Beat,
    conditions::Conditions,
    machine::{self, Machine},
    network::{Claimed, PodNetwork},
    node_events::NodeEvents,
};

/// Time between renewals: a quarter of the Lease's duration, as the kubelet does.
const RENEW: Duration = Duration::from_secs(10);
/// `leaseDurationSeconds`.
const LEASE_SECONDS: i32 = 40;
/// An unchanged status is sent again this often.
const REPORT: Duration = Duration::from_secs(300);
/// Time between tries while the control plane does not answer.
const RETRY: Duration = Duration::from_millis(500);
/// Most images in the node's status: the kubelet's `nodeStatusMaxImages`.
const MAX_IMAGES: usize = 50;
/// Most names of an image there: the kubelet's `MaxNamesPerImageInNodeStatus`.
const MAX_IMAGE_NAMES: usize = 5;

/// The version the node reports: the Kubernetes release it follows, and ours.
pub const VERSION: &str = concat!("v1.36.0+coracle.", env!("CARGO_PKG_VERSION"));

/// What the rest of the agent is told of the node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// The object as the API has it.
    pub(crate) node: Option<Arc<Node>>,
    /// `spec.podCIDR`, and how its addresses are reached.
    pub(crate) network: Option<(Ipv4Net, PodNetwork)>,
}

/// Keeps the node's object and Lease.
pub(crate) struct Registrar {
    client: Client,
    node: Node,
    runtime: Arc<dyn Workload>,
    data_dir: PathBuf,
    ready: watch::Sender<bool>,
    known: watch::Sender<Known>,
    /// The range in use; from the agent's records until the API names one.
    claimed: Option<Claimed>,
    /// Why there is none.
    network_problem: Option<String>,
    /// Whether the loop that looks after pods goes round.
    beat: Beat,
    events: NodeEvents,
    /// The node's address, if it is said and not looked for.
    address: Option<IpAddr>,
    sent: Option<(Value, Instant)>,
    conditions: Conditions,
}

/// The ways out of the registrar.
pub(crate) struct Told {
    pub(crate) ready: watch::Sender<bool>,
    pub(crate) known: watch::Sender<Known>,
}

impl Registrar {
    pub(crate) fn new(
        config: &NodeConfig,
        node: Node,
        runtime: Arc<dyn Workload>,
        claimed: Option<Claimed>,
        told: Told,
        beat: Beat,
    ) -> Self {
        let network_problem = claimed.is_none().then(|| "the node was given no podCIDR yet".to_owned());
        Self {
            client: config.client.clone(),
            node,
            runtime,
            data_dir: config.data_dir.clone(),
            ready: told.ready,
            known: told.known,
            claimed,
            network_problem,
            beat,
            events: NodeEvents::new(config.client.clone(), config.name.clone()),
            address: config.address,
            sent: None,
            conditions: Conditions::new(config.eviction_hard.clone()),
        }
    }

    /// Registers, then renews until told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.work() => {}
        }
        if let Some(claimed) = self.claimed {
            claimed.take_down().await;
        }
    }

    async fn work(&mut self) {
        while let Err(error) = self.register().await {
            tracing::warn!(%error, "the node cannot be registered yet");
            sleep(RETRY).await;
        }
        let mut seen = self.own_object();
        let mut ticks = interval(RENEW);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first status waits for the range, which comes a moment after the registration.
        let mut begun = false;
        loop {
            let news = tokio::select! {
                _ = ticks.tick() => {
                    // A Lease says that the node's pods are looked after.
                    if let Some(problem) = self.beat.problem() {
                        tracing::error!(problem, "the node's Lease is not renewed");
                    } else if let Err(error) = self.renew().await {
                        tracing::warn!(%error, "the node's Lease cannot be renewed");
                    }
                    std::mem::replace(&mut begun, true) || self.claimed.is_some()
                }
                Some(event) = seen.next() => self.noted(event).await,
            };
            if news && let Err(error) = self.report().await {
                tracing::warn!(%error, "the node's status cannot be written");
            }
        }
    }

    fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }

    fn own_object(&self) -> BoxStream<'static, Result<watcher::Event<Node>, watcher::Error>> {
        let mine = watcher::Config::default().fields(&format!("metadata.name={}", self.name()));
        watcher(self.nodes(), mine).default_backoff().boxed()
    }

    async fn register(&mut self) -> kube::Result<()> {
        match self.nodes().create(&PostParams::default(), &self.node).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                // Labels of the machine itself are kept true; all others are the operator's.
                let labels = json!({"metadata": {"labels": self.node.metadata.labels}});
                self.nodes().patch(self.name(), &PatchParams::default(), &Patch::Merge(labels)).await.map(drop)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes note of the node's object; answers whether its status is to be looked at now.
    async fn noted(&mut self, event: Result<watcher::Event<Node>, watcher::Error>) -> bool {
        let node = match event {
            Ok(watcher::Event::Apply(node) | watcher::Event::InitApply(node)) => node,
            // Somebody removed the node: it registers again, as long as it runs.
            Ok(watcher::Event::Delete(_)) => {
                self.known.send_modify(|known| known.node = None);
                self.sent = None;
                if let Err(error) = self.register().await {
                    tracing::warn!(%error, "the node cannot be registered again yet");
                }
                return false;
            }
            Ok(watcher::Event::Init | watcher::Event::InitDone) => return false,
            Err(error) => {
                tracing::debug!(%error, "the watch of the node's object was interrupted");
                return false;
            }
        };
        self.events.cordon(node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true)).await;
        let range = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref()).and_then(|range| range.parse().ok());
        let had = self.claimed.as_ref().map(|claimed| claimed.pod_cidr);
        self.known.send_modify(|known| known.node = Some(Arc::new(node)));
        if let Some(range) = range.filter(|range| had != Some(*range)) {
            self.take_range(range).await;
        }
        // A new range, or somebody else's word about the node.
        had != self.claimed.as_ref().map(|claimed| claimed.pod_cidr) || (self.claimed.is_some() && !self.stands())
    }

    async fn take_range(&mut self, range: Ipv4Net) {
        // An old range stays routed until the agent stops: pods may still have addresses of it.
        match Claimed::set_up(range).await {
            Ok(claimed) => {
                if let Some(old) = &self.claimed {
                    tracing::warn!(old = %old.pod_cidr, new = %range, "the node was given another podCIDR");
                }
                let network = (range, claimed.network);
                self.claimed = Some(claimed);
                self.network_problem = None;
                self.known.send_modify(|known| known.network = Some(network));
            }
            Err(error) => {
                tracing::error!(%error, "pods cannot have addresses");
                self.network_problem = Some(error.to_string());
            }
        }
    }

    async fn renew(&self) -> kube::Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
        let now = MicroTime(Timestamp::now());
        let patch = json!({"spec": {"renewTime": now}});
        match leases.patch(self.name(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            result => return result.map(drop),
        }
        let uid = self.nodes().get(self.name()).await?.metadata.uid.unwrap_or_default();
        let lease: Lease = serde_json::from_value(json!({
            "metadata": {"name": self.name(), "namespace": "kube-node-lease", "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": self.name(), "uid": uid}]},
            "spec": {"holderIdentity": self.name(), "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now},
        }))
        .map_err(kube::Error::SerdeError)?;
        leases.create(&PostParams::default(), &lease).await.map(drop)
    }

    /// Writes the status if it says something new, or was not said for long.
    async fn report(&mut self) -> kube::Result<()> {
        let mut images = self.runtime.images().await.unwrap_or_default();
        images.sort_by_key(|image| std::cmp::Reverse(image.size_bytes));
        images.truncate(MAX_IMAGES);
        let status = self.status(&images);
        let unchanged = |(old, at): &(Value, Instant)| *old == status && at.elapsed() < REPORT;
        if self.sent.as_ref().is_some_and(unchanged) && self.stands() {
            return Ok(());
        }
        let mut full = status.clone();
        full["conditions"] = json!(self.conditions.list(Timestamp::now()));
        let patch = Patch::Strategic(json!({ "status": full }));
        match self.nodes().patch_status(self.name(), &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(error)) if error.code == 404 => {
                self.register().await?;
                self.nodes().patch_status(self.name(), &PatchParams::default(), &patch).await?;
            }
            result => drop(result?),
        }
        self.sent = Some((status, Instant::now()));
        if self.conditions.is_ready() {
            self.ready.send_replace(true);
        }
        self.events.conditions(self.conditions.holding()).await;
        Ok(())
    }

    /// Whether the API still says of this node what was sent.
    fn stands(&self) -> bool {
        let known = self.known.borrow();
        let status = known.node.as_ref().and_then(|node| node.status.as_ref());
        self.conditions.stand_in(status.and_then(|status| status.conditions.as_deref()).unwrap_or_default())
    }

    /// The status with the verdicts of its conditions only, so that it can be compared.
    fn status(&mut self, images: &[ImageInfo]) -> Value {
        let mut readings = machine::readings(&self.data_dir, self.network_problem.clone());
        readings.agent_problem = self.beat.problem();
        self.conditions.judge(&readings, Timestamp::now());
        // A machine's address changes while it runs: it gets its first one when the network is up.
        if let Some(status) = &mut self.node.status {
            set_address(status, self.address.unwrap_or_else(machine::default_address));
        }
        let mut status = json!(self.node.status);
        let names = |image: &ImageInfo| image.names.iter().take(MAX_IMAGE_NAMES).cloned().collect::<Vec<_>>();
        status["images"] =
            images.iter().map(|image| json!({"names": names(image), "sizeBytes": image.size_bytes})).collect();
        status["conditions"] = json!(self.conditions.verdicts());
        if let Some(claimed) = &self.claimed {
            limit_pods(&mut status, Addresses::room(claimed.network.range()));
        }
        status
    }
}

/// Where the node is reached.
fn set_address(status: &mut NodeStatus, address: IpAddr) {
    let addresses = status.addresses.iter_mut().flatten();
    for known in addresses.filter(|known| known.type_ == "InternalIP" && known.address != address.to_string()) {
        tracing::info!(old = known.address, new = %address, "the machine has another address");
        known.address = address.to_string();
    }
}

/// A node takes no more pods than it has addresses for: its range is what it was when the node was made.
fn limit_pods(status: &mut Value, room: u32) {
    let pods = &mut status["allocatable"]["pods"];
    let wanted: Option<u32> = pods.as_str().and_then(|text| text.parse().ok());
    if wanted.is_none_or(|wanted| wanted > room) {
        *pods = json!(room.to_string());
    }
}

/// The node's object as it is registered; its status lacks conditions and images.
pub(crate) fn node_object(config: &NodeConfig, machine: &Machine, runtime: &dyn Workload) -> Node {
    let architecture = Machine::architecture();
    let mut labels: BTreeMap<String, String> = config.labels.clone();
    for (key, value) in [
        ("kubernetes.io/hostname", config.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture),
    ] {
        labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
    let info = runtime.info();
    let resources = |memory: u64, disk: String| {
        json!({
            "cpu": machine.cores.to_string(),
            "memory": format!("{}Ki", memory / 1024),
            "ephemeral-storage": disk,
            "pods": config.max_pods.to_string(),
        })
    };
    // What is kept back is what pressure is told at.
    let disk_for_pods = config.eviction_hard.allocatable_disk_bytes(machine.disk_bytes);
    let memory_for_pods = config.eviction_hard.allocatable_memory_bytes(machine.memory_bytes);
    let node = json!({
        "metadata": {"name": config.name, "labels": labels},
        "status": {
            "capacity": resources(machine.memory_bytes, format!("{}Ki", machine.disk_bytes / 1024)),
            "allocatable": resources(memory_for_pods, disk_for_pods.to_string()),
            "addresses": [
                {"type": "InternalIP", "address": machine.address.to_string()},
                {"type": "Hostname", "address": config.name},
            ],
            "nodeInfo": {
                "architecture": architecture,
                "bootID": machine.boot_id,
                "containerRuntimeVersion": format!("{}://{}", info.name, info.version),
                "kernelVersion": machine.kernel,
                "kubeProxyVersion": "",
                "kubeletVersion": VERSION,
                "machineID": machine.machine_id,
                "operatingSystem": "linux",
                "osImage": machine.os_image,
                "systemUUID": machine.machine_id,
            },
        },
    });
    serde_json::from_value(node).expect("the node's object above has the right shape")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_takes_no_more_pods_than_it_has_addresses_for() {
        for (wanted, room, expect) in [("1100", 253, "253"), ("110", 253, "110"), ("253", 253, "253")] {
            let mut status = json!({"allocatable": {"pods": wanted, "cpu": "2"}});
            limit_pods(&mut status, room);
            assert_eq!(status, json!({"allocatable": {"pods": expect, "cpu": "2"}}));
        }
    }
}
