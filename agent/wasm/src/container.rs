//! One run of one container: from its image's component to its exit. One task per container, and one more for a server's
//! accepting socket; everything else happens inside those.

use std::{future::Future, path::PathBuf, pin::pin, sync::Arc, time::Duration};

use coracle_agent_core::workload::{
    ContainerKey, ContainerSpec, ContainerStats, DiskUse, MemoryStats, Report, StartStage, TerminationMessage,
};
use coracle_artifact::{Digest, Image};
use coracle_engine::{ComponentDigest, CpuAccount, CpuQuota, MemoryBudget, Shared};
use coracle_host::{
    Directories, GuestConfig, GuestStdin, HttpServer, LogSink, Outcome, PodNetwork, Program, ProgramKind, ServerLimits,
    SetupError, ShutdownSignal, StdStream, check_server, start_command,
};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{io::DuplexStream, sync::watch, time::Instant};

use crate::{
    attach::{Stdio, Teed},
    exit::End,
    log::CriLog,
    mounts::{Mounts, Staging},
    spec,
    workload::Services,
};

/// What a running container is asked from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// Run on.
    Run,
    /// End by yourself before this instant.
    EndBefore(Instant),
    /// End now.
    EndNow,
}

/// A container as the pod's table holds it.
pub(crate) struct Container {
    wish: watch::Sender<Wish>,
    done: watch::Sender<bool>,
    cpu: Arc<CpuAccount>,
    memory: Arc<MemoryBudget>,
    pub(crate) image: Digest,
    pub(crate) stdio: Arc<Stdio>,
    /// What the component reads, until it is started.
    stdin: Mutex<Option<DuplexStream>>,
}

impl Container {
    pub(crate) fn new(services: &Services, spec: &ContainerSpec, image: Digest) -> Arc<Self> {
        let limit = spec.resources.memory_limit_bytes.and_then(|bytes| u64::try_from(bytes).ok());
        let quota = spec.resources.cpu_limit_milli.and_then(|milli| u64::try_from(milli).ok());
        let (stdio, stdin) = Stdio::new(spec.stdio);
        Arc::new(Self {
            stdio,
            stdin: Mutex::new(stdin),
            wish: watch::Sender::new(Wish::Run),
            done: watch::Sender::new(false),
            cpu: services.programs.engines().cpu_account(quota.map(CpuQuota::from_milli)),
            memory: MemoryBudget::new(limit),
            image,
        })
    }

    /// Asks it to end within `grace`; an earlier end asked before stands.
    pub(crate) fn stop(&self, grace: Duration) {
        let wish = if grace.is_zero() { Wish::EndNow } else { Wish::EndBefore(Instant::now() + grace) };
        self.wish.send_if_modified(|current| {
            let sooner = match (&*current, &wish) {
                (Wish::EndNow, _) => false,
                (Wish::EndBefore(before), Wish::EndBefore(now)) => now < before,
                _ => true,
            };
            if sooner {
                *current = wish;
            }
            sooner
        });
    }

    /// Whether it has ended.
    pub(crate) fn is_done(&self) -> bool {
        *self.done.borrow()
    }

    /// Waits for its end.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut done = self.done.subscribe();
        async move {
            // The sender lives as long as the container's task.
            let _ = done.wait_for(|done| *done).await;
        }
    }

    pub(crate) fn stats(&self) -> ContainerStats {
        let bytes = self.memory.used_bytes();
        ContainerStats {
            at: Timestamp::now(),
            cpu_nanoseconds: self.cpu.used_nanos(),
            // Linear memory is the guest's alone and has no cache in it. What of it was never touched the kernel does not tell
            // for one guest, nor whose a fault was.
            memory: MemoryStats { usage_bytes: bytes, working_set_bytes: bytes, ..MemoryStats::default() },
            // There is no layer a guest could write to.
            root_fs: Some(DiskUse::default()),
        }
    }
}

/// A start that did not come to running.
struct NotStarted {
    stage: StartStage,
    message: String,
}

impl NotStarted {
    fn create(message: impl ToString) -> Self {
        Self { stage: StartStage::Create, message: message.to_string() }
    }

    fn start(message: impl ToString) -> Self {
        Self { stage: StartStage::Start, message: message.to_string() }
    }
}

/// A container that is about to run.
struct Prepared {
    program: Arc<Shared<Program>>,
    config: GuestConfig,
    log: Arc<CriLog>,
    mounts: Mounts,
}

