//! A real process that writes as fast as it can is killed at any moment, again and again. No acknowledged write may be
//! missing afterwards, and no revision may be given out twice, volatile ones included.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use coracle_store::{Collection, Durability, Key, Op, Options, Revision, SqliteStore, Store, Value};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Where the child finds its store; its presence is what makes the process a child.
const DIR_VARIABLE: &str = "STORE_CRASH_DIR";
/// The child's round, so that no two lives of a key use the same numbers.
const ROUND_VARIABLE: &str = "STORE_CRASH_ROUND";
/// More rounds for a longer look.
const ROUNDS_VARIABLE: &str = "STORE_CRASH_ROUNDS";
const DEFAULT_ROUNDS: u64 = 300;

const WRITERS: u64 = 24;
/// Each key lives through so many operations: a create, updates, a delete.
const LIFE: u64 = 7;
/// More operations than a writer gets done in one round.
const ROUND_SPAN: u64 = LIFE * 1_000_000;

fn options() -> Options {
    // Upkeep must be hit as well.
    Options {
        keep_history: Some(Duration::from_millis(5)),
        min_superseded: 50,
        flush_interval: Duration::from_millis(10),
        ..Options::default()
    }
}

fn writer_key(writer: u64) -> Key {
    Collection::new("", "pods").key("ns", &writer.to_string())
}

fn lease_key() -> Key {
    Collection::new("coordination.k8s.io", "leases").key("kube-node-lease", "node")
}

fn number(text: &[u8]) -> u64 {
    std::str::from_utf8(text).unwrap().trim().parse().unwrap()
}

/// Not a test of its own: what the killed process runs.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR_VARIABLE) else { return };
    let round: u64 = std::env::var(ROUND_VARIABLE).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(SqliteStore::open(Path::new(&dir), options()).unwrap());
        say("ready");
        let heart = tokio::spawn(beat(Arc::clone(&store)));
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| tokio::spawn(write(Arc::clone(&store), writer, round))).collect();
        for writer in writers {
            writer.await.unwrap();
        }
        heart.await.unwrap();
    });
}

/// One line, in one piece; what is in the pipe survives the process.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("#{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

async fn write(store: Arc<SqliteStore>, writer: u64, round: u64) {
    let key = writer_key(writer);
    let mut entry = store.get(&key);
    let mut step = entry.as_ref().map_or(round * ROUND_SPAN, |entry| number(&entry.bytes) + 1);
    loop {
        let value = Value::plain(format!("{step:<400}"));
        let op = match (&entry, step % LIFE) {
            (None, 0) => Op::Create { key: key.clone(), value },
            (Some(entry), last) if last == LIFE - 1 => Op::Delete { key: key.clone(), expected: entry.revision },
            (Some(entry), _) => Op::Update { key: key.clone(), expected: entry.revision, value },
            (None, _) => unreachable!("a life begins with a create"),
        };
        let is_delete = matches!(op, Op::Delete { .. });
        let done = store.commit(vec![op], Durability::Durable).await.unwrap().remove(0);
        say(&format!("D {writer} {step} {}", done.revision));
        entry = (!is_delete).then_some(done);
        step += 1;
    }
}

async fn beat(store: Arc<SqliteStore>) {
    let key = lease_key();
    let mut entry = match store.get(&key) {
        Some(entry) => entry,
        None => {
            let op = Op::Create { key: key.clone(), value: Value::plain("0") };
            store.commit(vec![op], Durability::Volatile).await.unwrap().remove(0)
        }
    };
    loop {
        let op = Op::Update { key: key.clone(), expected: entry.revision, value: Value::plain("1") };
        entry = store.commit(vec![op], Durability::Volatile).await.unwrap().remove(0);
        say(&format!("V {}", entry.revision));
    }
}

fn start(dir: &Path, round: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(DIR_VARIABLE, dir)
        .env(ROUND_VARIABLE, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What the parent was told.
#[derive(Default)]
struct Told {
    /// The last acknowledged step of each writer.
    last: HashMap<u64, u64>,
    revisions: HashSet<u64>,
    greatest: u64,
}

impl Told {
    fn take(&mut self, lines: &str, floor: u64) {
        for line in lines.lines() {
            let words: Vec<&str> = line.rsplit('#').next().unwrap_or("").split(' ').collect();
            let revision: u64 = match words[..] {
                ["D", writer, step, revision] => {
                    self.last.insert(writer.parse().unwrap(), step.parse().unwrap());
                    revision.parse().unwrap()
                }
                ["V", revision] => revision.parse().unwrap(),
                _ => continue,
            };
            assert!(self.revisions.insert(revision), "revision {revision} was given out twice");
            assert!(revision > floor, "revision {revision} is not after {floor}, which an earlier run gave out");
            self.greatest = self.greatest.max(revision);
        }
    }

    /// Each key stands where its last acknowledged step left it, or at a step that was under way: one for each of
    /// the `runs` since the last look.
    fn check(&mut self, store: &SqliteStore, runs: u64) {
        assert!(store.revision() >= Revision(self.greatest), "revisions went back");
        for writer in 0..WRITERS {
            let Some(last) = self.last.get(&writer).copied() else { continue };
            let may_be_gone = (last..=last + runs).any(|step| step % LIFE == LIFE - 1);
            match store.get(&writer_key(writer)) {
                None => assert!(may_be_gone, "writer {writer}: step {last} was acknowledged and is lost"),
                Some(entry) => {
                    let step = number(&entry.bytes);
                    let expected = (last..=last + runs).contains(&step) || may_be_gone && step > last;
                    assert!(expected, "writer {writer}: step {last} was acknowledged, found {step}");
                    self.last.insert(writer, step);
                }
            }
        }
    }
}

#[test]
fn killed_at_any_moment_nothing_acknowledged_is_lost() {
    if std::env::var_os(DIR_VARIABLE).is_some() {
        return;
    }
    let rounds = std::env::var(ROUNDS_VARIABLE).map_or(DEFAULT_ROUNDS, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(7);
    let mut told = Told::default();
    for round in 1..=rounds {
        let mut child = start(dir.path(), round);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut head = String::new();
        while !head.ends_with("#ready\n") {
            if out.read_line(&mut head).unwrap() == 0 {
                let mut error = String::new();
                child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
                panic!("the child did not start: {head}{error}");
            }
        }
        // The pipe must not fill up: read beside the wait.
        let reader = std::thread::spawn(move || {
            let mut lines = Vec::new();
            out.read_to_end(&mut lines).unwrap();
            lines
        });
        std::thread::sleep(Duration::from_micros(random.random_range(0..40_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let lines = reader.join().unwrap();
        // A line that was cut off was never said.
        let whole = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let floor = told.greatest;
        told.take(std::str::from_utf8(&lines[..whole]).unwrap(), floor);
        // Only every other time, so that crashes follow crashes too.
        if round % 2 == 0 {
            let store = SqliteStore::open(dir.path(), options()).unwrap();
            told.check(&store, 2);
        }
    }
    assert!(told.revisions.len() as u64 > rounds, "the children did write: {}", told.revisions.len());
}
