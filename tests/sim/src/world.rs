//! The world: moves time, wakes agents, lets processes die and return, lets users declare things, and runs the checks
//! after every step.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use coracle_agent_core::{PodUid, workload::fake::Faults};
use coracle_store::{Collection, Revision, Store, StoreError};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::Settings;
use crate::checks::Checks;
use crate::clock::{Agenda, Clock};
use crate::control::Control;
use crate::faults::Fault;
use crate::followers::Followers;
use crate::health::Ailment;
use crate::link::{Address, Arrival, INBOX, Net};
use crate::node::SimNode;
use crate::panics;
use crate::plan::{Events, Plan};
use crate::settled::settled;
use crate::users::{Disturbs, Errand, Users};

/// How long everything may take to come about once users have done all they do.
const SETTLE: Duration = Duration::from_secs(15 * 60);
/// When a promise is broken on purpose, when its users have done all they do, and how long it may then go unnoticed.
const BREAK: Duration = Duration::from_secs(30);
const BROKEN: Duration = Duration::from_secs(60);
const NOTICE: Duration = Duration::from_secs(120);
/// An agent's request without an answer is given up.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether everything has come about.
const LOOK: Duration = Duration::from_secs(5);
/// A run that takes more steps than this turns in circles.
const MOST_STEPS: u64 = 400_000;

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Steps taken.
    pub steps: u64,
    /// Writes to the store.
    pub writes: u64,
    /// Evictions that a budget was asked for and allowed.
    pub evictions: u64,
    /// Virtual time at which all that was declared had come about.
    pub settled_at: Duration,
    /// A hash over every step and every write: when, where, and what.
    pub trace: u64,
}

/// A check that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed that shows it again.
    pub seed: u64,
    /// When.
    pub at: Duration,
    /// What.
    pub what: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seed, at, what) = (self.seed, self.at, &self.what);
        write!(f, "seed {seed} at {at:?}: {what}\n    again: SIM_SEED={seed} cargo test -p coracle-sim every_seed")
    }
}

#[derive(Clone, Copy, Debug, Hash)]
pub(crate) enum Event {
    GiveUp(usize, u32, u64),
    Wake(usize),
    Fault,
    Heal(Fault, Duration),
    User,
    FaultsEnd,
    /// No fault shows any more, if none was late.
    Calm,
    UsersEnd,
    Look,
    Sabotage,
    PowerCut,
}

/// What outlives an agent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlives {
    Containers,
    /// The machine has lost its power, or its runtime is in the agent's process.
    Nothing,
}

/// What the world keeps of an agent's life.
struct Life {
    number: u32,
    wake_at: Option<Duration>,
    stream: CancellationToken,
}

/// The world.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    pub(crate) agenda: Agenda<Event>,
    rng: SmallRng,
    plan: Plan,
    pub(crate) control: Control,
    pub(crate) net: Arc<Net>,
    inbox: mpsc::Receiver<Arrival>,
    pub(crate) nodes: Vec<SimNode>,
    lives: Vec<Life>,
    users: Users,
    pub(crate) checks: Checks,
    pub(crate) followers: Followers,
    seen: Revision,
    looked: (Revision, usize),
    active: usize,
    faults_over: bool,
    /// Users rest from the end of the faults until none shows any more.
    users_rest: bool,
    users_over: bool,
    quiet_until: Duration,
    aftermath_until: Duration,
}

