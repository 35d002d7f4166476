//! Writes Events about pods. Repeats count up on one object; a pod that says too much is cut short, as the kubelet's
//! correlator does; what pods wait for is written first, so that a burst of new pods is not held up by its own events; a
//! control plane that is away costs events, never pods.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use coracle_agent_core::event::PodEvent;
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Client, Resource,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::{
    sync::{mpsc, watch},
    time::sleep_until,
};
use tokio_util::sync::CancellationToken;

/// Events that wait to be written; what does not fit is dropped.
const QUEUE: usize = 16_384;
/// Distinct events remembered for counting.
const REMEMBERED: usize = 4096;
/// Events a pod may give at once, and the time after which one more is allowed: client-go's spam filter.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);
/// Events written at once, which the store makes one commit of.
const BATCH: usize = 32;
/// Longest that an event waits for more urgent writes.
const GIVE_WAY: Duration = Duration::from_secs(1);

/// An event with what it needs to be written later.
#[derive(Debug)]
struct Recorded {
    pod: Arc<Pod>,
    event: PodEvent,
    at: Timestamp,
    write_by: tokio::time::Instant,
}

/// The way to the writer.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Recorded>,
    busy: watch::Sender<bool>,
}

impl Recorder {
    /// Queues an event.
    pub(crate) fn record(&self, pod: &Arc<Pod>, event: PodEvent) {
        let write_by = tokio::time::Instant::now() + GIVE_WAY;
        let recorded = Recorded { pod: pod.clone(), event, at: Timestamp::now(), write_by };
        if self.queue.try_send(recorded).is_err() {
            tracing::debug!("an event was dropped: the queue is full");
        }
    }

    /// Whether something is under way that pods wait for.
    pub(crate) fn give_way(&self, busy: bool) {
        self.busy.send_if_modified(|known| std::mem::replace(known, busy) != busy);
    }
}

/// Makes a recorder and the task behind it.
pub(crate) fn recorder(client: Client, node: String, stop: CancellationToken) -> (Recorder, impl Future<Output = ()>) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let (busy, is_busy) = watch::channel(false);
    let writer = Writer { client, node, seen: HashMap::new(), budgets: HashMap::new(), sequence: 0 };
    (Recorder { queue: sender, busy }, writer.run(queue, is_busy, stop))
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

impl Key {
    fn of(event: &PodEvent) -> Self {
        Self {
            uid: event.pod.as_str().to_owned(),
            field_path: event.field_path.clone(),
            reason: event.reason,
            message: event.message.clone(),
        }
    }
}

struct Seen {
    name: String,
    count: i32,
}

/// What a write came to.
struct Wrote {
    key: Key,
    seen: Seen,
    result: kube::Result<()>,
}

impl Writer {
    async fn run(
        mut self,
        mut queue: mpsc::Receiver<Recorded>,
        mut busy: watch::Receiver<bool>,
        stop: CancellationToken,
    ) {
        let mut left = None;
        loop {
            let next = match left.take() {
                Some(recorded) => Some(recorded),
                None => tokio::select! {
                    () = stop.cancelled() => return,
                    next = queue.recv() => next,
                },
            };
            let Some(first) = next else { return };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = busy.wait_for(|busy| !busy) => {}
                () = sleep_until(first.write_by) => {}
            }
            let mut batch = vec![first];
            let mut keys: HashSet<Key> = batch.iter().map(|one| Key::of(&one.event)).collect();
            while batch.len() < BATCH
                && let Ok(next) = queue.try_recv()
            {
                // A repeat is counted on what the first one made, so it waits for that.
                if !keys.insert(Key::of(&next.event)) {
                    left = Some(next);
                    break;
                }
                batch.push(next);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.write_all(batch) => {}
            }
        }
    }

    async fn write_all(&mut self, batch: Vec<Recorded>) {
        let mut writes = Vec::with_capacity(batch.len());
        for recorded in batch {
            let key = Key::of(&recorded.event);
            if !self.allowed(&key.uid) {
                continue;
            }
            let seen = self.seen.get(&key).map(|seen| Seen { name: seen.name.clone(), count: seen.count });
            self.sequence += 1;
            let stamp = recorded.at.as_nanosecond() as u64 + self.sequence;
            let name = format!("{}.{stamp:x}", recorded.pod.metadata.name.as_deref().unwrap_or_default());
            writes.push(write(self.client.clone(), self.node.clone(), recorded, key, seen, name));
        }
        for Wrote { key, seen, result } in join_all(writes).await {
            if let Err(error) = result {
                tracing::debug!(%error, "an event was not written");
                continue;
            }
            if self.seen.len() >= REMEMBERED {
                self.seen.clear();
            }
            self.seen.insert(key, seen);
        }
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

/// Counts an event that was seen before, or makes one of this name.
async fn write(client: Client, node: String, recorded: Recorded, key: Key, seen: Option<Seen>, name: String) -> Wrote {
    let namespace = recorded.pod.metadata.namespace.as_deref().unwrap_or("default");
    let path = Event::url_path(&(), Some(namespace));
    if let Some(seen) = seen {
        let seen = Seen { count: seen.count + 1, ..seen };
        let patch = json!({"count": seen.count, "lastTimestamp": second(recorded.at)});
        let request =
            kube::core::Request::new(path.as_str()).patch(&seen.name, &PatchParams::default(), &Patch::Merge(patch));
        match send(&client, request).await {
            // It has expired: a new one is made below.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            result => return Wrote { key, seen, result },
        }
    }
    let object = object(&recorded, &node, &name, namespace);
    let body = serde_json::to_vec(&object).map_err(kube::Error::SerdeError);
    let result = match body {
        Ok(body) => send(&client, kube::core::Request::new(path.as_str()).create(&PostParams::default(), body)).await,
        Err(error) => Err(error),
    };
    Wrote { key, seen: Seen { name, count: 1 }, result }
}

/// Sends a write. Its answer repeats what was sent: nobody reads it.
async fn send(
    client: &Client,
    request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
) -> kube::Result<()> {
    client.request_text(request.map_err(kube::Error::BuildRequest)?).await.map(drop)
}

fn object(recorded: &Recorded, node: &str, name: &str, namespace: &str) -> Value {
    let (meta, event) = (&recorded.pod.metadata, &recorded.event);
    let mut about = json!({"apiVersion": "v1", "kind": "Pod", "name": meta.name, "namespace": namespace,
        "uid": meta.uid, "resourceVersion": meta.resource_version});
    if !event.field_path.is_empty() {
        about["fieldPath"] = json!(event.field_path);
    }
    let second = second(recorded.at);
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": about,
        "reason": event.reason,
        "message": &*event.message,
        "type": event.kind.as_str(),
        "count": 1,
        "firstTimestamp": second,
        "lastTimestamp": second,
        "source": {"component": "kubelet", "host": node},
        "reportingComponent": "kubelet",
        "reportingInstance": node,
    })
}

fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
