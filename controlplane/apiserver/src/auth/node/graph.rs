//! Which node runs pods that refer to an object: an index over the mirror. It is brought up to date when it is asked, by the
//! changes of pods since, so that an answer is never behind what a reader of the API can see, and costs as much in a
//! large cluster as in a small one.

use std::collections::HashMap;
use std::sync::Arc;

use coracle_api::kinds::{PodReference, pod_references};
use coracle_store::{Entry, ListRange, Store, StoreError, Watch, WatchEvent};
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use k8s_openapi::api::resource::v1::ResourceSlice;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use parking_lot::Mutex;

use crate::registry::{Registry, Stored};

/// What a node may be related to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thing {
    Secret,
    ConfigMap,
    Claim,
    Account,
    Devices,
    /// By itself.
    Pod,
    /// Through the claim it is bound to.
    Volume,
    /// By itself.
    Attachment,
    /// By itself.
    Slice,
}

/// The index.
pub(super) struct Graph {
    store: Arc<dyn Store>,
    registry: Registry,
    /// Made when it is first asked.
    state: Mutex<Option<State>>,
}

struct State {
    changes: Watch,
    index: Index,
}

/// An object in its namespace.
type Target = (Arc<str>, PodReference);

/// How many pods of each node refer to an object.
#[derive(Default)]
struct Index {
    pods: HashMap<Arc<str>, Bound>,
    nodes: HashMap<Target, HashMap<Arc<str>, usize>>,
}

/// A pod on a node.
struct Bound {
    node: Arc<str>,
    targets: Vec<Target>,
}

impl Graph {
    pub(super) fn new(store: Arc<dyn Store>, registry: Registry) -> Self {
        Self { store, registry, state: Mutex::new(None) }
    }

    /// Whether a pod of `node` leads to an object.
    pub(super) fn leads(&self, thing: Thing, namespace: &str, name: &str, node: &str) -> bool {
        let reference = match thing {
            Thing::Secret => PodReference::Secret(name.to_owned()),
            Thing::ConfigMap => PodReference::ConfigMap(name.to_owned()),
            Thing::Claim => PodReference::Claim(name.to_owned()),
            Thing::Account => PodReference::Account(name.to_owned()),
            Thing::Devices => PodReference::Devices(name.to_owned()),
            Thing::Pod => return self.of::<Pod>(namespace, name, |pod| node_of(pod) == Some(node)),
            Thing::Attachment => return self.of::<VolumeAttachment>("", name, |found| found.spec.node_name == node),
            Thing::Slice => {
                return self.of::<ResourceSlice>("", name, |slice| slice.spec.node_name.as_deref() == Some(node));
            }
            Thing::Volume => return self.of::<PersistentVolume>("", name, |volume| self.volume_leads(volume, node)),
        };
        self.refers(namespace, reference, node)
    }

    fn volume_leads(&self, volume: &PersistentVolume, node: &str) -> bool {
        let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let named = claim.and_then(|claim| Some((claim.namespace.as_deref()?, claim.name.clone()?)));
        named.is_some_and(|(namespace, name)| self.refers(namespace, PodReference::Claim(name), node))
    }

    /// What an object says of itself; no object says nothing.
    fn of<T: coracle_api::Resource>(&self, namespace: &str, name: &str, says: impl FnOnce(&T) -> bool) -> bool {
        let served = self.registry.of::<T>();
        let entry = self.store.get(&served.key(namespace, name));
        let stored = entry.and_then(|entry| Stored::of(served.kind, entry).ok());
        stored.as_ref().and_then(Stored::typed::<T>).is_some_and(says)
    }

    fn refers(&self, namespace: &str, reference: PodReference, node: &str) -> bool {
        let mut state = self.state.lock();
        if let Err(error) = self.catch_up(&mut state) {
            tracing::error!(%error, "what pods refer to cannot be known: nodes are refused");
            *state = None;
        }
        let target = (Arc::from(namespace), reference);
        let nodes = state.as_ref().and_then(|state| state.index.nodes.get(&target));
        nodes.is_some_and(|nodes| nodes.contains_key(node))
    }

