//! The slow work of the agent, each piece a future whose end is a [`Done`]. A job makes no choice: it carries out what the
//! loop asked for and tells how it went.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use coracle_agent_core::{
    NodeFacts, PodUid,
    effect::{HookRequest, Outcome, ProbeRequest},
    env::{References, Sources},
    workload::ContainerKey,
};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::Value;
use tokio::{sync::Semaphore, time::sleep};

use crate::{
    prober::Prober,
    references::Lookup,
    volumes::{Mounted, Volumes},
};

/// Time before a failed write is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// Volumes made at once: each holds a few open files and, at worst, a request for a token.
const MAX_MOUNTS: usize = 32;

/// Makes jobs.
#[derive(Clone)]
pub(crate) struct Jobs {
    client: Client,
    lookup: Lookup,
    volumes: Volumes,
    prober: Prober,
    log_dir: PathBuf,
    mounts: Arc<Semaphore>,
}

/// How a job went.
pub(crate) enum Done {
    Mounted { pod: PodUid, mounted: Mounted },
    Resolved { key: ContainerKey, sources: Sources },
    Probed { request: ProbeRequest, outcome: Outcome },
    Hooked { request: HookRequest, outcome: Outcome },
    Written { pod: PodUid, status: Box<PodStatus>, result: kube::Result<()> },
    Deleted { pod: PodUid, result: kube::Result<()> },
    Nothing,
}

impl Jobs {
    pub(crate) fn new(client: Client, lookup: Lookup, volumes: Volumes, log_dir: PathBuf) -> Self {
        let mounts = Arc::new(Semaphore::new(MAX_MOUNTS));
        Self { client, lookup, volumes, prober: Prober::new(), log_dir, mounts }
    }

    pub(crate) fn mount(
        &self,
        uid: PodUid,
        pod: Arc<Pod>,
        facts: NodeFacts,
        ips: Vec<IpAddr>,
    ) -> impl Future<Output = Done> + Send + use<> {
        let (volumes, slots) = (self.volumes.clone(), self.mounts.clone());
        async move {
            // The semaphore is never closed.
            let _slot = slots.acquire_owned().await;
            Done::Mounted { mounted: volumes.mount(&pod, &facts, &ips).await, pod: uid }
        }
    }

    pub(crate) fn unmount(&self, uid: PodUid) -> impl Future<Output = Done> + Send + use<> {
        let volumes = self.volumes.clone();
        async move {
            volumes.unmount(uid.as_str()).await;
            Done::Nothing
        }
    }

    /// Looks up references; while the control plane does not answer it asks again.
    pub(crate) fn resolve(
        &self,
        namespace: String,
        key: ContainerKey,
        wants: References,
    ) -> impl Future<Output = Done> + Send + use<> {
        let lookup = self.lookup.clone();
        async move {
            loop {
                match lookup.find(&namespace, &wants).await {
                    Ok(sources) => return Done::Resolved { key, sources },
                    Err(error) => tracing::debug!(%error, %key, "references cannot be looked up yet"),
                }
                sleep(RETRY).await;
            }
        }
    }

    pub(crate) fn probe(&self, request: ProbeRequest) -> impl Future<Output = Done> + Send + use<> {
        let prober = self.prober.clone();
        async move {
            let outcome = prober.probe(&request.target, request.timeout).await;
            Done::Probed { request, outcome }
        }
    }

    pub(crate) fn hook(&self, request: HookRequest) -> impl Future<Output = Done> + Send + use<> {
        let prober = self.prober.clone();
        async move {
            let outcome = prober.probe(&request.target, request.timeout).await;
            Done::Hooked { request, outcome }
        }
    }

    pub(crate) fn write(
        &self,
        uid: PodUid,
        pod: Arc<Pod>,
        status: Box<PodStatus>,
        patch: Value,
    ) -> impl Future<Output = Done> + Send + use<> {
        let pods = self.pods(&pod);
        async move {
            let patch = Patch::Strategic(patch);
            let result = match pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await {
                // Gone, or another pod has the name by now: nobody waits for this status.
                Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => Ok(()),
                Err(error) => {
                    sleep(RETRY).await;
                    Err(error)
                }
                Ok(_) => Ok(()),
            };
            Done::Written { pod: uid, status, result }
        }
    }

    /// Removes the object of a pod of which nothing is left here.
    pub(crate) fn delete(&self, uid: PodUid, pod: Arc<Pod>) -> impl Future<Output = Done> + Send + use<> {
        let pods = self.pods(&pod);
        async move {
            let preconditions = Preconditions { uid: Some(uid.as_str().to_owned()), resource_version: None };
            let params = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(preconditions),
                ..DeleteParams::default()
            };
            let result = match pods.delete(&pod.name_any(), &params).await {
                Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => Ok(()),
                Err(error) => {
                    sleep(RETRY).await;
                    Err(error)
                }
                Ok(_) => Ok(()),
            };
            Done::Deleted { pod: uid, result }
        }
    }

    /// Removes the logs of a pod that is forgotten.
    pub(crate) fn remove_logs(&self, uid: PodUid) -> impl Future<Output = Done> + Send + use<> {
        let dir = self.log_dir.clone();
        async move {
            let suffix = format!("_{uid}");
            let removed = tokio::task::spawn_blocking(move || {
                for entry in std::fs::read_dir(dir)?.flatten() {
                    if entry.file_name().to_string_lossy().ends_with(&suffix) {
                        std::fs::remove_dir_all(entry.path())?;
                    }
                }
                std::io::Result::Ok(())
            });
            if let Ok(Err(error)) = removed.await {
                tracing::warn!(%error, "logs of a removed pod are left behind");
            }
            Done::Nothing
        }
    }

    fn pods(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default())
    }
}
