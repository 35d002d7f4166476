//! A runtime that runs nothing: virtual time, seeded faults, the same reports for the same seed. Simulation and the tests
//! of the state machines use it. It never sleeps and never spawns; whoever holds it moves its clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use jiff::Timestamp;
use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::{
    AdoptedContainer, AdoptedPod, AdoptedState, Command, ContainerKey, ContainerSpec, ExecOutcome, ExecRequest, Exit,
    ExitReason, PodUid, PullFailure, PullPolicy, PullRequest, Report, ResolvedImage, SandboxSpec, StartStage, Transfer,
};
use crate::time::Now;

/// What a container of one image does when it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Behaviour {
    /// How a run ends by itself.
    pub life: Life,
    /// How it answers its stop signal.
    pub on_stop: OnStop,
    /// Size the image is said to have.
    pub size_bytes: u64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { life: Life::Forever, on_stop: OnStop::ExitAfter(Duration::from_millis(5)), size_bytes: 44_032 }
    }
}

/// How a run ends by itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Life {
    /// It does not.
    Forever,
    /// After a while, with a code.
    Ends {
        /// Time from start to end.
        after: Duration,
        /// Its exit code.
        code: i32,
        /// The reason the runtime gives.
        reason: ExitReason,
    },
    /// It cannot be started.
    StartFails(StartStage),
}

/// How a container answers its stop signal.
#[derive(Clone, Debug, PartialEq)]
pub enum OnStop {
    /// Ends with 143 after a while.
    ExitAfter(Duration),
    /// Does not listen: 137 when the grace period is over.
    Ignore,
}

/// Chances of faults, each from 0 (never) to 1 (each time).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// A pull fails.
    pub pull: f64,
    /// A sandbox cannot be made.
    pub sandbox: f64,
    /// A container cannot be started.
    pub start: f64,
    /// A started container is killed at a random moment of its first minute.
    pub crash: f64,
}

/// The fake. See the module.
#[derive(Debug)]
pub struct Fake {
    rng: SmallRng,
    faults: Faults,
    behaviours: BTreeMap<String, Behaviour>,
    missing: BTreeSet<String>,
    images: BTreeSet<String>,
    pods: BTreeMap<PodUid, FakePod>,
    /// Ordered by time, then by the order they were planned in.
    agenda: BTreeMap<(Duration, u64), Planned>,
    sequence: u64,
    /// Every command, in order, for assertions.
    pub history: Vec<Command>,
}

#[derive(Debug)]
struct FakePod {
    attempt: u32,
    ips: Vec<IpAddr>,
    containers: BTreeMap<ContainerKey, FakeContainer>,
}

#[derive(Debug)]
struct FakeContainer {
    image: ResolvedImage,
    behaviour: Behaviour,
    state: FakeState,
}

#[derive(Clone, Debug, PartialEq)]
enum FakeState {
    Starting,
    Running { started_at: Timestamp, stop_at: Option<Duration> },
    Exited(Exit),
}

#[derive(Debug)]
enum Planned {
    Report(Report),
    SandboxReady(Box<SandboxSpec>),
    Start(ContainerKey),
    End { key: ContainerKey, code: i32, signal: Option<i32>, reason: ExitReason },
}

/// How long the fake takes for a step, at least and at most.
const PULL: (u64, u64) = (20, 400);
const SANDBOX: (u64, u64) = (1, 4);
const START: (u64, u64) = (1, 6);

