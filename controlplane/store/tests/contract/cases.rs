//! The cases of the contract, one promise each.

use std::sync::Arc;
use std::time::Duration;

use coracle_store::{
    Collection, Durability, Entry, Key, ListRange, MAX_TRANSACTION_OPS, MAX_VALUE_BYTES, Op, Revision, Store,
    StoreError, Value, Watch, WatchEvent, WatchFrom,
};
use tokio::time::timeout;

type Shared = Arc<dyn Store>;

/// Longer than any of this takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

fn pods() -> Collection {
    Collection::new("", "pods")
}

fn key(name: &str) -> Key {
    pods().key("ns", name)
}

fn text(value: &str) -> Value {
    Value::plain(value.to_owned())
}

fn create(key: &Key, value: &str) -> Op {
    Op::Create { key: key.clone(), value: text(value) }
}

fn update(key: &Key, expected: Revision, value: &str) -> Op {
    Op::Update { key: key.clone(), expected, value: text(value) }
}

fn delete(key: &Key, expected: Revision) -> Op {
    Op::Delete { key: key.clone(), expected }
}

async fn commit(store: &Shared, ops: Vec<Op>) -> Result<Vec<Arc<Entry>>, StoreError> {
    timeout(PATIENCE, store.commit(ops, Durability::Durable)).await.expect("a commit is answered")
}

async fn one(store: &Shared, op: Op) -> Arc<Entry> {
    commit(store, vec![op]).await.unwrap().remove(0)
}

/// Events as short text: `+name=value@revision`, `~` for a change, `-` for a deletion.
fn describe(event: &WatchEvent) -> String {
    let entry = event.entry();
    let sign = match event {
        WatchEvent::Put { previous: None, .. } => '+',
        WatchEvent::Put { .. } => '~',
        WatchEvent::Deleted { .. } => '-',
    };
    let value = String::from_utf8_lossy(&entry.bytes);
    format!("{sign}{}={value}@{}", entry.key.object_name(), entry.revision)
}

async fn read(watch: &mut Watch, count: usize) -> Vec<String> {
    let mut events = Vec::new();
    while events.len() < count {
        let batch = timeout(PATIENCE, watch.next()).await.expect("the watch has more to tell").unwrap();
        events.extend(batch.iter().map(describe));
    }
    events
}

fn names(entries: &[Arc<Entry>]) -> Vec<String> {
    entries.iter().map(|entry| entry.key.name.to_string()).collect()
}

pub(crate) async fn transactions_are_all_or_nothing(store: Shared) {
    let a = one(&store, create(&key("a"), "1")).await;
    let before = store.revision();
    let ops = vec![update(&key("a"), a.revision, "2"), create(&key("b"), "1"), create(&key("a"), "3")];
    let error = commit(&store, ops).await.unwrap_err();
    assert!(matches!(error, StoreError::AlreadyExists { .. }), "{error}");
    assert_eq!(store.revision(), before, "a failed transaction takes no revision");
    assert_eq!(store.get(&key("a")).unwrap().revision, a.revision);
    assert!(store.get(&key("b")).is_none());

    // In one transaction, an op sees what those before it did.
    let ops = vec![delete(&key("a"), a.revision), create(&key("a"), "again"), create(&key("b"), "1")];
    let done = commit(&store, ops).await.unwrap();
    assert_eq!(done.len(), 3);
    assert_eq!(store.get(&key("a")).unwrap().bytes, "again");
    assert_eq!(store.get(&key("a")).unwrap().created, done[1].revision);
    assert!(commit(&store, Vec::new()).await.unwrap().is_empty());
}

pub(crate) async fn revisions_count_every_change(store: Shared) {
    let start = store.revision();
    assert_eq!(start, Revision::FIRST);
    let done = commit(&store, vec![create(&key("a"), "1"), create(&key("b"), "1")]).await.unwrap();
    assert_eq!(done[0].revision, start.next());
    assert_eq!(done[1].revision, start.next().next());
    assert_eq!(store.revision(), done[1].revision);
    let a = one(&store, update(&key("a"), done[0].revision, "2")).await;
    assert_eq!(a.revision, done[1].revision.next());
    assert_eq!(a.created, done[0].revision);
    let gone = one(&store, delete(&key("a"), a.revision)).await;
    assert_eq!(gone.revision, a.revision.next());
}

