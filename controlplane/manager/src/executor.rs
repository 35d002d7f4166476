//! Carries plans out through the API, many writes at once. It makes no choice: a refused write is reported, and the
//! controller looks again.

use std::sync::Arc;

use coracle_controllers::{Action, FailedVerb, Failure, Note, Pace, Step};
use futures::{StreamExt, stream};
use tokio::sync::Semaphore;

use crate::recorder::Recorder;
use crate::request;
use crate::writer::{Refused, Write, Writer};

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
    writer: Writer,
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
    pub(crate) fn new(writer: Writer, recorder: Recorder) -> Self {
        Self { writer, recorder, permits: Arc::new(Semaphore::new(MOST_WRITES)) }
    }

    /// Records an Event that no write brings about.
    pub(crate) fn tell(&self, component: &'static str, note: Note) {
        self.recorder.record(component, note);
    }

    /// Carries out the steps of a plan.
    pub(crate) async fn carry_out(&self, component: &'static str, steps: Vec<Step>, pace: Pace) -> Report {
        let mut report = Report::default();
        let is_create = |step: &Step| matches!(step.action, Action::Create(_));
        let (mut creates, others) = match pace {
            Pace::AtOnce => (Vec::new(), steps),
            Pace::SlowStart => steps.into_iter().partition(is_create),
        };
        self.all(component, others, &mut report).await;
        let mut size = 1;
        while !creates.is_empty() && !report.refused {
            let later = creates.split_off(size.min(creates.len()));
            self.all(component, creates, &mut report).await;
            creates = later;
            size *= 2;
        }
        report
    }

    async fn all(&self, component: &'static str, steps: Vec<Step>, report: &mut Report) {
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
    }

    async fn step(&self, component: &'static str, step: Step) -> (FailedVerb, Written) {
        let verb = step.action.verb();
        if let Action::Tell(note) = step.action {
            self.recorder.record(component, note);
            return (verb, Written::Accepted);
        }
        let Some(write) = request::of(&step.action) else {
            return (verb, Written::Refused("the object has no request".into()));
        };
        let written = match self.permits.acquire().await {
            Ok(_permit) => send(&self.writer, write, &step.action).await,
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

async fn send(writer: &Writer, write: Write, action: &Action) -> Written {
    let Err(refused) = writer.send(write).await else { return Written::Accepted };
    match (refused.code, action) {
        // It is another version than the controller judged by.
        (409, Action::Delete { preconditions, .. }) if preconditions.resource_version.is_some() => Written::Outdated,
        // What was to go is gone, or another object has its name by now. Any other conflict left it there.
        (404, Action::Delete { .. }) => Written::Accepted,
        (409, Action::Delete { .. }) if refused.message.contains("does not match the UID in record") => {
            Written::Accepted
        }
        (404, Action::Create(_)) => Written::Refused(refused.message),
        (404 | 409, _) => Written::Outdated,
        // Nothing is wrong: the namespace goes, and what was to be written would go with it.
        (403, Action::Create(_)) if namespace_ends(&refused) => Written::Outdated,
        _ => Written::Refused(refused.message),
    }
}

/// Whether a create was refused because its namespace is being deleted.
fn namespace_ends(refused: &Refused) -> bool {
    refused.causes.iter().any(|cause| cause == "NamespaceTerminating")
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use coracle_apiserver::Body;
    use coracle_controllers::{Object, Preconditions, Target};
    use http::{Request, Response};
    use http_body_util::Full;
    use k8s_openapi::api::core::v1::Pod;

    use super::*;
    use crate::recorder;

    /// An API that accepts so many writes and then answers with `code`; it counts what it was sent.
    fn executor(accepts: usize, code: u16) -> (Executor, Arc<AtomicUsize>) {
        refusing(accepts, code, "exceeded quota")
    }

    fn refusing(accepts: usize, code: u16, message: &'static str) -> (Executor, Arc<AtomicUsize>) {
        let sent = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        let door = tower::service_fn(move |_: Request<Full<Bytes>>| {
            let accepted = count.fetch_add(1, Ordering::SeqCst) < accepts;
            async move {
                let status = if accepted { 201 } else { code };
                let body = Body::full(format!(r#"{{"kind":"Status","message":"{message}"}}"#));
                Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
            }
        });
        (Executor::new(Writer::new(door, "test"), recorder::channel().0), sent)
    }

    fn step(action: Action) -> Step {
        Step { action, on_success: None, on_failure: None }
    }

    fn pod() -> Object {
        let mut pod = Pod::default();
        pod.metadata.name = Some("p".into());
        pod.metadata.namespace = Some("ns".into());
        pod.into()
    }

    #[tokio::test]
    async fn creates_begin_slowly_and_end_with_the_first_refusal() {
        for (accepts, pace, expect) in [
            (0, Pace::SlowStart, 1),
            (2, Pace::SlowStart, 3),
            (3, Pace::SlowStart, 7),
            (100, Pace::SlowStart, 20),
            (3, Pace::AtOnce, 20),
        ] {
            let (executor, sent) = executor(accepts, 403);
            let report = executor.carry_out("test", vec![step(Action::Create(pod())); 20], pace).await;
            assert_eq!(sent.load(Ordering::SeqCst), expect, "{accepts} accepted, {pace:?}");
            let failure = Failure { verb: FailedVerb::Create, message: "exceeded quota".into() };
            let refused = accepts < 20;
            assert_eq!(report, Report { wrote: accepts > 0, refused, failure: refused.then_some(failure) });
        }
    }

    #[tokio::test]
    async fn what_a_conflict_means() {
        let delete = |resource_version: Option<&str>| Action::Delete {
            target: Target::of(&pod()),
            preconditions: Preconditions {
                uid: Some("u".into()),
                resource_version: resource_version.map(str::to_owned),
            },
            propagation: None,
            grace_period_seconds: None,
        };
        let accepted = Report { wrote: true, ..Report::default() };
        let outdated = Report { refused: true, ..Report::default() };
        let another = "the UID in the precondition (u) does not match the UID in record (v)";
        let busy = "Operation cannot be fulfilled: the object is being changed by many others; please try again";
        for (code, message, action, expect) in [
            (404, "not found", delete(None), &accepted),
            (404, "not found", delete(Some("7")), &accepted),
            // Another object has the name.
            (409, another, delete(None), &accepted),
            // It is still there.
            (409, busy, delete(None), &outdated),
            // It changed since the controller looked.
            (409, busy, delete(Some("7")), &outdated),
            (409, busy, Action::Update(pod()), &outdated),
            (404, "not found", Action::UpdateStatus(pod()), &outdated),
        ] {
            let (executor, _) = refusing(0, code, message);
            let report = executor.carry_out("test", vec![step(action.clone())], Pace::AtOnce).await;
            assert_eq!(report, *expect, "{code} for {action:?}");
        }
    }
}
