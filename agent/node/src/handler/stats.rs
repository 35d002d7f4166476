//! `/stats/summary` and `/metrics/resource`: what the node and its pods use, in the kubelet's shapes
//! (k8s.io/kubelet/pkg/apis/stats/v1alpha1). Numbers are read when they are asked for; nothing is sampled in between.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use coracle_agent_core::{
    PodUid,
    workload::{ContainerStats, PodStats},
};
use http::{HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::{Handler, NodeBody, answer, json_answer};
use crate::{machine, views::View, volumes::empty_dir::used_bytes};

/// Ticks of `/proc/stat` in a second: fixed in the kernel's interface.
const TICKS_PER_SECOND: u64 = 100;
/// A rate over less time than this says little: the one before is told again.
const MINIMUM_SPAN: std::time::Duration = std::time::Duration::from_secs(1);

/// What is remembered between two questions.
#[derive(Clone, Debug)]
pub(crate) struct NodeStats {
    name: String,
    data_dir: PathBuf,
    started: Timestamp,
    rates: Arc<Mutex<HashMap<String, Rate>>>,
}

/// The last reading of a counter of CPU time.
#[derive(Clone, Copy, Debug)]
struct Rate {
    at: Instant,
    nanoseconds: u64,
    /// Nanoseconds of CPU per second over the span before.
    nano_cores: Option<u64>,
}

/// One running container.
struct Sample<'a> {
    view: &'a View,
    uid: &'a str,
    name: String,
    stats: ContainerStats,
    started: Option<Timestamp>,
}

impl NodeStats {
    pub(crate) fn new(name: &str, data_dir: &Path) -> Self {
        Self { name: name.to_owned(), data_dir: data_dir.to_owned(), started: Timestamp::now(), rates: Arc::default() }
    }

    /// CPU use of a counter since it was last asked for; `None` the first time.
    fn nano_cores(&self, key: String, nanoseconds: u64, now: Instant) -> Option<u64> {
        let mut rates = self.rates.lock();
        let known = rates.get(&key).copied();
        let next = rate(known, nanoseconds, now);
        rates.insert(key, next);
        next.nano_cores
    }
}

fn rate(known: Option<Rate>, nanoseconds: u64, now: Instant) -> Rate {
    match known {
        // A counter that went back belongs to a new run.
        Some(old) if nanoseconds >= old.nanoseconds => {
            let span = now.duration_since(old.at);
            if span < MINIMUM_SPAN {
                return old;
            }
            let nano_cores = (u128::from(nanoseconds - old.nanoseconds) * 1_000_000_000)
                .checked_div(span.as_nanos())
                .and_then(|cores| u64::try_from(cores).ok());
            Rate { at: now, nanoseconds, nano_cores }
        }
        _ => Rate { at: now, nanoseconds, nano_cores: None },
    }
}

impl Handler {
    pub(super) async fn stats_summary(&self, only_cpu_and_memory: bool) -> Response<NodeBody> {
        let views = self.inner.views.all();
        let samples = self.samples(&views).await;
        let (now, at) = (Timestamp::now(), Instant::now());
        let node = &self.inner.node;
        let mut by_pod: BTreeMap<&str, Vec<&Sample<'_>>> = BTreeMap::new();
        for sample in &samples {
            by_pod.entry(sample.uid).or_default().push(sample);
        }
        let mut pods = Vec::new();
        for view in &views {
            let uid = view.pod.metadata.uid.as_deref().unwrap_or_default();
            let running = by_pod.remove(uid).unwrap_or_default();
            let logs = (!only_cpu_and_memory).then(|| self.log_dir(view));
            pods.push(pod_summary(node, view, &running, logs, (now, at)));
        }
        let alive = |key: &String| key == NODE || samples.iter().any(|sample| *key == sample.key());
        node.rates.lock().retain(|key, _| alive(key));
        let mut own = node_summary(node, (now, at));
        if only_cpu_and_memory {
            for name in ["fs", "runtime", "rlimit", "network"] {
                own.remove(name);
            }
        }
        json_answer(StatusCode::OK, &json!({"node": own, "pods": pods}))
    }

    pub(super) async fn resource_metrics(&self) -> Response<NodeBody> {
        let views = self.inner.views.all();
        let samples = self.samples(&views).await;
        let text = exposition(&samples, &machine_use(), Timestamp::now());
        let mut response = answer(StatusCode::OK, "text/plain", text);
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }

