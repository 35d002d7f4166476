//! ConfigMaps and Secrets that pods refer to. Each is watched from the first time a pod refers to it until the last such pod
//! is gone, so that lookups are local and changes are told at once. Nothing is held or watched that no pod asked for.
//! ConfigMaps in use are recorded for a start with no control plane in sight; Secrets never are.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Debug,
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use coracle_agent_core::{
    PodUid,
    env::{References, Sources},
};
use futures::{StreamExt, future::join_all};
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
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::database::Database;

/// Time a lookup waits for the watch of an object before it asks for it.
const FIRST_LISTING: Duration = Duration::from_secs(2);

/// An object that has come or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// The two kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    table: Mutex<Table>,
    database: Database,
    /// What the records have, by namespace and name.
    recorded: Mutex<HashMap<(String, String), Arc<ConfigMap>>>,
}

/// Namespace and name.
type Key = (String, String);

/// The watches, and who needs them.
#[derive(Default)]
struct Table {
    config_maps: HashMap<Key, Watched<ConfigMap>>,
    secrets: HashMap<Key, Watched<Secret>>,
    /// What each pod was told of.
    of_pod: HashMap<PodUid, HashSet<(Kind, Key)>>,
}

/// One object's watch. It ends when this is dropped.
struct Watched<K: Resource + 'static>
where
    K::DynamicType: Eq + Hash,
{
    store: Store<K>,
    users: HashSet<PodUid>,
    _end: DropGuard,
}

/// The two kinds, as types.
trait Referred:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    const KIND: Kind;
    fn watches(table: &mut Table) -> &mut HashMap<Key, Watched<Self>>;
}

impl Referred for ConfigMap {
    const KIND: Kind = Kind::ConfigMap;
    fn watches(table: &mut Table) -> &mut HashMap<Key, Watched<Self>> {
        &mut table.config_maps
    }
}

impl Referred for Secret {
    const KIND: Kind = Kind::Secret;
    fn watches(table: &mut Table) -> &mut HashMap<Key, Watched<Self>> {
        &mut table.secrets
    }
}

