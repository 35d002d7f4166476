//! What the store does by itself, and when: on a clock that the test holds.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::time::Duration;

use coracle_store::{
    Collection, Durability, Key, ListRange, Op, Options, Revision, SqliteStore, Store, StoreError, Value, WatchFrom,
};

fn lease() -> Key {
    Collection::new("coordination.k8s.io", "leases").key("kube-node-lease", "node")
}

fn store() -> SqliteStore {
    SqliteStore::in_memory(Options::default()).unwrap()
}

fn create(store: &SqliteStore, key: Key) -> Revision {
    let op = Op::Create { key, value: Value::plain("0") };
    store.commit_sync(vec![op], Durability::Durable).unwrap()[0].revision
}

fn update(store: &SqliteStore, key: &Key, durability: Durability) -> Result<Revision, StoreError> {
    let expected = store.get(key).unwrap().revision;
    let op = Op::Update { key: key.clone(), expected, value: Value::stamped("v=", "") };
    store.commit_sync(vec![op], durability).map(|done| done[0].revision)
}

fn beat(store: &SqliteStore) -> Revision {
    update(store, &lease(), Durability::Volatile).unwrap()
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn heartbeats_cost_one_write_a_minute() {
    let store = store();
    create(&store, lease());
    let before = store.stats().snapshot();
    for second in 0..600 {
        store.tick(at(second)).unwrap();
        for _ in 0..10 {
            beat(&store);
        }
    }
    let after = store.stats().snapshot();
    assert_eq!(after.transactions - before.transactions, 6_000);
    let writes = after.batches - before.batches;
    // One more: the first beat reserves revisions.
    assert!((9..=11).contains(&writes), "{writes} writes in ten minutes");
}

#[test]
fn an_idle_store_does_nothing() {
    let store = store();
    create(&store, lease());
    let before = store.stats().snapshot();
    // After a write it looks twice for decoded forms that nobody uses, and then never again.
    assert_eq!(store.tick(at(0)).unwrap(), Some(at(4)));
    assert_eq!(store.tick(at(4)).unwrap(), Some(at(8)));
    assert_eq!(store.tick(at(8)).unwrap(), None, "nothing is waiting");
    for hour in 1..100 {
        assert_eq!(store.tick(at(hour * 3_600)).unwrap(), None);
    }
    assert_eq!(store.stats().snapshot(), before);
}

/// Reads an object in decoded form; whether that had to be made.
fn decodes(store: &SqliteStore, key: &Key) -> bool {
    let mut made = false;
    let decoded = store.get(key).unwrap().decoded(|bytes| {
        made = true;
        Ok::<_, StoreError>(bytes.len())
    });
    decoded.unwrap();
    made
}

#[test]
fn decoded_forms_are_kept_while_they_are_used() {
    let store = store();
    let name = |index: usize| Collection::new("", "pods").key("ns", &format!("pod-{index}"));
    // More objects than one step looks at, so that a round has to go on where it stopped.
    for index in 0..10_000 {
        create(&store, name(index));
    }
    assert!((0..10_000).all(|index| decodes(&store, &name(index))));
    store.tick(at(30)).unwrap();
    let used = |index: usize| index.is_multiple_of(3);
    assert!((0..10_000).filter(|index| used(*index)).all(|index| !decodes(&store, &name(index))));
    store.tick(at(60)).unwrap();
    for index in 0..10_000 {
        assert_eq!(decodes(&store, &name(index)), !used(index), "{index}");
    }
}

#[test]
fn a_stream_of_writes_leaves_few_decoded_forms() {
    let store = store();
    let name = |index: usize| Collection::new("", "pods").key("ns", &format!("pod-{index}"));
    for index in 0..5_000 {
        create(&store, name(index));
        assert!(decodes(&store, &name(index)), "as those do who follow the changes");
    }
    let kept = (0..5_000).filter(|index| !decodes(&store, &name(*index))).count();
    assert_eq!(kept, 1_024);
}

#[test]
fn a_crash_takes_heartbeats_back_but_no_revision() {
    let mut store = store();
    create(&store, lease());
    let mut greatest = Revision::ZERO;
    for round in 0..20 {
        let mut last = Revision::ZERO;
        for _ in 0..100 {
            last = beat(&store);
            assert!(last > greatest, "round {round}: {last} was given out before");
        }
        greatest = last;
        let next = store.crash().unwrap();
        assert!(matches!(store.crash(), Err(StoreError::Closed)));
        store = next;
        assert!(store.revision() >= greatest, "the clock does not go back");
        assert!(store.get(&lease()).unwrap().revision < greatest, "it was only in memory");
        // Whoever saw what is lost must list again.
        let error = store.watch(&lease().collection, WatchFrom::After(Revision(greatest.0 - 1))).err().unwrap();
        assert!(matches!(error, StoreError::Compacted { .. }), "{error}");
    }
}

#[test]
fn a_flush_survives_the_crash() {
    let store = store();
    create(&store, lease());
    let beaten = beat(&store);
    store.tick(at(0)).unwrap();
    store.tick(at(61)).unwrap();
    beat(&store);
    let store = store.crash().unwrap();
    assert_eq!(store.get(&lease()).unwrap().revision, beaten);
    assert_eq!(store.get(&lease()).unwrap().bytes, format!("v={beaten}"));
}

#[test]
fn a_durable_write_over_a_heartbeat_keeps_both() {
    let store = store();
    create(&store, lease());
    let beaten = beat(&store);
    let durable = update(&store, &lease(), Durability::Durable).unwrap();
    let store = store.crash().unwrap();
    assert_eq!(store.get(&lease()).unwrap().revision, durable);
    assert!(durable > beaten);
    update(&store, &lease(), Durability::Durable).unwrap();
    let pods = Collection::new("", "pods");
    create(&store, pods.key("ns", "a"));
}

#[test]
fn history_is_forgotten_by_age_and_only_for_a_gain() {
    let store = store();
    let pod = Collection::new("", "pods").key("ns", "a");
    create(&store, pod.clone());
    for second in 0..200 {
        store.tick(at(second)).unwrap();
        update(&store, &pod, Durability::Durable).unwrap();
    }
    store.tick(at(3_600)).unwrap();
    assert_eq!(store.compacted(), Revision::ZERO, "200 old states are not worth a compaction");
    for _ in 0..1_000 {
        update(&store, &pod, Durability::Durable).unwrap();
    }
    let middle = store.revision();
    store.tick(at(3_700)).unwrap();
    assert!(store.compacted() > Revision::ZERO && store.compacted() < middle);
    let recent = store.compacted();
    store.tick(at(3_600 + 301)).unwrap();
    assert!(store.compacted() >= recent);
    assert!(store.stats().snapshot().compacted_rows >= 150);
    assert_eq!(store.list(&pod.collection, &ListRange::all()).entries.len(), 1);
}

#[test]
fn a_full_disk_in_a_simulation_acts_like_a_real_one() {
    let store = store();
    create(&store, lease());
    beat(&store);
    store.set_disk_full(true).unwrap();
    let before = store.revision();
    let error = update(&store, &lease(), Durability::Durable).unwrap_err();
    assert!(matches!(error, StoreError::Full), "{error}");
    assert_eq!(store.revision(), before);
    beat(&store);
    store.tick(at(0)).unwrap();
    assert!(matches!(store.tick(at(100)), Err(StoreError::Full)));
    store.set_disk_full(false).unwrap();
    update(&store, &lease(), Durability::Durable).unwrap();
}
