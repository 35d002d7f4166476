//! `/stats/summary` and `/metrics/resource`: what the node and its pods use, in the kubelet's shapes
//! (k8s.io/kubelet/pkg/apis/stats/v1alpha1). Numbers are read when they are asked for; nothing is sampled in between.

mod disk;
mod exposition;
mod rates;
mod summary;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use coracle_agent_containerd::ImagesOnDisk;
use coracle_agent_core::{
    PodUid,
    workload::{ContainerStats, PodStats},
};
use http::{HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use parking_lot::Mutex;

use self::{
    disk::{FileSystem, PodDisk},
    rates::Rates,
    summary::Scene,
};
use super::{Handler, NodeBody, answer, json_answer};
use crate::{
    machine::{self, MachineUse, ProcessUse},
    views::View,
    volumes::Volumes,
};

/// A summary in which no rate is known is told after this, when there are some: clients of the kubelet know of none that
/// are missing.
const FIRST_SPAN: Duration = Duration::from_secs(1);

/// What is remembered between two questions.
#[derive(Clone)]
pub(crate) struct NodeStats {
    name: Arc<str>,
    data_dir: Arc<Path>,
    volumes: Volumes,
    started: Timestamp,
    rates: Arc<Mutex<Rates>>,
}

impl NodeStats {
    pub(crate) fn new(name: &str, data_dir: &Path, volumes: Volumes) -> Self {
        Self { name: name.into(), data_dir: data_dir.into(), volumes, started: Timestamp::now(), rates: Arc::default() }
    }

    /// Remembers the counters of a sample; whether there are rates then.
    fn take_in(&self, sample: &Sample) -> bool {
        let mut rates = self.rates.lock();
        rates.add(sample.counters(), sample.at);
        rates.nano_cores(rates::NODE).is_some()
    }
}

/// Everything that was read for one answer.
struct Sample {
    now: Timestamp,
    at: Instant,
    pods: Vec<PodSample>,
    machine: MachineUse,
    agent: ProcessUse,
    /// Threads of the machine, and how many it can have.
    processes: Option<(u64, u64)>,
    /// Why pods may be missing.
    problem: Option<String>,
}

/// One pod.
struct PodSample {
    view: View,
    containers: Vec<ContainerSample>,
    sandbox_id: Option<String>,
}

/// One running container.
struct ContainerSample {
    name: String,
    started: Option<Timestamp>,
    stats: ContainerStats,
}

impl PodSample {
    fn of(view: View, stats: PodStats) -> Self {
        let one = |(name, stats): (String, ContainerStats)| {
            let running = view.container(&name).and_then(|status| status.state.as_ref()?.running.as_ref());
            let started = running.and_then(|running| running.started_at.as_ref()).map(|time| time.0);
            ContainerSample { name, started, stats }
        };
        let containers = stats.containers.into_iter().map(one).collect();
        Self { view, containers, sandbox_id: stats.sandbox_id }
    }

    fn uid(&self) -> &str {
        self.view.pod.metadata.uid.as_deref().unwrap_or_default()
    }
}

impl Sample {
    /// The counters of CPU time in it, by a name of their own.
    fn counters(&self) -> Vec<rates::Counter> {
        let of_pod = |pod: &PodSample| {
            let one = |container: &ContainerSample| rates::Counter {
                key: rates::of_container(pod.uid(), &container.name),
                at: self.instant(container.stats.at),
                nanoseconds: container.stats.cpu_nanoseconds,
                started: container.started.map(|started| self.instant(started)),
            };
            pod.containers.iter().map(one).collect::<Vec<_>>()
        };
        let own = |key: &str, nanoseconds| rates::Counter { key: key.into(), at: self.at, nanoseconds, started: None };
        let mut all =
            vec![own(rates::NODE, self.machine.cpu_nanoseconds), own(rates::AGENT, self.agent.cpu_nanoseconds)];
        all.extend(self.pods.iter().flat_map(of_pod));
        all
    }

    /// A time before now, by the clock that is never set.
    fn instant(&self, time: Timestamp) -> Instant {
        let ago = Duration::try_from(self.now.duration_since(time)).unwrap_or_default();
        self.at.checked_sub(ago).unwrap_or(self.at)
    }
}

impl Handler {
    pub(super) async fn stats_summary(&self, only_cpu_and_memory: bool) -> Response<NodeBody> {
        let node = &self.inner.node;
        let mut sample = self.sample().await;
        if !node.take_in(&sample) {
            tokio::time::sleep(FIRST_SPAN).await;
            sample = self.sample().await;
            node.take_in(&sample);
        }
        let disk = if only_cpu_and_memory { None } else { self.disk(&sample).await };
        let (links, default_link) = match only_cpu_and_memory {
            true => (HashMap::new(), None),
            false => (machine::links(), machine::default_link()),
        };
        let rates = node.rates.lock();
        let scene = Scene {
            node: &node.name,
            started: node.started,
            sample: &sample,
            rates: &rates,
            disk,
            links: &links,
            default_link: default_link.as_ref(),
        };
        json_answer(StatusCode::OK, &summary::summary(&scene))
    }

    pub(super) async fn resource_metrics(&self) -> Response<NodeBody> {
        let text = exposition::exposition(&self.sample().await);
        let mut response = answer(StatusCode::OK, "text/plain", text);
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }

    async fn sample(&self) -> Sample {
        let mut stats = self.inner.runtime.stats().await;
        let views = self.inner.views.all();
        let (now, at) = (Timestamp::now(), Instant::now());
        let pods = views.into_iter().map(|view| {
            let uid = PodUid::new(view.pod.metadata.uid.as_deref().unwrap_or_default());
            PodSample::of(view, stats.pods.remove(&uid).unwrap_or_default())
        });
        let pods = pods.collect();
        let problem = stats.problem.map(|problem| problem.to_string());
        if let Some(problem) = &problem {
            tracing::debug!(problem, "the figures of some pods are missing");
        }
        let (machine, agent) = (machine::machine_use(), machine::process_use());
        Sample { now, at, pods, machine, agent, processes: machine::processes(), problem }
    }

    /// What the pods have on the disk. Directories are walked through, by a thread that may wait.
    async fn disk(&self, sample: &Sample) -> Option<Disk> {
        let places =
            sample.pods.iter().map(|pod| disk::places(pod, &self.log_dir(&pod.view), &self.inner.node.volumes));
        let (places, data_dir) = (places.collect::<Vec<_>>(), Arc::clone(&self.inner.node.data_dir));
        let images = match self.inner.runtimes.images_on_disk().await {
            Ok(images) => Some(images),
            Err(error) => {
                tracing::debug!(%error, "the room that images take is not known");
                None
            }
        };
        let measure = move || Disk {
            node: FileSystem::of(&data_dir),
            images: images.and_then(|images| Some((FileSystem::of(&images.directory)?, images))),
            pods: places.iter().map(disk::PodPlaces::measure).collect(),
        };
        match tokio::task::spawn_blocking(measure).await {
            Ok(disk) => Some(disk),
            Err(error) => {
                tracing::warn!(%error, "the node's use of the disk was not measured");
                None
            }
        }
    }

    fn log_dir(&self, view: &View) -> PathBuf {
        let meta = &view.pod.metadata;
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        self.inner.log_dir.join(format!("{}_{}_{}", part(&meta.namespace), part(&meta.name), part(&meta.uid)))
    }
}

/// What is on the node's disk.
struct Disk {
    node: Option<FileSystem>,
    /// The images, and what they are on; `None` if the runtime does not say.
    images: Option<(FileSystem, ImagesOnDisk)>,
    /// In the order of the sample's pods.
    pods: Vec<PodDisk>,
}