pub(crate) async fn each_op_meets_what_it_must(store: Shared) {
    let a = one(&store, create(&key("a"), "1")).await;
    let stale = Revision(a.revision.0 - 1);
    let check = |result: Result<Vec<Arc<Entry>>, StoreError>, expect: &str| {
        let error = result.unwrap_err();
        let kind = match &error {
            StoreError::AlreadyExists { current } => format!("exists {}", current.revision == a.revision),
            StoreError::Conflict { current } => format!("conflict {}", current.revision == a.revision),
            StoreError::NotFound { key } => format!("missing {}", key.object_name()),
            other => format!("{other:?}"),
        };
        assert_eq!(kind, expect);
    };
    check(commit(&store, vec![create(&key("a"), "x")]).await, "exists true");
    check(commit(&store, vec![update(&key("a"), stale, "x")]).await, "conflict true");
    check(commit(&store, vec![delete(&key("a"), stale)]).await, "conflict true");
    check(commit(&store, vec![update(&key("b"), a.revision, "x")]).await, "missing b");
    check(commit(&store, vec![delete(&key("b"), a.revision)]).await, "missing b");
}

pub(crate) async fn a_check_ties_a_transaction_to_what_it_saw(store: Shared) {
    let check = |key: &Key, expected| Op::Check { key: key.clone(), expected };
    let a = one(&store, create(&key("a"), "1")).await;
    let mut watch = store.watch(&pods(), WatchFrom::Now).unwrap();
    let done = commit(&store, vec![check(&key("a"), a.revision), create(&key("b"), "1")]).await.unwrap();
    assert_eq!((done[0].revision, &done[0].bytes), (a.revision, &a.bytes));
    assert_eq!(done[1].revision, a.revision.next(), "it takes no revision");
    let changed = one(&store, update(&key("a"), a.revision, "2")).await;
    let late = commit(&store, vec![create(&key("c"), "1"), check(&key("a"), a.revision)]).await;
    assert!(matches!(&late, Err(StoreError::Conflict { current }) if current.revision == changed.revision), "{late:?}");
    one(&store, delete(&key("a"), changed.revision)).await;
    let late = commit(&store, vec![create(&key("c"), "1"), check(&key("a"), changed.revision)]).await;
    assert!(matches!(&late, Err(StoreError::NotFound { key: missing }) if *missing == key("a")), "{late:?}");
    // Within one transaction it sees what came before.
    let d = vec![create(&key("d"), "1"), check(&key("d"), store.revision().next())];
    commit(&store, d).await.unwrap();
    assert!(store.get(&key("c")).is_none());
    let seen = read(&mut watch, 4).await;
    assert_eq!(seen.iter().map(|told| &told[..2]).collect::<Vec<_>>(), ["+b", "~a", "-a", "+d"]);
}

pub(crate) async fn texts_carry_their_revision(store: Shared) {
    let value = || Value::stamped("{\"v\":\"", "\"}");
    for round in 0..12 {
        let made = one(&store, Op::Create { key: key("a"), value: value() }).await;
        let changed = one(&store, Op::Update { key: key("a"), expected: made.revision, value: value() }).await;
        let gone = one(&store, delete(&key("a"), changed.revision)).await;
        for entry in [&made, &changed, &gone] {
            assert_eq!(entry.bytes, format!("{{\"v\":\"{}\"}}", entry.revision), "round {round}");
        }
    }
}

