//! The world: carries messages late, out of order between links, or not at all; lets processes die and return; lets users
//! declare things; and runs the checks after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use coracle_agent_core::{PodUid, workload::fake::Faults};
use coracle_api::ApiError;
use coracle_store::Store;
use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::checks::Checks;
use crate::clock::Clock;
use crate::door::Door;
use crate::manager::Manager;
use crate::message::{Feed, Outgoing, Peer, Reply, Request};
use crate::node::SimNode;
use crate::scheduling::Scheduling;
use crate::server::Server;
use crate::users::Users;

/// How long faults happen, how long users go on without them, and how long everything may then take to come about.
const FAULTS: Duration = Duration::from_secs(120);
const QUIET: Duration = Duration::from_secs(150);
const SETTLE: Duration = Duration::from_secs(15 * 60);
/// How long a fault may show after its end: a silent node is noticed late, and its pods leave later still.
const AFTERMATH: Duration = Duration::from_secs(60);
/// A request without an answer is given up.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A run that takes more steps than this turns in circles.
const MOST_STEPS: u64 = 400_000;

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Steps taken.
    pub steps: u64,
    /// The store's last revision.
    pub revision: u64,
    /// Virtual time at which all that was declared had come about.
    pub settled_at: Duration,
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
        write!(
            f,
            "seed {} at {:?}: {}; again: SIM_SEED={} cargo test -p coracle-sim",
            self.seed, self.at, self.what, self.seed
        )
    }
}

enum Event {
    Request(Peer, u32, u64, Box<Request>),
    Reply(Peer, u32, u64, Box<Reply>),
    Feed(Peer, u32, Box<Feed>),
    GiveUp(Peer, u32, u64),
    Broken(Peer, u32, u64),
    Wake(Peer),
    Fault,
    Heal(Fault),
    User,
    FaultsEnd,
    UsersEnd,
    Look,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    AgentDies(usize),
    ManagerDies,
    SchedulerDies,
    ServerDies,
    Partition(usize),
    Lossy(usize),
    Slow(Peer),
    DiskFull,
    Runtime(usize),
}

/// One way between a peer and the server.
#[derive(Default)]
struct Link {
    /// Counts the peer's lives: what is meant for an earlier one does not arrive.
    life: u32,
    slow: Option<Duration>,
    loss: f64,
    partitioned: bool,
    /// When the last part of its stream arrives; the next one may not overtake it.
    stream_until: Duration,
    wake_at: Option<Duration>,
}

/// The world.
pub(crate) struct World {
    seed: u64,
    clock: Clock<Event>,
    rng: SmallRng,
    server: Server,
    server_up: bool,
    manager: Option<Manager>,
    scheduler: Option<Scheduling>,
    nodes: Vec<SimNode>,
    links: BTreeMap<Peer, Link>,
    users: Users,
    checks: Checks,
    active: usize,
    faults_over: bool,
    aftermath_until: Duration,
    users_over: bool,
    looked: (u64, usize),
}

impl World {
    /// The world of a seed.
    pub(crate) fn new(seed: u64) -> Result<Self, String> {
        let mut rng = SmallRng::seed_from_u64(seed);
        let clock = Clock::new();
        let door = Door::new(rng.random()).map_err(|error| error.to_string())?;
        let server = Server::new(door, clock.wall()).map_err(|error| error.to_string())?;
        let count = rng.random_range(3..=5);
        let mut nodes: Vec<SimNode> = (0..count).map(|number| SimNode::new(number, rng.random())).collect();
        nodes.iter_mut().for_each(|node| node.start(clock.both()));
        let peers = (0..count).map(Peer::Node).chain([Peer::Manager, Peer::Scheduler]);
        let links = peers.map(|peer| (peer, Link::default())).collect();
        let users = Users::new(rng.random());
        let mut world = Self {
            seed,
            clock,
            rng,
            server,
            server_up: true,
            manager: None,
            scheduler: None,
            nodes,
            links,
            users,
            checks: Checks::default(),
            active: 0,
            faults_over: false,
            aftermath_until: Duration::ZERO,
            users_over: false,
            looked: (0, 0),
        };
        world.start_manager();
        world.start_scheduler()?;
        let peers: Vec<Peer> = world.links.keys().copied().collect();
        peers.into_iter().for_each(|peer| world.clock.after(Duration::ZERO, Event::Wake(peer)));
        world.clock.after(Duration::from_secs(2), Event::User);
        world.clock.after(Duration::from_secs(12), Event::Fault);
        world.clock.at(FAULTS, Event::FaultsEnd);
        world.clock.at(FAULTS + QUIET, Event::UsersEnd);
        Ok(world)
    }

