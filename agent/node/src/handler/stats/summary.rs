//! `/stats/summary` in JSON. Pure: everything that was read is given.

use std::collections::HashMap;

use coracle_agent_core::workload::{DiskUse, MemoryStats};
use coracle_api::quantity::Amount;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    ContainerSample, Disk, PodSample, Sample,
    disk::{FileSystem, PodDisk},
    rates::{self, Rates},
};
use crate::{cni::link as pod_link, machine::LinkCounters};

/// The name of a pod's link on its own side.
const POD_INTERFACE: &str = "eth0";

/// What an answer is made of.
pub(super) struct Scene<'a> {
    pub(super) node: &'a str,
    /// When the agent began.
    pub(super) started: Timestamp,
    pub(super) sample: &'a Sample,
    pub(super) rates: &'a Rates,
    /// `None` where only CPU and memory are wanted, as for the links.
    pub(super) disk: Option<Disk>,
    pub(super) links: &'a HashMap<String, LinkCounters>,
    /// The link of the default route.
    pub(super) default_link: Option<&'a String>,
}

/// The whole answer.
pub(super) fn summary(scene: &Scene<'_>) -> Value {
    let disks = scene.disk.iter().flat_map(|disk| disk.pods.iter().map(Some)).chain(std::iter::repeat(None));
    let pods: Vec<Value> = scene.sample.pods.iter().zip(disks).map(|(pod, disk)| scene.pod(pod, disk)).collect();
    json!({"node": scene.node(), "pods": pods})
}