impl Fake {
    /// A fake whose every choice follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            faults: Faults::default(),
            behaviours: BTreeMap::new(),
            missing: BTreeSet::new(),
            images: BTreeSet::new(),
            pods: BTreeMap::new(),
            agenda: BTreeMap::new(),
            sequence: 0,
            history: Vec::new(),
        }
    }

    /// Sets the chances of faults from now on; all zero ends the faults.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Sets what containers of an image do.
    pub fn set_behaviour(&mut self, image: &str, behaviour: Behaviour) {
        self.behaviours.insert(image.to_owned(), behaviour);
    }

    /// Takes an image out of the registry, or puts it back.
    pub fn set_in_registry(&mut self, image: &str, there: bool) {
        if there {
            self.missing.remove(image);
        } else {
            self.missing.insert(image.to_owned());
        }
    }

    /// Puts an image on the node, as an import does.
    pub fn import(&mut self, image: &str) {
        self.images.insert(image.to_owned());
    }

    /// When the next report is due.
    pub fn next_at(&self) -> Option<Duration> {
        self.agenda.keys().next().map(|(at, _)| *at)
    }

    /// Takes one command.
    pub fn submit(&mut self, now: Now, command: Command) {
        self.history.push(command.clone());
        match command {
            Command::Pull(pull) => self.pull(now, &pull),
            Command::CreateSandbox(spec) => self.create_sandbox(now, spec),
            Command::StartContainer(spec) => self.start_container(now, &spec),
            Command::StopContainer { key, grace } => self.stop(now, &key, grace),
            Command::RemoveContainer { key } => self.remove_container(&key),
            Command::RemoveSandbox { pod } => self.remove_sandbox(now, pod),
            Command::Exec(exec) => self.exec(now, exec),
        }
    }

    /// The next report that is due at `now`, if any. Call again until `None`.
    pub fn poll(&mut self, now: Now) -> Option<Report> {
        loop {
            let (&slot, _) = self.agenda.first_key_value()?;
            if slot.0 > now.mono {
                return None;
            }
            let planned = self.agenda.remove(&slot)?;
            if let Some(report) = self.carry_out(now, planned) {
                return Some(report);
            }
        }
    }

    /// Ends a running container now, as a crash of its own would.
    pub fn crash(&mut self, now: Now, key: &ContainerKey, code: i32) {
        self.plan(now.mono, Planned::End { key: key.clone(), code, signal: None, reason: ExitReason::Error });
    }

    /// What runs, for the start of a new agent. Reports still on their way are lost, as they are when an agent dies.
    pub fn adopt(&mut self) -> Vec<AdoptedPod> {
        self.agenda.retain(|_, planned| matches!(planned, Planned::End { .. }));
        for pod in self.pods.values_mut() {
            pod.containers.retain(|_, container| container.state != FakeState::Starting);
        }
        self.pods
            .iter()
            .map(|(uid, pod)| AdoptedPod {
                pod: uid.clone(),
                attempt: pod.attempt,
                ips: pod.ips.clone(),
                containers: pod.containers.iter().map(|(key, container)| container.adopted(key)).collect(),
            })
            .collect()
    }

    /// Loses every container and sandbox, as an in-process runtime does when its process dies. Images stay.
    pub fn lose_everything(&mut self) {
        self.agenda.clear();
        self.pods.clear();
    }

    /// The containers that run now.
    pub fn running(&self) -> impl Iterator<Item = &ContainerKey> {
        self.pods.values().flat_map(|pod| {
            pod.containers.iter().filter(|(_, c)| matches!(c.state, FakeState::Running { .. })).map(|(key, _)| key)
        })
    }

    /// Whether the fake holds nothing of a pod any more.
    pub fn is_gone(&self, pod: &PodUid) -> bool {
        !self.pods.contains_key(pod)
    }

    fn pull(&mut self, now: Now, pull: &PullRequest) {
        let key = pull.key.clone();
        let present = self.images.contains(&pull.image);
        if pull.image.is_empty() || pull.image.contains(char::is_uppercase) {
            let message = format!("couldn't parse image name {:?}: invalid reference format", pull.image);
            self.report(now.mono, Report::PullFailed { key, failure: PullFailure::InvalidName, message });
            return;
        }
        let image = self.resolved(&pull.image);
        if present && pull.policy != PullPolicy::Always {
            self.report(now.mono, Report::Pulled { key, image, transfer: None });
            return;
        }
        if pull.policy == PullPolicy::Never {
            let message = format!("Container image {:?} is not present with pull policy of Never", pull.image);
            self.report(now.mono, Report::PullFailed { key, failure: PullFailure::NeverPull, message });
            return;
        }
        self.report(now.mono, Report::Pulling { key: key.clone() });
        let took = self.between(PULL);
        let done = now.mono + took;
        if self.missing.contains(&pull.image) || self.chance(self.faults.pull) {
            let message = format!("failed to pull {:?}: not found", pull.image);
            self.report(done, Report::PullFailed { key, failure: PullFailure::Pull, message });
        } else {
            self.images.insert(pull.image.clone());
            let transfer = Some(Transfer { took, took_with_waiting: took });
            self.report(done, Report::Pulled { key, image, transfer });
        }
    }

    fn create_sandbox(&mut self, now: Now, spec: Box<SandboxSpec>) {
        let at = now.mono + self.between(SANDBOX);
        if self.chance(self.faults.sandbox) {
            let message = "failed to set up the sandbox: injected fault".to_owned();
            self.report(at, Report::SandboxFailed { pod: spec.pod, message });
        } else {
            self.plan(at, Planned::SandboxReady(spec));
        }
    }

    fn start_container(&mut self, now: Now, spec: &ContainerSpec) {
        let key = spec.key.clone();
        let behaviour = self.behaviours.get(&spec.image).cloned().unwrap_or_default();
        let image = self.resolved(&spec.image);
        let stage = match behaviour.life {
            Life::StartFails(stage) => Some(stage),
            _ if self.chance(self.faults.start) => Some(StartStage::Start),
            _ => None,
        };
        let at = now.mono + self.between(START);
        if let Some(stage) = stage {
            if stage == StartStage::Start {
                self.report(now.mono, Report::Created { key: key.clone(), id: container_id(&key) });
            }
            let message = "failed to start: injected fault".to_owned();
            let wall = now.wall + (at - now.mono);
            self.report(at, Report::StartFailed { key, stage, message, at: wall });
            return;
        }
        let Some(pod) = self.pods.get_mut(&key.pod) else {
            let message = "the pod has no sandbox".to_owned();
            self.report(at, Report::StartFailed { key, stage: StartStage::Create, message, at: now.wall });
            return;
        };
        pod.containers.insert(key.clone(), FakeContainer { image, behaviour, state: FakeState::Starting });
        self.report(now.mono, Report::Created { key: key.clone(), id: container_id(&key) });
        self.plan(at, Planned::Start(key));
    }

    fn started(&mut self, now: Now, key: ContainerKey) -> Option<Report> {
        let crash = self.chance(self.faults.crash).then(|| self.between((1, 60_000)));
        let container = self.pods.get_mut(&key.pod)?.containers.get_mut(&key)?;
        container.state = FakeState::Running { started_at: now.wall, stop_at: None };
        let life = container.behaviour.life.clone();
        if let Life::Ends { after, code, reason } = life {
            self.plan(now.mono + after, Planned::End { key: key.clone(), code, signal: None, reason });
        }
        if let Some(after) = crash {
            let end = Planned::End { key: key.clone(), code: 134, signal: None, reason: ExitReason::Error };
            self.plan(now.mono + after, end);
        }
        Some(Report::Started { key, at: now.wall })
    }

    fn stop(&mut self, now: Now, key: &ContainerKey, grace: Duration) {
        let Some(container) = self.pods.get_mut(&key.pod).and_then(|pod| pod.containers.get_mut(key)) else { return };
        let forced = now.mono + grace;
        match &mut container.state {
            FakeState::Running { stop_at, .. } => *stop_at = Some(stop_at.map_or(forced, |old| old.min(forced))),
            // A stop that meets a start still under way is carried out right after it.
            FakeState::Starting => {}
            FakeState::Exited(_) => return,
        }
        if let OnStop::ExitAfter(after) = container.behaviour.on_stop
            && after < grace
        {
            let end = Planned::End { key: key.clone(), code: 143, signal: Some(15), reason: ExitReason::Error };
            self.plan(now.mono + after.max(Duration::from_millis(START.1)), end);
        }
        let end = Planned::End { key: key.clone(), code: 137, signal: Some(9), reason: ExitReason::Error };
        self.plan(forced.max(now.mono + Duration::from_millis(START.1)), end);
    }

    fn ended(&mut self, now: Now, key: ContainerKey, exit: Exit) -> Option<Report> {
        let container = self.pods.get_mut(&key.pod)?.containers.get_mut(&key)?;
        let FakeState::Running { started_at, .. } = container.state else { return None };
        let exit = Exit { started_at, finished_at: now.wall, ..exit };
        container.state = FakeState::Exited(exit.clone());
        Some(Report::Exited { key, exit })
    }

    fn remove_container(&mut self, key: &ContainerKey) {
        if let Some(pod) = self.pods.get_mut(&key.pod) {
            pod.containers.remove(key);
        }
    }

    fn remove_sandbox(&mut self, now: Now, pod: PodUid) {
        self.pods.remove(&pod);
        self.report(now.mono + Duration::from_millis(1), Report::SandboxRemoved { pod });
    }

    fn exec(&mut self, now: Now, exec: ExecRequest) {
        let message = "exec is not supported by the fake runtime".to_owned();
        let outcome = ExecOutcome::Failed { message };
        self.report(now.mono, Report::ExecDone { ticket: exec.ticket, key: exec.key, outcome });
    }

    fn carry_out(&mut self, now: Now, planned: Planned) -> Option<Report> {
        match planned {
            Planned::Report(report) => Some(report),
            Planned::SandboxReady(spec) => {
                let ips = spec.ips.clone();
                let sandbox = FakePod { attempt: spec.attempt, ips: ips.clone(), containers: BTreeMap::new() };
                self.pods.insert(spec.pod.clone(), sandbox);
                Some(Report::SandboxReady { pod: spec.pod, ips })
            }
            Planned::Start(key) => self.started(now, key),
            Planned::End { key, code, signal, reason } => {
                let (started_at, finished_at) = (now.wall, now.wall);
                let exit = Exit { code, signal, reason, message: String::new(), started_at, finished_at };
                self.ended(now, key, exit)
            }
        }
    }

    fn resolved(&self, image: &str) -> ResolvedImage {
        let size_bytes = self.behaviours.get(image).cloned().unwrap_or_default().size_bytes;
        ResolvedImage { name: image.to_owned(), image_id: format!("{image}@sha256:fake"), size_bytes }
    }

    fn report(&mut self, at: Duration, report: Report) {
        self.plan(at, Planned::Report(report));
    }

    fn plan(&mut self, at: Duration, planned: Planned) {
        self.sequence += 1;
        self.agenda.insert((at, self.sequence), planned);
    }

    fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.random_bool(probability.min(1.0))
    }

    fn between(&mut self, (low, high): (u64, u64)) -> Duration {
        Duration::from_millis(self.rng.random_range(low..=high))
    }
}

