//! Disks that are full, damaged or taken, and what the store says about them.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use coracle_store::{
    Collection, Durability, Key, ListRange, Op, Options, Revision, SqliteStore, Store, StoreError, Value, WatchFrom,
};

/// Set in the process that has a small disk of its own.
const SMALL_DISK_VARIABLE: &str = "STORE_SMALL_DISK";

fn pods() -> Collection {
    Collection::new("", "pods")
}

fn key(name: &str) -> Key {
    pods().key("ns", name)
}

fn create(name: &str, size: usize) -> Op {
    Op::Create { key: key(name), value: Value::plain(vec![b'x'; size]) }
}

fn open(dir: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(dir, Options::default())
}

async fn commit(store: &SqliteStore, op: Op) -> Result<Revision, StoreError> {
    store.commit(vec![op], Durability::Durable).await.map(|done| done[0].revision)
}

fn open_error(dir: &Path) -> String {
    open(dir).err().expect("it must not open").to_string()
}

#[tokio::test]
async fn a_second_process_is_told_who_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let error = open(dir.path()).err().unwrap();
    assert!(matches!(&error, StoreError::Locked { holder, .. } if *holder == Some(std::process::id())), "{error}");
    assert!(error.to_string().contains("stop it, or choose another data directory"), "{error}");
    store.close().await.unwrap();
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn what_is_no_store_is_refused_with_advice() {
    let check = |error: String, what: &str| {
        assert!(error.contains(what), "{error}");
        assert!(error.contains("store.db") && error.contains("restore"), "{error}");
    };
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("store.db");
    fs::write(&database, vec![b'?'; 10_000]).unwrap();
    check(open_error(dir.path()), "not a database");

    fs::remove_file(&database).unwrap();
    let other = rusqlite::Connection::open(&database).unwrap();
    other.execute_batch("CREATE TABLE theirs (a)").unwrap();
    drop(other);
    check(open_error(dir.path()), "another program");

    fs::remove_file(&database).unwrap();
    drop(open(dir.path()).unwrap());
    let newer = rusqlite::Connection::open(&database).unwrap();
    newer.execute_batch("PRAGMA user_version = 99").unwrap();
    drop(newer);
    check(open_error(dir.path()), "format 99");
}

#[tokio::test]
async fn damage_is_noticed_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    for index in 0..300 {
        commit(&store, create(&index.to_string(), 1_000)).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    let database = dir.path().join("store.db");
    let whole = fs::read(&database).unwrap();
    for (what, damaged) in [
        ("half of it is missing", whole[..whole.len() / 2].to_vec()),
        ("pages are overwritten", {
            let mut bytes = whole.clone();
            let middle = bytes.len() / 2;
            bytes[4_096..middle].fill(0xA5);
            bytes
        }),
    ] {
        fs::write(&database, &damaged).unwrap();
        let error = open_error(dir.path());
        assert!(error.contains("damaged") && error.contains("restore"), "{what}: {error}");
        assert!(fs::read(&database).unwrap() == damaged, "{what}: the file was changed");
    }
    fs::write(&database, whole).unwrap();
    assert_eq!(open(dir.path()).unwrap().list(&pods(), &ListRange::all()).entries.len(), 300);
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = open_error(&file.join("data"));
    assert!(error.contains("cannot create") && error.contains("file/data"), "{error}");
}

