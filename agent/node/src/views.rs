//! What the node's API may see of its pods: the objects with their present status. The event loop writes, requests read.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use parking_lot::RwLock;

use crate::host_ports::Published;

/// One pod as it is now.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) pod: Arc<Pod>,
    pub(crate) status: Arc<PodStatus>,
}

impl View {
    /// A container's status, of whichever list.
    pub(crate) fn container(&self, name: &str) -> Option<&ContainerStatus> {
        let init = self.status.init_container_statuses.iter().flatten();
        let ephemeral = self.status.ephemeral_container_statuses.iter().flatten();
        init.chain(self.status.container_statuses.iter().flatten()).chain(ephemeral).find(|status| status.name == name)
    }
}

/// All pods by namespace and name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Views {
    pods: Arc<RwLock<HashMap<(String, String), View>>>,
    pub(crate) host_ports: Published,
}

impl Views {
    pub(crate) fn set(&self, pod: &Arc<Pod>, status: Arc<PodStatus>) {
        self.host_ports.set(pod, &status);
        let view = View { pod: pod.clone(), status };
        self.pods.write().insert(key(pod), view);
    }

    /// Drops a pod, unless its name belongs to another one by now.
    pub(crate) fn remove(&self, pod: &Pod) {
        let mut views = self.pods.write();
        if views.get(&key(pod)).is_some_and(|view| view.pod.metadata.uid == pod.metadata.uid) {
            self.host_ports.remove(pod);
            views.remove(&key(pod));
        }
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<View> {
        self.pods.read().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    pub(crate) fn all(&self) -> Vec<View> {
        self.pods.read().values().cloned().collect()
    }
}

fn key(pod: &Pod) -> (String, String) {
    let meta = &pod.metadata;
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}
