//! The state of one container of a pod: what it is doing, how its last run ended, what its probes said. Data only.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;

use super::probes::Prober;
use crate::{
    backoff::BackOff,
    env::Sources,
    workload::{ContainerSpec, Exit, ResolvedImage},
};

/// What part a container plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// Starts among the init containers and stays.
    Sidecar,
    /// One of `containers`.
    Main,
}

/// One container.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) role: Role,
    /// In its own list of the spec.
    pub(super) index: usize,
    pub(super) name: Arc<str>,
    /// The present run, or the last one.
    pub(super) attempt: u32,
    pub(super) state: State,
    /// The latest run that ended.
    pub(super) last: Option<Ended>,
    /// The one before it.
    pub(super) earlier: Option<Ended>,
    pub(super) crash: BackOff,
    pub(super) pull: BackOff,
    /// Why it did not start the last time. It is shown while it is tried again: the kubelet's `reasonCache`.
    pub(super) refused: Option<Wait>,
    pub(super) image: Option<ResolvedImage>,
    pub(super) id: Option<String>,
    pub(super) probers: Vec<Prober>,
    /// The image the present run was begun with: the pod's may be another by now.
    pub(super) asked_image: String,
    /// The run is ended because its image was changed: it runs again whatever the policies say.
    pub(super) changed: bool,
}

/// What a container is doing.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// Nothing yet, or nothing any more.
    Idle,
    /// Something failed; it is tried again when the timer fires.
    Waiting(Wait),
    /// What it refers to is being looked up.
    Resolving,
    /// Its image is being made available.
    Pulling(Box<Sources>),
    /// Parts of volumes are being found for it.
    Preparing(Box<ContainerSpec>),
    /// The runtime is starting it.
    Starting {
        /// It was asked to end before it ran.
        stop: Option<Duration>,
    },
    /// It runs.
    Running(Run),
    /// It has ended; `Slot::last` says how.
    Ended,
}

/// Why a container waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Wait {
    /// Whether it waits for an image.
    pub(super) fn is_image(&self) -> bool {
        matches!(
            self.reason,
            "ErrImagePull"
                | "ImagePullBackOff"
                | "ErrImageNeverPull"
                | "RegistryUnavailable"
                | "InvalidImageName"
                | "ImageInspectError"
        )
    }
}

/// A run.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) at: Timestamp,
    pub(super) since: Duration,
    /// `postStart` has not come back.
    pub(super) in_post_start: bool,
    /// `started`: the startup probe, if any, has passed.
    pub(super) started: bool,
    pub(super) ready: bool,
    pub(super) stop: Option<Stop>,
}

/// An end that was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop {
    /// When force is used.
    pub(super) deadline: Duration,
    /// `preStop` has not come back, so the signal was not sent.
    pub(super) in_pre_stop: bool,
    /// When the signal may be sent.
    pub(super) turn: Turn,
}

/// When a container that is to end gets its signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// As soon as its `preStop` is done.
    Now,
    /// Once the containers that started after it have ended: it is a sidecar of a pod that ends (KEP-753).
    Later,
}

/// A run that is over.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ended {
    pub(super) attempt: u32,
    pub(super) code: i32,
    pub(super) signal: Option<i32>,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
    /// On the monotonic clock, for the back-off.
    pub(super) finished: Duration,
    pub(super) id: Option<String>,
}

impl Ended {
    pub(super) fn of(exit: Exit, attempt: u32, finished: Duration, id: Option<String>) -> Self {
        Self {
            attempt,
            code: exit.code,
            signal: exit.signal,
            reason: exit.reason.as_str().to_owned(),
            message: exit.message,
            started_at: Some(exit.started_at),
            finished_at: Some(exit.finished_at),
            finished,
            id,
        }
    }
}

impl Slot {
    pub(super) fn new(role: Role, index: usize, container: &Container) -> Self {
        Self {
            role,
            index,
            name: container.name.as_str().into(),
            attempt: 0,
            state: State::Idle,
            refused: None,
            last: None,
            earlier: None,
            crash: BackOff::CRASH,
            pull: BackOff::PULL,
            image: None,
            id: None,
            probers: Prober::all(container),
            asked_image: String::new(),
            changed: false,
        }
    }

    /// Whether the runtime holds something that will still report its end.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, State::Starting { .. } | State::Running(_))
    }

    pub(super) fn run(&self) -> Option<&Run> {
        match &self.state {
            State::Running(run) => Some(run),
            _ => None,
        }
    }

    pub(super) fn run_mut(&mut self) -> Option<&mut Run> {
        match &mut self.state {
            State::Running(run) => Some(run),
            _ => None,
        }
    }

    /// Whether the latest run ended well.
    pub(super) fn succeeded(&self) -> bool {
        matches!(self.state, State::Ended) && self.last.as_ref().is_some_and(|last| last.code == 0)
    }

    /// Whether its latest run failed and none is under way.
    pub(super) fn failed(&self) -> bool {
        matches!(self.state, State::Ended) && self.last.as_ref().is_some_and(|last| last.code != 0)
    }

    /// Notes the end of the present run.
    pub(super) fn end(&mut self, ended: Ended) {
        self.earlier = self.last.take();
        self.last = Some(ended);
        self.state = State::Ended;
    }

    /// Whether it has run at least once, or runs.
    pub(super) fn has_started(&self) -> bool {
        self.run().is_some() || self.last.is_some()
    }
}