impl Scene<'_> {
    fn now(&self) -> Timestamp {
        self.sample.now
    }

    fn node(&self) -> Value {
        let machine = &self.sample.machine;
        let mut own = Map::new();
        own.insert("nodeName".into(), json!(self.node));
        own.insert("systemContainers".into(), self.system_containers());
        own.insert("startTime".into(), json!(self.started));
        let rate = self.rates.nano_cores(rates::NODE);
        own.insert("cpu".into(), cpu(self.now(), machine.cpu_nanoseconds, rate));
        let stats = MemoryStats {
            usage_bytes: machine.memory_usage_bytes,
            working_set_bytes: machine.memory_working_set_bytes,
            rss_bytes: Some(machine.memory_rss_bytes),
            page_faults: machine.page_faults,
            major_page_faults: machine.major_page_faults,
        };
        own.insert("memory".into(), memory(self.now(), &stats, Some(machine.memory_available_bytes)));
        own.insert(
            "swap".into(),
            json!({
                "time": self.now(), "swapAvailableBytes": machine.swap_free_bytes,
                "swapUsageBytes": machine.swap_total_bytes.saturating_sub(machine.swap_free_bytes),
            }),
        );
        if let Some((running, most)) = self.sample.processes {
            own.insert("rlimit".into(), json!({"time": self.now(), "maxpid": most, "curproc": running}));
        }
        self.node_disk(&mut own);
        if let Some(network) = self.node_network() {
            own.insert("network".into(), network);
        }
        Value::Object(own)
    }

    /// The layers of containers are where the images are.
    fn node_disk(&self, own: &mut Map<String, Value>) {
        let Some((disk, on)) = self.disk.as_ref().and_then(|disk| Some((disk, disk.node?))) else { return };
        let whole = DiskUse { bytes: on.used_bytes, inodes: on.inodes.saturating_sub(on.free_inodes) };
        own.insert("fs".into(), file_system(self.now(), Some(on), whole));
        let Some((on, found)) = &disk.images else { return };
        let mut images = json!({"time": self.now(), "usedBytes": found.bytes});
        of_file_system(&mut images, *on);
        set(&mut images, "inodesUsed", found.inodes);
        let layers = self.sample.pods.iter().flat_map(|pod| &pod.containers).filter_map(|one| one.stats.root_fs);
        let mut written = DiskUse::default();
        layers.for_each(|layer| written += layer);
        let containers = file_system(self.now(), Some(*on), written);
        own.insert("runtime".into(), json!({"imageFs": images, "containerFs": containers}));
    }

    /// The links of the machine, the one of the default route first; pods' own are told with the pods.
    fn node_network(&self) -> Option<Value> {
        let mut links: Vec<(&String, &LinkCounters)> =
            self.links.iter().filter(|(name, _)| *name != "lo" && !pod_link::is_one(name)).collect();
        links.sort();
        let main = links.iter().find(|(name, _)| Some(*name) == self.default_link);
        let all = links.iter().map(|(name, counters)| link(name, counters)).collect::<Vec<_>>();
        if all.is_empty() {
            return None;
        }
        let mut network = main.map_or_else(|| json!({}), |(name, counters)| link(name, counters));
        network["time"] = json!(self.now());
        network["interfaces"] = json!(all);
        Some(network)
    }

    /// This process, which is a kubelet's in what it does, and all pods together.
    fn system_containers(&self) -> Value {
        let agent = &self.sample.agent;
        let stats = MemoryStats {
            usage_bytes: agent.memory_rss_bytes,
            working_set_bytes: agent.memory_rss_bytes,
            rss_bytes: Some(agent.memory_rss_bytes),
            ..MemoryStats::default()
        };
        let (now, rate) = (self.now(), self.rates.nano_cores(rates::AGENT));
        let mut pods = Sum::default();
        for pod in &self.sample.pods {
            pod.containers.iter().for_each(|one| pods.add(one, self.rate(pod, one)));
        }
        json!([
            {"name": "kubelet", "startTime": self.started, "cpu": cpu(now, agent.cpu_nanoseconds, rate),
             "memory": memory(now, &stats, None)},
            {"name": "pods", "startTime": self.started, "cpu": cpu(now, pods.cpu_nanoseconds, pods.nano_cores),
             "memory": memory(now, &pods.memory, None)},
        ])
    }

    fn rate(&self, pod: &PodSample, container: &ContainerSample) -> Option<u64> {
        self.rates.nano_cores(&rates::of_container(pod.uid(), &container.name))
    }

    fn pod(&self, pod: &PodSample, disk: Option<&PodDisk>) -> Value {
        let meta = &pod.view.pod.metadata;
        let mut sum = Sum::default();
        pod.containers.iter().for_each(|one| sum.add(one, self.rate(pod, one)));
        let containers: Vec<Value> = pod.containers.iter().map(|one| self.container(pod, one, disk)).collect();
        let mut out = json!({
            "podRef": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
            "startTime": pod.view.status.start_time,
            "containers": containers,
        });
        if !pod.containers.is_empty() {
            out["cpu"] = cpu(self.now(), sum.cpu_nanoseconds, sum.nano_cores);
            out["memory"] = memory(self.now(), &sum.memory, available(&sum.memory, pod_limit(pod)));
        }
        if let Some(counters) = self.pod_link(pod) {
            let mut network = link(POD_INTERFACE, &counters);
            network["interfaces"] = json!([link(POD_INTERFACE, &counters)]);
            network["time"] = json!(self.now());
            out["network"] = network;
        }
        let Some(disk) = disk else { return out };
        let volumes: Vec<Value> = disk
            .volumes
            .iter()
            .map(|volume| {
                let mut one = file_system(self.now(), volume.on, volume.used);
                one["name"] = json!(volume.name);
                one
            })
            .collect();
        if !volumes.is_empty() {
            out["volume"] = json!(volumes);
        }
        let mut ephemeral = disk.ephemeral();
        pod.containers.iter().filter_map(|one| one.stats.root_fs).for_each(|layer| ephemeral += layer);
        out["ephemeral-storage"] = file_system(self.now(), self.node_fs(), ephemeral);
        out
    }

    fn container(&self, pod: &PodSample, container: &ContainerSample, disk: Option<&PodDisk>) -> Value {
        let ContainerSample { name, started, stats } = container;
        let limit = container_limit(pod, name);
        let mut one = json!({
            "name": name,
            "startTime": started,
            "cpu": cpu(stats.at, stats.cpu_nanoseconds, self.rate(pod, container)),
            "memory": memory(stats.at, &stats.memory, available(&stats.memory, limit)),
        });
        if let Some(disk) = disk {
            if let Some(layer) = stats.root_fs {
                one["rootfs"] = file_system(self.now(), self.layer_fs(), layer);
            }
            let logs = disk.logs.get(name).copied().unwrap_or_default();
            one["logs"] = file_system(self.now(), self.node_fs(), logs);
        }
        one
    }

    fn node_fs(&self) -> Option<FileSystem> {
        self.disk.as_ref()?.node
    }

    /// What the layers of containers are on.
    fn layer_fs(&self) -> Option<FileSystem> {
        self.disk.as_ref()?.images.as_ref().map(|(on, _)| *on)
    }

    /// What went over a pod's own link, seen from the pod: what the node receives there, the pod has sent.
    fn pod_link(&self, pod: &PodSample) -> Option<LinkCounters> {
        let on_node = self.links.get(&pod_link::name(pod.sandbox_id.as_deref()?, POD_INTERFACE))?;
        Some(on_node.turned())
    }
}

