//! Carries plans out through the API, many writes at once. It makes no choice: a refused write is reported, and the
//! controller looks again.

use std::sync::Arc;

use coracle_controllers::{Action, FailedVerb, Failure, Note, Step};
use futures::{StreamExt, stream};
use http::Request;
use tokio::sync::Semaphore;

use crate::recorder::Recorder;
use crate::request;

/// Writes of one plan under way at once.
const WRITES_PER_PLAN: usize = 64;
/// Writes of all plans under way at once: enough to fill the store's group commits, few enough to stay small in memory.
const MOST_WRITES: usize = 256;

/// What came of a plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Report {
    /// Whether any write was accepted.
    pub(crate) wrote: bool,
    /// Whether any was refused, so that the key is to be looked at again.
    pub(crate) refused: bool,
    /// The first refusal that the controller should know of.
    pub(crate) failure: Option<Failure>,
}

/// Carries plans out.
#[derive(Clone)]
pub(crate) struct Executor {
    client: kube::Client,
    recorder: Recorder,
    permits: Arc<Semaphore>,
}

enum Written {
    Accepted,
    /// The object is gone or changed; the cache will tell.
    Outdated,
    Refused(String),
}

impl Executor {
    pub(crate) fn new(client: kube::Client, recorder: Recorder) -> Self {
        Self { client, recorder, permits: Arc::new(Semaphore::new(MOST_WRITES)) }
    }

    /// Records an Event that no write brings about.
    pub(crate) fn tell(&self, component: &'static str, note: Note) {
        self.recorder.record(component, note);
    }

    /// Carries out the steps of a plan.
    pub(crate) async fn carry_out(&self, component: &'static str, steps: Vec<Step>) -> Report {
        let mut report = Report::default();
        let mut answers = stream::iter(steps).map(|step| self.step(component, step)).buffer_unordered(WRITES_PER_PLAN);
        while let Some((verb, written)) = answers.next().await {
            match written {
                Written::Accepted => report.wrote = true,
                Written::Outdated => report.refused = true,
                Written::Refused(message) => {
                    report.refused = true;
                    report.failure.get_or_insert(Failure { verb, message });
                }
            }
        }
        report
    }

    async fn step(&self, component: &'static str, step: Step) -> (FailedVerb, Written) {
        let verb = step.action.verb();
        if let Action::Tell(note) = step.action {
            self.recorder.record(component, note);
            return (verb, Written::Accepted);
        }
        let Some(request) = request::of(&step.action) else {
            return (verb, Written::Refused("the object has no request".into()));
        };
        let written = match self.permits.acquire().await {
            Ok(_permit) => send(&self.client, request, &step.action).await,
            Err(_) => Written::Outdated,
        };
        match &written {
            Written::Accepted => step.on_success.into_iter().for_each(|note| self.recorder.record(component, note)),
            Written::Outdated => {}
            Written::Refused(message) => {
                tracing::warn!(controller = component, ?verb, %message, "a write was refused");
                if let Some(mut note) = step.on_failure {
                    note.message.push_str(message);
                    self.recorder.record(component, note);
                }
            }
        }
        (verb, written)
    }
}

async fn send(client: &kube::Client, request: Request<Vec<u8>>, action: &Action) -> Written {
    match client.request_text(request).await {
        Ok(_) => Written::Accepted,
        Err(kube::Error::Api(status)) => match (status.code, action) {
            // What was to go is gone, or another object has its name by now.
            (404 | 409, Action::Delete { .. }) => Written::Accepted,
            (404, Action::Create(_)) => Written::Refused(status.message.clone()),
            (404 | 409, _) => Written::Outdated,
            // Nothing is wrong: the namespace goes, and what was to be written would go with it.
            (403, Action::Create(_)) if namespace_ends(&status) => Written::Outdated,
            _ => Written::Refused(status.message.clone()),
        },
        Err(error) => Written::Refused(error.to_string()),
    }
}

/// Whether a create was refused because its namespace is being deleted.
fn namespace_ends(status: &kube::core::Status) -> bool {
    status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == "NamespaceTerminating")
}
