//! The end of a pod: why it ends, in which order its containers are asked to, and when nothing is left. Sidecars end
//! after the other containers, the last one started first (KEP-753).

use std::time::Duration;

use super::{
    PodMachine, Stage, Timer,
    containers::{Role, State, Stop, Turn},
};
use crate::{
    effect::{Effect, HookKind, ProbeKind},
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
    /// The node ends it: its time is over, or it uses more than it may. [`Fate`] says what to tell.
    Condemned,
    /// Every container that had to end has ended.
    Completed,
}

/// Why the node ended a pod, as its status tells once nothing runs any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// The grace period where the pod sets none.
const DEFAULT_GRACE_SECONDS: i64 = 30;
/// Time an evicted pod has: the kubelet's `immediateEvictionGracePeriodSeconds`.
const EVICTION_GRACE_SECONDS: i64 = 1;
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
        let message = "Pod was active on the node longer than the specified deadline".to_owned();
        let fate = Fate { reason: "DeadlineExceeded", message };
        self.condemn(now, EventKind::Normal, fate, seconds(self.grace_seconds()));
    }

    /// Ends a pod that uses more of the node than it may.
    pub(super) fn end_evicted(&mut self, now: Now, message: String) {
        let fate = Fate { reason: "Evicted", message };
        self.condemn(now, EventKind::Warning, fate, seconds(EVICTION_GRACE_SECONDS));
    }

    fn condemn(&mut self, now: Now, kind: EventKind, fate: Fate, grace: Duration) {
        if self.ending.is_none() && self.stage != Stage::Closed {
            self.event(None, kind, fate.reason, fate.message.clone());
            self.fate = Some(fate);
            self.begin_ending(now, Why::Condemned, now.mono + grace);
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
                self.stop_container(now, index, deadline.saturating_sub(now.mono), Turn::Now, None);
            }
        }
    }

    /// Goes on with the end: asks the next containers, then takes the surroundings down.
    pub(super) fn advance_ending(&mut self, now: Now) {
        let Some(ending) = self.ending else { return };
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if matches!(slot.state, State::Resolving | State::Pulling(_) | State::Preparing(_) | State::Waiting(_)) {
                slot.state = if slot.last.is_some() { State::Ended } else { State::Idle };
                self.timers.remove(&Timer::Retry(index));
                self.timers.remove(&Timer::ShowBackOff(index));
            }
        }
        let grace = ending.deadline.saturating_sub(now.mono);
        let live: Vec<usize> = (0..self.slots.len()).filter(|index| self.slots[*index].is_live()).collect();
        let (last, first): (Vec<usize>, Vec<usize>) =
            live.iter().partition(|index| self.slots[**index].role == Role::Sidecar);
        // All are told now, and their `preStop` begins; the signal of a sidecar waits for its turn.
        for index in first.iter().copied() {
            self.ask_to_end(now, index, grace, Turn::Now);
        }
        for index in last.iter().copied() {
            self.ask_to_end(now, index, grace.max(MINIMUM_GRACE), Turn::Later);
        }
        match (first.is_empty(), last.last()) {
            (true, Some(&index)) => self.give_turn(now, index),
            (true, None) => self.take_down(),
            (false, _) => {}
        }
    }

    /// Every container that had to end before this sidecar has ended.
    fn give_turn(&mut self, now: Now, index: usize) {
        let key = self.key(index);
        let Some(stop) = self.slots[index].run_mut().and_then(|run| run.stop.as_mut()) else { return };
        if std::mem::replace(&mut stop.turn, Turn::Now) == Turn::Later && !stop.in_pre_stop {
            let grace = stop.deadline.saturating_sub(now.mono).max(MINIMUM_GRACE);
            self.command(Command::StopContainer { key, grace });
        }
    }

    fn ask_to_end(&mut self, now: Now, index: usize, grace: Duration, turn: Turn) {
        let asked = match &self.slots[index].state {
            State::Starting { stop } => stop.is_some(),
            State::Running(run) => run.stop.is_some(),
            _ => true,
        };
        if !asked {
            let message = format!("Stopping container {}", self.slots[index].name);
            self.stop_container(now, index, grace, turn, Some(message));
        }
    }

    fn take_down(&mut self) {
        match self.stage {
            // An earlier life of the agent may have left volumes of a pod that is new to this one.
            Stage::New | Stage::Mounting | Stage::MountFailed | Stage::SandboxFailed => self.close(),
            // Its report decides: there is nothing to remove before.
            Stage::SandboxStarting | Stage::Closing | Stage::Closed => {}
            Stage::Up => {
                self.stage = Stage::Closing;
                self.command(Command::RemoveSandbox { pod: self.uid.clone() });
            }
        }
    }

    /// Asks a container to end within `grace`: its `preStop` first, then the signal. `message` is the event's.
    pub(super) fn stop_container(
        &mut self,
        now: Now,
        index: usize,
        grace: Duration,
        turn: Turn,
        message: Option<String>,
    ) {
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
                let turn = run.stop.map_or(turn, |stop| stop.turn);
                run.stop = Some(Stop { deadline, in_pre_stop, turn });
                // Readiness is watched to the end: an endpoint that terminates may still serve.
                self.timers.retain(|timer, _| {
                    !matches!(timer, Timer::Probe(at, kind)
                    if *at == index && *kind != ProbeKind::Readiness)
                });
                if again && in_pre_stop {
                    self.timers.insert(Timer::Hook(index, HookKind::PreStop), deadline);
                } else if (again || !self.begin_pre_stop(now, index, grace)) && turn == Turn::Now {
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
        if std::mem::replace(&mut stop.in_pre_stop, false) && stop.turn == Turn::Now {
            let grace = stop.deadline.saturating_sub(now.mono).max(MINIMUM_GRACE);
            self.command(Command::StopContainer { key, grace });
        }
    }

    pub(super) fn clear_run_timers(&mut self, index: usize) {
        self.timers.retain(|timer, _| !matches!(timer, Timer::Probe(at, _) if *at == index));
        self.timers.remove(&Timer::Hook(index, HookKind::PreStop));
        self.timers.remove(&Timer::Hook(index, HookKind::PostStart));
        let key = self.key(index);
        self.hook_tickets.retain(|ticket| ticket.key != key);
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
