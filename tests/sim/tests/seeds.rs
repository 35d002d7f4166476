//! Many seeds of the whole cluster. `SIM_SEED=n` runs one again; `SIM_SEEDS=count` runs so many, from `SIM_FROM` on.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use coracle_sim::{Failure, Sabotage, Settings, run};

/// Seeds that found something; they always run.
const KEPT: &str = include_str!("seeds.txt");
/// Seeds of a plain run; more by the variable.
const DEFAULT_SEEDS: u64 = 6;

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
                failures.lock().expect("no run panics while it holds the lock").push(failure);
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(worker))));
    failures.into_inner().expect("no run panics while it holds the lock")
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

/// What is wrong with how a broken promise is noticed.
fn misjudged(sabotage: Sabotage) -> Option<String> {
    let settings = Settings { sabotage: Some(sabotage) };
    // Not every world has what is to be broken: a budget, a Service with an endpoint.
    for seed in 0..4 {
        let Err(failure) = run(seed, settings) else { continue };
        let named = failure.what.contains(sabotage.complaint());
        return (!named).then(|| format!("{sabotage:?} is taken for something else: {failure}"));
    }
    Some(format!("{sabotage:?} goes unnoticed"))
}

#[test]
fn every_broken_promise_is_noticed() {
    let wrong: Vec<String> = Sabotage::ALL.iter().filter_map(|sabotage| misjudged(*sabotage)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