pub(crate) async fn lists_are_ordered_and_paged(store: Shared) {
    for name in ["b/2", "a/1", "a-b/1", "b/10", "b/1", "a/2"] {
        let (namespace, name) = name.split_once('/').unwrap();
        one(&store, create(&pods().key(namespace, name), "x")).await;
    }
    let all = store.list(&pods(), &ListRange::all());
    assert_eq!(names(&all.entries), ["a-b/1", "a/1", "a/2", "b/1", "b/10", "b/2"]);
    assert_eq!(all.revision, store.revision());
    let b = store.list(&pods(), &ListRange::namespace("b"));
    assert_eq!(names(&b.entries), ["b/1", "b/10", "b/2"]);
    assert!(store.list(&pods(), &ListRange::namespace("c")).entries.is_empty());
    assert!(store.list(&Collection::new("x", "none"), &ListRange::all()).entries.is_empty());

    let page = ListRange { limit: Some(2), ..ListRange::all() };
    let first = store.list(&pods(), &page);
    assert_eq!((names(&first.entries), first.remaining), (vec!["a-b/1".into(), "a/1".into()], 4));
    let page = ListRange { start_after: Some("a/1".into()), ..page };
    let second = store.list(&pods(), &page);
    assert_eq!((names(&second.entries), second.remaining), (vec!["a/2".into(), "b/1".into()], 2));
    let at = store.list_at(&pods(), page.clone(), second.revision).await.unwrap();
    assert_eq!((names(&at.entries), at.remaining), (names(&second.entries), 2));
    // Who knows how many there are is believed.
    let page = ListRange { known: Some(first.remaining), ..page };
    let at = store.list_at(&pods(), page.clone(), second.revision).await.unwrap();
    assert_eq!((names(&at.entries), at.remaining), (names(&second.entries), 2));
    one(&store, create(&pods().key("b", "3"), "x")).await;
    let at = store.list_at(&pods(), page, second.revision).await.unwrap();
    assert_eq!((names(&at.entries), at.remaining), (names(&second.entries), 2));
}

pub(crate) async fn lists_of_the_past_stay_as_they_were(store: Shared) {
    let mut snapshots = Vec::new();
    for round in 0..12 {
        let name = format!("{}", round % 5);
        match store.get(&key(&name)) {
            None => one(&store, create(&key(&name), &round.to_string())).await,
            Some(entry) if round % 3 == 0 => one(&store, delete(&key(&name), entry.revision)).await,
            Some(entry) => one(&store, update(&key(&name), entry.revision, &round.to_string())).await,
        };
        snapshots.push(store.list(&pods(), &ListRange::all()));
    }
    for then in &snapshots {
        let again = store.list_at(&pods(), ListRange::all(), then.revision).await.unwrap();
        assert_eq!(again.revision, then.revision);
        let flat = |entries: &[Arc<Entry>]| -> Vec<_> {
            entries.iter().map(|e| (e.key.clone(), e.created, e.revision, e.bytes.clone())).collect()
        };
        assert_eq!(flat(&again.entries), flat(&then.entries));
        let page = ListRange { limit: Some(1), start_after: Some("ns/1".into()), ..ListRange::namespace("ns") };
        let page = store.list_at(&pods(), page, then.revision).await.unwrap();
        let expect: Vec<_> = then.entries.iter().filter(|entry| &*entry.key.name > "ns/1").cloned().collect();
        assert_eq!(flat(&page.entries), flat(&expect[..expect.len().min(1)]));
        assert_eq!(page.remaining, expect.len().saturating_sub(1));
    }
}

pub(crate) async fn watches_tell_each_change_once(store: Shared) {
    one(&store, create(&key("old"), "0")).await;
    let mut watch = store.watch(&pods(), WatchFrom::Now).unwrap();
    assert!(watch.try_next().unwrap().is_empty());
    let a = one(&store, create(&key("a"), "1")).await;
    assert_eq!(read(&mut watch, 1).await, ["+a=1@3"]);
    let a = one(&store, update(&key("a"), a.revision, "2")).await;
    one(&store, delete(&key("a"), a.revision)).await;
    one(&store, create(&key("a"), "3")).await;
    assert_eq!(read(&mut watch, 3).await, ["~a=2@4", "-a=2@5", "+a=3@6"]);
    assert!(watch.try_next().unwrap().is_empty());
}

pub(crate) async fn a_watch_starts_anywhere_in_history(store: Shared) {
    let mut told = Vec::new();
    for round in 0..20 {
        let name = format!("{}", round % 3);
        let value = round.to_string();
        let (sign, entry) = match store.get(&key(&name)) {
            None => ('+', one(&store, create(&key(&name), &value)).await),
            Some(entry) if round % 4 == 0 => ('-', one(&store, delete(&key(&name), entry.revision)).await),
            Some(entry) => ('~', one(&store, update(&key(&name), entry.revision, &value)).await),
        };
        told.push(format!("{sign}{name}={}@{}", String::from_utf8_lossy(&entry.bytes), entry.revision));
    }
    for skip in 0..told.len() {
        let from = WatchFrom::After(Revision(Revision::FIRST.0 + skip as u64));
        let mut watch = store.watch(&pods(), from).unwrap();
        assert_eq!(read(&mut watch, told.len() - skip).await, told[skip..]);
    }
}

