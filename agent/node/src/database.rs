//! The agent's own records: the pods it is to run with their last status, the address each holds, the node's range, and the
//! Services its pods were told of. They make a node come back after a reboot with no control plane in sight. One thread writes; what is queued becomes one transaction.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use coracle_agent_core::{PodUid, env::ServiceVariables};
use futures::future::BoxFuture;
use ipnet::Ipv4Net;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod, PodSpec, PodStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;

use crate::{error::NodeError, private};

/// Records that wait to be written. A full queue holds the event loop back for one commit, no longer.
const QUEUE: usize = 4096;
/// Records of so long become one transaction: what is lost with the machine was told to nobody outside it, and a pod that
/// starts is recorded once. Whoever tells the API that something has ended waits for the record first.
const GATHER: Duration = Duration::from_millis(100);

/// Time until records that could not be written are tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What was recorded.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) pods: Vec<Pod>,
    pub(crate) addresses: BTreeMap<PodUid, Ipv4Addr>,
    /// `spec.podCIDR` of the node.
    pub(crate) range: Option<Ipv4Net>,
    /// By namespace; the API server's own under the empty name.
    pub(crate) services: BTreeMap<String, ServiceVariables>,
    /// What volumes and variables of pods were made of. Secrets are never among the records.
    pub(crate) config_maps: Vec<ConfigMap>,
}

/// The way to the writing thread. Dropping it lets the thread write what is queued and end.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    queue: SyncSender<Record>,
}

#[derive(Debug)]
enum Record {
    Pod {
        uid: PodUid,
        pod: Arc<Pod>,
        status: Option<Arc<PodStatus>>,
    },
    Address {
        uid: PodUid,
        ip: Ipv4Addr,
    },
    Range {
        range: Ipv4Net,
    },
    Services {
        namespace: String,
        variables: Vec<u8>,
    },
    Forget {
        uid: PodUid,
    },
    ConfigMap {
        config_map: Arc<ConfigMap>,
    },
    NoConfigMaps {
        namespace: String,
    },
    /// Dropped when all before it is on the disk, or cannot be.
    Barrier {
        _passed: oneshot::Sender<()>,
    },
}

