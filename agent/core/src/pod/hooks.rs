//! Lifecycle hooks: `postStart` holds back a container's probes, `preStop` its stop signal. Commands inside a container
//! go to the runtime, HTTP goes to the shell, `sleep` is a timer.

use std::time::Duration;

use k8s_openapi::api::core::v1::LifecycleHandler;

use super::{PodMachine, Timer, containers::Turn, probes::http_target};
use crate::{
    effect::{Effect, HookKind, HookRequest, Outcome, ProbeKind, Target},
    event::EventKind,
    time::Now,
    workload::{Command, ContainerKey, ExecOutcome, ExecRequest, Ticket},
};

/// A command inside a container that has not come back.
#[derive(Debug)]
pub(super) struct HookTicket {
    pub(super) ticket: Ticket,
    pub(super) key: ContainerKey,
    pub(super) purpose: Purpose,
}

/// What a command inside a container is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Hook(HookKind),
    Probe(ProbeKind),
}

/// A `postStart` has no time limit but its container's end: it may restore a cache for hours. This is longer than any pod
/// lives.
const NO_LIMIT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl PodMachine {
    /// Begins `postStart`; answers whether there is one.
    pub(super) fn begin_post_start(&mut self, now: Now, index: usize) -> bool {
        let handler = self.container(index).lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.clone());
        let Some(handler) = handler else { return false };
        if let Some(run) = self.slots[index].run_mut() {
            run.in_post_start = true;
        }
        self.begin_hook(now, index, HookKind::PostStart, &handler, NO_LIMIT);
        true
    }

    /// Begins `preStop`; answers whether there is one.
    pub(super) fn begin_pre_stop(&mut self, now: Now, index: usize, grace: Duration) -> bool {
        let handler = self.container(index).lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.clone());
        let Some(handler) = handler.filter(|_| !grace.is_zero()) else { return false };
        if let Some(stop) = self.slots[index].run_mut().and_then(|run| run.stop.as_mut()) {
            stop.in_pre_stop = true;
        }
        self.begin_hook(now, index, HookKind::PreStop, &handler, grace);
        true
    }

    fn begin_hook(&mut self, now: Now, index: usize, kind: HookKind, handler: &LifecycleHandler, limit: Duration) {
        let key = self.key(index);
        self.timers.insert(Timer::Hook(index, kind), now.mono + limit);
        if let Some(sleep) = &handler.sleep {
            let wanted = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
            self.timers.insert(Timer::Hook(index, kind), now.mono + wanted.min(limit));
        } else if let Some(exec) = &handler.exec {
            self.exec(key, exec.command.clone().unwrap_or_default(), limit, Purpose::Hook(kind));
        } else if let Some(get) = &handler.http_get {
            match http_target(self.container(index), get, self.ips.first()) {
                Ok(target) => self.effects.push(Effect::Hook(HookRequest { key, kind, target, timeout: limit })),
                Err(message) => self.hook_done(now, &key, kind, Outcome::Error { message }),
            }
        } else {
            let message = "invalid handler".to_owned();
            self.hook_done(now, &key, kind, Outcome::Error { message });
        }
    }

    pub(super) fn exec(&mut self, key: ContainerKey, command: Vec<String>, timeout: Duration, purpose: Purpose) {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.hook_tickets.push(HookTicket { ticket, key: key.clone(), purpose });
        self.command(Command::Exec(ExecRequest { ticket, key, command, timeout }));
    }

    pub(super) fn exec_done(&mut self, now: Now, ticket: Ticket, key: &ContainerKey, outcome: ExecOutcome) {
        let Some(at) = self.hook_tickets.iter().position(|known| known.ticket == ticket && known.key == *key) else {
            return;
        };
        let purpose = self.hook_tickets.swap_remove(at).purpose;
        let outcome = match outcome {
            ExecOutcome::Exited { code: 0, .. } => Outcome::Success,
            ExecOutcome::Exited { output, .. } => Outcome::Failure { output },
            ExecOutcome::TimedOut => Outcome::Failure { output: "command timed out".to_owned() },
            ExecOutcome::Failed { message } => Outcome::Error { message },
        };
        match purpose {
            Purpose::Hook(kind) => self.hook_done(now, key, kind, outcome),
            Purpose::Probe(kind) => self.probe_done(now, key, kind, outcome),
        }
    }

    pub(super) fn hook_done(&mut self, now: Now, key: &ContainerKey, kind: HookKind, outcome: Outcome) {
        let Some(index) = self.current(key) else { return };
        let failed = !outcome.passed();
        match kind {
            HookKind::PostStart => self.post_start_done(now, index, failed),
            HookKind::PreStop => {
                let waiting = self.slots[index].run().and_then(|run| run.stop).is_some_and(|stop| stop.in_pre_stop);
                if waiting && failed {
                    self.event(Some(index), EventKind::Warning, "FailedPreStopHook", "PreStopHook failed");
                }
                self.signal_after_hook(now, index);
            }
        }
    }

    /// A sleep is over; any other hook has used up its time.
    pub(super) fn hook_timer(&mut self, now: Now, index: usize, kind: HookKind) {
        let lifecycle = self.container(index).lifecycle.as_ref();
        let handler = lifecycle.and_then(|lifecycle| match kind {
            HookKind::PostStart => lifecycle.post_start.as_ref(),
            HookKind::PreStop => lifecycle.pre_stop.as_ref(),
        });
        let slept = handler.is_some_and(|handler| handler.sleep.is_some());
        let key = self.key(index);
        match (kind, slept) {
            (HookKind::PostStart, true) => self.post_start_done(now, index, false),
            (HookKind::PostStart, false) => self.post_start_done(now, index, true),
            // Out of time: the signal goes out without an event, as the kubelet does.
            (HookKind::PreStop, _) => self.signal_after_hook(now, index),
        }
        self.hook_tickets.retain(|ticket| ticket.key != key || ticket.purpose != Purpose::Hook(kind));
    }

    fn post_start_done(&mut self, now: Now, index: usize, failed: bool) {
        self.timers.remove(&Timer::Hook(index, HookKind::PostStart));
        let Some(run) = self.slots[index].run_mut() else { return };
        if !std::mem::replace(&mut run.in_post_start, false) || run.stop.is_some() {
            return;
        }
        if failed {
            self.event(Some(index), EventKind::Warning, "FailedPostStartHook", "PostStartHook failed");
            let grace = Duration::from_secs(u64::try_from(self.grace_seconds()).unwrap_or(0));
            self.stop_container(now, index, grace, Turn::Now, Some("FailedPostStartHook".to_owned()));
        } else {
            self.begin_probes(now, index);
        }
    }
}

/// A target as hooks and probes share it.
pub(super) type Resolved = Result<Target, String>;