/// One run. Dropped when it has ended.
pub(crate) struct Run {
    pub(crate) services: Arc<Services>,
    pub(crate) container: Arc<Container>,
    pub(crate) network: Arc<PodNetwork>,
    pub(crate) hostname: String,
    pub(crate) spec: ContainerSpec,
}

impl Run {
    /// Runs the container to its end; every step is reported.
    pub(crate) async fn run(self) {
        let key = self.spec.key.clone();
        let (services, container) = (self.services.clone(), self.container.clone());
        let report = self.run_reported(&key).await;
        container.done.send_replace(true);
        container.stdio.end();
        services.reporter.send(report);
    }

    async fn run_reported(self, key: &ContainerKey) -> Report {
        let failed = |failure: NotStarted| Report::StartFailed {
            key: key.clone(),
            stage: failure.stage,
            message: failure.message,
            at: Timestamp::now(),
        };
        let prepared = match self.prepare().await {
            Ok(prepared) => prepared,
            Err(failure) => return failed(failure),
        };
        self.services.reporter.send(Report::Created { key: key.clone(), id: container_id(key) });
        let program = prepared.program.current();
        match program.kind() {
            ProgramKind::Command => self.command(key, program, prepared).await.unwrap_or_else(failed),
            ProgramKind::Http => self.server(key, prepared).await.unwrap_or_else(failed),
        }
    }

    /// Loads the component and prepares what it is to see.
    async fn prepare(&self) -> Result<Prepared, NotStarted> {
        let image = self
            .services
            .images
            .get(self.container.image.as_str())
            .ok_or_else(|| NotStarted::create(format!("failed to get image {:?}: not found", self.spec.image)))?;
        let digest = ComponentDigest::parse(image.component.as_str())
            .ok_or_else(|| NotStarted::create("the image has no valid digest"))?;
        let path = self.services.images.component_path(&image);
        let program = match self.services.programs.load(&digest, &path).await {
            Ok(program) => program,
            Err(error) => return Err(NotStarted::create(self.why_not(image, error.to_string()).await)),
        };
        let id = container_id(&self.spec.key);
        let own = |root: &PathBuf| root.join(id.trim_start_matches("wasm://"));
        let Staging { disk, memory } = &self.services.staging;
        let staging = Staging { disk: own(disk), memory: memory.as_ref().map(own) };
        let mounts =
            Mounts::prepare(&self.spec.mounts, &self.spec.termination_message, &staging).map_err(NotStarted::create)?;
        let log = CriLog::create(&self.spec.log_path, self.services.log_limits).map_err(|error| {
            NotStarted::create(format!("cannot make the log {}: {error}", self.spec.log_path.display()))
        })?;
        let log = Arc::new(log);
        let config = GuestConfig {
            args: spec::args(&self.spec).into(),
            env: spec::env(&self.spec, &self.hostname).into(),
            working_dir: self.spec.working_dir.clone(),
            directories: Directories::open(&mounts.directories).map_err(NotStarted::create)?,
            log: Arc::new(Teed { log: log.clone(), stdio: self.container.stdio.clone() }),
            // A server has an instance for each request, and none of them the input.
            stdin: (program.current().kind() == ProgramKind::Command)
                .then(|| self.container.stdin.lock().take().map(GuestStdin::new))
                .flatten(),
            network: self.network.clone(),
            memory: self.container.memory.clone(),
            cpu: self.container.cpu.clone(),
            http: self.services.http.clone(),
            shutdown: ShutdownSignal::new(),
        };
        Ok(Prepared { program, config, log, mounts })
    }

    /// Why a component cannot be loaded. What a compiler says of bytes that the disk has changed would lead nobody to the
    /// disk.
    async fn why_not(&self, image: Image, error: String) -> String {
        let images = self.services.images.clone();
        match tokio::task::spawn_blocking(move || images.is_whole(&image)).await {
            Ok(false) => {
                let name = &self.spec.image;
                format!(
                    "the stored image {name:?} is damaged: remove it (coracle image rm {name}), then import or pull it again"
                )
            }
            _ => error,
        }
    }

