//! Who has ended: the runtime's event stream wakes the containers it names. CRI's own stream is used where the runtime has
//! it, containerd's else; a runtime with neither is asked for its list each second, as the kubelet does.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prost::Message as _;
use tokio::{
    sync::Notify,
    time::{Interval, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use crate::{
    connection::{Connection, call, words},
    cri::{
        events::{Envelope, SubscribeRequest, TaskExit},
        v1::{
            ContainerEventResponse, ContainerEventType, ContainerFilter, ContainerState, GetEventsRequest,
            ListContainersRequest,
        },
    },
    labels,
};

/// How often the list is compared besides the events: a stream that lost one must not lose a container.
const RELIST: Duration = Duration::from_secs(60);
/// The same for a runtime without events.
const POLL: Duration = Duration::from_secs(1);
/// How soon a broken stream is opened again: it is a socket of this machine.
const REOPEN: Duration = Duration::from_millis(200);
const REOPEN_MAX: Duration = Duration::from_secs(5);

/// The containers that run, by the runtime's id, and how each is told to look at itself.
#[derive(Default)]
pub(crate) struct Running {
    by_id: Mutex<HashMap<String, Arc<Notify>>>,
}

impl Running {
    pub(crate) fn add(&self, id: &str, check: &Arc<Notify>) {
        self.by_id.lock().insert(id.to_owned(), Arc::clone(check));
    }

    pub(crate) fn remove(&self, id: &str) {
        self.by_id.lock().remove(id);
    }

    fn wake(&self, id: &str) {
        if let Some(check) = self.by_id.lock().get(id) {
            check.notify_one();
        }
    }

    fn wake_all_but(&self, healthy: &HashMap<String, ()>) {
        for (id, check) in self.by_id.lock().iter().filter(|(id, _)| !healthy.contains_key(*id)) {
            tracing::debug!(id, "a container's end was found in the list");
            check.notify_one();
        }
    }
}

/// Where events come from.
enum Source {
    Cri(Streaming<ContainerEventResponse>),
    Containerd(Streaming<Envelope>),
    /// The runtime has no events: only the list tells.
    List,
}

/// What happened.
enum Event {
    /// Something about this container, or about none of ours.
    About(Option<String>),
    /// Time to compare with the list.
    Tick,
    /// The stream is over.
    Broken(String),
}

/// Follows the runtime until told to stop.
pub(crate) async fn follow(connection: Connection, node: String, running: Arc<Running>, stop: CancellationToken) {
    let work = async {
        let mut pause = REOPEN;
        loop {
            let why = match open(&connection).await {
                Ok(source) => {
                    pause = REOPEN;
                    until_broken(&connection, &node, &running, source).await
                }
                Err(status) => words(&status),
            };
            tracing::debug!(why, "the runtime's events broke off");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(REOPEN_MAX);
        }
    };
    let _: Option<()> = stop.run_until_cancelled(work).await;
}

async fn open(connection: &Connection) -> Result<Source, Status> {
    // Streams have no deadline.
    match connection.runtime().get_container_events(GetEventsRequest {}).await {
        Ok(stream) => return Ok(Source::Cri(stream.into_inner())),
        Err(status) if status.code() == Code::Unimplemented => {}
        Err(status) => return Err(status),
    }
    // The namespace is where the CRI plugin keeps its containers.
    let filters = vec![r#"namespace==k8s.io,topic=="/tasks/exit""#.to_owned()];
    match connection.events().subscribe(SubscribeRequest { filters }).await {
        Ok(stream) => Ok(Source::Containerd(stream.into_inner())),
        Err(status) if status.code() == Code::Unimplemented => Ok(Source::List),
        Err(status) => Err(status),
    }
}

async fn until_broken(connection: &Connection, node: &str, running: &Running, mut source: Source) -> String {
    let period = if matches!(source, Source::List) { POLL } else { RELIST };
    // The first tick is at once: it finds what ended while nobody listened.
    let mut tick = tokio::time::interval(period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        match next(&mut source, &mut tick).await {
            Event::About(Some(id)) => running.wake(&id),
            Event::About(None) => {}
            Event::Tick => {
                if let Err(status) = compare(connection, node, running).await {
                    return words(&status);
                }
            }
            Event::Broken(why) => return why,
        }
    }
}

async fn next(source: &mut Source, tick: &mut Interval) -> Event {
    let event = async {
        match source {
            Source::Cri(stream) => stream.message().await.map(|event| event.map(about)),
            Source::Containerd(stream) => stream.message().await.map(|event| event.map(|event| ended(&event))),
            Source::List => std::future::pending().await,
        }
    };
    tokio::select! {
        event = event => match event {
            Ok(Some(id)) => Event::About(id),
            Ok(None) => Event::Broken("the stream has ended".to_owned()),
            Err(status) => Event::Broken(words(&status)),
        },
        _ = tick.tick() => Event::Tick,
    }
}

fn about(event: ContainerEventResponse) -> Option<String> {
    let over = [ContainerEventType::ContainerStoppedEvent, ContainerEventType::ContainerDeletedEvent];
    over.contains(&event.container_event_type()).then_some(event.container_id)
}

/// The container whose first process has ended; processes that were executed in it have ids of their own.
fn ended(event: &Envelope) -> Option<String> {
    let event = event.event.as_ref().filter(|event| event.type_url.ends_with("TaskExit"))?;
    let exit = TaskExit::decode(event.value.as_slice()).ok()?;
    (exit.id == exit.container_id).then_some(exit.container_id)
}

async fn compare(connection: &Connection, node: &str, running: &Running) -> Result<(), Status> {
    let filter = ContainerFilter { label_selector: labels::of_node(node), ..ContainerFilter::default() };
    let request = call(ListContainersRequest { filter: Some(filter) });
    let list = connection.runtime().list_containers(request).await?.into_inner().containers;
    let healthy = list.into_iter().filter(|container| container.state() == ContainerState::ContainerRunning);
    running.wake_all_but(&healthy.map(|container| (container.id, ())).collect());
    Ok(())
}