#[tokio::test]
async fn objects_are_readable_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let store = open(&data).unwrap();
    commit(&store, create("a", 10)).await.unwrap();
    assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    for name in ["store.db", "store.db-wal"] {
        assert_eq!(fs::metadata(data.join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let mut revisions = Vec::new();
    for index in 0..50 {
        revisions.push(commit(&store, create(&index.to_string(), index)).await.unwrap());
    }
    let lease = Collection::new("coordination.k8s.io", "leases").key("n", "l");
    let made = commit(&store, Op::Create { key: lease.clone(), value: Value::stamped("v=", "") }).await.unwrap();
    let beat = Op::Update { key: lease.clone(), expected: made, value: Value::stamped("v=", "") };
    let beat = store.commit(vec![beat], Durability::Volatile).await.unwrap().remove(0);
    commit(&store, Op::Delete { key: key("7"), expected: revisions[7] }).await.unwrap();
    store.compact(Revision(10)).await.unwrap();
    let before = store.list(&pods(), &ListRange::all());
    store.close().await.unwrap();
    drop(store);

    let store = open(dir.path()).unwrap();
    let after = store.list(&pods(), &ListRange::all());
    let flat = |listing: &coracle_store::Listing| -> Vec<_> {
        listing.entries.iter().map(|e| (e.key.clone(), e.created, e.revision, e.bytes.clone())).collect()
    };
    assert_eq!(flat(&after), flat(&before));
    assert_eq!(after.revision, before.revision, "a restart in good order skips nothing");
    assert_eq!(store.compacted(), Revision(10));
    assert_eq!(store.get(&lease).unwrap().revision, beat.revision, "volatile state is written at the end");
    // Watches go on over the restart.
    let mut watch = store.watch(&pods(), WatchFrom::After(revisions[40])).unwrap();
    let events = watch.next().await.unwrap();
    assert_eq!(events.iter().map(|event| event.revision()).collect::<Vec<_>>()[..9], revisions[41..]);
    // Where volatile changes were not written one by one, a client has to list again.
    let error = store.watch(&lease.collection, WatchFrom::After(made)).err().unwrap();
    assert!(matches!(error, StoreError::Compacted { .. }), "{error}");
    let next = commit(&store, create("new", 1)).await.unwrap();
    assert_eq!(next, before.revision.next());
}

#[tokio::test]
async fn compaction_gives_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { keep_history: None, ..Options::default() };
    let store = Arc::new(SqliteStore::open(dir.path(), options).unwrap());
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let name = writer.to_string();
                let mut revision = commit(&store, create(&name, 4_000)).await.unwrap();
                for _ in 0..200 {
                    let value = Value::plain(vec![b'y'; 4_000]);
                    revision = commit(&store, Op::Update { key: key(&name), expected: revision, value }).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let full = store.size_on_disk();
    assert!(full > 12 << 20, "{full}");
    store.compact(store.revision()).await.unwrap();
    let small = store.size_on_disk();
    assert!(small < 3 << 20, "{small} of {full} bytes are left");
    assert_eq!(store.list(&pods(), &ListRange::all()).entries.len(), 16);
    assert!(store.stats().snapshot().compacted_rows >= 16 * 200);
}

/// The log is folded into the database beside the commits, and begins at its start again: it must not grow with what is
/// written, however steadily that goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_write_ahead_log_stays_bounded() {
    const WRITES: usize = 300;
    const MOST_BYTES: u64 = 128 << 20;
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()).unwrap());
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for index in 0..WRITES / 4 {
                    commit(&store, create(&format!("{writer}-{index}"), 1 << 20)).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let log = fs::metadata(dir.path().join("store.db-wal")).unwrap().len();
    assert!(log <= MOST_BYTES, "{log} bytes of write-ahead log after {WRITES} MiB of writes");
    assert!(store.stats().snapshot().checkpoints > 0);
    store.close().await.unwrap();
    let log = fs::metadata(dir.path().join("store.db-wal")).map_or(0, |log| log.len());
    assert_eq!(log, 0, "closing folds everything");
    drop(store);
    let store = open(dir.path()).unwrap();
    assert_eq!(store.list(&pods(), &ListRange::all()).entries.len(), WRITES);
}

/// In a process of its own, which may mount small disks.
#[test]
fn a_full_disk_refuses_writes_and_harms_nothing() {
    let root = rustix::process::geteuid().is_root();
    let mut unshare = Command::new("unshare");
    if !root {
        unshare.args(["--user", "--map-root-user"]);
    }
    let output = unshare
        .args(["--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "inside_a_small_disk", "--nocapture", "--test-threads=1"])
        .env(SMALL_DISK_VARIABLE, "1")
        .output()
        .expect("this test needs unshare: install util-linux (apt-get install util-linux)");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success() && text.contains("the small disk was full"),
        "if it could not mount: run as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1)\n{text}"
    );
}

/// Not a test of its own: what runs in the process with the small disk.
#[test]
fn inside_a_small_disk() {
    if std::env::var_os(SMALL_DISK_VARIABLE).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let on_disk = |size, test: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().unwrap();
        rustix::mount::mount("tmpfs", dir.path(), "tmpfs", rustix::mount::MountFlags::empty(), Some(size)).unwrap();
        test(dir.path());
        rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    };
    on_disk(c"size=6m", &|disk| runtime.block_on(fill_up(disk)));
    on_disk(c"size=64m", &|disk| runtime.block_on(begin_with_little_room(disk)));
    println!("the small disk was full");
}

/// A disk that others have nearly filled is written to for as long as it can be, and deletions have their room even then.
async fn begin_with_little_room(disk: &Path) {
    fs::write(disk.join("ballast"), vec![0; 54 << 20]).unwrap();
    let data = disk.join("data");
    let store = Arc::new(open(&data).unwrap());
    let mut kept = write_until_full(&store, "first").await;
    let bytes: usize = kept.len() * 3_000;
    assert!(bytes > 3 << 20, "of the 10 MiB that were free {bytes} bytes were used");
    let (name, revision) = kept.pop().unwrap();
    commit(&store, Op::Delete { key: key(&name), expected: revision }).await.unwrap();
    check_kept(&store, &kept);
    store.close().await.unwrap();
    drop(store);
    // With more room it holds more back.
    fs::remove_file(disk.join("ballast")).unwrap();
    let store = open(&data).unwrap();
    check_kept(&store, &kept);
    assert_eq!(fs::metadata(data.join("store.reserve")).unwrap().len(), 8 << 20);
    store.close().await.unwrap();
}