    /// Runs a command to its end.
    async fn command(
        self,
        key: &ContainerKey,
        program: Arc<Program>,
        prepared: Prepared,
    ) -> Result<Report, NotStarted> {
        let Prepared { program: _shared, config, log, mounts: _mounts } = prepared;
        let shutdown = config.shutdown.clone();
        let running = start_command(program.clone(), config).await;
        let started_at = self.started(key, running.as_ref().err())?;
        let end = match running {
            Err(error) => End::Outcome(end_of(error)),
            Ok(running) => {
                let mut wish = self.container.wish.subscribe();
                let stop = async {
                    if asked(&mut wish).await == Wish::EndNow {
                        return End::Killed;
                    }
                    if !program.handles_shutdown() {
                        return End::Terminated;
                    }
                    shutdown.request();
                    deadline(wish).await;
                    End::Killed
                };
                tokio::select! {
                    outcome = running.run() => End::Outcome(outcome),
                    end = stop => end,
                }
            }
        };
        Ok(exited(key, &end, started_at, &log, &self.spec.termination_message))
    }

    /// Serves requests until it is asked to end.
    async fn server(self, key: &ContainerKey, prepared: Prepared) -> Result<Report, NotStarted> {
        let Prepared { program, config, log, mounts: _mounts } = prepared;
        let config = Arc::new(config);
        let port = spec::port(&self.spec).map_err(NotStarted::create)?;
        let policy = spec::instances(&self.spec).map_err(NotStarted::create)?;
        let shutdown = config.shutdown.clone();
        let checked = check_server(program.current(), config.clone()).await;
        let server = match checked {
            Err(error) => {
                let started_at = self.started(key, Some(&error))?;
                let end = End::Outcome(end_of(error));
                return Ok(exited(key, &end, started_at, &log, &self.spec.termination_message));
            }
            Ok(()) => HttpServer::start(&self.services.runtime, program, config, port, policy, ServerLimits::default()),
        };
        let server = server.map_err(NotStarted::start)?;
        let started_at = self.started(key, None)?;
        let mut wish = self.container.wish.subscribe();
        let mut end = End::Killed;
        if asked(&mut wish).await != Wish::EndNow {
            shutdown.request();
            server.drain();
            tokio::select! {
                () = server.ended() => end = End::Terminated,
                () = deadline(wish) => {}
            }
        }
        server.kill();
        server.ended().await;
        Ok(exited(key, &end, started_at, &log, &self.spec.termination_message))
    }

    /// Reports that it runs, which a container that ran out of memory at once did too.
    fn started(&self, key: &ContainerKey, error: Option<&SetupError>) -> Result<Timestamp, NotStarted> {
        if let Some(error) = error
            && error.outcome().is_none()
        {
            return Err(NotStarted::start(error));
        }
        let at = Timestamp::now();
        self.services.reporter.send(Report::Started { key: key.clone(), at });
        Ok(at)
    }
}

/// How a container ended that could not be set up.
fn end_of(error: SetupError) -> Outcome {
    error.outcome().unwrap_or_else(|| Outcome::Trapped { message: error.to_string() })
}

/// Waits until the container is asked to end.
async fn asked(wish: &mut watch::Receiver<Wish>) -> Wish {
    match wish.wait_for(|wish| *wish != Wish::Run).await {
        Ok(wish) => *wish,
        // Nobody is left to ask.
        Err(_) => Wish::EndNow,
    }
}

/// Waits until the last moment that was granted, which may be moved forward meanwhile.
async fn deadline(mut wish: watch::Receiver<Wish>) {
    loop {
        let current = *wish.borrow_and_update();
        match current {
            Wish::Run => {}
            Wish::EndNow => return,
            Wish::EndBefore(instant) => {
                let changed = pin!(wish.changed());
                tokio::select! {
                    () = tokio::time::sleep_until(instant) => return,
                    _ = changed => continue,
                }
            }
        }
        if wish.changed().await.is_err() {
            return;
        }
    }
}

fn exited(key: &ContainerKey, end: &End, started_at: Timestamp, log: &CriLog, message: &TerminationMessage) -> Report {
    if let Some(words) = end.last_words() {
        log.write(StdStream::Stderr, words.as_bytes());
    }
    log.close();
    Report::Exited { key: key.clone(), exit: end.exit(started_at, log, message) }
}

/// The id of a run: stable, and as long as other runtimes' ids.
fn container_id(key: &ContainerKey) -> String {
    let digest = Digest::of(key.to_string().as_bytes());
    format!("wasm://{}", digest.hex())
}
