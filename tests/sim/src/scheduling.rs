//! The scheduler's driver: changes in, decisions out, many bindings under way at once.

use std::time::Duration;

use coracle_controllers::{Action, Kind, Object, Preconditions, Target};
use coracle_scheduler::{Change, Decision, NodeInfo, PodInfo, ProfileError, Scheduler, Uid, labels::Labels};
use coracle_store::WatchEvent;
use rand::{SeedableRng, rngs::StdRng};

use crate::clock::wall;
use crate::door::object_of;
use crate::message::{Calls, Feed, FeedBody, Outgoing, Reply, Request};

/// What the scheduler follows; nodes come first, so that pods find them.
pub(crate) const FOLLOWED: [Kind; 3] = [Kind::Namespace, Kind::Node, Kind::Pod];

/// What a request was for.
enum Purpose {
    Bind(Uid),
    Evict(Uid),
    Other,
}

/// The driver.
pub(crate) struct Scheduling {
    scheduler: Scheduler<StdRng>,
    calls: Calls<Purpose>,
}

impl Scheduling {
    /// A scheduler that knows nothing yet.
    pub(crate) fn new(seed: u64) -> Result<Self, ProfileError> {
        let mut calls = Calls::new();
        calls.send(Request::Follow, Purpose::Other);
        Ok(Self { scheduler: Scheduler::new(Vec::new(), StdRng::seed_from_u64(seed))?, calls })
    }

    /// Takes in a part of its stream.
    pub(crate) fn handle_feed(&mut self, feed: &Feed, now: Duration) {
        let mut take = |kind: Kind, entry: &coracle_store::Entry, gone: bool| {
            if let Some(change) = object_of(kind, entry).and_then(|object| change_of(&object, gone)) {
                self.scheduler.handle(change, wall(now));
            }
        };
        match &feed.body {
            FeedBody::Listing(entries) => entries.iter().for_each(|(kind, entry)| take(*kind, entry, false)),
            FeedBody::Changes(events) => {
                for (kind, event) in events {
                    take(*kind, event.entry(), matches!(event, WatchEvent::Deleted { .. }));
                }
            }
        }
    }

    /// Takes in an answer.
    pub(crate) fn handle_reply(&mut self, id: u64, reply: Reply, now: Duration) {
        let Some(purpose) = self.calls.answered(id) else { return };
        let Err(error) = reply.result else { return };
        let change = match purpose {
            Purpose::Bind(uid) if error.code() != 404 => Change::BindFailed(uid),
            Purpose::Evict(uid) if ![404, 409].contains(&error.code()) => Change::PreemptionFailed(uid),
            _ => return,
        };
        self.scheduler.handle(change, wall(now));
    }

    /// Decides about every pod that is ready.
    pub(crate) fn run(&mut self, now: Duration) {
        while let Some(decision) = self.scheduler.poll(wall(now)) {
            match decision {
                Decision::Bind { pod, node } => {
                    let uid = pod.uid.clone();
                    self.calls.send(Request::Bind(pod, node), Purpose::Bind(uid));
                }
                Decision::Unschedulable { pod, message, .. } => {
                    self.calls.send(Request::Unschedulable(pod, message), Purpose::Other);
                }
                Decision::Preempt { pod, victims, message, .. } => {
                    for victim in victims {
                        let action = Action::Delete {
                            target: Target {
                                resource: Kind::Pod.resource(),
                                namespace: victim.namespace.to_string(),
                                name: victim.name.to_string(),
                            },
                            preconditions: Preconditions {
                                uid: Some(victim.uid.as_str().to_owned()),
                                resource_version: None,
                            },
                            propagation: None,
                            grace_period_seconds: None,
                        };
                        self.calls.send(Request::Act(action), Purpose::Evict(pod.uid.clone()));
                    }
                    self.calls.send(Request::Unschedulable(pod, message), Purpose::Other);
                }
            }
        }
    }

    pub(crate) fn next_wake(&self, now: Duration) -> Option<Duration> {
        let at = self.scheduler.next_timer(wall(now))?;
        let delay = Duration::try_from(at.duration_since(wall(now))).unwrap_or(Duration::ZERO);
        Some(now + delay)
    }

    pub(crate) fn take_requests(&mut self) -> Vec<Outgoing> {
        self.calls.take()
    }
}

fn change_of(object: &Object, gone: bool) -> Option<Change> {
    let meta = object.meta();
    let name = meta.name.as_deref().unwrap_or_default();
    Some(match (object, gone) {
        (Object::Node(node), false) => Change::NodeUpserted(NodeInfo::parse(node)),
        (Object::Node(_), true) => Change::NodeDeleted(name.into()),
        (Object::Pod(pod), false) => Change::PodUpserted(Box::new(PodInfo::parse(pod))),
        (Object::Pod(_), true) => Change::PodDeleted(meta.uid.as_deref().unwrap_or_default().into()),
        (Object::Namespace(_), false) => Change::NamespaceUpserted(name.into(), Labels::from_map(meta.labels.as_ref())),
        (Object::Namespace(_), true) => Change::NamespaceDeleted(name.into()),
        _ => return None,
    })
}