async fn fill_up(disk: &Path) {
    let data = disk.join("data");
    fs::write(disk.join("ballast"), vec![0; 2 << 20]).unwrap();
    fs::write(disk.join("spare"), vec![0; 256 << 10]).unwrap();
    let store = Arc::new(open(&data).unwrap());
    let lease = Collection::new("", "leases").key("n", "l");
    let beat = commit(&store, Op::Create { key: lease.clone(), value: Value::plain("0") }).await.unwrap();
    let beat = Op::Update { key: lease.clone(), expected: beat, value: Value::plain("1") };
    let beat = store.commit(vec![beat], Durability::Volatile).await.unwrap()[0].revision;

    let mut kept = write_until_full(&store, "first").await;
    let visible = store.revision();
    // Heartbeats need no disk.
    let update = Op::Update { key: lease.clone(), expected: beat, value: Value::plain("2") };
    let beat = store.commit(vec![update], Durability::Volatile).await.unwrap()[0].revision;
    assert_eq!(beat, visible.next());
    check_kept(&store, &kept);

    // There is room for what makes room, and for nothing else.
    for (name, revision) in kept.split_off(kept.len() - 40) {
        commit(&store, Op::Delete { key: key(&name), expected: revision }).await.unwrap();
    }
    let (name, revision) = kept.pop().unwrap();
    let marked = Op::Update { key: key(&name), expected: revision, value: Value::plain(vec![b'y'; 3_000]) };
    let refused = commit(&store, marked.clone()).await;
    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
    let marked = store.commit(vec![marked], Durability::Freeing).await.unwrap();
    kept.push((name, marked[0].revision));
    let refused = commit(&store, create("more", 10)).await;
    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
    check_kept(&store, &kept);

    // Room again: it goes on by itself.
    fs::remove_file(disk.join("ballast")).unwrap();
    kept.push(("after".into(), commit(&store, create("after", 1_000)).await.unwrap()));
    kept.extend(write_until_full(&store, "second").await);
    check_kept(&store, &kept);
    let revision = store.revision();
    // Its last words may not fit any more.
    let closed = store.close().await;
    assert!(matches!(closed, Ok(()) | Err(StoreError::Full)), "{closed:?}");
    drop(store);
    let store = loop {
        match open(&data) {
            Ok(store) => break store,
            // Opening needs a little room for the write-ahead log's index; the message says so. What the operator frees is
            // enough: the file is there once.
            Err(StoreError::Full) => fs::remove_file(disk.join("spare")).unwrap(),
            Err(error) => panic!("{error}"),
        }
    };
    check_kept(&store, &kept);
    assert!(store.revision() >= revision);
}

/// Many at once, until a write is refused; returns what was acknowledged.
async fn write_until_full(store: &Arc<SqliteStore>, round: &str) -> Vec<(String, Revision)> {
    let writers: Vec<_> = (0..32)
        .map(|writer| {
            let (store, round) = (Arc::clone(store), round.to_owned());
            tokio::spawn(async move {
                let mut kept = Vec::new();
                for index in 0..1_000 {
                    let name = format!("{round}-{writer}-{index}");
                    match commit(&store, create(&name, 3_000)).await {
                        Ok(revision) => kept.push((name, revision)),
                        Err(StoreError::Full) => {
                            assert!(store.get(&key(&name)).is_none(), "a refused write is not visible");
                            return kept;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                panic!("the disk was never full");
            })
        })
        .collect();
    let mut kept = Vec::new();
    for writer in writers {
        kept.extend(tokio::time::timeout(Duration::from_secs(30), writer).await.unwrap().unwrap());
    }
    kept
}

fn check_kept(store: &SqliteStore, kept: &[(String, Revision)]) {
    let listing = store.list(&pods(), &ListRange::all());
    assert_eq!(listing.entries.len(), kept.len());
    for (name, revision) in kept {
        assert_eq!(store.get(&key(name)).map(|entry| entry.revision), Some(*revision), "{name}");
    }
}

#[tokio::test]
async fn what_would_be_lost_is_not_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let store = open(&data).unwrap();
    commit(&store, create("a", 10)).await.unwrap();
    fs::rename(data.join("store.db"), data.join("moved")).unwrap();
    fs::write(data.join("store.db"), "another").unwrap();
    let error = commit(&store, create("b", 10)).await.unwrap_err().to_string();
    assert!(error.contains("store.db was deleted or replaced"), "{error}");
    fs::remove_dir_all(&data).unwrap();
    assert!(commit(&store, create("c", 10)).await.is_err());
    assert!(store.get(&key("a")).is_some(), "what there was can be read");
    assert!(store.get(&key("b")).is_none());
}

/// A program that reads the database, such as one that copies it, keeps the log from being folded: that is no fold.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_keeps_the_write_ahead_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    commit(&store, create("first", 10)).await.unwrap();
    let copy = rusqlite::Connection::open(dir.path().join("store.db")).unwrap();
    copy.execute_batch("BEGIN").unwrap();
    let seen = || copy.query_row("SELECT count(*) FROM log", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(seen(), 1);
    for index in 0..40 {
        commit(&store, create(&format!("held-{index}"), 1 << 20)).await.unwrap();
    }
    assert_eq!(store.stats().snapshot().checkpoints, 0, "nothing of it can go");
    assert_eq!(seen(), 1);
    copy.execute_batch("COMMIT").unwrap();
    store.close().await.unwrap();
    assert!(store.stats().snapshot().checkpoints > 0);
}
