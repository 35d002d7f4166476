//! A pod's sandbox: its namespaces and its network, which the runtime's network plugin makes.

use std::{net::IpAddr, time::Duration};

use tonic::{Code, Status};

use crate::{
    connection::{Connection, call, may_pass, words},
    cri::v1::{
        PodSandboxConfig, PodSandboxStatus, PodSandboxStatusRequest, RemovePodSandboxRequest, RunPodSandboxRequest,
        StopPodSandboxRequest,
    },
};

/// Pauses between tries to remove a sandbox.
const RETRY: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Makes a sandbox and answers its id and addresses. One that cannot be looked at is removed again.
pub(crate) async fn run(
    connection: &Connection,
    config: PodSandboxConfig,
    handler: Option<String>,
) -> Result<(String, Vec<IpAddr>), Status> {
    let request = RunPodSandboxRequest { config: Some(config), runtime_handler: handler.unwrap_or_default() };
    let id = connection.runtime().run_pod_sandbox(call(request)).await?.into_inner().pod_sandbox_id;
    match status(connection, &id).await {
        Ok(status) => Ok((id, ips(&status))),
        Err(status) => {
            remove(connection, &id).await;
            Err(status)
        }
    }
}

/// What the runtime says of a sandbox.
pub(crate) async fn status(connection: &Connection, id: &str) -> Result<PodSandboxStatus, Status> {
    let request = call(PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false });
    Ok(connection.runtime().pod_sandbox_status(request).await?.into_inner().status.unwrap_or_default())
}

/// A sandbox's addresses; none in the node's network.
pub(crate) fn ips(status: &PodSandboxStatus) -> Vec<IpAddr> {
    let Some(network) = &status.network else { return Vec::new() };
    let more = network.additional_ips.iter().map(|more| &more.ip);
    std::iter::once(&network.ip).chain(more).filter_map(|ip| ip.parse().ok()).collect()
}

/// Takes a sandbox down with all that is in it, and forgets it. It tries for as long as the runtime is away: a sandbox that
/// is left behind keeps its address.
pub(crate) async fn remove(connection: &Connection, id: &str) {
    let mut pause = RETRY;
    while let Err(status) = try_remove(connection, id).await {
        if may_pass(&status) {
            tracing::debug!(id, why = words(&status), "a sandbox could not be removed; trying again");
        } else {
            tracing::warn!(id, why = words(&status), "a sandbox could not be removed; trying again");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

async fn try_remove(connection: &Connection, id: &str) -> Result<(), Status> {
    let gone = |result: Result<(), Status>| match result {
        Err(status) if status.code() != Code::NotFound => Err(status),
        _ => Ok(()),
    };
    let stop = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
    gone(connection.runtime().stop_pod_sandbox(call(stop)).await.map(drop))?;
    let remove = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
    gone(connection.runtime().remove_pod_sandbox(call(remove)).await.map(drop))
}
