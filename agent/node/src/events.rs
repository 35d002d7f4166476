//! Writes Events about pods. Repeats count up on one object; a pod that says too much is cut short, as the kubelet's
//! correlator does; a control plane that is away costs events, never pods.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use coracle_agent_core::event::PodEvent;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events that wait to be written; what does not fit is dropped.
const QUEUE: usize = 16_384;
/// Distinct events remembered for counting.
const REMEMBERED: usize = 4096;
/// Events a pod may give at once, and the time after which one more is allowed: client-go's spam filter.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);

/// The way to the writer.
#[derive(Clone, Debug)]
pub(crate) struct Recorder(mpsc::Sender<(Arc<Pod>, PodEvent)>);

impl Recorder {
    /// Queues an event.
    pub(crate) fn record(&self, pod: &Arc<Pod>, event: PodEvent) {
        if self.0.try_send((pod.clone(), event)).is_err() {
            tracing::debug!("an event was dropped: the queue is full");
        }
    }
}

/// Makes a recorder and the task behind it.
pub(crate) fn recorder(client: Client, node: String, stop: CancellationToken) -> (Recorder, impl Future<Output = ()>) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let writer = Writer { client, node, seen: HashMap::new(), budgets: HashMap::new(), sequence: 0 };
    (Recorder(sender), writer.run(queue, stop))
}

struct Writer {
    client: Client,
    node: String,
    seen: HashMap<Key, Seen>,
    budgets: HashMap<String, (f64, Instant)>,
    sequence: u64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    field_path: String,
    reason: &'static str,
    message: Arc<str>,
}

struct Seen {
    name: String,
    count: i32,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<(Arc<Pod>, PodEvent)>, stop: CancellationToken) {
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => return,
                next = queue.recv() => next,
            };
            let Some((pod, event)) = next else { return };
            if let Err(error) = self.write(&pod, event).await {
                tracing::debug!(%error, "an event was not written");
            }
        }
    }

    async fn write(&mut self, pod: &Pod, event: PodEvent) -> kube::Result<()> {
        let uid = event.pod.as_str().to_owned();
        if !self.allowed(&uid) {
            return Ok(());
        }
        let namespace = pod.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let key =
            Key { uid, field_path: event.field_path.clone(), reason: event.reason, message: event.message.clone() };
        let now = Timestamp::now();
        if let Some(seen) = self.seen.get_mut(&key) {
            let second = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let patch = json!({"count": seen.count + 1, "lastTimestamp": second});
            let done = events.patch(&seen.name, &PatchParams::default(), &Patch::Merge(patch)).await;
            match done {
                Ok(_) => {
                    seen.count += 1;
                    return Ok(());
                }
                // It has expired: a new one is made below.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        self.sequence += 1;
        let pod_name = pod.metadata.name.clone().unwrap_or_default();
        let stamp = now.as_nanosecond() as u64 + self.sequence;
        let name = format!("{pod_name}.{stamp:x}");
        let object = self.object(pod, &event, &name, &namespace, now)?;
        events.create(&PostParams::default(), &object).await?;
        if self.seen.len() >= REMEMBERED {
            self.seen.clear();
        }
        self.seen.insert(key, Seen { name, count: 1 });
        Ok(())
    }

    fn object(&self, pod: &Pod, event: &PodEvent, name: &str, namespace: &str, now: Timestamp) -> kube::Result<Event> {
        let meta = &pod.metadata;
        let second = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut about = json!({"apiVersion": "v1", "kind": "Pod", "name": meta.name, "namespace": namespace,
            "uid": meta.uid, "resourceVersion": meta.resource_version});
        if !event.field_path.is_empty() {
            about["fieldPath"] = json!(event.field_path);
        }
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": about,
            "reason": event.reason,
            "message": &*event.message,
            "type": event.kind.as_str(),
            "count": 1,
            "firstTimestamp": second,
            "lastTimestamp": second,
            "source": {"component": "kubelet", "host": self.node},
            "reportingComponent": "kubelet",
            "reportingInstance": self.node,
        }))
        .map_err(kube::Error::SerdeError)
    }

    fn allowed(&mut self, uid: &str) -> bool {
        let now = Instant::now();
        if self.budgets.len() >= REMEMBERED && !self.budgets.contains_key(uid) {
            // Full budgets say nothing: they are made again when needed.
            self.budgets.retain(|_, (tokens, at)| *tokens + at.elapsed().div_duration_f64(REFILL) < BURST);
        }
        let (tokens, at) = self.budgets.entry(uid.to_owned()).or_insert((BURST, now));
        *tokens = (*tokens + now.duration_since(*at).div_duration_f64(REFILL)).min(BURST);
        *at = now;
        let allowed = *tokens >= 1.0;
        if allowed {
            *tokens -= 1.0;
        }
        allowed
    }
}
