//! One run of one container, as a task: made, started, watched to its end. Only its own task reports about it, so its reports
//! are in order.

use std::{path::PathBuf, sync::Arc, time::Duration};

use coracle_agent_core::workload::{ContainerKey, ContainerSpec, Exit, ExitReason, Report, StartStage};
use coracle_artifact::Puller;
use jiff::Timestamp;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tonic::{Code, Status};

use crate::{
    connection::{CALL_TIMEOUT, Connection, call, timed, words},
    cri::v1::{
        ContainerConfig, ContainerState, ContainerStatus, ContainerStatusRequest, CreateContainerRequest,
        PodSandboxConfig, RemoveContainerRequest, StartContainerRequest, StopContainerRequest,
    },
    events::Running,
    exit, hosts,
    spec::grace_seconds,
};

/// First pause before a container is looked at again: containerd tells of a process's end before its CRI part has noted it.
const LOOK_AGAIN: Duration = Duration::from_millis(4);
/// Longest such pause, and the pause while the runtime is away.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(1);
/// How often an ended container is tried to be removed, and the first pause between, which doubles.
const REMOVE_TRIES: u32 = 6;
const REMOVE_AGAIN: Duration = Duration::from_millis(50);
/// What a runtime that lost a container leaves to say (`ContainerStatusUnknown` of the kubelet).
const LOST_MESSAGE: &str = "The container could not be located when the pod was terminated";
const LOST_CODE: i32 = 137;

/// The name that containerd gives itself.
const CONTAINERD: &str = "containerd";

/// What all containers share.
pub(crate) struct Shared {
    pub(crate) connection: Connection,
    pub(crate) reports: mpsc::Sender<Report>,
    pub(crate) running: Arc<Running>,
    pub(crate) node: String,
    /// Scheme of container ids: `containerd`, `cri-o`.
    pub(crate) scheme: String,
    pub(crate) machine_memory_bytes: i64,
    pub(crate) pods_dir: PathBuf,
    /// What is known of registries, and the way to them that goes past the runtime.
    pub(crate) puller: Arc<Puller>,
}

impl Shared {
    /// Whether the runtime is containerd, whose store takes images over its socket.
    pub(crate) fn is_containerd(&self) -> bool {
        self.scheme == CONTAINERD
    }

    pub(crate) async fn report(&self, report: Report) {
        // A closed channel means that the agent is going down.
        let _ = self.reports.send(report).await;
    }

    pub(crate) fn id_with_scheme(&self, id: &str) -> String {
        format!("{}://{id}", self.scheme)
    }
}

/// A run as the rest of the crate sees it.
pub(crate) struct Handle {
    /// When it must be over; `None` while nobody wants it to end.
    deadline: watch::Sender<Option<Instant>>,
    /// Its id once it is made.
    id: watch::Receiver<Option<String>>,
}

impl Handle {
    /// Asks it to end by then at the latest.
    pub(crate) fn stop(&self, grace: Duration) {
        let wanted = Instant::now() + grace;
        self.deadline.send_if_modified(|deadline| {
            let earlier = deadline.is_none_or(|known| wanted < known);
            if earlier {
                *deadline = Some(wanted);
            }
            earlier
        });
    }

    /// The runtime's id, if it was made.
    pub(crate) fn id(&self) -> Option<String> {
        self.id.borrow().clone()
    }

    /// Its task is over.
    pub(crate) fn is_done(&self) -> bool {
        self.deadline.is_closed()
    }
}

/// What its task works with.
pub(crate) struct Run {
    shared: Arc<Shared>,
    key: ContainerKey,
    deadline: watch::Receiver<Option<Instant>>,
    id: watch::Sender<Option<String>>,
    check: Arc<Notify>,
}

/// What its task waits for.
enum Event {
    /// It may have ended.
    Look,
    /// Its deadline is new or earlier.
    Stop(Instant),
    /// The runtime has done what it could to end it.
    Stopped(Result<(), Status>),
}

