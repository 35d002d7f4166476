//! Events are kept for a while after they last changed, then deleted in batches (kube-apiserver's `--event-ttl`).

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;

use crate::object::{Kind, Typed};
use crate::plan::{Action, Plan, Preconditions, Target};
use crate::table::{Context, Controller, Key};

pub(crate) const CONTROLLER: Controller =
    Controller { name: "event-ttl-controller", watches: &[], reconcile, initial_keys: || vec![Key::new("", "sweep")] };

/// Events deleted in one run.
const BATCH: usize = 500;
/// Between two sweeps at least: they look at every Event, and a few minutes more do no Event any harm.
const SHORTEST_PAUSE: Duration = Duration::from_secs(5 * 60);

fn reconcile(context: &mut Context<'_>, _: &Key) -> Plan {
    let mut plan = Plan::none();
    let ttl = context.config.event_ttl;
    let mut next = context.now.checked_add(ttl).unwrap_or(Timestamp::MAX);
    for object in context.cache.list(Kind::Event, None) {
        let Some(event) = Event::from_object(object) else { continue };
        let expiry = last_change(&event).checked_add(ttl).unwrap_or(Timestamp::MAX);
        if expiry > context.now {
            next = next.min(expiry);
        } else if plan.steps.len() == BATCH {
            next = context.now;
            break;
        } else {
            plan.push(expire(&event));
        }
    }
    let pause = Duration::try_from(next.duration_since(context.now)).unwrap_or(Duration::ZERO);
    let full = plan.steps.len() == BATCH;
    plan.requeue(if full { Duration::from_secs(1) } else { pause.max(SHORTEST_PAUSE) });
    plan
}

/// An Event that was counted up meanwhile stays: the version is a precondition.
fn expire(event: &Event) -> Action {
    let meta = &event.metadata;
    Action::Delete {
        target: Target {
            resource: Kind::Event.resource(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        },
        preconditions: Preconditions { uid: meta.uid.clone(), resource_version: meta.resource_version.clone() },
        propagation: None,
        grace_period_seconds: None,
    }
}

fn last_change(event: &Event) -> Timestamp {
    let times = [
        event.last_timestamp.as_ref().map(|time| time.0),
        event.event_time.as_ref().map(|time| time.0),
        event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0),
        event.metadata.creation_timestamp.as_ref().map(|time| time.0),
    ];
    times.into_iter().flatten().max().unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Model, meta, time};

    #[test]
    fn old_events_go_and_the_next_sweep_is_set() {
        let event = |name: &str, last: &str| Event {
            metadata: meta("ns", name),
            last_timestamp: Some(time(last)),
            ..Event::default()
        };
        let mut model =
            Model::new().with(event("old", "2026-01-01T00:00:00Z")).with(event("new", "2026-01-01T00:30:00Z"));
        let plan = model.run(&CONTROLLER, "", "sweep");
        assert_eq!(model.all::<Event>().len(), 1);
        assert_eq!(plan.requeue_after, Some(Duration::from_secs(1800)));
    }

    #[test]
    fn a_sweep_is_bounded() {
        let mut model = Model::new();
        for index in 0..BATCH + 10 {
            model.put(Event { metadata: meta("ns", &index.to_string()), ..Event::default() });
        }
        let plan = model.run(&CONTROLLER, "", "sweep");
        assert_eq!((plan.steps.len(), plan.requeue_after), (BATCH, Some(Duration::from_secs(1))));
        model.run(&CONTROLLER, "", "sweep");
        assert!(model.all::<Event>().is_empty());
    }
}