impl World {
    /// The world of a seed. Only within a runtime whose time is stopped.
    pub(crate) async fn new(seed: u64, settings: Settings) -> Result<Self, String> {
        panics::watch();
        let mut rng = SmallRng::seed_from_u64(seed);
        let clock = Clock::start();
        let mut plan = Plan::draw(&mut rng);
        if settings.sabotage.is_some() {
            plan.events = Events::Taken;
        }
        let mut control = Control::new(rng.random(), clock, settings.keep, plan.events)?;
        let count = rng.random_range(3..=5);
        let (sender, inbox) = mpsc::channel(INBOX);
        let net = Net::new(count, rng.random(), sender, clock);
        let nodes: Vec<SimNode> = (0..count).map(|number| SimNode::new(number, rng.random())).collect();
        let life = || Life { number: 0, wake_at: None, stream: CancellationToken::new() };
        let lives = (0..count).map(|_| life()).collect();
        let users = Users::new(rng.random());
        control.start_server().await?;
        control.start_manager()?;
        let mut world = Self {
            seed,
            settings,
            clock,
            agenda: Agenda::new(),
            rng,
            plan,
            control,
            net,
            inbox,
            nodes,
            lives,
            users,
            checks: Checks::default(),
            followers: Followers::default(),
            seen: Revision::ZERO,
            looked: (Revision::ZERO, 0),
            active: 0,
            faults_over: false,
            users_rest: false,
            users_over: false,
            quiet_until: Duration::ZERO,
            aftermath_until: Duration::ZERO,
        };
        world.begin()?;
        Ok(world)
    }

    fn begin(&mut self) -> Result<(), String> {
        let now = self.clock.now();
        self.net.set_server(self.control.server.as_ref().map(|server| Arc::clone(&server.api)));
        self.reopen_followers()?;
        let errand = self.users.begin();
        self.run_errand(errand);
        for number in 0..self.nodes.len() {
            self.nodes[number].start(self.clock.both());
            self.lives[number].wake_at = Some(now);
            self.agenda.at(now, Event::Wake(number));
        }
        if self.settings.sabotage.is_some() {
            self.faults_over = true;
            self.agenda.at(BREAK, Event::Sabotage);
            self.agenda.at(BROKEN, Event::UsersEnd);
            return Ok(());
        }
        self.agenda.at(Duration::from_secs(3), Event::User);
        let first = self.plan.fault_pause(&mut self.rng);
        self.after(first, Event::Fault);
        self.after(self.plan.faults, Event::FaultsEnd);
        Ok(())
    }

    /// Runs until all that is declared has come about, or a check does not hold.
    pub(crate) async fn run(&mut self) -> Result<Outcome, crate::Failure> {
        let mut steps = 0;
        let settled = self.live(&mut steps).await;
        let settled_at = settled.map_err(|what| Failure { seed: self.seed, at: self.clock.now(), what })?;
        Ok(self.control.ground.books.with(|records| Outcome {
            steps,
            writes: records.ledger.writes(),
            evictions: records.budgets.accepted(),
            settled_at,
            trace: records.trace.hash(),
        }))
    }

    async fn live(&mut self, steps: &mut u64) -> Result<Duration, String> {
        loop {
            *steps += 1;
            if *steps > MOST_STEPS {
                return Err("the cluster never comes to rest".into());
            }
            let disk = Arc::clone(&self.control.ground.disk);
            tokio::select! {
                biased;
                Some(arrival) = self.inbox.recv() => self.arrive(arrival),
                _ = disk.wait_for(self.seen.next()) => {
                    self.seen = disk.revision();
                    self.note(("sees", self.seen.0));
                }
                () = self.clock.until(self.agenda.next_at()) => {
                    while let Some(event) = self.agenda.take_due(self.clock.now()) {
                        self.note(event);
                        if let Some(settled_at) = self.apply(event).await? {
                            return Ok(settled_at);
                        }
                    }
                }
            }
            self.after_step()?;
        }
    }