/// The node's range among what is recorded of the node.
const RANGE: &str = "podCIDR";

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS pods (uid TEXT PRIMARY KEY, object BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS addresses (uid TEXT PRIMARY KEY, ip TEXT NOT NULL UNIQUE) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS node (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS services (namespace TEXT PRIMARY KEY, variables BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS config_maps (namespace TEXT, name TEXT, object BLOB NOT NULL, PRIMARY KEY (namespace, name))
        WITHOUT ROWID;
";

impl Database {
    /// Opens the records, making them if there are none.
    pub(crate) fn open(path: &Path) -> Result<(Self, Recorded), NodeError> {
        let error = |source| NodeError::Database { path: path.to_owned(), source };
        // What SQLite makes beside it has its mode.
        for file in ["", "-wal", "-shm"].map(|end| PathBuf::from(format!("{}{end}", path.display()))) {
            let made = if file == path || file.exists() { private::file(&file) } else { Ok(()) };
            made.map_err(|source| NodeError::Directory { path: file, source })?;
        }
        let connection = Connection::open(path).map_err(error)?;
        connection.execute_batch(SCHEMA).map_err(error)?;
        let recorded = load(&connection).map_err(error)?;
        let (queue, records) = sync_channel(QUEUE);
        let spawned =
            thread::Builder::new().name("agent-records".into()).spawn(move || write_all(connection, &records));
        spawned.map_err(|source| NodeError::Directory { path: path.to_owned(), source })?;
        Ok((Self { queue }, recorded))
    }

    /// Records a pod with a status, or with the one that its object has.
    pub(crate) fn put_pod(&self, uid: &PodUid, pod: Arc<Pod>, status: Option<Arc<PodStatus>>) {
        self.send(Record::Pod { uid: uid.clone(), pod, status });
    }

    /// Becomes ready when everything recorded so far is on the disk, or cannot be written now.
    pub(crate) fn written(&self) -> BoxFuture<'static, ()> {
        let (barrier, passed) = oneshot::channel();
        self.send(Record::Barrier { _passed: barrier });
        Box::pin(async move { drop(passed.await) })
    }

    /// Records a ConfigMap, so that volumes made of it come back after a reboot with no control plane in sight.
    pub(crate) fn put_config_map(&self, config_map: Arc<ConfigMap>) {
        self.send(Record::ConfigMap { config_map });
    }

    /// Forgets the ConfigMaps of a namespace without pods.
    pub(crate) fn forget_config_maps(&self, namespace: &str) {
        self.send(Record::NoConfigMaps { namespace: namespace.to_owned() });
    }

    /// Records a pod's address.
    pub(crate) fn put_address(&self, uid: &PodUid, ip: Ipv4Addr) {
        self.send(Record::Address { uid: uid.clone(), ip });
    }

    /// Records the node's range.
    pub(crate) fn put_range(&self, range: Ipv4Net) {
        self.send(Record::Range { range });
    }

    /// Records what pods of a namespace are told of Services.
    pub(crate) fn put_services(&self, namespace: &str, variables: &ServiceVariables) {
        if let Ok(variables) = serde_json::to_vec(variables) {
            self.send(Record::Services { namespace: namespace.to_owned(), variables });
        }
    }

    /// Forgets a pod and its address.
    pub(crate) fn forget(&self, uid: &PodUid) {
        self.send(Record::Forget { uid: uid.clone() });
    }

    fn send(&self, record: Record) {
        if self.queue.send(record).is_err() {
            tracing::error!("the agent's records are not written any more");
        }
    }
}

fn load(connection: &Connection) -> rusqlite::Result<Recorded> {
    let mut recorded = Recorded::default();
    let mut pods = connection.prepare("SELECT object FROM pods")?;
    for object in pods.query_map([], |row| row.get::<_, Vec<u8>>(0))? {
        match serde_json::from_slice(&object?) {
            Ok(pod) => recorded.pods.push(pod),
            Err(error) => tracing::warn!(%error, "a recorded pod cannot be read and is left out"),
        }
    }
    let mut addresses = connection.prepare("SELECT uid, ip FROM addresses")?;
    for row in addresses.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))? {
        let (uid, ip) = row?;
        if let Ok(ip) = ip.parse() {
            recorded.addresses.insert(PodUid::new(uid), ip);
        }
    }
    let range: Option<String> =
        connection.query_row("SELECT value FROM node WHERE name = ?1", [RANGE], |row| row.get(0)).optional()?;
    recorded.range = range.and_then(|range| range.parse().ok());
    let mut services = connection.prepare("SELECT namespace, variables FROM services")?;
    for row in services.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)))? {
        let (namespace, variables) = row?;
        if let Ok(variables) = serde_json::from_slice(&variables) {
            recorded.services.insert(namespace, variables);
        }
    }
    let mut config_maps = connection.prepare("SELECT object FROM config_maps")?;
    for object in config_maps.query_map([], |row| row.get::<_, Vec<u8>>(0))? {
        recorded.config_maps.extend(serde_json::from_slice::<ConfigMap>(&object?).ok());
    }
    Ok(recorded)
}

fn write_all(connection: Connection, records: &Receiver<Record>) {
    let mut writer = Writer { connection, waiting: Vec::new(), failing: false };
    loop {
        let first = if writer.waiting.is_empty() {
            records.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            records.recv_timeout(TRY_AGAIN)
        };
        match first {
            Ok(first) => writer.write(gather(first, records)),
            Err(RecvTimeoutError::Timeout) => writer.write(Vec::new()),
            Err(RecvTimeoutError::Disconnected) => return writer.write(Vec::new()),
        }
    }
}

/// Writes batches. What cannot be written, since the disk is full, is kept and written with what follows.
struct Writer {
    connection: Connection,
    /// What could not be written so far, the latest of each thing: no more than the node has pods and namespaces.
    waiting: Vec<Record>,
    failing: bool,
}

impl Writer {
    fn write(&mut self, batch: Vec<Record>) {
        let mut all = std::mem::take(&mut self.waiting);
        all.extend(batch);
        let (barriers, all): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| matches!(one, Record::Barrier { .. }));
        if all.is_empty() {
            return;
        }
        match write(&mut self.connection, &all) {
            Ok(()) => {
                if std::mem::replace(&mut self.failing, false) {
                    tracing::info!("the agent's records are written again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "the agent's records cannot be written: after a reboot pods may be run again");
                }
                self.waiting = latest(all);
            }
        }
        // Whoever waits is told of a failure too: a full disk is not to keep the API from knowing what has ended.
        drop(barriers);
    }
}

/// The last record of each thing.
fn latest(records: Vec<Record>) -> Vec<Record> {
    let mut seen = HashSet::new();
    let mut kept: Vec<Record> = records.into_iter().rev().filter(|record| seen.insert(thing(record))).collect();
    kept.reverse();
    kept
}

