//! Many seeds of the whole cluster. `SIM_SEED=n` runs one again; `SIM_SEEDS=count` runs so many, from `SIM_FROM` on.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use coracle_sim::{Failure, Sabotage, Settings, run};

/// Seeds that found something; they always run.
const KEPT: &str = include_str!("seeds.txt");
/// Seeds of a plain run; more by the variable.
const DEFAULT_SEEDS: u64 = 60;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

fn kept() -> Vec<u64> {
    let lines = KEPT.lines().filter_map(|line| line.split('#').next()).map(str::trim);
    lines.filter(|line| !line.is_empty()).map(|line| line.parse().expect("a seed is a number")).collect()
}

/// Runs seeds on every core, each world on one thread.
fn run_all(seeds: &[u64]) -> Vec<Failure> {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let worker = || {
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(failure) = run(*seed, Settings::default()) {
                eprintln!("{failure}");
                failures.lock().unwrap().push(failure);
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(worker))));
    failures.into_inner().unwrap()
}

#[test]
fn every_seed_keeps_what_was_promised() {
    let from = number("SIM_FROM").unwrap_or(0);
    let seeds: Vec<u64> = match number("SIM_SEED") {
        Some(seed) => vec![seed],
        None => kept().into_iter().chain(from..from + number("SIM_SEEDS").unwrap_or(DEFAULT_SEEDS)).collect(),
    };
    let failures: Vec<String> = run_all(&seeds).iter().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{} of {} seeds failed:\n{}", failures.len(), seeds.len(), failures.join("\n"));
}

#[test]
fn a_seed_tells_the_same_story_each_time() {
    for seed in [1, 2, 3] {
        let first = run(seed, Settings::default());
        assert_eq!(first, run(seed, Settings::default()));
        assert_ne!(
            first.map(|outcome| outcome.trace),
            run(seed + 10, Settings::default()).map(|outcome| outcome.trace)
        );
    }
}

#[test]
fn every_broken_promise_is_noticed() {
    for sabotage in Sabotage::ALL {
        let settings = Settings { sabotage: Some(*sabotage) };
        // Not every world has what is to be broken: a budget, a Service with an endpoint.
        let complaints: Vec<String> = (0..4).filter_map(|seed| run(seed, settings).err()).map(|f| f.what).collect();
        assert!(!complaints.is_empty(), "{sabotage:?} goes unnoticed");
        for complaint in complaints {
            assert!(complaint.contains(sabotage.complaint()), "{sabotage:?} is taken for something else: {complaint}");
        }
    }
}