    /// Lets something happen; the time if everything has come about.
    async fn apply(&mut self, event: Event) -> Result<Option<Duration>, String> {
        match event {
            Event::GiveUp(number, life, id) => {
                if self.lives[number].number == life {
                    self.nodes[number].give_up(id, self.clock.both());
                    self.wake(number);
                }
            }
            Event::Wake(number) => {
                // An earlier wake-up has taken the place of one that was planned before.
                if self.lives[number].wake_at.is_some_and(|at| at <= self.clock.now()) {
                    self.lives[number].wake_at = None;
                    self.wake(number);
                }
            }
            Event::Fault if self.faults_over => {}
            Event::Fault => {
                self.fault()?;
                let pause = self.plan.fault_pause(&mut self.rng);
                self.after(pause, Event::Fault);
            }
            Event::Heal(fault, lasted) => self.heal(fault, lasted).await?,
            Event::FaultsEnd => {
                (self.faults_over, self.users_rest) = (true, true);
                self.after(Duration::ZERO, Event::Calm);
            }
            Event::Calm => self.calm(),
            Event::User if self.users_over || self.users_rest => {}
            Event::User => {
                self.user()?;
                let pause = self.plan.user_pause(&mut self.rng);
                self.after(pause, Event::User);
            }
            Event::UsersEnd => {
                self.users_over = true;
                self.quiet_until = self.clock.now();
                let errand = self.users.tidy(&self.control.ground.disk);
                self.run_errand(errand);
                self.after(LOOK, Event::Look);
            }
            Event::Look => return self.look(),
            Event::Sabotage => self.sabotage().await?,
            Event::PowerCut => self.power_cut(),
        }
        Ok(None)
    }

    pub(crate) fn after(&mut self, delay: Duration, event: Event) {
        self.agenda.at(self.clock.now() + delay, event);
    }

    fn look(&mut self) -> Result<Option<Duration>, String> {
        let now = self.clock.now();
        let latest = if self.settings.sabotage.is_some() { BROKEN + NOTICE } else { self.quiet_until + SETTLE };
        match settled(&self.control.ground.disk, &self.nodes) {
            Ok(()) => return Ok(Some(now)),
            Err(why) if now > latest => return Err(format!("never settled: {why}")),
            Err(_) => self.after(LOOK, Event::Look),
        }
        Ok(None)
    }

    /// Lets users go on once nothing of the faults shows.
    fn calm(&mut self) {
        let now = self.clock.now();
        if self.active > 0 || now <= self.aftermath_until {
            self.agenda.at(self.aftermath_until.max(now) + Duration::from_secs(1), Event::Calm);
            return;
        }
        self.users_rest = false;
        self.after(Duration::ZERO, Event::User);
        self.after(self.plan.quiet, Event::UsersEnd);
    }

    fn user(&mut self) -> Result<(), String> {
        if self.rng.random_bool(0.3) {
            self.reread_the_past()?;
        }
        let errand = self.users.next(&self.control.ground.disk, self.faults_over);
        self.run_errand(errand);
        Ok(())
    }

    fn run_errand(&mut self, errand: Errand) {
        let now = self.clock.now();
        match &errand.disturbs {
            Disturbs::Nothing => {}
            Disturbs::App(name) => self.checks.disturb(name, now),
            Disturbs::Everything => self.checks.disturb_all(now),
        }
        if let Some(client) = self.control.admin() {
            tokio::spawn(errand.run(client, Arc::clone(&self.control.ground.books)));
        }
    }

    /// One more watcher of the pods begins at some revision that is still kept.
    fn reread_the_past(&mut self) -> Result<(), String> {
        let disk = Arc::clone(&self.control.ground.disk);
        let (oldest, newest) = (disk.compacted().0, disk.revision().0);
        let at = Revision(self.rng.random_range(oldest.min(newest)..=newest));
        let followers = &mut self.followers;
        let pods = Collection::new("", "pods");
        self.control.ground.books.with(|records| followers.open_at(&disk, &records.ledger, &pods, at))
    }

    fn reopen_followers(&mut self) -> Result<(), String> {
        let (disk, followers) = (Arc::clone(&self.control.ground.disk), &mut self.followers);
        self.control.ground.books.with(|records| followers.open(&disk, &records.ledger))
    }

