//! Measures the store on this machine and prints one JSON line per figure.
//! `cargo run --release -p coracle-store --example store_bench -- [DIR]`
#![allow(clippy::unwrap_used, reason = "a measurement ends at the first surprise")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coracle_store::{
    Collection, Durability, Key, ListRange, Op, Options, Revision, SqliteStore, Store, Value, WatchFrom,
};

const VALUE_BYTES: usize = 1_024;
const RUN: Duration = Duration::from_secs(4);

fn pods() -> Collection {
    Collection::new("", "pods")
}

fn key(index: u64) -> Key {
    // Spread over the index as real names are.
    pods().key(&format!("ns-{}", index % 10), &format!("pod-{:016x}", index.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
}

fn value() -> Value {
    Value::stamped(vec![b'x'; VALUE_BYTES / 2], vec![b'x'; VALUE_BYTES / 2])
}

fn open(dir: &std::path::Path) -> Arc<SqliteStore> {
    Arc::new(SqliteStore::open(dir, Options::default()).unwrap())
}

/// Creates objects from many writers for a while; returns rates and waiting times.
async fn creates(store: &Arc<SqliteStore>, writers: u64, next: &Arc<AtomicU64>, what: &str, run: Duration) {
    let before = store.stats().snapshot();
    let cpu = cpu_time();
    let started = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let (store, next) = (Arc::clone(store), Arc::clone(next));
            tokio::spawn(async move {
                let mut times = Vec::new();
                while started.elapsed() < run {
                    let op = Op::Create { key: key(next.fetch_add(1, Ordering::Relaxed)), value: value() };
                    let begun = Instant::now();
                    store.commit(vec![op], Durability::Durable).await.unwrap();
                    times.push(begun.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    let took = started.elapsed();
    let cpu = cpu_time() - cpu;
    times.sort_unstable();
    let after = store.stats().snapshot();
    let at = |share: f64| times[(times.len() as f64 * share) as usize].as_micros();
    println!(
        r#"{{"what":"{what}","writers":{writers},"per_second":{:.0},"p50_us":{},"p99_us":{},"max_us":{},"per_batch":{:.1},"checkpoints":{},"cpu_us_each":{:.1}}}"#,
        times.len() as f64 / took.as_secs_f64(),
        at(0.5),
        at(0.99),
        times.last().unwrap().as_micros(),
        times.len() as f64 / (after.batches - before.batches) as f64,
        after.checkpoints - before.checkpoints,
        cpu.as_micros() as f64 / times.len() as f64,
    );
}

fn gets(store: &SqliteStore, count: u64) {
    let started = Instant::now();
    let mut reads = 0u64;
    let keys: Vec<_> = (0..count.min(5_000)).map(|index| key(index * (count / count.min(5_000)))).collect();
    while started.elapsed() < Duration::from_secs(1) {
        for key in &keys {
            assert!(store.get(key).is_some());
            reads += 1;
        }
    }
    println!(r#"{{"what":"get","stored":{count},"per_second":{:.0}}}"#, reads as f64 / started.elapsed().as_secs_f64());
    let started = Instant::now();
    let range = ListRange { limit: Some(500), ..ListRange::all() };
    for _ in 0..100 {
        assert!(!store.list(&pods(), &range).entries.is_empty());
    }
    println!(r#"{{"what":"list of 500","stored":{count},"us":{:.1}}}"#, started.elapsed().as_micros() as f64 / 100.0);
}

/// 100 watchers, 200 creates a second: the time from a commit's answer to the last watcher.
async fn fan_out(store: &Arc<SqliteStore>, next: &Arc<AtomicU64>) {
    const WATCHERS: usize = 100;
    const EVENTS: usize = 600;
    let cpu = cpu_time();
    let started = Instant::now();
    let tasks: Vec<_> = (0..WATCHERS)
        .map(|_| {
            let mut watch = store.watch(&pods(), WatchFrom::Now).unwrap();
            tokio::spawn(async move {
                let mut seen = Vec::with_capacity(EVENTS);
                while seen.len() < EVENTS {
                    let now = watch.next().await.unwrap();
                    seen.extend(now.iter().map(|event| (event.revision(), Instant::now())));
                }
                seen
            })
        })
        .collect();
    let mut sent = Vec::new();
    for _ in 0..EVENTS {
        let op = Op::Create { key: key(next.fetch_add(1, Ordering::Relaxed)), value: value() };
        let begun = Instant::now();
        let revision: Revision = store.commit(vec![op], Durability::Durable).await.unwrap()[0].revision;
        sent.push((revision, begun));
        tokio::time::sleep(Duration::from_millis(5).saturating_sub(begun.elapsed())).await;
    }
    let mut times = Vec::new();
    for task in tasks {
        let seen = task.await.unwrap();
        for ((sent, begun), (told, at)) in sent.iter().zip(seen) {
            assert_eq!(*sent, told);
            times.push(at.duration_since(*begun));
        }
    }
    times.sort_unstable();
    println!(
        r#"{{"what":"fan-out to {WATCHERS} watchers","p50_us":{},"p99_us":{},"cpu_seconds_per_second":{:.3}}}"#,
        times[times.len() / 2].as_micros(),
        times[times.len() * 99 / 100].as_micros(),
        (cpu_time() - cpu).as_secs_f64() / started.elapsed().as_secs_f64(),
    );
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn fill(store: &Arc<SqliteStore>, next: &Arc<AtomicU64>, up_to: u64) {
    while next.load(Ordering::Relaxed) < up_to {
        let ops: Vec<_> =
            (0..1_000).map(|_| Op::Create { key: key(next.fetch_add(1, Ordering::Relaxed)), value: value() }).collect();
        store.commit(ops, Durability::Durable).await.unwrap();
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let base = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(base).unwrap();
    println!(r#"{{"what":"resident at start","kib":{}}}"#, resident_kib());
    let next = Arc::new(AtomicU64::new(0));
    let store = open(dir.path());
    println!(r#"{{"what":"resident with an empty store","kib":{}}}"#, resident_kib());
    fill(&store, &next, 1_000).await;
    gets(&store, 1_000);
    fan_out(&store, &next).await;
    creates(&store, 1, &next, "durable create, 1 KiB", RUN).await;
    creates(&store, 16, &next, "durable create, 1 KiB", RUN).await;
    creates(&store, 64, &next, "durable create, 1 KiB", RUN).await;
    fill(&store, &next, 200_000).await;
    gets(&store, 200_000);
    creates(&store, 64, &next, "durable create, 1 KiB, 200,000 stored", RUN).await;
    let stored = store.list(&pods(), &ListRange::all()).entries.len();
    println!(r#"{{"what":"resident","stored":{stored},"kib":{}}}"#, resident_kib());
    let started = Instant::now();
    store.close().await.unwrap();
    drop(store);
    println!(r#"{{"what":"close","ms":{}}}"#, started.elapsed().as_millis());
    let started = Instant::now();
    let store = open(dir.path());
    println!(r#"{{"what":"open","stored":{stored},"ms":{}}}"#, started.elapsed().as_millis());
    assert_eq!(store.list(&pods(), &ListRange::all()).entries.len(), stored);
}
