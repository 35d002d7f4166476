//! Random histories, checked against a model so simple that it can't be wrong: every state of every revision is kept.

use std::collections::BTreeMap;

use coracle_store::{
    Collection, Durability, Key, ListRange, Op, Revision, StoreError, Value, Watch, WatchEvent, WatchFrom,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::Subject;

/// One thing that someone does. Numbers pick among what there is.
#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(Target, Change)>, bool),
    Watch { collection: u8, back: u8 },
    Read,
    ListPast { collection: u8, back: u8, limit: u8 },
    Compact { back: u8 },
}

#[derive(Clone, Copy, Debug)]
struct Target {
    collection: u8,
    name: u8,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Create,
    Update,
    Delete,
    Stale,
}

type State = BTreeMap<String, (Revision, Revision, String)>;

/// One change as the model remembers it: (collection, name, revision, text, deleted).
type Told = (u8, String, Revision, String, bool);

#[derive(Default)]
struct Model {
    /// `states[i]` is the state at revision `FIRST + i`.
    states: Vec<BTreeMap<u8, State>>,
    log: Vec<Told>,
    compacted: u64,
}

impl Model {
    fn now(&self) -> BTreeMap<u8, State> {
        self.states.last().cloned().unwrap_or_default()
    }

    fn revision(&self) -> Revision {
        Revision(Revision::FIRST.0 + self.states.len() as u64)
    }

    fn at(&self, revision: Revision, collection: u8) -> State {
        match revision.0.checked_sub(Revision::FIRST.0 + 1) {
            None => State::new(),
            Some(index) => self.states[index as usize].get(&collection).cloned().unwrap_or_default(),
        }
    }
}

fn collection(index: u8) -> Collection {
    Collection::new("", ["pods", "leases"][usize::from(index)])
}

fn key(target: Target) -> Key {
    collection(target.collection).key(["a", "b"][usize::from(target.name % 2)], &format!("o{}", target.name))
}

fn step() -> impl Strategy<Value = Step> {
    let target = (0..2u8, 0..5u8).prop_map(|(collection, name)| Target { collection, name });
    let change = prop_oneof![3 => Just(Change::Create), 4 => Just(Change::Update), 2 => Just(Change::Delete), 1 => Just(Change::Stale)];
    prop_oneof![
        10 => (prop::collection::vec((target, change), 1..3), prop::bool::weighted(0.3)).prop_map(|(ops, volatile)| Step::Write(ops, volatile)),
        2 => (0..2u8, 0..20u8).prop_map(|(collection, back)| Step::Watch { collection, back }),
        3 => Just(Step::Read),
        3 => (0..2u8, 0..20u8, 0..4u8).prop_map(|(collection, back, limit)| Step::ListPast { collection, back, limit }),
        1 => (0..10u8).prop_map(|back| Step::Compact { back }),
    ]
}