pub(crate) async fn a_watch_can_be_narrowed(store: Shared) {
    let mut watch = store.watch(&pods(), WatchFrom::Now).unwrap().under("b/");
    for index in 0..6 {
        let namespace = if index % 2 == 0 { "a" } else { "b" };
        one(&store, create(&pods().key(namespace, &index.to_string()), "x")).await;
    }
    let mut late = store.watch(&pods(), WatchFrom::After(Revision::FIRST)).unwrap().under("b/3");
    assert_eq!(read(&mut late, 1).await, ["+3=x@5"]);
    if watch.progress().is_none() {
        // With little memory the ring may have passed this watch; it says so instead of skipping.
        match watch.next().await {
            Ok(events) => assert_eq!(events.iter().map(describe).collect::<Vec<_>>(), ["+1=x@3", "+3=x@5", "+5=x@7"]),
            Err(error) => assert!(matches!(error, StoreError::TooSlow), "{error}"),
        }
    }
}

pub(crate) async fn list_and_watch_is_one_step(store: Shared) {
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for index in 0..200 {
                one(&store, create(&key(&format!("{index:03}")), "x")).await;
            }
        })
    };
    for _ in 0..20 {
        let (listing, mut watch) = store.list_and_watch(&pods(), &ListRange::all()).unwrap();
        assert!(listing.entries.iter().all(|entry| entry.revision <= listing.revision));
        let count = listing.entries.len();
        if count < 200 {
            let next = match timeout(PATIENCE, watch.next()).await.unwrap() {
                Ok(events) => events[0].revision(),
                Err(StoreError::TooSlow) => continue,
                Err(error) => panic!("{error}"),
            };
            assert_eq!(next, Revision(Revision::FIRST.0 + count as u64 + 1), "what follows the list");
        }
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
}

pub(crate) async fn compaction_forgets_only_the_past(store: Shared) {
    let mut entry = one(&store, create(&key("a"), "0")).await;
    for round in 1..10 {
        entry = one(&store, update(&key("a"), entry.revision, &round.to_string())).await;
    }
    let other = one(&store, create(&key("b"), "0")).await;
    one(&store, delete(&key("b"), other.revision)).await;
    let middle = Revision(6);
    store.compact(middle).await.unwrap();
    assert_eq!(store.compacted(), middle);
    let oldest = |error| match error {
        StoreError::Compacted { oldest } => oldest,
        other => panic!("{other}"),
    };
    assert_eq!(oldest(store.list_at(&pods(), ListRange::all(), Revision(5)).await.unwrap_err()), middle);
    assert_eq!(oldest(store.watch(&pods(), WatchFrom::After(Revision(5))).err().unwrap()), middle);
    let then = store.list_at(&pods(), ListRange::all(), middle).await.unwrap();
    assert_eq!(then.entries[0].bytes, "4");
    let mut watch = store.watch(&pods(), WatchFrom::After(middle)).unwrap();
    let told = read(&mut watch, 7).await;
    assert_eq!(told[0], "~a=5@7");
    assert_eq!(told[6], "-b=0@13");
    // Again, and backwards: nothing to do.
    store.compact(middle).await.unwrap();
    store.compact(Revision(2)).await.unwrap();
    assert_eq!(store.compacted(), middle);
    // Everything: what is left is the latest state, and names can be used again.
    store.compact(store.revision()).await.unwrap();
    assert_eq!(store.get(&key("a")).unwrap().bytes, "9");
    one(&store, create(&key("b"), "new")).await;
    let error = store.compact(Revision(10_000)).await.unwrap_err();
    assert!(matches!(error, StoreError::FutureRevision { .. }), "{error}");
}

pub(crate) async fn deletions_carry_the_last_state(store: Shared) {
    let value = Value::stamped("v=", ";");
    let made = one(&store, Op::Create { key: key("a"), value }).await;
    let gone = one(&store, delete(&key("a"), made.revision)).await;
    for filler in 0..8 {
        one(&store, create(&key(&format!("f{filler}")), "x")).await;
    }
    let mut watch = store.watch(&pods(), WatchFrom::After(made.revision)).unwrap();
    let events = timeout(PATIENCE, watch.next()).await.unwrap().unwrap();
    let WatchEvent::Deleted { entry, previous } = &events[0] else { panic!("{events:?}") };
    assert_eq!((entry.revision, &entry.bytes), (gone.revision, &gone.bytes));
    assert_eq!(entry.bytes, format!("v={};", gone.revision));
    assert_eq!((previous.revision, &previous.bytes), (made.revision, &made.bytes));
}