    fn after_step(&mut self) -> Result<(), String> {
        let now = self.clock.now();
        if let Some(what) = panics::take() {
            return Err(what);
        }
        // What a fault began may show after it: limits count only in the quiet time.
        if self.active > 0 || !self.faults_over || now < self.aftermath_until {
            self.checks.disturb_all(now);
        }
        let disk = Arc::clone(&self.control.ground.disk);
        for (number, node) in self.nodes.iter_mut().enumerate() {
            for notice in std::mem::take(&mut node.notices) {
                self.checks.notice((number, node), &notice, &disk, now)?;
            }
        }
        if let Some(why) = self.control.ground.books.broken() {
            return Err(why);
        }
        let running = self.nodes.iter().map(|node| node.runtime.running().count()).sum();
        let present = (disk.revision(), running);
        if present == self.looked {
            return Ok(());
        }
        self.looked = present;
        disk.tick(now).or_else(|error| match error {
            StoreError::Full => Ok(None),
            other => Err(other.to_string()),
        })?;
        let followers = &mut self.followers;
        self.control.ground.books.with(|records| followers.check(&disk, &mut records.ledger))?;
        self.checks.step(&disk, &self.nodes, now)?;
        if self.faults_over && self.active == 0 && now > self.aftermath_until {
            self.control.ground.books.with(|records| records.endpoints.standing(disk.as_ref(), now))?;
        }
        Ok(())
    }

    fn note(&self, what: impl std::hash::Hash + std::fmt::Debug) {
        let now = self.clock.now();
        self.control.ground.books.with(|records| records.trace.step(now, what));
    }

    /// The lines of the story, if they were kept.
    pub(crate) fn take_story(&self) -> Vec<String> {
        self.control.ground.books.with(|records| records.trace.take_lines())
    }

    fn arrive(&mut self, arrival: Arrival) {
        self.note(("hears", arrival.number, arrival.life, arrival.what.name()));
        if self.lives[arrival.number].number == arrival.life {
            self.nodes[arrival.number].handle(arrival.what, self.clock.both());
            self.wake(arrival.number);
        }
    }

    /// Lets an agent do what is due, and carries off what it sends.
    pub(crate) fn wake(&mut self, number: usize) {
        let now = self.clock.both();
        let node = &mut self.nodes[number];
        node.run(now);
        let life = &mut self.lives[number];
        let address = Address { number, name: node.name.clone(), life: life.number };
        for (id, ask) in node.take_requests() {
            self.agenda.at(now.mono + TIMEOUT, Event::GiveUp(number, life.number, id));
            self.net.send(address.clone(), id, ask);
        }
        if let Some(stream) = node.take_follow(now) {
            life.stream.cancel();
            life.stream = CancellationToken::new();
            self.net.follow(address, stream, life.stream.clone());
        }
        if let Some(at) = node.next_wake().filter(|at| life.wake_at.is_none_or(|known| *at < known)) {
            // An agent whose timer is due may still wait for an answer: time must move on.
            let at = at.max(now.mono + Duration::from_millis(1));
            life.wake_at = Some(at);
            self.agenda.at(at, Event::Wake(number));
        }
    }

    fn fault(&mut self) -> Result<(), String> {
        let fault = Fault::draw(&mut self.rng, self.nodes.len());
        if self.start_fault(fault)? {
            self.active += 1;
            let lasts = fault.lasts(&self.plan, &mut self.rng);
            self.after(lasts, Event::Heal(fault, lasts));
        }
        Ok(())
    }

