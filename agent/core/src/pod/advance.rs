//! What to start next: volumes, then the sandbox, then init containers in order, then all others; and what to start again
//! after an end. It decides from the state alone, so it may be called after any event.

use super::{PodMachine, Stage, Surround, Timer};
use crate::{
    effect::Effect,
    event::EventKind,
    pod::containers::{Role, Slot, State, Wait},
    time::Now,
    workload::Command,
};

impl PodMachine {
    /// Brings the machine as far as it can go now, then brings its status up to date.
    pub(super) fn advance(&mut self, now: Now, around: Surround<'_>) {
        self.note_deletion(now);
        if self.stage == Stage::New && self.ending.is_none() && self.is_over_without_sandbox() {
            self.end_completed(now);
        }
        if self.stage == Stage::New && self.ending.is_none() {
            if self.slots.iter().any(Slot::has_started) {
                let message = "Pod sandbox changed, it will be killed and re-created.";
                self.event(None, EventKind::Normal, "SandboxChanged", message);
            }
            if self.spec().volumes.as_ref().is_none_or(Vec::is_empty) {
                self.create_sandbox(around);
            } else {
                self.mount();
            }
        }
        if self.stage == Stage::Up && self.ending.is_none() {
            self.start_what_is_due(now, around);
        }
        if self.ending.is_some() {
            self.advance_ending(now);
        }
        self.refresh_status(now, around);
        if self.stage == Stage::Closed && self.is_deleted() && !self.finished && !self.gone {
            self.finished = true;
            self.effects.push(Effect::Finish { pod: self.uid.clone() });
        }
    }

    fn start_what_is_due(&mut self, now: Now, around: Surround<'_>) {
        if !self.start_init(now, around) {
            return;
        }
        self.initialized = true;
        let mains: Vec<usize> = self.indexes(Role::Main);
        for &index in &mains {
            self.start_if_due(now, index, around);
        }
        let over = |index: &usize| matches!(self.slots[*index].state, State::Ended) && !self.restarts(*index);
        if mains.iter().all(over) {
            self.end_completed(now);
        }
    }

    /// Starts what is due among the init containers; answers whether the others may start.
    fn start_init(&mut self, now: Now, around: Surround<'_>) -> bool {
        // Once this sandbox is initialized, only sidecars are kept up; a new sandbox is initialized anew.
        let begun = self.initialized;
        for index in 0..self.slots.len() {
            match self.slots[index].role {
                Role::Main => {}
                Role::Sidecar => {
                    self.start_if_due(now, index, around);
                    if !begun && !self.slots[index].run().is_some_and(|run| run.started) {
                        return false;
                    }
                }
                Role::Init if begun || self.slots[index].succeeded() => {}
                Role::Init => {
                    if matches!(self.slots[index].state, State::Ended) && !self.restarts(index) {
                        self.end_completed(now);
                        return false;
                    }
                    self.start_if_due(now, index, around);
                    return false;
                }
            }
        }
        true
    }

    /// Whether nothing is left to start in a pod whose containers were lost with their sandbox.
    fn is_over_without_sandbox(&self) -> bool {
        let over = |index: &usize| matches!(self.slots[*index].state, State::Ended) && !self.restarts(*index);
        let mains = self.indexes(Role::Main);
        (!mains.is_empty() && mains.iter().all(over))
            || self.indexes(Role::Init).iter().any(|index| over(index) && self.slots[*index].failed())
    }

    fn start_if_due(&mut self, now: Now, index: usize, around: Surround<'_>) {
        match self.slots[index].state {
            State::Idle => self.launch(now, index, around),
            State::Ended if self.restarts(index) => self.restart(now, index, around),
            _ => {}
        }
    }

    /// Whether a container that has ended is to run again: its own rules first, then its policy, then the pod's.
    pub(super) fn restarts(&self, index: usize) -> bool {
        let slot = &self.slots[index];
        let Some(last) = &slot.last else { return true };
        if slot.changed {
            return true;
        }
        let container = self.container(index);
        for rule in container.restart_policy_rules.iter().flatten() {
            let Some(codes) = &rule.exit_codes else { continue };
            let listed = codes.values.iter().flatten().any(|code| *code == last.code);
            if rule.action == "Restart" && listed == (codes.operator == "In") {
                return true;
            }
        }
        match self.policy(index) {
            "Never" => false,
            "OnFailure" => last.code != 0,
            _ => true,
        }
    }

    /// The restart policy of a container: its own, else the pod's.
    pub(super) fn policy(&self, index: usize) -> &str {
        let of_pod = self.spec().restart_policy.as_deref().unwrap_or("Always");
        match (self.slots[index].role, self.container(index).restart_policy.as_deref()) {
            (_, Some(own)) => own,
            // An init container that failed is tried again under Always as under OnFailure.
            (Role::Init, None) if of_pod == "Always" => "OnFailure",
            (_, None) => of_pod,
        }
    }

    fn restart(&mut self, now: Now, index: usize, around: Surround<'_>) {
        let slot = &self.slots[index];
        let finished = slot.last.as_ref().map_or(now.mono, |last| last.finished);
        let due = slot.crash.pending(finished).map(|delay| (finished + delay, delay));
        match due {
            Some((at, delay)) if at > now.mono => {
                let (name, pod) = (slot.name.clone(), self.printed());
                let message = format!("Back-off restarting failed container {name} in pod {pod}");
                self.event(Some(index), EventKind::Warning, "BackOff", message);
                let message = format!("back-off {} restarting failed container={name} pod={pod}", go_duration(delay));
                self.slots[index].state = State::Waiting(Wait { reason: "CrashLoopBackOff", message });
                self.timers.insert(Timer::Retry(index), at);
            }
            _ => self.launch(now, index, around),
        }
    }

    pub(super) fn indexes(&self, role: Role) -> Vec<usize> {
        (0..self.slots.len()).filter(|index| self.slots[*index].role == role).collect()
    }

    /// Forgets an ended run in the runtime before the next one is made.
    pub(super) fn remove_old_run(&mut self, index: usize) {
        if self.slots[index].last.as_ref().is_some_and(|last| last.id.is_some()) {
            let key = self.key(index);
            self.command(Command::RemoveContainer { key });
        }
    }
}

/// A duration as Go prints it: `10s`, `1m20s`, `5m0s`.
pub(super) fn go_duration(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        _ => format!("{}m{}s", seconds / 60, seconds % 60),
    }
}