    async fn samples<'a>(&self, views: &'a [View]) -> Vec<Sample<'a>> {
        let mut samples = Vec::new();
        for view in views {
            let uid = view.pod.metadata.uid.as_deref().unwrap_or_default();
            let PodStats { containers } = self.inner.runtime.stats(&PodUid::new(uid)).await.unwrap_or_default();
            for (name, stats) in containers {
                let running = view.container(&name).and_then(|status| status.state.as_ref()?.running.as_ref());
                let started = running.and_then(|running| running.started_at.as_ref()).map(|time| time.0);
                samples.push(Sample { view, uid, name, stats, started });
            }
        }
        samples
    }

    fn log_dir(&self, view: &View) -> PathBuf {
        let meta = &view.pod.metadata;
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        self.inner.log_dir.join(format!("{}_{}_{}", part(&meta.namespace), part(&meta.name), part(&meta.uid)))
    }
}

/// The key of the node's own counter.
const NODE: &str = "node";

impl Sample<'_> {
    fn key(&self) -> String {
        format!("{}/{}", self.uid, self.name)
    }
}

fn pod_summary(
    node: &NodeStats,
    view: &View,
    running: &[&Sample<'_>],
    logs: Option<PathBuf>,
    (now, at): (Timestamp, Instant),
) -> Value {
    let (mut cpu, mut cores, mut memory) = (0u64, Some(0u64), 0u64);
    let mut containers = Vec::new();
    for sample in running {
        let nano_cores = node.nano_cores(sample.key(), sample.stats.cpu_nanoseconds, at);
        cpu += sample.stats.cpu_nanoseconds;
        memory += sample.stats.memory_working_set_bytes;
        cores = cores.zip(nano_cores).map(|(sum, more)| sum + more);
        let mut one = json!({
            "name": sample.name,
            "startTime": sample.started,
            "cpu": cpu_json(sample.stats.cpu_nanoseconds, nano_cores, now),
            "memory": memory_json(sample.stats.memory_working_set_bytes, now),
        });
        if let Some(logs) = &logs {
            one["logs"] = json!({"time": now, "usedBytes": used_bytes(&logs.join(&sample.name))});
        }
        containers.push(one);
    }
    let meta = &view.pod.metadata;
    let mut pod = json!({
        "podRef": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
        "startTime": view.status.start_time,
        "containers": containers,
    });
    if !running.is_empty() {
        pod["cpu"] = cpu_json(cpu, cores, now);
        pod["memory"] = memory_json(memory, now);
    }
    if let Some(logs) = logs {
        pod["ephemeral-storage"] = json!({"time": now, "usedBytes": used_bytes(&logs)});
    }
    pod
}

fn cpu_json(nanoseconds: u64, nano_cores: Option<u64>, now: Timestamp) -> Value {
    let mut cpu = json!({"time": now, "usageCoreNanoSeconds": nanoseconds});
    if let Some(nano_cores) = nano_cores {
        cpu["usageNanoCores"] = json!(nano_cores);
    }
    cpu
}

fn memory_json(working_set_bytes: u64, now: Timestamp) -> Value {
    json!({"time": now, "usageBytes": working_set_bytes, "workingSetBytes": working_set_bytes})
}

fn node_summary(node: &NodeStats, (now, at): (Timestamp, Instant)) -> Map<String, Value> {
    let used = machine_use();
    let mut own = Map::new();
    own.insert("nodeName".into(), json!(node.name));
    own.insert("startTime".into(), json!(node.started));
    let nano_cores = node.nano_cores(NODE.to_owned(), used.cpu_nanoseconds, at);
    own.insert("cpu".into(), cpu_json(used.cpu_nanoseconds, nano_cores, now));
    let memory = json!({"time": now, "availableBytes": used.memory_available_bytes, "usageBytes": used.memory_usage_bytes,
        "workingSetBytes": used.memory_working_set_bytes});
    own.insert("memory".into(), memory);
    let readings = machine::readings(&node.data_dir, None);
    if let (Some(disk), Some(inodes)) = (readings.disk, readings.inodes) {
        let fs = json!({"time": now, "availableBytes": disk.free, "capacityBytes": disk.total,
            "usedBytes": machine::disk_used_bytes(&node.data_dir), "inodesFree": inodes.free, "inodes": inodes.total,
            "inodesUsed": inodes.total.saturating_sub(inodes.free)});
        own.insert("runtime".into(), json!({ "imageFs": fs }));
        own.insert("fs".into(), fs);
    }
    if let Some((running, most)) = machine::processes() {
        own.insert("rlimit".into(), json!({"time": now, "maxpid": most, "curproc": running}));
    }
    own
}

/// What all processes of the machine use.
#[derive(Clone, Copy, Debug, Default)]
struct MachineUse {
    cpu_nanoseconds: u64,
    memory_available_bytes: u64,
    memory_usage_bytes: u64,
    memory_working_set_bytes: u64,
}

fn machine_use() -> MachineUse {
    let memory = machine::pairs(&machine::text("/proc/meminfo"), ':');
    let bytes = |name: &str| memory.get(name).map_or(0, |value| machine::kib(value));
    let (total, free, available) = (bytes("MemTotal"), bytes("MemFree"), bytes("MemAvailable"));
    MachineUse {
        cpu_nanoseconds: cpu_nanoseconds(&machine::text("/proc/stat")),
        memory_available_bytes: available,
        memory_usage_bytes: total.saturating_sub(free),
        memory_working_set_bytes: total.saturating_sub(available),
    }
}

/// CPU time of all but idling and waiting, from the first line of `/proc/stat`.
fn cpu_nanoseconds(stat: &str) -> u64 {
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; what follows is counted in the first two already.
    let busy = [0, 1, 2, 5, 6, 7].into_iter().filter_map(|at| ticks.get(at)).sum::<u64>();
    busy * (1_000_000_000 / TICKS_PER_SECOND)
}

/// The text form of Prometheus, with the names of the kubelet's `/metrics/resource`.
fn exposition(samples: &[Sample<'_>], machine: &MachineUse, now: Timestamp) -> String {
    let mut out = String::new();
    let millis = now.as_millisecond();
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    let labels = |sample: &Sample<'_>| {
        let meta = &sample.view.pod.metadata;
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        (part(&meta.namespace), part(&meta.name))
    };
    let mut family = |name: &str, kind: &str, help: &str, rows: Vec<(String, f64, Option<i64>)>| {
        if rows.is_empty() {
            return;
        }
        let _ = writeln!(out, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}");
        for (labels, value, at) in rows {
            let at = at.map_or_else(String::new, |at| format!(" {at}"));
            let _ = writeln!(out, "{name}{labels} {value}{at}");
        }
    };
    let of_container = |value: &dyn Fn(&Sample<'_>) -> Option<f64>, at: Option<i64>| {
        let row = |sample: &Sample<'_>| {
            let (namespace, pod) = labels(sample);
            let text = format!("{{container={:?},namespace={namespace:?},pod={pod:?}}}", sample.name);
            Some((text, value(sample)?, at))
        };
        samples.iter().filter_map(row).collect::<Vec<_>>()
    };
    let of_pod = |value: &dyn Fn(&Sample<'_>) -> f64| {
        let mut sums: BTreeMap<(String, String), f64> = BTreeMap::new();
        for sample in samples {
            *sums.entry(labels(sample)).or_default() += value(sample);
        }
        let row = |((namespace, pod), value)| (format!("{{namespace={namespace:?},pod={pod:?}}}"), value, Some(millis));
        sums.into_iter().map(row).collect::<Vec<_>>()
    };
    let cpu = |sample: &Sample<'_>| seconds(sample.stats.cpu_nanoseconds);
    let memory = |sample: &Sample<'_>| sample.stats.memory_working_set_bytes as f64;
    let help = "Cumulative cpu time consumed by the container in core-seconds";
    let rows = of_container(&|sample| Some(cpu(sample)), Some(millis));
    family("container_cpu_usage_seconds_total", "counter", help, rows);
    let rows = of_container(&|sample| Some(memory(sample)), Some(millis));
    family("container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes", rows);
    let rows = of_container(&|sample| Some(sample.started?.as_millisecond() as f64 / 1e3), None);
    let help = "Start time of the container since unix epoch in seconds";
    family("container_start_time_seconds", "gauge", help, rows);
    let rows = vec![(String::new(), seconds(machine.cpu_nanoseconds), Some(millis))];
    family("node_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the node in core-seconds", rows);
    let rows = vec![(String::new(), machine.memory_working_set_bytes as f64, Some(millis))];
    family("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes", rows);
    let help = "Cumulative cpu time consumed by the pod in core-seconds";
    family("pod_cpu_usage_seconds_total", "counter", help, of_pod(&cpu));
    let help = "Current working set of the pod in bytes";
    family("pod_memory_working_set_bytes", "gauge", help, of_pod(&memory));
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    family("resource_scrape_error", "gauge", help, vec![(String::new(), 0.0, None)]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use std::time::Duration;

    fn view() -> View {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}})).unwrap();
        View { pod: Arc::new(pod), status: Default::default() }
    }

    fn sample<'a>(view: &'a View, name: &str, cpu: u64, memory: u64) -> Sample<'a> {
        let stats = ContainerStats { cpu_nanoseconds: cpu, memory_working_set_bytes: memory };
        Sample { view, uid: "u", name: name.into(), stats, started: Some(Timestamp::from_second(5).unwrap()) }
    }

    #[test]
    fn metrics_read_as_the_kubelets() {
        let view = view();
        let samples = [sample(&view, "a", 1_500_000_000, 1024), sample(&view, "b", 500_000_000, 2048)];
        let machine =
            MachineUse { cpu_nanoseconds: 9_000_000_000, memory_working_set_bytes: 7, ..MachineUse::default() };
        let text = exposition(&samples, &machine, Timestamp::from_millisecond(1000).unwrap());
        for line in [
            "# TYPE container_cpu_usage_seconds_total counter",
            "container_cpu_usage_seconds_total{container=\"a\",namespace=\"ns\",pod=\"p\"} 1.5 1000",
            "container_memory_working_set_bytes{container=\"b\",namespace=\"ns\",pod=\"p\"} 2048 1000",
            "container_start_time_seconds{container=\"a\",namespace=\"ns\",pod=\"p\"} 5",
            "node_cpu_usage_seconds_total 9 1000",
            "node_memory_working_set_bytes 7 1000",
            "pod_cpu_usage_seconds_total{namespace=\"ns\",pod=\"p\"} 2 1000",
            "pod_memory_working_set_bytes{namespace=\"ns\",pod=\"p\"} 3072 1000",
            "resource_scrape_error 0",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_pod_is_the_sum_of_its_containers() {
        let (view, node) = (view(), NodeStats::new("n", Path::new("/")));
        let at = Instant::now();
        let now = Timestamp::from_second(60).unwrap();
        let first = [sample(&view, "a", 0, 10), sample(&view, "b", 0, 20)];
        pod_summary(&node, &view, &first.iter().collect::<Vec<_>>(), None, (now, at));
        let second = [sample(&view, "a", 1_000_000_000, 10), sample(&view, "b", 500_000_000, 20)];
        let later = at + Duration::from_secs(2);
        let summary = pod_summary(&node, &view, &second.iter().collect::<Vec<_>>(), None, (now, later));
        assert_eq!(summary["podRef"], json!({"name": "p", "namespace": "ns", "uid": "u"}));
        assert_eq!(summary["cpu"]["usageCoreNanoSeconds"], 1_500_000_000u64);
        assert_eq!(summary["cpu"]["usageNanoCores"], 750_000_000u64);
        assert_eq!(summary["memory"]["workingSetBytes"], 30);
        assert_eq!(summary["containers"][0]["cpu"]["usageNanoCores"], 500_000_000u64);
    }

    #[test]
    fn a_rate_needs_two_readings_of_one_run() {
        let at = Instant::now();
        let first = rate(None, 100, at);
        assert_eq!(first.nano_cores, None);
        let second = rate(Some(first), 2_000_000_100, at + Duration::from_secs(4));
        assert_eq!(second.nano_cores, Some(500_000_000));
        assert_eq!(rate(Some(first), 900, at + Duration::from_millis(10)).nano_cores, None, "too soon to say anything");
        let soon = rate(Some(second), 3_000_000_000, at + Duration::from_millis(4100));
        assert_eq!(soon.nano_cores, Some(500_000_000), "too soon to say something else");
        assert_eq!(rate(Some(second), 5, at + Duration::from_secs(9)).nano_cores, None, "a new run");
    }

    #[test]
    fn idle_time_is_not_used_time() {
        assert_eq!(cpu_nanoseconds("cpu  1 2 3 400 50 6 7 8 9 10\ncpu0 1"), 27 * 10_000_000);
    }
}