    /// Runs until all that is declared has come about, or a check does not hold.
    pub(crate) fn run(&mut self) -> Result<Outcome, Failure> {
        let mut steps = 0;
        let settled = self.live(&mut steps).map_err(|what| Failure { seed: self.seed, at: self.clock.now(), what });
        settled.map(|settled_at| Outcome { steps, revision: self.server.door.store.revision().0, settled_at })
    }

    fn live(&mut self, steps: &mut u64) -> Result<Duration, String> {
        while let Some(event) = self.clock.next() {
            *steps += 1;
            if *steps > MOST_STEPS {
                return Err("the cluster never comes to rest".into());
            }
            let looks = matches!(event, Event::Look);
            self.apply(event)?;
            self.after_step()?;
            if looks {
                match Checks::settled(&self.server.door, &self.nodes) {
                    Ok(()) => return Ok(self.clock.now()),
                    Err(why) if self.clock.now() > FAULTS + QUIET + SETTLE => {
                        return Err(format!("never settled: {why}"));
                    }
                    Err(_) => self.clock.after(Duration::from_secs(5), Event::Look),
                }
            }
        }
        Err("nothing is left to happen".into())
    }

    fn apply(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Request(peer, life, id, request) => self.request(peer, life, id, *request)?,
            Event::Reply(peer, life, id, reply) => self.reply(peer, life, id, *reply),
            Event::GiveUp(peer, life, id) => {
                let result = Err(ApiError::timeout("no answer", 1));
                self.reply(peer, life, id, Reply { result, revision: self.server.door.store.revision() });
            }
            Event::Feed(peer, life, feed) => self.feed(peer, life, &feed),
            Event::Broken(peer, life, stream) => {
                if let (Peer::Node(number), true) = (peer, self.links[&peer].life == life) {
                    self.nodes[number].handle_broken(stream, self.clock.both());
                    self.wake(peer);
                }
            }
            Event::Wake(peer) => {
                if let Some(link) = self.links.get_mut(&peer) {
                    link.wake_at = None;
                }
                self.wake(peer);
            }
            Event::Fault if self.faults_over => {}
            Event::Fault => {
                self.fault()?;
                let pause = self.rng.random_range(3_000..15_000);
                self.clock.after(Duration::from_millis(pause), Event::Fault);
            }
            Event::Heal(fault) => self.heal(fault)?,
            Event::FaultsEnd => self.faults_over = true,
            Event::User if self.users_over => {}
            Event::User => {
                if self.server_up {
                    self.users.act(&mut self.server.door, self.clock.wall(), &mut self.checks, self.faults_over);
                    self.pump()?;
                }
                let pause = self.rng.random_range(1_000..12_000);
                self.clock.after(Duration::from_millis(pause), Event::User);
            }
            Event::UsersEnd => {
                self.users_over = true;
                self.users.tidy(&mut self.server.door);
                self.pump()?;
                self.clock.after(Duration::from_secs(5), Event::Look);
            }
            Event::Look => {}
        }
        Ok(())
    }

    fn after_step(&mut self) -> Result<(), String> {
        // What a fault began may show after it: limits count only in the quiet time.
        if self.active > 0 || !self.faults_over {
            self.aftermath_until = self.clock.now() + AFTERMATH;
        }
        if self.clock.now() < self.aftermath_until {
            self.checks.disturb_all();
        }
        let notices: Vec<_> = self.nodes.iter_mut().flat_map(|node| std::mem::take(&mut node.notices)).collect();
        for notice in &notices {
            self.checks.notice(notice, &self.server.door)?;
        }
        let running = self.nodes.iter().map(|node| node.runtime.running().count()).sum();
        let now = (self.server.door.store.revision().0, running);
        if now == self.looked {
            return Ok(());
        }
        self.looked = now;
        self.server.door.store.tick(self.clock.now()).or_else(|error| match error {
            coracle_store::StoreError::Full => Ok(None),
            other => Err(other.to_string()),
        })?;
        self.checks.step(&self.server.door, &self.nodes)
    }

    fn start_manager(&mut self) {
        self.manager = Some(Manager::new(self.rng.random(), self.clock.now()));
    }

    fn start_scheduler(&mut self) -> Result<(), String> {
        self.scheduler = Some(Scheduling::new(self.rng.random()).map_err(|error| error.to_string())?);
        Ok(())
    }

    /// Lets a peer do what is due, and carries off what it sends.
    fn wake(&mut self, peer: Peer) {
        let now = self.clock.now();
        let (requests, next): (Vec<Outgoing>, Option<Duration>) = match peer {
            Peer::Manager => {
                let Some(manager) = &mut self.manager else { return };
                manager.run(&self.server.door, now);
                (manager.take_requests(), manager.next_wake())
            }
            Peer::Scheduler => {
                let Some(scheduler) = &mut self.scheduler else { return };
                scheduler.run(now);
                (scheduler.take_requests(), scheduler.next_wake(now))
            }
            Peer::Node(number) => {
                let node = &mut self.nodes[number];
                node.run(self.clock.both());
                (node.take_requests(), node.next_wake())
            }
        };
        let life = self.links[&peer].life;
        for outgoing in requests {
            // Inside the server's process nothing is lost, so nothing is given up.
            if !peer.is_inside() {
                self.clock.after(TIMEOUT, Event::GiveUp(peer, life, outgoing.id));
            }
            if let Some(delay) = self.carried(peer) {
                self.clock.after(delay, Event::Request(peer, life, outgoing.id, Box::new(outgoing.request)));
            }
        }
        let Some(link) = self.links.get_mut(&peer) else { return };
        if let Some(at) = next.filter(|at| link.wake_at.is_none_or(|known| *at < known)) {
            // A peer whose timer is due may still wait for an answer: time must move on.
            let at = at.max(now + Duration::from_millis(1));
            link.wake_at = Some(at);
            self.clock.at(at, Event::Wake(peer));
        }
    }

    /// How long a message takes on a peer's link; `None` if it is lost.
    fn carried(&mut self, peer: Peer) -> Option<Duration> {
        let link = self.links.get(&peer)?;
        if link.partitioned || link.loss > 0.0 && self.rng.random_bool(link.loss) {
            return None;
        }
        let most = link.slow.unwrap_or(Duration::from_millis(if peer.is_inside() { 3 } else { 30 }));
        Some(Duration::from_micros(self.rng.random_range(50..=u64::try_from(most.as_micros()).unwrap_or(50).max(51))))
    }

    fn request(&mut self, peer: Peer, life: u32, id: u64, request: Request) -> Result<(), String> {
        // What a dead process inside the server was about to do died with it.
        if !self.server_up || (peer.is_inside() && self.links[&peer].life != life) {
            return Ok(());
        }
        let node = self.name_of(peer);
        if matches!(request, Request::Follow) {
            let feed = self.server.follow(peer, node.as_deref())?;
            self.send_feed(peer, feed);
        }
        let result = self.server.handle(request, node.as_deref(), self.clock.wall());
        let reply = Reply { result, revision: self.server.door.store.revision() };
        if let Some(delay) = self.carried(peer) {
            self.clock.after(delay, Event::Reply(peer, life, id, Box::new(reply)));
        }
        self.pump()
    }

    fn reply(&mut self, peer: Peer, life: u32, id: u64, reply: Reply) {
        if self.links[&peer].life != life {
            return;
        }
        let now = self.clock.now();
        match peer {
            Peer::Manager => self.manager.iter_mut().for_each(|manager| manager.handle_reply(id, reply.clone(), now)),
            Peer::Scheduler => {
                self.scheduler.iter_mut().for_each(|scheduler| scheduler.handle_reply(id, reply.clone(), now))
            }
            Peer::Node(number) => self.nodes[number].handle_reply(id, reply, self.clock.both()),
        }
        self.wake(peer);
    }

    fn feed(&mut self, peer: Peer, life: u32, feed: &Feed) {
        if self.links[&peer].life != life {
            return;
        }
        let now = self.clock.now();
        match peer {
            Peer::Manager => {
                self.manager.iter_mut().for_each(|manager| manager.handle_feed(feed, &self.server.door, now))
            }
            Peer::Scheduler => self.scheduler.iter_mut().for_each(|scheduler| scheduler.handle_feed(feed, now)),
            Peer::Node(number) => self.nodes[number].handle_feed(feed, self.clock.both()),
        }
        self.wake(peer);
    }

    fn pump(&mut self) -> Result<(), String> {
        if !self.server_up {
            return Ok(());
        }
        let names: Vec<String> = self.nodes.iter().map(|node| node.name.clone()).collect();
        let name_of = |peer: Peer| match peer {
            Peer::Node(number) => Some(names[number].clone()),
            _ => None,
        };
        for (peer, feed) in self.server.pump(name_of)? {
            self.send_feed(peer, feed);
        }
        Ok(())
    }

    /// A stream keeps its order; where a part of it is lost, it ends, and its peer learns of that later.
    fn send_feed(&mut self, peer: Peer, feed: Feed) {
        let (now, life) = (self.clock.now(), self.links[&peer].life);
        match self.carried(peer) {
            Some(delay) => {
                let Some(link) = self.links.get_mut(&peer) else { return };
                let at = (now + delay).max(link.stream_until);
                link.stream_until = at;
                self.clock.at(at, Event::Feed(peer, life, Box::new(feed)));
            }
            None => self.cut(peer, feed.stream),
        }
    }

    fn cut(&mut self, peer: Peer, stream: u64) {
        let life = self.links[&peer].life;
        self.server.cut(peer, stream);
        let delay = Duration::from_millis(self.rng.random_range(2_000..8_000));
        // Later than any part that is still on its way.
        self.clock.after(delay, Event::Broken(peer, life, stream));
    }

    fn name_of(&self, peer: Peer) -> Option<String> {
        match peer {
            Peer::Node(number) => Some(self.nodes[number].name.clone()),
            _ => None,
        }
    }

    fn fault(&mut self) -> Result<(), String> {
        let node = self.rng.random_range(0..self.nodes.len());
        let peers = [Peer::Manager, Peer::Scheduler, Peer::Node(node)];
        let fault = match self.rng.random_range(0..10) {
            0 | 1 => Fault::AgentDies(node),
            2 => Fault::ManagerDies,
            3 => Fault::SchedulerDies,
            4 => Fault::ServerDies,
            5 => Fault::Partition(node),
            6 => Fault::Lossy(node),
            7 => Fault::Slow(peers[self.rng.random_range(0..peers.len())]),
            8 => Fault::DiskFull,
            _ => Fault::Runtime(node),
        };
        if !self.begin(fault)? {
            return Ok(());
        }
        self.active += 1;
        let most = match fault {
            Fault::AgentDies(_) | Fault::Partition(_) => 70_000,
            _ => 15_000,
        };
        let lasts = Duration::from_millis(self.rng.random_range(100..most));
        self.clock.after(lasts, Event::Heal(fault));
        Ok(())
    }

    /// Begins a fault; whether it could.
    fn begin(&mut self, fault: Fault) -> Result<bool, String> {
        match fault {
            Fault::AgentDies(number) => {
                if !self.nodes[number].is_running() {
                    return Ok(false);
                }
                self.kill_agent(number);
            }
            Fault::ManagerDies | Fault::SchedulerDies if !self.server_up => return Ok(false),
            Fault::ManagerDies if self.manager.is_none() => return Ok(false),
            Fault::SchedulerDies if self.scheduler.is_none() => return Ok(false),
            Fault::ManagerDies => self.kill_inside(Peer::Manager),
            Fault::SchedulerDies => self.kill_inside(Peer::Scheduler),
            Fault::ServerDies => {
                if !self.server_up {
                    return Ok(false);
                }
                self.server_up = false;
                self.kill_inside(Peer::Manager);
                self.kill_inside(Peer::Scheduler);
                for (peer, stream) in self.server.crash()? {
                    self.cut(peer, stream);
                }
            }
            Fault::Partition(number) => self.link(Peer::Node(number)).partitioned = true,
            Fault::Lossy(number) => self.link(Peer::Node(number)).loss = 0.2,
            Fault::Slow(peer) => self.link(peer).slow = Some(Duration::from_millis(1_500)),
            Fault::DiskFull => self.server.door.store.set_disk_full(true).map_err(|error| error.to_string())?,
            Fault::Runtime(number) => {
                self.nodes[number].runtime.set_faults(Faults { pull: 0.2, sandbox: 0.2, start: 0.2, crash: 0.1 });
            }
        }
        Ok(true)
    }

    fn heal(&mut self, fault: Fault) -> Result<(), String> {
        self.active -= 1;
        match fault {
            Fault::AgentDies(number) => {
                let now = self.clock.both();
                self.nodes[number].start(now);
                self.wake(Peer::Node(number));
            }
            Fault::ManagerDies | Fault::SchedulerDies | Fault::ServerDies => {
                self.server_up |= matches!(fault, Fault::ServerDies);
                // A server that is down starts both when it returns.
                if self.server_up && self.manager.is_none() && !matches!(fault, Fault::SchedulerDies) {
                    self.start_manager();
                    self.wake(Peer::Manager);
                }
                if self.server_up && self.scheduler.is_none() && !matches!(fault, Fault::ManagerDies) {
                    self.start_scheduler()?;
                    self.wake(Peer::Scheduler);
                }
            }
            Fault::Partition(number) => self.link(Peer::Node(number)).partitioned = false,
            Fault::Lossy(number) => self.link(Peer::Node(number)).loss = 0.0,
            Fault::Slow(peer) => self.link(peer).slow = None,
            Fault::DiskFull => self.server.door.store.set_disk_full(false).map_err(|error| error.to_string())?,
            Fault::Runtime(number) => self.nodes[number].runtime.set_faults(Faults::default()),
        }
        Ok(())
    }

    fn link(&mut self, peer: Peer) -> &mut Link {
        self.links.entry(peer).or_default()
    }

    fn kill_agent(&mut self, number: usize) {
        let survives = self.rng.random_bool(0.5);
        let there: BTreeSet<PodUid> =
            self.checks.started().into_iter().filter(|pod| !self.nodes[number].runtime.is_gone(pod)).collect();
        let node = &mut self.nodes[number];
        let mut running: BTreeSet<PodUid> = node.runtime.running().map(|key| key.pod.clone()).collect();
        node.kill();
        if !survives {
            node.runtime.lose_everything();
            running.clear();
        }
        self.checks.agent_died(&there, &running);
        self.link(Peer::Node(number)).life += 1;
        self.server.forget(Peer::Node(number));
    }

    fn kill_inside(&mut self, peer: Peer) {
        match peer {
            Peer::Manager => self.manager = None,
            _ => self.scheduler = None,
        }
        self.link(peer).life += 1;
        self.server.forget(peer);
    }
}