/// What several containers use together.
struct Sum {
    cpu_nanoseconds: u64,
    /// `None` once one of them has no rate.
    nano_cores: Option<u64>,
    memory: MemoryStats,
}

impl Default for Sum {
    fn default() -> Self {
        let memory = MemoryStats {
            rss_bytes: Some(0),
            page_faults: Some(0),
            major_page_faults: Some(0),
            ..MemoryStats::default()
        };
        Self { cpu_nanoseconds: 0, nano_cores: Some(0), memory }
    }
}

impl Sum {
    fn add(&mut self, container: &ContainerSample, nano_cores: Option<u64>) {
        let both = |sum: Option<u64>, more: Option<u64>| Some(sum?.saturating_add(more?));
        let (sum, more) = (&mut self.memory, &container.stats.memory);
        self.cpu_nanoseconds += container.stats.cpu_nanoseconds;
        self.nano_cores = both(self.nano_cores, nano_cores);
        sum.usage_bytes += more.usage_bytes;
        sum.working_set_bytes += more.working_set_bytes;
        sum.rss_bytes = both(sum.rss_bytes, more.rss_bytes);
        sum.page_faults = both(sum.page_faults, more.page_faults);
        sum.major_page_faults = both(sum.major_page_faults, more.major_page_faults);
    }
}

/// The memory limit of a container, if it has one.
fn container_limit(pod: &PodSample, name: &str) -> Option<u64> {
    let spec = pod.view.pod.spec.as_ref()?;
    let main = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let container = main.into_iter().find(|container| container.name == name)?;
    let limit = container.resources.as_ref()?.limits.as_ref()?.get("memory")?;
    u64::try_from(Amount::of(limit).ok()?.value()).ok()
}

/// The sum of the limits; `None` if one of the containers has none.
fn pod_limit(pod: &PodSample) -> Option<u64> {
    pod.containers.iter().map(|container| container_limit(pod, &container.name)).sum()
}

fn available(memory: &MemoryStats, limit: Option<u64>) -> Option<u64> {
    limit.map(|limit| limit.saturating_sub(memory.working_set_bytes))
}

fn cpu(at: Timestamp, nanoseconds: u64, nano_cores: Option<u64>) -> Value {
    let mut cpu = json!({"time": at, "usageCoreNanoSeconds": nanoseconds});
    set(&mut cpu, "usageNanoCores", nano_cores);
    cpu
}

fn memory(at: Timestamp, stats: &MemoryStats, available: Option<u64>) -> Value {
    let mut memory = json!({"time": at, "usageBytes": stats.usage_bytes, "workingSetBytes": stats.working_set_bytes});
    set(&mut memory, "availableBytes", available);
    set(&mut memory, "rssBytes", stats.rss_bytes);
    set(&mut memory, "pageFaults", stats.page_faults);
    set(&mut memory, "majorPageFaults", stats.major_page_faults);
    memory
}

fn file_system(at: Timestamp, on: Option<FileSystem>, used: DiskUse) -> Value {
    let mut out = json!({"time": at, "usedBytes": used.bytes, "inodesUsed": used.inodes});
    if let Some(on) = on {
        of_file_system(&mut out, on);
    }
    out
}

fn of_file_system(out: &mut Value, on: FileSystem) {
    set(out, "availableBytes", Some(on.available_bytes));
    set(out, "capacityBytes", Some(on.total_bytes));
    set(out, "inodesFree", Some(on.free_inodes));
    set(out, "inodes", Some(on.inodes));
}

fn link(name: &str, counters: &LinkCounters) -> Value {
    json!({"name": name, "rxBytes": counters.rx_bytes, "rxErrors": counters.rx_errors,
        "txBytes": counters.tx_bytes, "txErrors": counters.tx_errors})
}

/// Sets what is known; the kubelet leaves out the rest.
fn set(object: &mut Value, name: &str, value: Option<u64>) {
    if let Some(value) = value {
        object[name] = json!(value);
    }
}

#[cfg(test)]
pub(super) mod tests;