impl FakeContainer {
    fn adopted(&self, key: &ContainerKey) -> AdoptedContainer {
        let state = match &self.state {
            FakeState::Running { started_at, .. } => AdoptedState::Running { started_at: *started_at },
            FakeState::Exited(exit) => AdoptedState::Exited(exit.clone()),
            FakeState::Starting => unreachable!("adopt drops starting containers first"),
        };
        AdoptedContainer { key: key.clone(), id: container_id(key), image: self.image.clone(), state }
    }
}

fn container_id(key: &ContainerKey) -> String {
    format!("fake://{}-{}-{}", key.pod, key.name, key.attempt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Keyring;

    fn now(millis: u64) -> Now {
        Now::virtual_at(Timestamp::UNIX_EPOCH, Duration::from_millis(millis))
    }

    fn pull(image: &str, policy: PullPolicy) -> Command {
        let key = ContainerKey { pod: PodUid::new("u"), name: "c".into(), attempt: 0 };
        Command::Pull(Box::new(PullRequest { key, image: image.into(), policy, keyring: Keyring::default() }))
    }

    fn drain(fake: &mut Fake) -> Vec<Report> {
        std::iter::from_fn(|| fake.poll(now(1_000_000))).collect()
    }

    #[test]
    fn one_seed_gives_one_story() {
        let story = |seed| {
            let mut fake = Fake::new(seed);
            fake.set_faults(Faults { pull: 0.5, ..Faults::default() });
            for _ in 0..20 {
                fake.submit(now(0), pull("a", PullPolicy::Always));
            }
            drain(&mut fake)
        };
        assert_eq!(story(7), story(7));
        assert_ne!(story(7), story(8));
    }

    #[test]
    fn pull_policies_decide_who_is_asked() {
        let mut fake = Fake::new(1);
        fake.submit(now(0), pull("a", PullPolicy::Never));
        assert!(matches!(&drain(&mut fake)[..], [Report::PullFailed { failure: PullFailure::NeverPull, .. }]));
        fake.submit(now(0), pull("a", PullPolicy::IfNotPresent));
        assert!(matches!(&drain(&mut fake)[..], [Report::Pulling { .. }, Report::Pulled { transfer: Some(_), .. }]));
        fake.submit(now(0), pull("a", PullPolicy::IfNotPresent));
        assert!(matches!(&drain(&mut fake)[..], [Report::Pulled { transfer: None, .. }]));
    }
}