pub(crate) async fn volatile_writes_look_like_any_other(store: Shared) {
    let leases = Collection::new("coordination.k8s.io", "leases");
    let lease = leases.key("kube-node-lease", "node");
    let volatile = |ops| store.commit(ops, Durability::Volatile);
    let mut watch = store.watch(&leases, WatchFrom::Now).unwrap();
    let mut entry = volatile(vec![create(&lease, "0")]).await.unwrap().remove(0);
    for round in 1..3 {
        let next = volatile(vec![update(&lease, entry.revision, &round.to_string())]).await.unwrap().remove(0);
        assert_eq!(next.revision, entry.revision.next());
        entry = next;
    }
    let error = volatile(vec![update(&lease, Revision(2), "x")]).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    let entry = one(&store, update(&lease, entry.revision, "durable")).await;
    assert_eq!(read(&mut watch, 4).await, ["+node=0@2", "~node=1@3", "~node=2@4", "~node=durable@5"]);
    let entry = volatile(vec![update(&lease, entry.revision, "last")]).await.unwrap().remove(0);
    let gone = volatile(vec![delete(&lease, entry.revision)]).await.unwrap().remove(0);
    assert_eq!(gone.bytes, "last");
    assert_eq!(read(&mut watch, 2).await, ["~node=last@6", "-node=last@7"]);
    store.compact(store.revision()).await.unwrap();
    one(&store, create(&lease, "again")).await;
}

pub(crate) async fn limits_are_kept(store: Shared) {
    let long = "x".repeat(MAX_VALUE_BYTES + 1);
    let error = commit(&store, vec![create(&key("a"), &long)]).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { limit: MAX_VALUE_BYTES, .. }), "{error}");
    let many = (0..=MAX_TRANSACTION_OPS).map(|index| create(&key(&index.to_string()), "x")).collect();
    let error = commit(&store, many).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { limit: MAX_TRANSACTION_OPS, .. }), "{error}");
    one(&store, create(&key("a"), &long[1..])).await;
    assert_eq!(store.get(&key("a")).unwrap().bytes.len(), MAX_VALUE_BYTES);
}

pub(crate) async fn wait_for_returns_when_it_is_there(store: Shared) {
    store.wait_for(store.revision()).await.unwrap();
    let goal = Revision(store.revision().0 + 3);
    let waiter = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            store.wait_for(goal).await.unwrap();
            store.revision()
        })
    };
    for name in ["a", "b", "c"] {
        assert!(!waiter.is_finished());
        one(&store, create(&key(name), "x")).await;
    }
    assert_eq!(timeout(PATIENCE, waiter).await.unwrap().unwrap(), goal);
}

pub(crate) async fn the_future_is_refused(store: Shared) {
    let ahead = store.revision().next();
    let error = store.watch(&pods(), WatchFrom::After(ahead)).err().unwrap();
    assert!(matches!(error, StoreError::FutureRevision { asked, .. } if asked == ahead), "{error}");
    let error = store.list_at(&pods(), ListRange::all(), ahead).await.unwrap_err();
    assert!(matches!(error, StoreError::FutureRevision { .. }), "{error}");
}

pub(crate) async fn closing_ends_everything(store: Shared) {
    one(&store, create(&key("a"), "1")).await;
    let mut watch = store.watch(&pods(), WatchFrom::Now).unwrap();
    let waiting = tokio::spawn(async move { watch.next().await });
    let revision = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.wait_for(Revision(1_000)).await })
    };
    tokio::task::yield_now().await;
    store.close().await.unwrap();
    let closed = |error: StoreError| assert!(matches!(error, StoreError::Closed), "{error}");
    closed(timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap_err());
    closed(timeout(PATIENCE, revision).await.unwrap().unwrap().unwrap_err());
    closed(commit(&store, vec![create(&key("b"), "1")]).await.unwrap_err());
    closed(store.watch(&pods(), WatchFrom::Now).err().unwrap());
    assert!(store.get(&key("a")).is_some(), "what is known can still be read");
}