/// What a record is about: a later record about the same thing takes its place.
fn thing(record: &Record) -> (u8, String) {
    match record {
        Record::Pod { uid, .. } => (0, uid.as_str().to_owned()),
        Record::Address { uid, .. } => (1, uid.as_str().to_owned()),
        Record::Forget { uid } => (2, uid.as_str().to_owned()),
        Record::Range { .. } => (3, String::new()),
        Record::Services { namespace, .. } => (4, namespace.clone()),
        Record::ConfigMap { config_map } => {
            let meta = &config_map.metadata;
            let [namespace, name] = [&meta.namespace, &meta.name].map(|text| text.clone().unwrap_or_default());
            (5, format!("{namespace}/{name}"))
        }
        Record::NoConfigMaps { namespace } => (6, namespace.clone()),
        Record::Barrier { .. } => (7, String::new()),
    }
}

/// What comes within a moment. Of a pod's records only the last is kept, since each is the whole of it.
fn gather(first: Record, records: &Receiver<Record>) -> Vec<Record> {
    let until = Instant::now() + GATHER;
    let (mut batch, mut pods) = (Vec::new(), HashMap::new());
    let mut next = Some(first);
    while let Some(record) = next {
        if matches!(record, Record::Barrier { .. }) {
            // Somebody waits.
            batch.push(Some(record));
            break;
        }
        let place = match &record {
            Record::Pod { uid, .. } => pods.insert(uid.clone(), batch.len()),
            Record::Forget { uid } => pods.remove(uid),
            _ => None,
        };
        if let Some(place) = place {
            batch[place] = None;
        }
        batch.push(Some(record));
        next = match records.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(record) if batch.len() < QUEUE => Some(record),
            Ok(last) => {
                batch.push(Some(last));
                None
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        };
    }
    batch.into_iter().flatten().collect()
}

/// A pod as it is recorded.
#[derive(serde::Serialize)]
struct Stored<'a> {
    metadata: &'a ObjectMeta,
    spec: Option<&'a PodSpec>,
    status: Option<&'a PodStatus>,
}