impl Run {
    pub(crate) fn new(shared: &Arc<Shared>, key: ContainerKey) -> (Self, Handle) {
        let (deadline, wanted) = watch::channel(None);
        let (id, known) = watch::channel(None);
        let run = Self { shared: Arc::clone(shared), key, deadline: wanted, id, check: Arc::default() };
        (run, Handle { deadline, id: known })
    }

    /// Makes it, starts it, and stays with it to its end.
    pub(crate) async fn start(self, sandbox_id: String, sandbox: Arc<PodSandboxConfig>, spec: ContainerSpec) {
        let image = match spec.security.must_not_be_root {
            true => crate::image::find(&self.shared.connection, &spec.image_id).await.unwrap_or_default(),
            false => None,
        };
        if let Some(why) = crate::user::refused(&spec, &sandbox, image.as_ref()) {
            return self.failed(StartStage::Configure, why).await;
        }
        let hosts = hosts::file(&self.shared.pods_dir, &spec.key.pod);
        let hosts = hosts.is_file().then_some(hosts.as_path());
        let config = crate::spec::container(&spec, &sandbox, self.shared.machine_memory_bytes, hosts);
        if let Err(error) = crate::workload::prepare_files(&spec) {
            return self.failed(StartStage::Create, format!("failed to prepare its files: {error}")).await;
        }
        let id = match self.create(sandbox_id, &sandbox, config).await {
            Ok(id) => id,
            Err(status) => return self.failed(StartStage::Create, words(&status)).await,
        };
        self.id.send_replace(Some(id.clone()));
        let shown = self.shared.id_with_scheme(&id);
        self.shared.report(Report::Created { key: self.key.clone(), id: shown }).await;
        self.shared.running.add(&id, &self.check);
        let request = call(StartContainerRequest { container_id: id.clone() });
        if let Err(status) = self.shared.connection.runtime().start_container(request).await {
            self.shared.running.remove(&id);
            return self.failed(StartStage::Start, words(&status)).await;
        }
        let at = match self.status(&id).await {
            Ok(Some(status)) if status.started_at > 0 => exit::time(status.started_at),
            _ => Timestamp::now(),
        };
        self.shared.report(Report::Started { key: self.key.clone(), at }).await;
        self.stay(id).await;
    }

    /// One that has ended already: its handle knows its id.
    pub(crate) fn ended(self, id: String) {
        self.id.send_replace(Some(id));
    }

    /// Stays with one that already runs.
    pub(crate) async fn resume(self, id: String) {
        self.id.send_replace(Some(id.clone()));
        self.shared.running.add(&id, &self.check);
        self.stay(id).await;
    }

    async fn create(&self, id: String, sandbox: &PodSandboxConfig, config: ContainerConfig) -> Result<String, Status> {
        let request =
            CreateContainerRequest { pod_sandbox_id: id, config: Some(config), sandbox_config: Some(sandbox.clone()) };
        let made = self.shared.connection.runtime().create_container(call(request)).await?;
        Ok(made.into_inner().container_id)
    }

    async fn failed(&self, stage: StartStage, message: String) {
        let key = self.key.clone();
        self.shared.report(Report::StartFailed { key, stage, message, at: Timestamp::now() }).await;
    }

    async fn stay(mut self, id: String) {
        let mut stops = JoinSet::new();
        // It may have ended before anybody listened.
        let mut exit = self.look_once(&id).await.unwrap_or(None);
        while exit.is_none() {
            match self.next(&mut stops).await {
                Event::Look | Event::Stopped(Ok(())) => exit = self.look(&id).await,
                Event::Stop(deadline) => {
                    stops.spawn(stop(self.shared.clone(), id.clone(), deadline, Duration::ZERO));
                }
                Event::Stopped(Err(status)) => {
                    tracing::debug!(%id, why = words(&status), "a container could not be stopped; trying again");
                    let deadline = self.deadline.borrow().unwrap_or_else(Instant::now);
                    stops.spawn(stop(self.shared.clone(), id.clone(), deadline, LOOK_AGAIN_MAX));
                }
            }
        }
        self.shared.running.remove(&id);
        if let Some(exit) = exit {
            self.shared.report(Report::Exited { key: self.key.clone(), exit }).await;
        }
    }

