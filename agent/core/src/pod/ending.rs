//! The end of a pod: why it ends, in which order its containers are asked to, and when nothing is left. Sidecars end
//! after the other containers, the last one started first (KEP-753).

use std::time::Duration;

use super::{
    PodMachine, Stage, Timer,
    containers::{Role, State, Stop},
};
use crate::{
    effect::{Effect, HookKind},
    event::EventKind,
    time::Now,
    workload::Command,
};

/// A pod that is to end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    pub(super) why: Why,
    /// When every container has had its time.
    pub(super) deadline: Duration,
}

/// Why a pod ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The object is deleted.
    Deleted,
    /// `activeDeadlineSeconds` is over.
    Deadline,
    /// Every container that had to end has ended.
    Completed,
}

/// The grace period where the pod sets none.
const DEFAULT_GRACE_SECONDS: i64 = 30;
/// Time between the signal and force that a hook or an earlier container cannot use up.
const MINIMUM_GRACE: Duration = Duration::from_secs(2);

impl PodMachine {
    pub(super) fn is_deleted(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    /// Takes a deletion timestamp, or a shortened grace period, from the object.
    pub(super) fn note_deletion(&mut self, now: Now) {
        if !self.is_deleted() || self.stage == Stage::Closed {
            return;
        }
        let grace = self.pod.metadata.deletion_grace_period_seconds.unwrap_or_else(|| self.grace_seconds());
        let deadline = now.mono + seconds(grace.max(1));
        match &mut self.ending {
            // Seen before: only a shorter period changes anything.
            Some(ending) if ending.why == Why::Deleted && deadline >= ending.deadline => {}
            _ => self.begin_ending(now, Why::Deleted, deadline),
        }
    }

    /// The object is gone already: what runs has one second.
    pub(super) fn end_deleted(&mut self, now: Now) {
        if self.stage != Stage::Closed {
            self.begin_ending(now, Why::Deleted, now.mono + seconds(1));
        }
    }

    pub(super) fn end_deadline(&mut self, now: Now) {
        if self.ending.is_none() && self.stage != Stage::Closed {
            let message = "Pod was active on the node longer than the specified deadline";
            self.event(None, EventKind::Normal, "DeadlineExceeded", message);
            self.begin_ending(now, Why::Deadline, now.mono + seconds(self.grace_seconds()));
        }
    }

    pub(super) fn end_completed(&mut self, now: Now) {
        if self.ending.is_none() {
            self.begin_ending(now, Why::Completed, now.mono + seconds(self.grace_seconds()));
        }
    }

    pub(super) fn grace_seconds(&self) -> i64 {
        self.spec().termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECONDS)
    }

    fn begin_ending(&mut self, now: Now, why: Why, deadline: Duration) {
        let deadline = self.ending.map_or(deadline, |ending| ending.deadline.min(deadline));
        self.ending = Some(Ending { why, deadline });
        self.timers.remove(&Timer::Deadline);
        self.timers.remove(&Timer::Setup);
        // What was asked to end with more time is told again.
        for index in 0..self.slots.len() {
            let stopping = self.slots[index].run().and_then(|run| run.stop);
            if stopping.is_some_and(|stop| stop.deadline > deadline) {
                self.stop_container(now, index, deadline.saturating_sub(now.mono), None);
            }
        }
    }

    /// Goes on with the end: asks the next containers, then takes the surroundings down.
    pub(super) fn advance_ending(&mut self, now: Now) {
        let Some(ending) = self.ending else { return };
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if matches!(slot.state, State::Resolving | State::Pulling(_) | State::Waiting(_)) {
                slot.state = if slot.last.is_some() { State::Ended } else { State::Idle };
                self.timers.remove(&Timer::Retry(index));
                self.timers.remove(&Timer::ShowBackOff(index));
            }
        }
        let grace = ending.deadline.saturating_sub(now.mono);
        let sidecar = |machine: &Self, index: usize| machine.slots[index].role == Role::Sidecar;
        let live: Vec<usize> = (0..self.slots.len()).filter(|index| self.slots[*index].is_live()).collect();
        let (last, first): (Vec<usize>, Vec<usize>) = live.into_iter().partition(|index| sidecar(self, *index));
        if first.is_empty() {
            match last.last() {
                Some(&index) => self.ask_to_end(now, index, grace.max(MINIMUM_GRACE)),
                None => self.take_down(),
            }
        }
        for index in first {
            self.ask_to_end(now, index, grace);
        }
    }

    fn ask_to_end(&mut self, now: Now, index: usize, grace: Duration) {
        let asked = match &self.slots[index].state {
            State::Starting { stop } => stop.is_some(),
            State::Running(run) => run.stop.is_some(),
            _ => true,
        };
        if !asked {
            let message = format!("Stopping container {}", self.slots[index].name);
            self.stop_container(now, index, grace, Some(message));
        }
    }

    fn take_down(&mut self) {
        match self.stage {
            Stage::New => self.stage = Stage::Closed,
            Stage::Mounting | Stage::MountFailed | Stage::SandboxFailed => self.close(),
            // Its report decides: there is nothing to remove before.
            Stage::SandboxStarting | Stage::Closing | Stage::Closed => {}
            Stage::Up => {
                self.stage = Stage::Closing;
                self.command(Command::RemoveSandbox { pod: self.uid.clone() });
            }
        }
    }

    /// Asks a container to end within `grace`: its `preStop` first, then the signal. `message` is the event's.
    pub(super) fn stop_container(&mut self, now: Now, index: usize, grace: Duration, message: Option<String>) {
        if let Some(message) = message {
            self.event(Some(index), EventKind::Normal, "Killing", message);
        }
        let deadline = now.mono + grace;
        let key = self.key(index);
        match &mut self.slots[index].state {
            State::Starting { stop } => *stop = Some(deadline),
            State::Running(run) => {
                let again = run.stop.is_some();
                let in_pre_stop = run.stop.is_some_and(|stop| stop.in_pre_stop);
                run.stop = Some(Stop { deadline, in_pre_stop });
                self.clear_probe_timers(index);
                if again && in_pre_stop {
                    self.timers.insert(Timer::Hook(index, HookKind::PreStop), deadline);
                } else if again || !self.begin_pre_stop(now, index, grace) {
                    self.effects.push(Effect::Command(Command::StopContainer { key, grace }));
                }
            }
            _ => {}
        }
    }

    /// `preStop` is over: the signal goes out with what is left of the time.
    pub(super) fn signal_after_hook(&mut self, now: Now, index: usize) {
        let key = self.key(index);
        self.timers.remove(&Timer::Hook(index, HookKind::PreStop));
        let Some(stop) = self.slots[index].run_mut().and_then(|run| run.stop.as_mut()) else { return };
        if std::mem::replace(&mut stop.in_pre_stop, false) {
            let grace = stop.deadline.saturating_sub(now.mono).max(MINIMUM_GRACE);
            self.command(Command::StopContainer { key, grace });
        }
    }

    pub(super) fn clear_run_timers(&mut self, index: usize) {
        self.clear_probe_timers(index);
        self.timers.remove(&Timer::Hook(index, HookKind::PreStop));
        self.timers.remove(&Timer::Hook(index, HookKind::PostStart));
        let key = self.key(index);
        self.hook_tickets.retain(|ticket| ticket.key != key);
    }

    fn clear_probe_timers(&mut self, index: usize) {
        self.timers.retain(|timer, _| !matches!(timer, Timer::Probe(at, _) if *at == index));
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
