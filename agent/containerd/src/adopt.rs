//! What an earlier life of the agent left running: found by our label, told to the agent, and watched from then on. Sandboxes
//! that are down (the machine was restarted) are removed: their pods get new ones.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use coracle_agent_core::workload::{AdoptedContainer, AdoptedPod, AdoptedState, ContainerKey, PodUid, ResolvedImage};
use tonic::Status;

use crate::{
    connection::call,
    container::{Shared, remove, status},
    cri::v1::{
        Container, ContainerFilter, ContainerState, ContainerStatus, ListContainersRequest, ListPodSandboxRequest,
        PodSandbox, PodSandboxConfig, PodSandboxFilter, PodSandboxState,
    },
    exit, labels, sandbox, spec,
};

/// A pod that was found, and what the runtime calls its parts.
pub(crate) struct Found {
    pub(crate) pod: AdoptedPod,
    pub(crate) sandbox_id: String,
    /// What a container that is made in it from now on needs to know of it.
    pub(crate) config: PodSandboxConfig,
    /// By run: the runtime's id.
    pub(crate) ids: HashMap<ContainerKey, String>,
}

/// Finds what is ours, and removes what nobody can use any more.
pub(crate) async fn find(shared: &Arc<Shared>) -> Result<Vec<Found>, Status> {
    let mut containers = containers(shared).await?;
    let mut found = Vec::new();
    for (pod, sandboxes) in sandboxes(shared).await? {
        let (mut up, down): (Vec<_>, Vec<_>) =
            sandboxes.into_iter().partition(|sandbox| sandbox.state() == PodSandboxState::SandboxReady);
        up.sort_by_key(|sandbox| sandbox.created_at);
        let newest = up.pop();
        for stale in down.into_iter().chain(up) {
            let shared = Arc::clone(shared);
            tokio::spawn(async move { sandbox::remove(&shared.connection, &stale.id).await });
        }
        if let Some(sandbox) = newest {
            let own = containers.remove(&sandbox.id).unwrap_or_default();
            found.push(adopt(shared, pod, sandbox, own).await?);
        }
    }
    Ok(found)
}

/// Our sandboxes, by pod.
pub(crate) async fn sandboxes(shared: &Shared) -> Result<BTreeMap<PodUid, Vec<PodSandbox>>, Status> {
    let filter = PodSandboxFilter { label_selector: labels::of_node(&shared.node), ..PodSandboxFilter::default() };
    let request = call(ListPodSandboxRequest { filter: Some(filter) });
    let list = shared.connection.runtime().list_pod_sandbox(request).await?.into_inner().items;
    let mut by_pod = BTreeMap::<PodUid, Vec<PodSandbox>>::new();
    for sandbox in list {
        if let Some(pod) = labels::pod(&sandbox.labels) {
            by_pod.entry(pod).or_default().push(sandbox);
        }
    }
    Ok(by_pod)
}

async fn containers(shared: &Shared) -> Result<HashMap<String, Vec<Container>>, Status> {
    let filter = ContainerFilter { label_selector: labels::of_node(&shared.node), ..ContainerFilter::default() };
    let request = call(ListContainersRequest { filter: Some(filter) });
    let list = shared.connection.runtime().list_containers(request).await?.into_inner().containers;
    let mut by_sandbox = HashMap::<String, Vec<Container>>::new();
    for container in list {
        by_sandbox.entry(container.pod_sandbox_id.clone()).or_default().push(container);
    }
    Ok(by_sandbox)
}

async fn adopt(
    shared: &Arc<Shared>,
    pod: PodUid,
    sandbox: PodSandbox,
    containers: Vec<Container>,
) -> Result<Found, Status> {
    let known = sandbox::status(&shared.connection, &sandbox.id).await?;
    let ips = sandbox::ips(&known);
    let namespaces = known.linux.and_then(|linux| linux.namespaces).and_then(|all| all.options).unwrap_or_default();
    let attempt = sandbox.metadata.as_ref().map_or(0, |metadata| metadata.attempt);
    let mut found = Found {
        pod: AdoptedPod { pod, attempt, ips, containers: Vec::new() },
        config: spec::sandbox_again(&sandbox, namespaces),
        sandbox_id: sandbox.id,
        ids: HashMap::new(),
    };
    let mut latest = BTreeMap::<String, Container>::new();
    for container in containers {
        let Some(metadata) = container.metadata.clone() else { continue };
        let attempt_of = |known: &Container| known.metadata.as_ref().map_or(0, |metadata| metadata.attempt);
        let newer = latest.get(&metadata.name).is_none_or(|known| attempt_of(known) < metadata.attempt);
        let old = if newer { latest.insert(metadata.name, container) } else { Some(container) };
        if let Some(old) = old {
            remove(&shared.connection, old.id).await;
        }
    }
    for container in latest.into_values() {
        let attempt = container.metadata.as_ref().map_or(0, |metadata| metadata.attempt);
        let Some(key) = labels::key(&container.labels, attempt) else { continue };
        let Some(status) = status(&shared.connection, &container.id).await? else { continue };
        match state(&status) {
            Some(state) => {
                found.ids.insert(key.clone(), container.id.clone());
                let (id, image) = (shared.id_with_scheme(&container.id), image(&status));
                found.pod.containers.push(AdoptedContainer { key, id, image, state });
            }
            // Made and never started: nobody knows whether it was going to be.
            None => remove(&shared.connection, container.id).await,
        }
    }
    Ok(found)
}

fn state(status: &ContainerStatus) -> Option<AdoptedState> {
    match status.state() {
        ContainerState::ContainerRunning => Some(AdoptedState::Running { started_at: exit::time(status.started_at) }),
        ContainerState::ContainerExited => Some(AdoptedState::Exited(exit::exit(status))),
        ContainerState::ContainerCreated | ContainerState::ContainerUnknown => None,
    }
}

fn image(status: &ContainerStatus) -> ResolvedImage {
    let name = status.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
    ResolvedImage { name, image_id: status.image_ref.clone(), size_bytes: 0 }
}
