//! What those who take part say to each other. Plain data; who carries it, and whether it arrives, is the world's affair.

use std::sync::Arc;

use coracle_agent_core::PodUid;
use coracle_api::ApiError;
use coracle_controllers::{Action, Kind};
use coracle_scheduler::{NodeName, PodRef};
use coracle_store::{Entry, Revision, WatchEvent};
use k8s_openapi::api::core::v1::PodStatus;

/// Somebody who talks to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    /// The controllers; in the server's own process.
    Manager,
    /// The scheduler; in the server's own process.
    Scheduler,
    /// The agent of the node with this number.
    Node(usize),
}

impl Peer {
    /// Whether it shares the server's process, so that nothing is lost between the two, and it dies with the server.
    pub(crate) fn is_inside(self) -> bool {
        !matches!(self, Self::Node(_))
    }
}

/// A pod as its agent names it.
#[derive(Clone, Debug)]
pub(crate) struct PodName {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: PodUid,
}

/// What is asked of the server.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// List and watch what the peer follows.
    Follow,
    /// One write of a controller's plan.
    Act(Action),
    /// Bind a pod.
    Bind(PodRef, NodeName),
    /// Say on a pod that it fits nowhere.
    Unschedulable(PodRef, String),
    /// Write a pod's status.
    Status(PodName, Box<PodStatus>),
    /// Remove the object of a pod of which nothing is left.
    Remove(PodName),
    /// Register the node if it is not there, renew its Lease, and say that it is ready.
    Heartbeat,
}

/// The server's answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) result: Result<(), ApiError>,
    /// Where the store is.
    pub(crate) revision: Revision,
}

/// A part of a stream of changes.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    /// Which stream; a new one begins with each `Follow`.
    pub(crate) stream: u64,
    pub(crate) body: FeedBody,
    /// Everything up to here has been told.
    pub(crate) revision: Revision,
}

/// What a part of a stream says.
#[derive(Clone, Debug)]
pub(crate) enum FeedBody {
    /// What there is at the beginning.
    Listing(Vec<(Kind, Arc<Entry>)>),
    /// What changed since.
    Changes(Vec<(Kind, WatchEvent)>),
}

/// A request under a number by which its answer is known.
pub(crate) struct Outgoing {
    pub(crate) id: u64,
    pub(crate) request: Request,
}

/// The requests of a peer that are not answered yet, each with what the peer must remember of it.
pub(crate) struct Calls<T> {
    next: u64,
    open: std::collections::BTreeMap<u64, T>,
    out: Vec<Outgoing>,
}

impl<T> Calls<T> {
    pub(crate) fn new() -> Self {
        Self { next: 0, open: std::collections::BTreeMap::new(), out: Vec::new() }
    }

    /// Sends a request.
    pub(crate) fn send(&mut self, request: Request, remember: T) {
        self.next += 1;
        self.open.insert(self.next, remember);
        self.out.push(Outgoing { id: self.next, request });
    }

    /// What was remembered of a request; `None` if it was answered, or given up, before.
    pub(crate) fn answered(&mut self, id: u64) -> Option<T> {
        self.open.remove(&id)
    }

    /// What is to be carried.
    pub(crate) fn take(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.out)
    }
}
