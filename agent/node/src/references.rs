//! ConfigMaps and Secrets that pods refer to. A namespace is watched from the first time one of its pods refers to such an
//! object, so that lookups are local and changes are told at once. It never holds a namespace no pod asked for. ConfigMaps
//! in use are recorded for a start with no control plane in sight; Secrets never are.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use coracle_agent_core::env::{References, Sources};
use futures::StreamExt;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt, reflector,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::database::Database;

/// Time a lookup waits for the first listing of a namespace before it asks for the one object.
const FIRST_LISTING: Duration = Duration::from_secs(2);

/// An object that has come or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// The two kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    ConfigMap,
    Secret,
}

/// Why a lookup gave nothing: the control plane did not answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct LookupError(String);

/// The watches.
#[derive(Clone)]
pub(crate) struct Lookup {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    changes: mpsc::Sender<Changed>,
    tasks: TaskTracker,
    stop: CancellationToken,
    config_maps: Mutex<HashMap<String, Store<ConfigMap>>>,
    secrets: Mutex<HashMap<String, Store<Secret>>>,
    database: Database,
    /// What the records have, by namespace and name.
    recorded: Mutex<HashMap<(String, String), Arc<ConfigMap>>>,
}

impl Lookup {
    pub(crate) fn new(
        client: Client,
        changes: mpsc::Sender<Changed>,
        tasks: TaskTracker,
        stop: CancellationToken,
        (database, recorded): (Database, Vec<ConfigMap>),
    ) -> Self {
        let key = |object: &ConfigMap| (object.namespace().unwrap_or_default(), object.name_any());
        let recorded = recorded.into_iter().map(|object| (key(&object), Arc::new(object))).collect();
        let (config_maps, secrets, recorded) = (Mutex::default(), Mutex::default(), Mutex::new(recorded));
        let inner = Inner { client, changes, tasks, stop, config_maps, secrets, database, recorded };
        Self { inner: Arc::new(inner) }
    }

    /// What the records have of what a pod refers to.
    pub(crate) fn recorded(&self, namespace: &str, wanted: &References) -> Sources {
        let recorded = self.inner.recorded.lock();
        let found = |name: &String| recorded.get(&(namespace.to_owned(), name.clone())).cloned();
        let config_maps = wanted.config_maps.iter().map(|name| (name.clone(), found(name))).collect();
        Sources { config_maps, ..Sources::default() }
    }

    /// Finds what a pod refers to. What does not exist is `None` in the answer.
    pub(crate) async fn find(&self, namespace: &str, wanted: &References) -> Result<Sources, LookupError> {
        let inner = &self.inner;
        let config_maps = inner.all(namespace, &wanted.config_maps, &inner.config_maps, Kind::ConfigMap);
        let secrets = inner.all(namespace, &wanted.secrets, &inner.secrets, Kind::Secret);
        let (config_maps, secrets) = tokio::try_join!(config_maps, secrets)?;
        config_maps.values().flatten().for_each(|object| inner.record(object));
        Ok(Sources { config_maps, secrets })
    }
}

impl Inner {
    /// Records a ConfigMap that is used, when it is new or another one than before.
    fn record(&self, object: &Arc<ConfigMap>) {
        let key = (object.namespace().unwrap_or_default(), object.name_any());
        let mut recorded = self.recorded.lock();
        let known = recorded.get(&key);
        if known.is_some_and(|known| known.metadata.resource_version == object.metadata.resource_version) {
            return;
        }
        let same = known.is_some_and(|known| known.data == object.data && known.binary_data == object.binary_data);
        recorded.insert(key, object.clone());
        if !same {
            self.database.put_config_map(object.clone());
        }
    }

    async fn all<K>(
        &self,
        namespace: &str,
        names: &[String],
        stores: &Mutex<HashMap<String, Store<K>>>,
        kind: Kind,
    ) -> Result<BTreeMap<String, Option<Arc<K>>>, LookupError>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
        K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
    {
        let mut found = BTreeMap::new();
        if names.is_empty() {
            return Ok(found);
        }
        let store = self.store(namespace, stores, kind);
        let listed = matches!(timeout(FIRST_LISTING, store.wait_until_ready()).await, Ok(Ok(())));
        for name in names {
            let known = listed.then(|| store.get(&ObjectRef::new(name).within(namespace))).flatten();
            let object = match known {
                Some(object) => Some(object),
                // The watch may be a moment behind a pod that was made right after its ConfigMap.
                None => self.ask(namespace, name).await?,
            };
            found.insert(name.clone(), object);
        }
        Ok(found)
    }

    async fn ask<K>(&self, namespace: &str, name: &str) -> Result<Option<Arc<K>>, LookupError>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let answer = api.get_opt(name).await.map_err(|error| LookupError(error.to_string()))?;
        Ok(answer.map(Arc::new))
    }

    fn store<K>(&self, namespace: &str, stores: &Mutex<HashMap<String, Store<K>>>, kind: Kind) -> Store<K>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
        K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
    {
        let mut stores = stores.lock();
        if let Some(store) = stores.get(namespace) {
            return store.clone();
        }
        let (store, writer) = reflector::store();
        stores.insert(namespace.to_owned(), store.clone());
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let stream = watcher(api, watcher::Config::default()).default_backoff();
        let (changes, stop, namespace) = (self.changes.clone(), self.stop.clone(), namespace.to_owned());
        self.tasks.spawn(async move {
            let mut stream = Box::pin(reflector(writer, stream).applied_objects());
            loop {
                let next = tokio::select! {
                    () = stop.cancelled() => return,
                    next = stream.next() => next,
                };
                match next {
                    None => return,
                    Some(Err(error)) => tracing::debug!(%error, "a watch of references was interrupted"),
                    Some(Ok(object)) => {
                        let changed = Changed { namespace: namespace.clone(), name: object.name_any(), kind };
                        if changes.send(changed).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        store
    }
}