    /// Takes in the changes since the last time; all pods anew where that is too long ago.
    fn catch_up(&self, state: &mut Option<State>) -> Result<(), StoreError> {
        if let Some(known) = state {
            loop {
                match known.changes.try_next() {
                    Ok(events) if events.is_empty() => return Ok(()),
                    Ok(events) => events.iter().for_each(|event| self.note(&mut known.index, event)),
                    Err(StoreError::TooSlow | StoreError::Compacted { .. }) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        let pods = &self.registry.of::<Pod>().collection;
        let (listing, changes) = self.store.list_and_watch(pods, &ListRange::all())?;
        let mut index = Index::default();
        listing.entries.iter().for_each(|entry| self.put(&mut index, entry));
        *state = Some(State { changes, index });
        Ok(())
    }

    fn note(&self, index: &mut Index, event: &WatchEvent) {
        match event {
            WatchEvent::Put { entry, .. } => self.put(index, entry),
            WatchEvent::Deleted { entry, .. } => index.remove(&entry.key.name),
        }
    }

    fn put(&self, index: &mut Index, entry: &Arc<Entry>) {
        let stored = Stored::of(self.registry.of::<Pod>().kind, Arc::clone(entry)).ok();
        match stored.as_ref().and_then(Stored::typed::<Pod>) {
            Some(pod) => index.put(&entry.key.name, pod),
            None => index.remove(&entry.key.name),
        }
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty())
}

impl Index {
    fn put(&mut self, key: &Arc<str>, pod: &Pod) {
        let Some(node) = node_of(pod) else { return self.remove(key) };
        let namespace: Arc<str> = pod.metadata.namespace.as_deref().unwrap_or_default().into();
        let targets: Vec<Target> =
            pod_references(pod).into_iter().map(|reference| (Arc::clone(&namespace), reference)).collect();
        if self.pods.get(key).is_some_and(|known| *known.node == *node && known.targets == targets) {
            return;
        }
        self.remove(key);
        let node: Arc<str> = node.into();
        for target in &targets {
            *self.nodes.entry(target.clone()).or_default().entry(Arc::clone(&node)).or_default() += 1;
        }
        self.pods.insert(Arc::clone(key), Bound { node, targets });
    }

    fn remove(&mut self, key: &str) {
        let Some(Bound { node, targets }) = self.pods.remove(key) else { return };
        for target in targets {
            let Some(nodes) = self.nodes.get_mut(&target) else { continue };
            if let Some(count) = nodes.get_mut(&node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&node);
                }
            }
            if nodes.is_empty() {
                self.nodes.remove(&target);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(node: &str, secrets: &[&str]) -> Pod {
        let volumes: Vec<_> =
            secrets.iter().map(|name| json!({"name": name, "secret": {"secretName": name}})).collect();
        let pod = json!({"metadata": {"name": "p", "namespace": "ns"},
            "spec": {"nodeName": node, "containers": [], "volumes": volumes}});
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn what_the_last_pod_referred_to_is_forgotten_with_it() {
        let mut index = Index::default();
        let nodes = |index: &Index, name: &str| {
            let found = index.nodes.get(&("ns".into(), PodReference::Secret(name.into())));
            let mut nodes: Vec<String> = found.into_iter().flat_map(HashMap::keys).map(ToString::to_string).collect();
            nodes.sort_unstable();
            nodes
        };
        let [a, b]: [Arc<str>; 2] = ["ns/a".into(), "ns/b".into()];
        index.put(&a, &pod("", &["x"]));
        assert!(index.pods.is_empty(), "a pod that runs nowhere leads nowhere");
        index.put(&a, &pod("n1", &["x", "y"]));
        index.put(&b, &pod("n1", &["x"]));
        assert_eq!(nodes(&index, "x"), ["n1"]);
        index.put(&b, &pod("n2", &["x"]));
        assert_eq!(nodes(&index, "x"), ["n1", "n2"]);
        index.put(&a, &pod("n1", &["y"]));
        assert_eq!((nodes(&index, "x"), nodes(&index, "y")), (vec!["n2".to_owned()], vec!["n1".to_owned()]));
        index.remove(&a);
        index.remove(&b);
        index.remove(&b);
        assert!(index.pods.is_empty() && index.nodes.is_empty());
    }
}