pub(crate) async fn collections_do_not_mix(store: Shared) {
    let other = Collection::new("apps", "deployments");
    let mut watch = store.watch(&other, WatchFrom::Now).unwrap();
    let both = vec![create(&key("a"), "pod"), create(&other.key("ns", "a"), "deployment")];
    let done = commit(&store, both).await.unwrap();
    assert_eq!(read(&mut watch, 1).await, ["+a=deployment@3"]);
    assert!(watch.try_next().unwrap().is_empty());
    assert_eq!(store.get(&key("a")).unwrap().bytes, "pod");
    one(&store, delete(&key("a"), done[0].revision)).await;
    assert_eq!(store.list(&other, &ListRange::all()).entries.len(), 1);
}

pub(crate) async fn concurrent_writers_and_watchers_agree(store: Shared) {
    const WRITERS: usize = 8;
    const ROUNDS: usize = 60;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for round in 0..ROUNDS {
                    // Two writers share a key, so some of these must fail.
                    let key = key(&format!("{}-{}", writer / 2, round % 4));
                    let op = match store.get(&key) {
                        None => create(&key, "x"),
                        Some(entry) if round % 5 == 0 => delete(&key, entry.revision),
                        Some(entry) => update(&key, entry.revision, "y"),
                    };
                    if let Ok(done) = commit(&store, vec![op]).await {
                        acknowledged.push(done[0].revision);
                    }
                }
                acknowledged
            })
        })
        .collect();
    let compactor = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for _ in 0..20 {
                let up_to = store.revision();
                store.compact(up_to).await.unwrap();
                tokio::task::yield_now().await;
            }
        })
    };
    let watcher = tokio::spawn(follow(Arc::clone(&store)));
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    compactor.await.unwrap();
    acknowledged.sort_unstable();
    let expect: Vec<_> = (Revision::FIRST.0 + 1..=store.revision().0).map(Revision).collect();
    assert_eq!(acknowledged, expect, "every acknowledged change has a revision of its own, and nobody else has one");
    one(&store, create(&key("end"), "end")).await;
    let seen = timeout(PATIENCE, watcher).await.expect("the watch reaches the end").unwrap();
    let latest = store.list(&pods(), &ListRange::all());
    let flat: Vec<_> = latest.entries.iter().map(|e| (e.key.name.to_string(), e.revision)).collect();
    assert_eq!(seen, flat);
}

/// Keeps a copy of a collection by list and watch, as a client does; returns it when the object `end` is there.
async fn follow(store: Shared) -> Vec<(String, Revision)> {
    loop {
        let (listing, mut watch) = store.list_and_watch(&pods(), &ListRange::all()).unwrap();
        let mut copy: std::collections::BTreeMap<String, Revision> =
            listing.entries.iter().map(|entry| (entry.key.name.to_string(), entry.revision)).collect();
        let mut last = listing.revision;
        while !copy.contains_key("ns/end") {
            let events = match watch.next().await {
                Ok(events) => events,
                Err(StoreError::TooSlow | StoreError::Compacted { .. }) => break,
                Err(error) => panic!("{error}"),
            };
            for event in events {
                let revision = event.revision();
                assert_eq!(revision, last.next(), "only this collection changes: no gap and no duplicate");
                last = revision;
                let name = event.entry().key.name.to_string();
                assert_eq!(event.previous().map(|entry| entry.revision), copy.get(&name).copied());
                match event {
                    WatchEvent::Put { .. } => copy.insert(name, revision),
                    WatchEvent::Deleted { .. } => copy.remove(&name),
                };
            }
        }
        if copy.contains_key("ns/end") {
            return copy.into_iter().collect();
        }
    }
}

pub(crate) async fn progress_is_told_when_all_is_read(store: Shared) {
    let mut watch = store.watch(&pods(), WatchFrom::Now).unwrap();
    assert_eq!(watch.progress(), Some(store.revision()));
    one(&store, create(&Collection::new("", "secrets").key("ns", "a"), "x")).await;
    assert_eq!(watch.progress(), Some(store.revision()), "changes elsewhere move it too");
    one(&store, create(&key("a"), "x")).await;
    assert_eq!(watch.progress(), None);
    read(&mut watch, 1).await;
    assert_eq!(watch.progress(), Some(store.revision()));
}