    /// Begins a fault; whether it could.
    fn start_fault(&mut self, fault: Fault) -> Result<bool, String> {
        match fault {
            Fault::AgentDies(number) if !self.nodes[number].is_running() => return Ok(false),
            Fault::AgentDies(number) => {
                let outlives = if self.rng.random_bool(0.5) { Outlives::Containers } else { Outlives::Nothing };
                self.kill_agent(number, outlives);
            }
            Fault::ManagerDies if !self.control.is_managed() => return Ok(false),
            Fault::ManagerDies => self.control.kill_manager(),
            Fault::ServerDies if !self.control.is_up() => return Ok(false),
            Fault::ServerDies => self.crash()?,
            Fault::Partition(number) => self.net.change(number, |link| link.partitioned = true),
            Fault::Lossy(number) => self.net.change(number, |link| link.loss = 0.2),
            Fault::Slow(number) => self.net.change(number, |link| link.slow = Some(Duration::from_millis(1_500))),
            Fault::SlowDisk => self.control.ground.pace.set_slow(Some(Duration::from_millis(1_500))),
            Fault::DiskFull => self.set_disk_full(true)?,
            Fault::NodeDiskFull(number) => self.nodes[number].records.set_full(true),
            Fault::Runtime(number) => {
                self.nodes[number].runtime.set_faults(Faults { pull: 0.2, sandbox: 0.2, start: 0.2, crash: 0.1 });
            }
            Fault::Busy(number) => self.nodes[number].health.ailment = Ailment::Busy,
            Fault::Hung(number) => self.nodes[number].health.ailment = Ailment::Hung,
        }
        Ok(true)
    }

    async fn heal(&mut self, fault: Fault, lasted: Duration) -> Result<(), String> {
        self.active -= 1;
        self.aftermath_until = self.aftermath_until.max(self.clock.now() + fault.shows_for(lasted));
        match fault {
            Fault::AgentDies(number) => {
                self.nodes[number].start(self.clock.both());
                self.wake(number);
            }
            Fault::ManagerDies if self.control.is_up() && !self.control.is_managed() => self.control.start_manager()?,
            // A server that is down starts it when it returns.
            Fault::ManagerDies => {}
            Fault::ServerDies => self.restart().await?,
            Fault::Partition(number) => self.net.change(number, |link| link.partitioned = false),
            Fault::Lossy(number) => self.net.change(number, |link| link.loss = 0.0),
            Fault::Slow(number) => self.net.change(number, |link| link.slow = None),
            Fault::SlowDisk => self.control.ground.pace.set_slow(None),
            Fault::DiskFull => self.set_disk_full(false)?,
            Fault::NodeDiskFull(number) => self.nodes[number].records.set_full(false),
            Fault::Runtime(number) => self.nodes[number].runtime.set_faults(Faults::default()),
            Fault::Busy(number) | Fault::Hung(number) => self.nodes[number].health.ailment = Ailment::None,
        }
        Ok(())
    }

    fn set_disk_full(&self, full: bool) -> Result<(), String> {
        self.control.ground.disk.set_disk_full(full).map_err(|error| error.to_string())
    }

    /// The server dies with all that is in its process.
    pub(crate) fn crash(&mut self) -> Result<(), String> {
        self.net.set_server(None);
        // What was told until now is still compared.
        let (disk, followers) = (Arc::clone(&self.control.ground.disk), &mut self.followers);
        self.control.ground.books.with(|records| followers.check(&disk, &mut records.ledger))?;
        self.control.crash()?;
        self.seen = self.control.ground.disk.revision();
        self.reopen_followers()
    }

    /// The server returns.
    pub(crate) async fn restart(&mut self) -> Result<(), String> {
        self.control.start_server().await?;
        self.control.start_manager()?;
        self.net.set_server(self.control.server.as_ref().map(|server| Arc::clone(&server.api)));
        Ok(())
    }

    pub(crate) fn kill_agent(&mut self, number: usize, outlives: Outlives) {
        let there: BTreeSet<PodUid> =
            self.checks.started(number).into_iter().filter(|pod| !self.nodes[number].runtime.is_gone(pod)).collect();
        let node = &mut self.nodes[number];
        let mut running: BTreeSet<PodUid> = node.runtime.running().map(|key| key.pod.clone()).collect();
        node.kill();
        if outlives == Outlives::Nothing {
            node.runtime.lose_everything();
            running.clear();
        }
        self.checks.agent_died(&there, &running);
        let life = &mut self.lives[number];
        life.number += 1;
        life.stream.cancel();
    }
}
