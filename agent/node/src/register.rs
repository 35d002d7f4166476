//! The node's own object: registration, status when it says something new, and the Lease that shows it is alive. It runs
//! as one task; a control plane that is away is tried again for ever, at a bounded rate.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use coracle_agent_core::workload::{ImageInfo, Workload};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, NodeCondition},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    NodeConfig,
    machine::{self, Machine},
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
/// Less memory than this is pressure: the kubelet's `memory.available` threshold.
const MEMORY_PRESSURE_BYTES: u64 = 100 << 20;
/// Below this share of free disk there is pressure: the kubelet's `nodefs.available` threshold, in percent.
const DISK_PRESSURE_PERCENT: u64 = 10;

/// The version the node reports: the Kubernetes release it follows, and ours.
pub const VERSION: &str = concat!("v1.36.0+coracle.", env!("CARGO_PKG_VERSION"));

/// Keeps the node's object and Lease.
pub(crate) struct Registrar {
    client: Client,
    node: Node,
    runtime: Arc<dyn Workload>,
    data_dir: std::path::PathBuf,
    ready: watch::Sender<bool>,
    sent: Option<(Value, Instant)>,
    conditions: BTreeMap<&'static str, NodeCondition>,
}

impl Registrar {
    pub(crate) fn new(config: &NodeConfig, node: Node, runtime: Arc<dyn Workload>, ready: watch::Sender<bool>) -> Self {
        let data_dir = config.data_dir.clone();
        let client = config.client.clone();
        Self { client, node, runtime, data_dir, ready, sent: None, conditions: BTreeMap::new() }
    }

    /// Registers, then renews until told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let work = async {
            while let Err(error) = self.register().await {
                tracing::warn!(%error, "the node cannot be registered yet");
                sleep(RETRY).await;
            }
            let mut ticks = interval(RENEW);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if let Err(error) = self.renew().await {
                    tracing::warn!(%error, "the node's Lease cannot be renewed");
                }
                if let Err(error) = self.report().await {
                    tracing::warn!(%error, "the node's status cannot be written");
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    async fn register(&mut self) -> kube::Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        match nodes.create(&PostParams::default(), &self.node).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {
                // Labels of the machine itself are kept true; all others are the operator's.
                let labels = json!({"metadata": {"labels": self.node.metadata.labels}});
                nodes.patch(self.name(), &PatchParams::default(), &Patch::Merge(labels)).await?;
            }
            Err(error) => return Err(error),
        }
        self.report().await?;
        self.ready.send_replace(true);
        Ok(())
    }

    async fn renew(&self) -> kube::Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
        let now = MicroTime(Timestamp::now());
        let patch = json!({"spec": {"renewTime": now}});
        match leases.patch(self.name(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            result => return result.map(drop),
        }
        let nodes: Api<Node> = Api::all(self.client.clone());
        let uid = nodes.get(self.name()).await?.metadata.uid.unwrap_or_default();
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
        if self.sent.as_ref().is_some_and(unchanged) && self.stands().await? {
            return Ok(());
        }
        let mut full = status.clone();
        full["conditions"] = json!(self.conditions(Timestamp::now()));
        let nodes: Api<Node> = Api::all(self.client.clone());
        let patch = Patch::Strategic(json!({ "status": full }));
        match nodes.patch_status(self.name(), &PatchParams::default(), &patch).await {
            // Somebody removed the node: it registers again, as long as it runs.
            Err(kube::Error::Api(error)) if error.code == 404 => {
                let nodes: Api<Node> = Api::all(self.client.clone());
                nodes.create(&PostParams::default(), &self.node).await?;
                nodes.patch_status(self.name(), &PatchParams::default(), &patch).await?;
            }
            result => drop(result?),
        }
        self.sent = Some((status, Instant::now()));
        Ok(())
    }

    /// Whether the API still says of this node what was sent: a node that was silent for a while is marked `Unknown` there,
    /// and stays so until its agent says otherwise.
    async fn stands(&self) -> kube::Result<bool> {
        let Some(node) = Api::<Node>::all(self.client.clone()).get_opt(self.name()).await? else { return Ok(false) };
        let known = node.status.and_then(|status| status.conditions).unwrap_or_default();
        Ok(self.conditions.iter().all(|(name, ours)| known.iter().any(|c| c.type_ == *name && c.status == ours.status)))
    }

    /// The status without the times of its conditions, so that it can be compared.
    fn status(&mut self, images: &[ImageInfo]) -> Value {
        self.judge(Timestamp::now());
        let mut status = json!(self.node.status);
        status["images"] =
            images.iter().map(|image| json!({"names": image.names, "sizeBytes": image.size_bytes})).collect();
        let verdicts: BTreeMap<_, _> = self.conditions.iter().map(|(name, c)| (*name, c.status.clone())).collect();
        status["conditions"] = json!(verdicts);
        status
    }

    fn judge(&mut self, now: Timestamp) {
        let memory = machine::memory_available_bytes().is_some_and(|bytes| bytes < MEMORY_PRESSURE_BYTES);
        let disk = machine::disk(&self.data_dir).is_some_and(|(total, free)| {
            u128::from(free) * 100 < u128::from(total) * u128::from(DISK_PRESSURE_PERCENT)
        });
        let verdicts = [
            (
                "MemoryPressure",
                memory,
                ["KubeletHasSufficientMemory", "KubeletHasInsufficientMemory"],
                ["kubelet has sufficient memory available", "kubelet has insufficient memory available"],
            ),
            (
                "DiskPressure",
                disk,
                ["KubeletHasNoDiskPressure", "KubeletHasDiskPressure"],
                ["kubelet has no disk pressure", "kubelet has disk pressure"],
            ),
            (
                "PIDPressure",
                false,
                ["KubeletHasSufficientPID", "KubeletHasInsufficientPID"],
                ["kubelet has sufficient PID available", "kubelet has insufficient PID available"],
            ),
            (
                "Ready",
                true,
                ["KubeletNotReady", "KubeletReady"],
                ["kubelet is not ready", "kubelet is posting ready status"],
            ),
        ];
        for (name, holds, reasons, messages) in verdicts {
            let status = if holds { "True" } else { "False" };
            let old = self.conditions.get(name).filter(|condition| condition.status == status);
            let since = old.and_then(|condition| condition.last_transition_time.clone());
            let condition = NodeCondition {
                type_: name.to_owned(),
                status: status.to_owned(),
                reason: Some(reasons[usize::from(holds)].to_owned()),
                message: Some(messages[usize::from(holds)].to_owned()),
                last_heartbeat_time: None,
                last_transition_time: since.or(Some(Time(now))),
            };
            self.conditions.insert(name, condition);
        }
    }

    fn conditions(&self, now: Timestamp) -> Vec<NodeCondition> {
        let beat =
            |condition: &NodeCondition| NodeCondition { last_heartbeat_time: Some(Time(now)), ..condition.clone() };
        self.conditions.values().map(beat).collect()
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
    let resources = |memory: u64| {
        json!({
            "cpu": machine.cores.to_string(),
            "memory": format!("{}Ki", memory / 1024),
            "ephemeral-storage": machine.disk_bytes.to_string(),
            "pods": config.max_pods.to_string(),
        })
    };
    let node = json!({
        "metadata": {"name": config.name, "labels": labels},
        "spec": {"podCIDR": config.pod_cidr.to_string(), "podCIDRs": [config.pod_cidr.to_string()]},
        "status": {
            "capacity": resources(machine.memory_bytes),
            "allocatable": resources(machine.memory_bytes.saturating_sub(MEMORY_PRESSURE_BYTES)),
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