fn write(connection: &mut Connection, batch: &[Record]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for record in batch {
        match record {
            Record::Pod { uid, pod, status } => {
                let status = status.as_deref().or(pod.status.as_ref());
                let stored = Stored { metadata: &pod.metadata, spec: pod.spec.as_ref(), status };
                // Text keys only: this cannot fail.
                let Ok(object) = serde_json::to_vec(&stored) else { continue };
                let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO pods VALUES (?1, ?2)")?;
                put.execute(params![uid.as_str(), object])?;
            }
            Record::Address { uid, ip } => {
                let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO addresses VALUES (?1, ?2)")?;
                put.execute(params![uid.as_str(), ip.to_string()])?;
            }
            Record::Range { range } => {
                let range = range.to_string();
                transaction.execute("INSERT OR REPLACE INTO node VALUES (?1, ?2)", params![RANGE, range])?;
            }
            Record::Services { namespace, variables } => {
                let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO services VALUES (?1, ?2)")?;
                put.execute(params![namespace, variables])?;
            }
            Record::ConfigMap { config_map } => {
                let meta = &config_map.metadata;
                let Ok(object) = serde_json::to_vec(&**config_map) else { continue };
                let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO config_maps VALUES (?1, ?2, ?3)")?;
                put.execute(params![meta.namespace, meta.name, object])?;
            }
            Record::Barrier { .. } => {}
            Record::NoConfigMaps { namespace } => {
                transaction.execute("DELETE FROM config_maps WHERE namespace = ?1", [namespace])?;
            }
            Record::Forget { uid } => {
                transaction.execute("DELETE FROM pods WHERE uid = ?1", params![uid.as_str()])?;
                transaction.execute("DELETE FROM addresses WHERE uid = ?1", params![uid.as_str()])?;
            }
        }
    }
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str) -> Pod {
        serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "uid": uid}})).unwrap()
    }

    #[test]
    fn records_are_there_after_a_restart_and_gone_when_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.db");
        let (database, recorded) = Database::open(&path).unwrap();
        assert!(recorded.pods.is_empty());
        for uid in ["a", "b"] {
            database.put_pod(&PodUid::new(uid), Arc::new(pod(uid)), None);
        }
        let phase: PodStatus = serde_json::from_value(serde_json::json!({"phase": "Running"})).unwrap();
        database.put_pod(&PodUid::new("a"), Arc::new(pod("a")), Some(Arc::new(phase)));
        let config_map = |namespace: &str| -> ConfigMap {
            serde_json::from_value(
                serde_json::json!({"metadata": {"name": "c", "namespace": namespace}, "data": {"k": "v"}}),
            )
            .unwrap()
        };
        database.put_config_map(Arc::new(config_map("ns")));
        database.put_config_map(Arc::new(config_map("old")));
        database.forget_config_maps("old");
        database.put_address(&PodUid::new("a"), Ipv4Addr::new(10, 42, 0, 2));
        database.forget(&PodUid::new("b"));
        database.put_range("10.42.8.0/21".parse().unwrap());
        let services = serde_json::from_value(serde_json::json!([["A_SERVICE_HOST", "10.43.0.7"]])).unwrap();
        database.put_services("ns", &services);
        drop(database);
        // The writer ends by itself; what it wrote shows once it has.
        let recorded = loop {
            let (_, recorded) = Database::open(&path).unwrap();
            if recorded.pods.len() == 1 && !recorded.services.is_empty() {
                break recorded;
            }
            std::thread::yield_now();
        };
        assert_eq!(recorded.pods[0].metadata.uid.as_deref(), Some("a"));
        let phase = recorded.pods[0].status.as_ref().and_then(|status| status.phase.as_deref());
        assert_eq!(phase, Some("Running"), "the last record of a pod counts");
        assert_eq!(recorded.config_maps, [config_map("ns")]);
        assert_eq!(recorded.addresses[&PodUid::new("a")], Ipv4Addr::new(10, 42, 0, 2));
        assert_eq!(recorded.range, Some("10.42.8.0/21".parse().unwrap()));
        assert_eq!(recorded.services["ns"].get("A_SERVICE_HOST"), Some("10.43.0.7"));
    }

    #[test]
    fn what_a_full_disk_refused_is_written_when_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.db");
        drop(Database::open(&path).unwrap());
        let connection = Connection::open(&path).unwrap();
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        let limit = |writer: &Writer, pages: i64| {
            let set = format!("PRAGMA max_page_count = {pages}");
            writer.connection.query_row(&set, [], |row| row.get::<_, i64>(0)).unwrap();
        };
        let mut writer = Writer { connection, waiting: Vec::new(), failing: false };
        limit(&writer, pages);
        let record = |uid: &str, phase: &str| {
            let mut pod = pod(uid);
            let long = [("long".to_owned(), "x".repeat(100_000))].into();
            pod.metadata.annotations = Some(long);
            let status = PodStatus { phase: Some(phase.into()), ..PodStatus::default() };
            Record::Pod { uid: PodUid::new(uid), pod: Arc::new(pod), status: Some(Arc::new(status)) }
        };
        let (barrier, mut passed) = oneshot::channel();
        writer.write(vec![record("a", "Running"), record("b", "Running"), Record::Barrier { _passed: barrier }]);
        assert!(passed.try_recv() == Err(oneshot::error::TryRecvError::Closed), "nobody waits for a full disk");
        writer.write(vec![record("a", "Succeeded")]);
        assert_eq!((writer.waiting.len(), load(&writer.connection).unwrap().pods.len()), (2, 0));
        limit(&writer, 1 << 20);
        writer.write(Vec::new());
        assert!(writer.waiting.is_empty());
        let pods = load(&writer.connection).unwrap().pods;
        let phases: Vec<_> = pods.iter().map(|pod| pod.status.as_ref().unwrap().phase.as_deref().unwrap()).collect();
        assert_eq!(phases, ["Succeeded", "Running"]);
    }

    #[test]
    fn records_are_for_their_owner_alone() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.db");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let (_database, _) = Database::open(&path).unwrap();
        let entries: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().collect();
        assert!(entries.len() > 1, "the log is beside it");
        for entry in entries {
            assert_eq!(entry.metadata().unwrap().mode() & 0o077, 0, "{:?}", entry.path());
        }
    }

    #[tokio::test]
    async fn what_was_waited_for_survives_the_machine() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.db");
        let (database, _) = Database::open(&path).unwrap();
        database.put_pod(&PodUid::new("a"), Arc::new(pod("a")), None);
        database.written().await;
        let other = Connection::open(&path).unwrap();
        assert_eq!(load(&other).unwrap().pods.len(), 1, "it is there without waiting for more");
    }
}
