//! Writes Events. They are worth less than the work they tell of: the line is bounded, and what does not fit is dropped.

use coracle_controllers::{Action, Note, Object};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::Method;
use k8s_openapi::api::core::v1::Event;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::correlator::{Correlator, EventWrite};
use crate::request::{self, MERGE_PATCH};
use crate::writer::Writer;

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
pub(crate) async fn run(writer: Writer, mut lines: mpsc::Receiver<Line>, clock: Clock, stop: CancellationToken) {
    let mut correlator = Correlator::new();
    let mut writes = FuturesUnordered::new();
    loop {
        let line = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(()) = writes.next(), if !writes.is_empty() => continue,
            line = lines.recv(), if writes.len() < MOST_WRITES => line,
        };
        let Some((component, note)) = line else { break };
        if let Some(write) = correlator.observe(component, note, clock.now()) {
            writes.push(carry_out(writer.clone(), write));
        }
    }
    while writes.next().await.is_some() {}
}

async fn carry_out(writer: Writer, write: EventWrite) {
    match write {
        EventWrite::Create(event) => create(&writer, *event).await,
        EventWrite::Count(patch, event) => {
            if !count(&writer, &patch, &event).await {
                create(&writer, *event).await;
            }
        }
    }
}

async fn create(writer: &Writer, event: Event) {
    let Some(write) = request::of(&Action::Create(Object::from(event))) else { return };
    match writer.send(write).await {
        Ok(()) => {}
        // The namespace may be going, or the Event may be there.
        Err(refused) if [403, 404, 409].contains(&refused.code) => {}
        Err(refused) => tracing::debug!(?refused, "an Event could not be written"),
    }
}

/// Whether the Event was still there to be counted up.
async fn count(writer: &Writer, patch: &Value, event: &Event) -> bool {
    let name = event.metadata.name.as_deref().unwrap_or_default();
    let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
    let path = format!("/api/v1/namespaces/{namespace}/events/{name}");
    let sent = writer.send(request::write(Method::PATCH, path, MERGE_PATCH, patch.to_string())).await;
    !sent.is_err_and(|refused| refused.code == 404)
}