/// Runs many histories on fresh stores.
pub(crate) fn check(make: &dyn Fn() -> Subject) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let result = runner.run(&prop::collection::vec(step(), 1..60), |steps| {
        let subject = make();
        runtime.block_on(run(&subject, &steps));
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

struct Follower {
    collection: u8,
    watch: Watch,
    from: Revision,
    told: Vec<Told>,
}

async fn run(subject: &Subject, steps: &[Step]) {
    let mut model = Model::default();
    let mut followers: Vec<Follower> = Vec::new();
    // A collection with volatile changes may answer "compacted" for any past; the model allows it that.
    let mut volatile = [false; 2];
    for step in steps {
        match step {
            Step::Write(ops, fleeting) => write(subject, &mut model, ops, *fleeting, &mut volatile).await,
            Step::Watch { collection: index, back } => {
                let from = Revision(model.revision().0.saturating_sub(u64::from(*back)));
                match subject.store.watch(&collection(*index), WatchFrom::After(from)) {
                    Ok(watch) => {
                        assert!(from.0 >= model.compacted);
                        followers.push(Follower { collection: *index, watch, from, told: Vec::new() });
                    }
                    Err(StoreError::Compacted { .. }) => {
                        assert!(from.0 < model.compacted || volatile[usize::from(*index)])
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Read => follow(&mut followers).await,
            Step::ListPast { collection: index, back, limit } => {
                list_past(subject, &model, *index, *back, *limit, volatile[usize::from(*index)]).await;
            }
            Step::Compact { back } => {
                let up_to = model.revision().0.saturating_sub(u64::from(*back));
                subject.store.compact(Revision(up_to)).await.unwrap();
                model.compacted = model.compacted.max(up_to);
                assert_eq!(subject.store.compacted().0, model.compacted);
            }
        }
        assert_eq!(subject.store.revision(), model.revision());
    }
    follow(&mut followers).await;
    for follower in &followers {
        let expect: Vec<_> =
            model.log.iter().filter(|told| told.0 == follower.collection && told.2 > follower.from).cloned().collect();
        assert_eq!(follower.told, expect, "a watch after {}", follower.from);
    }
}

async fn write(
    subject: &Subject,
    model: &mut Model,
    ops: &[(Target, Change)],
    fleeting: bool,
    volatile: &mut [bool; 2],
) {
    let now = model.now();
    let (mut state, mut states, mut log) = (now.clone(), Vec::new(), Vec::new());
    let mut next = model.revision();
    let mut holds = true;
    let mut sent = Vec::new();
    for (target, change) in ops {
        let key = key(*target);
        next = next.next();
        let text = format!("{}@{next}", key.name);
        let value = Value::stamped(format!("{}@", key.name), "");
        let of_collection = state.entry(target.collection).or_default();
        let current = of_collection.get(&*key.name).cloned();
        let known = current.as_ref().map_or(Revision(1), |state| state.0);
        let op = match change {
            Change::Create => {
                holds &= current.is_none();
                Op::Create { key: key.clone(), value }
            }
            Change::Update | Change::Stale => {
                let expected = if matches!(change, Change::Stale) { Revision(known.0 + 1_000) } else { known };
                holds &= current.is_some() && expected == known;
                Op::Update { key: key.clone(), expected, value }
            }
            Change::Delete => {
                holds &= current.is_some();
                Op::Delete { key: key.clone(), expected: known }
            }
        };
        let deleted = matches!(op, Op::Delete { .. });
        if deleted {
            of_collection.remove(&*key.name);
        } else {
            let created = current.as_ref().map_or(next, |state| state.1);
            of_collection.insert(key.name.to_string(), (next, created, text));
        }
        // A deletion repeats the last text with its own revision, which `Value::stamped` makes the same words.
        log.push((target.collection, key.name.to_string(), next, format!("{}@{next}", key.name), deleted));
        states.push(state.clone());
        sent.push(op);
    }
    let durability = if fleeting { Durability::Volatile } else { Durability::Durable };
    let result = subject.store.commit(sent, durability).await;
    assert_eq!(result.is_ok(), holds, "{ops:?}: {result:?}");
    if holds {
        model.states.extend(states);
        for told in &log {
            volatile[usize::from(told.0)] |= fleeting;
        }
        model.log.extend(log);
    }
}

async fn follow(followers: &mut Vec<Follower>) {
    let mut kept = Vec::new();
    for mut follower in followers.drain(..) {
        loop {
            // Everything is committed: a watch is done when it says that nothing is left.
            if follower.watch.progress().is_some() {
                kept.push(follower);
                break;
            }
            match follower.watch.next().await {
                Ok(events) => follower.told.extend(events.iter().map(|event| told(follower.collection, event))),
                // Allowed with little memory: the client lists again.
                Err(StoreError::TooSlow | StoreError::Compacted { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    *followers = kept;
}

fn told(collection: u8, event: &WatchEvent) -> Told {
    let entry = event.entry();
    let text = String::from_utf8(entry.bytes.to_vec()).unwrap();
    (collection, entry.key.name.to_string(), entry.revision, text, matches!(event, WatchEvent::Deleted { .. }))
}

async fn list_past(subject: &Subject, model: &Model, index: u8, back: u8, limit: u8, volatile: bool) {
    let at = Revision(model.revision().0.saturating_sub(u64::from(back)).max(1));
    let limit = (limit > 0).then_some(usize::from(limit));
    let range = ListRange { limit, ..ListRange::all() };
    let listing = match subject.store.list_at(&collection(index), range, at).await {
        Ok(listing) => listing,
        Err(StoreError::Compacted { .. }) => return assert!(at.0 < model.compacted || volatile),
        Err(error) => panic!("{error}"),
    };
    assert!(at.0 >= model.compacted);
    let expect = model.at(at, index);
    let found: Vec<_> = listing
        .entries
        .iter()
        .map(|e| (e.key.name.to_string(), (e.revision, e.created, String::from_utf8(e.bytes.to_vec()).unwrap())))
        .collect();
    let page = limit.unwrap_or(usize::MAX).min(expect.len());
    assert_eq!(found, expect.clone().into_iter().take(page).collect::<Vec<_>>());
    assert_eq!(listing.remaining, expect.len() - page);
}
