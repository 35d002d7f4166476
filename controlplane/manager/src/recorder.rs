//! Writes Events. They are worth less than the work they tell of: the line is bounded, and what does not fit is dropped.

use coracle_controllers::{Action, Note, Object};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::Method;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::correlator::{Correlator, EventWrite};
use crate::request;

/// Events waiting to be written (client-go queues 1,000 for each of its recorders; this one serves all).
const QUEUE: usize = 8192;
/// Events being written at once.
const MOST_WRITES: usize = 64;

type Line = (&'static str, Note);

/// Where Events are handed in.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    line: mpsc::Sender<Line>,
}

impl Recorder {
    /// Hands an Event in, unless too many wait.
    pub(crate) fn record(&self, component: &'static str, note: Note) {
        if self.line.try_send((component, note)).is_err() {
            tracing::debug!(component, "an Event was dropped: too many wait to be written");
        }
    }
}

/// A recorder, and the end that [`run`] takes.
pub(crate) fn channel() -> (Recorder, mpsc::Receiver<Line>) {
    let (line, lines) = mpsc::channel(QUEUE);
    (Recorder { line }, lines)
}

/// Writes Events until `stop`, or until nobody can hand any in.
pub(crate) async fn run(client: kube::Client, mut lines: mpsc::Receiver<Line>, stop: CancellationToken) {
    let mut correlator = Correlator::new();
    let mut writes = FuturesUnordered::new();
    loop {
        let line = tokio::select! {
            () = stop.cancelled() => break,
            Some(()) = writes.next(), if !writes.is_empty() => continue,
            line = lines.recv(), if writes.len() < MOST_WRITES => line,
        };
        let Some((component, note)) = line else { break };
        if let Some(write) = correlator.observe(component, note, Timestamp::now()) {
            writes.push(carry_out(client.clone(), write));
        }
    }
    while writes.next().await.is_some() {}
}

async fn carry_out(client: kube::Client, write: EventWrite) {
    match write {
        EventWrite::Create(event) => create(&client, *event).await,
        EventWrite::Count(patch, event) => {
            if !count(&client, &patch, &event).await {
                create(&client, *event).await;
            }
        }
    }
}

async fn create(client: &kube::Client, event: Event) {
    let Some(request) = request::of(&Action::Create(Object::from(event))) else { return };
    match client.request_text(request).await {
        Ok(_) => {}
        // The namespace may be going, or the Event may be there.
        Err(kube::Error::Api(status)) if [403, 404, 409].contains(&status.code) => {}
        Err(error) => tracing::debug!(%error, "an Event could not be written"),
    }
}

/// Whether the Event was still there to be counted up.
async fn count(client: &kube::Client, patch: &Value, event: &Event) -> bool {
    let name = event.metadata.name.as_deref().unwrap_or_default();
    let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
    let path = format!("/api/v1/namespaces/{namespace}/events/{name}");
    let body = patch.to_string().into_bytes();
    let Some(request) = request::build(Method::PATCH, path, "application/merge-patch+json", body) else { return true };
    !matches!(client.request_text(request).await, Err(kube::Error::Api(status)) if status.code == 404)
}
