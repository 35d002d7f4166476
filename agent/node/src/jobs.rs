//! The slow work of the agent, each piece a future whose end is a [`Done`]. A job makes no choice: it carries out what the
//! loop asked for and tells how it went.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use coracle_agent_core::{
    NodeFacts, PodUid,
    effect::{HookRequest, MountFailure, Outcome, ProbeRequest, SubPath, SubPathResult},
    env::{References, Sources},
    storage::StorageUse,
    workload::ContainerKey,
};
use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::Value;
use tokio::{sync::Semaphore, time::sleep};

use crate::{
    event_loop::KnownStatus,
    log_files::{self, LogWork},
    patch::status_patch,
    prober::Prober,
    references::{Changed, Lookup},
    volumes::{Mounted, Volumes, empty_dir::used_bytes},
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

/// How a job went. A status that was written has a revision; one that nobody waits for has none.
pub(crate) enum Done {
    Mounted { pod: PodUid, mounted: Mounted },
    SubPaths { key: ContainerKey, result: SubPathResult },
    Measured { pod: PodUid, used: StorageUse },
    Resolved { key: ContainerKey, sources: Sources },
    Probed { request: ProbeRequest, outcome: Outcome },
    Hooked { request: HookRequest, outcome: Outcome },
    Written { pod: PodUid, status: Arc<PodStatus>, result: kube::Result<Option<u64>> },
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
            let mounted = survived(volumes.mount(&pod, &facts, &ips)).await;
            let mounted = mounted.unwrap_or_else(|message| {
                let failure = MountFailure { volume: String::new(), message };
                Mounted { result: Err(vec![failure]), renew_at: None }
            });
            Done::Mounted { mounted, pod: uid }
        }
    }

    pub(crate) fn unmount(&self, uid: PodUid) -> impl Future<Output = Done> + Send + use<> {
        let volumes = self.volumes.clone();
        async move {
            volumes.unmount(uid.as_str()).await;
            Done::Nothing
        }
    }

    pub(crate) fn sub_paths(
        &self,
        key: ContainerKey,
        wants: Vec<SubPath>,
    ) -> impl Future<Output = Done> + Send + use<> {
        let volumes = self.volumes.clone();
        async move {
            let result = survived(volumes.sub_paths(key.clone(), wants)).await;
            Done::SubPaths { result: result.unwrap_or_else(Err), key }
        }
    }

    /// Measures what a pod uses: its `emptyDir` volumes by name, and what is below each directory of `containers`.
    pub(crate) fn measure(
        &self,
        pod: PodUid,
        volumes: Vec<String>,
        containers: Option<PathBuf>,
    ) -> impl Future<Output = Done> + Send + use<> {
        let (disk, uid) = (self.volumes.clone(), pod.clone());
        let measure = move || StorageUse {
            volumes: disk.used_bytes(uid.as_str(), &volumes),
            containers: containers.as_deref().map(by_directory).unwrap_or_default(),
        };
        async move {
            match tokio::task::spawn_blocking(measure).await {
                Ok(used) => Done::Measured { pod, used },
                Err(error) => {
                    tracing::warn!(%error, %pod, "a pod's use of the disk was not measured");
                    Done::Nothing
                }
            }
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
                match survived(lookup.find(&key.pod, &namespace, &wants)).await {
                    Ok(Ok(sources)) => return Done::Resolved { key, sources },
                    Ok(Err(error)) => tracing::debug!(%error, %key, "references cannot be looked up yet"),
                    Err(_) => {}
                }
                sleep(RETRY).await;
            }
        }
    }

    /// The pods that were told of an object.
    pub(crate) fn users(&self, changed: &Changed) -> Vec<PodUid> {
        self.lookup.users(changed)
    }

    /// A pod is gone, and needs nothing that it referred to.
    pub(crate) fn release(&self, pod: &PodUid) {
        self.lookup.release(pod);
    }

    pub(crate) fn probe(&self, request: ProbeRequest) -> impl Future<Output = Done> + Send + use<> {
        let prober = self.prober.clone();
        async move {
            let outcome = survived(prober.probe(&request.target, request.timeout)).await;
            let outcome = outcome.unwrap_or_else(|message| Outcome::Error { message });
            Done::Probed { request, outcome }
        }
    }

    pub(crate) fn hook(&self, request: HookRequest) -> impl Future<Output = Done> + Send + use<> {
        let prober = self.prober.clone();
        async move {
            let outcome = survived(prober.call(&request.target, request.timeout)).await;
            let outcome = outcome.unwrap_or_else(|message| Outcome::Error { message });
            Done::Hooked { request, outcome }
        }
    }

    /// Brings a pod's status in the API from `old` to `status`, when it is recorded.
    pub(crate) fn write(
        &self,
        uid: PodUid,
        pod: Arc<Pod>,
        old: Option<KnownStatus>,
        status: Arc<PodStatus>,
        recorded: Option<BoxFuture<'static, ()>>,
    ) -> impl Future<Output = Done> + Send + use<> {
        let client = self.client.clone();
        async move {
            if let Some(recorded) = recorded {
                recorded.await;
            }
            let none = PodStatus::default();
            let patch = status_patch(&uid, old.as_ref().and_then(KnownStatus::status).unwrap_or(&none), &status);
            let Some(patch) = patch else { return Done::Written { pod: uid, status, result: Ok(None) } };
            let written = survived(patch_status(&client, &pod, &patch)).await;
            let result = match written.unwrap_or_else(|message| Err(kube::Error::Service(message.into()))) {
                // Gone, or another pod has the name by now: nobody waits for this status.
                Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => Ok(None),
                result => result.map(Some),
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

    /// Brings logs and their links up to date.
    pub(crate) fn keep_logs(&self, work: LogWork) -> impl Future<Output = Done> + Send + use<> {
        async move {
            if let Ok(Err(error)) = tokio::task::spawn_blocking(move || work.run()).await {
                tracing::warn!(%error, "logs of a pod are not as they should be");
            }
            Done::Nothing
        }
    }

    /// Removes what an agent that was killed left of pods that are gone by now.
    pub(crate) fn sweep(&self, gone: HashSet<String>) -> impl Future<Output = Done> + Send + use<> {
        let (volumes, logs) = (self.volumes.clone(), self.log_dir.clone());
        let sweep = move || {
            volumes.sweep(&gone)?;
            log_files::sweep(&logs, &gone)
        };
        async move {
            if let Ok(Err(error)) = tokio::task::spawn_blocking(sweep).await {
                tracing::warn!(%error, "files of pods that are gone are left behind");
            }
            Done::Nothing
        }
    }

    fn pods(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default())
    }
}

/// Writes a patch of a pod's status and answers the revision it got. Nothing else of the answer is read: the watch tells it.
async fn patch_status(client: &Client, pod: &Pod, patch: &Value) -> kube::Result<u64> {
    #[derive(serde::Deserialize)]
    struct Answer {
        metadata: Meta,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Meta {
        resource_version: String,
    }
    let path = Pod::url_path(&(), pod.metadata.namespace.as_deref());
    let (params, patch) = (PatchParams::default(), Patch::Strategic(patch));
    let request = kube::core::Request::new(path).patch_subresource("status", &pod.name_any(), &params, &patch);
    let answer: Answer = client.request(request.map_err(kube::Error::BuildRequest)?).await?;
    Ok(answer.metadata.resource_version.parse().unwrap_or(0))
}

/// The end of a job, also of one that fails in a way nobody foresaw: what waits for it is told, and goes on.
async fn survived<T>(work: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| {
        let why = crate::words(&*panic);
        tracing::error!(why, "a job of the agent has failed");
        format!("the agent has failed: {why}")
    })
}

/// Bytes below each directory of a directory.
fn by_directory(dir: &Path) -> BTreeMap<String, u64> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), used_bytes(&entry.path()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_that_panics_has_an_end_all_the_same() {
        let failing = async {
            assert!(std::env::args().len() > 1000, "this is the test");
            1
        };
        assert_eq!(survived(failing).await, Err("the agent has failed: this is the test".to_owned()));
        assert_eq!(survived(async { 2 }).await, Ok(2));
    }
}