impl Table {
    /// Takes a pod out of an object's users, and ends its watch if it was the last.
    fn drop_user<K: Referred>(&mut self, uid: &PodUid, key: &Key) {
        let watches = K::watches(self);
        if let Some(watched) = watches.get_mut(key) {
            watched.users.remove(uid);
            if watched.users.is_empty() {
                watches.remove(key);
            }
        }
    }
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
        let (table, recorded) = (Mutex::default(), Mutex::new(recorded));
        let inner = Inner { client, changes, tasks, stop, table, database, recorded };
        Self { inner: Arc::new(inner) }
    }

    /// What the records have of what a pod refers to.
    pub(crate) fn recorded(&self, namespace: &str, wanted: &References) -> Sources {
        let recorded = self.inner.recorded.lock();
        let found = |name: &String| recorded.get(&(namespace.to_owned(), name.clone())).cloned();
        let config_maps = wanted.config_maps.iter().map(|name| (name.clone(), found(name))).collect();
        Sources { config_maps, ..Sources::default() }
    }

    /// Finds what a pod refers to. What does not exist is `None` in the answer. All of it is watched from now on, until
    /// [`Lookup::release`].
    pub(crate) async fn find(
        &self,
        pod: &PodUid,
        namespace: &str,
        wanted: &References,
    ) -> Result<Sources, LookupError> {
        let inner = &self.inner;
        let config_maps = inner.all::<ConfigMap>(pod, namespace, &wanted.config_maps);
        let secrets = inner.all::<Secret>(pod, namespace, &wanted.secrets);
        let (config_maps, secrets) = tokio::try_join!(config_maps, secrets)?;
        config_maps.values().flatten().for_each(|object| inner.record(object));
        Ok(Sources { config_maps, secrets })
    }

    /// The pods that were told of an object.
    pub(crate) fn users(&self, changed: &Changed) -> Vec<PodUid> {
        let table = self.inner.table.lock();
        let key = (changed.namespace.clone(), changed.name.clone());
        let users = match changed.kind {
            Kind::ConfigMap => table.config_maps.get(&key).map(|watched| &watched.users),
            Kind::Secret => table.secrets.get(&key).map(|watched| &watched.users),
        };
        users.into_iter().flatten().cloned().collect()
    }

    /// A pod is gone. What nobody else refers to is watched, held and recorded no longer.
    pub(crate) fn release(&self, pod: &PodUid) {
        let inner = &self.inner;
        let mut table = inner.table.lock();
        for (kind, key) in table.of_pod.remove(pod).unwrap_or_default() {
            match kind {
                Kind::ConfigMap => table.drop_user::<ConfigMap>(pod, &key),
                Kind::Secret => table.drop_user::<Secret>(pod, &key),
            }
            let others = || table.config_maps.keys().any(|(namespace, _)| *namespace == key.0);
            if kind == Kind::ConfigMap && !table.config_maps.contains_key(&key) && !others() {
                inner.recorded.lock().retain(|(namespace, _), _| *namespace != key.0);
                inner.database.forget_config_maps(&key.0);
            }
        }
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

    async fn all<K: Referred>(
        &self,
        pod: &PodUid,
        namespace: &str,
        names: &[String],
    ) -> Result<BTreeMap<String, Option<Arc<K>>>, LookupError> {
        // All watches begin before any is waited for.
        let stores: Vec<Store<K>> = names.iter().map(|name| self.store(pod, namespace, name)).collect();
        let ready = join_all(stores.iter().map(Store::wait_until_ready));
        let listed = timeout(FIRST_LISTING, ready).await.is_ok_and(|all| all.iter().all(Result::is_ok));
        let mut found = BTreeMap::new();
        for (name, store) in names.iter().zip(stores) {
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

    /// The store of an object's watch, which begins with its first user.
    fn store<K: Referred>(&self, pod: &PodUid, namespace: &str, name: &str) -> Store<K> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut table = self.table.lock();
        table.of_pod.entry(pod.clone()).or_default().insert((K::KIND, key.clone()));
        let watched = K::watches(&mut table).entry(key).or_insert_with(|| self.watch(namespace, name));
        watched.users.insert(pod.clone());
        watched.store.clone()
    }

    fn watch<K: Referred>(&self, namespace: &str, name: &str) -> Watched<K> {
        let (store, writer) = reflector::store();
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let one = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let stream = watcher(api, one).default_backoff();
        let (changes, stop) = (self.changes.clone(), self.stop.child_token());
        let changed = Changed { namespace: namespace.to_owned(), name: name.to_owned(), kind: K::KIND };
        let end = stop.clone().drop_guard();
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
                    Some(Ok(_)) => {
                        if changes.send(changed.clone()).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Watched { store, users: HashSet::new(), _end: end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_object_is_watched_as_long_as_a_pod_refers_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let (database, _) = Database::open(&dir.path().join("agent.db")).unwrap();
        let client = Client::try_from(kube::Config::new("http://127.0.0.1:1/".parse().unwrap())).unwrap();
        let (changes, _changed) = mpsc::channel(1);
        let tasks = TaskTracker::new();
        let lookup = Lookup::new(client, changes, tasks.clone(), CancellationToken::new(), (database, Vec::new()));
        tasks.close();
        let pods = ["a", "b"].map(PodUid::new);
        for pod in &pods {
            lookup.inner.store::<ConfigMap>(pod, "ns", "shared");
        }
        lookup.inner.store::<Secret>(&pods[0], "ns", "own");
        assert_eq!(tasks.len(), 2, "one watch for each object, however many refer to it");
        let users = |kind, name: &str| lookup.users(&Changed { namespace: "ns".into(), name: name.into(), kind }).len();
        assert_eq!((users(Kind::ConfigMap, "shared"), users(Kind::Secret, "own")), (2, 1));
        assert_eq!(users(Kind::Secret, "shared"), 0);
        lookup.release(&pods[0]);
        assert_eq!((users(Kind::ConfigMap, "shared"), users(Kind::Secret, "own")), (1, 0));
        lookup.release(&pods[1]);
        {
            let table = lookup.inner.table.lock();
            assert!(table.config_maps.is_empty() && table.secrets.is_empty() && table.of_pod.is_empty());
        }
        timeout(Duration::from_secs(30), tasks.wait()).await.expect("every watch has ended");
    }
}