    async fn next(&mut self, stops: &mut JoinSet<Result<(), Status>>) -> Event {
        tokio::select! {
            () = self.check.notified() => Event::Look,
            // The sender lives in the table of pods until the sandbox is removed, which ends the container too.
            Ok(()) = self.deadline.changed() => match *self.deadline.borrow_and_update() {
                Some(deadline) => Event::Stop(deadline),
                None => Event::Look,
            },
            Some(done) = stops.join_next() => Event::Stopped(done.unwrap_or(Ok(()))),
        }
    }

    /// Its end, after something said that it has ended: the runtime's own record of it may lag by some milliseconds. One that
    /// runs on after all is left alone until the next event.
    async fn look(&self, id: &str) -> Option<Exit> {
        let mut pause = LOOK_AGAIN;
        while pause < LOOK_AGAIN_MAX {
            match self.look_once(id).await {
                Ok(Some(exit)) => return Some(exit),
                Ok(None) => pause *= 2,
                // The runtime is away: nothing is known until it is back.
                Err(_) => pause = LOOK_AGAIN_MAX / 2,
            }
            tokio::time::sleep(pause).await;
        }
        None
    }

    async fn look_once(&self, id: &str) -> Result<Option<Exit>, Status> {
        Ok(match self.status(id).await? {
            Some(status) if status.state() == ContainerState::ContainerExited => Some(exit::exit(&status)),
            Some(_) => None,
            None => Some(lost()),
        })
    }

    /// What the runtime says of it; `None` when it does not know it.
    async fn status(&self, id: &str) -> Result<Option<ContainerStatus>, Status> {
        status(&self.shared.connection, id).await
    }
}

/// What the runtime says of a container; `None` when it does not know it.
pub(crate) async fn status(connection: &Connection, id: &str) -> Result<Option<ContainerStatus>, Status> {
    let request = call(ContainerStatusRequest { container_id: id.to_owned(), verbose: false });
    match connection.runtime().container_status(request).await {
        Ok(answer) => Ok(answer.into_inner().status),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

/// Asks the runtime to end a container after a pause, and waits until it has.
async fn stop(shared: Arc<Shared>, id: String, deadline: Instant, pause: Duration) -> Result<(), Status> {
    tokio::time::sleep(pause).await;
    let grace = deadline.saturating_duration_since(Instant::now());
    let request = StopContainerRequest { container_id: id, timeout: grace_seconds(grace) };
    match shared.connection.runtime().stop_container(timed(request, grace + CALL_TIMEOUT)).await {
        Err(status) if status.code() != Code::NotFound => Err(status),
        _ => Ok(()),
    }
}

/// Removes an ended container from the runtime's records. What cannot be removed now goes with its sandbox.
pub(crate) async fn remove(connection: &Connection, id: String) {
    let mut pause = REMOVE_AGAIN;
    for left in (0..REMOVE_TRIES).rev() {
        let request = call(RemoveContainerRequest { container_id: id.clone() });
        let Err(status) = connection.runtime().remove_container(request).await else { return };
        tracing::debug!(%id, why = words(&status), left, "an ended container could not be removed");
        if left > 0 {
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }
    // What is left goes with its pod's sandbox.
}

fn lost() -> Exit {
    let now = Timestamp::now();
    let (reason, message) = (ExitReason::Unknown, LOST_MESSAGE.to_owned());
    Exit { code: LOST_CODE, signal: None, reason, message, started_at: now, finished_at: now }
}
