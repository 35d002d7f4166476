//! Many seeds of the whole cluster. `SIM_SEED=n` runs one again; `SIM_SEEDS=count` runs so many, from `SIM_FROM` on.
//! With `SIM_STORY=file` the one that is run again writes there what happened, step by step.

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use coracle_sim::{Failure, Keep, Outcome, Sabotage, Settings, run, tell};

/// Seeds that found something; they always run.
const KEPT: &str = include_str!("seeds.txt");
/// Seeds of a plain run; more by the variable.
const DEFAULT_SEEDS: u64 = 1_000;
/// Seeds whose story is told twice, and how many of them in another process too.
const TOLD_TWICE: u64 = 24;
const TOLD_ELSEWHERE: u64 = 4;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

fn kept() -> Vec<u64> {
    let lines = KEPT.lines().filter_map(|line| line.split('#').next()).map(str::trim);
    lines.filter(|line| !line.is_empty()).map(|line| line.parse().expect("a seed is a number")).collect()
}

/// Does work for each item on every core, each on one thread; the answers that are there, in the order of the items.
fn on_all_cores<T: Sync, A: Send>(items: &[T], work: impl Fn(&T) -> Option<A> + Sync) -> Vec<A> {
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::new());
    let worker = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            if let Some(answer) = work(item) {
                answers.lock().expect("nobody panics while it holds the lock").push((at, answer));
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(worker))));
    let mut answers = answers.into_inner().expect("nobody panics while it holds the lock");
    answers.sort_by_key(|(at, _)| *at);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

fn failure_of(seed: &u64) -> Option<Failure> {
    let result = match std::env::var("SIM_STORY") {
        Err(_) => run(*seed, Settings::default()),
        Ok(path) => {
            let (result, story) = tell(*seed, Settings { keep: Keep::Lines, ..Settings::default() });
            std::fs::write(&path, story.join("\n")).unwrap_or_else(|error| panic!("{path}: {error}"));
            result
        }
    };
    match result {
        Ok(outcome) => {
            println!("{}", line_of(*seed, &outcome));
            None
        }
        Err(failure) => {
            eprintln!("{failure}");
            Some(failure)
        }
    }
}

/// What is printed of a run that went well.
fn line_of(seed: u64, outcome: &Outcome) -> String {
    format!("seed {seed}: {outcome:?}")
}

#[test]
fn every_seed_keeps_what_was_promised() {
    let from = number("SIM_FROM").unwrap_or(0);
    let seeds: Vec<u64> = match number("SIM_SEED") {
        Some(seed) => vec![seed],
        None => kept().into_iter().chain(from..from + number("SIM_SEEDS").unwrap_or(DEFAULT_SEEDS)).collect(),
    };
    let failures: Vec<String> = on_all_cores(&seeds, failure_of).iter().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{} of {} seeds failed:\n{}", failures.len(), seeds.len(), failures.join("\n"));
}

/// Where two tellings of one seed part.
fn parting(seed: &u64) -> Option<String> {
    let settings = Settings { keep: Keep::Lines, ..Settings::default() };
    let ((first, lines), (second, again)) = (tell(*seed, settings), tell(*seed, settings));
    if first == second && lines == again && !lines.is_empty() {
        return None;
    }
    let same = lines.iter().zip(&again).take_while(|(one, other)| one == other).count();
    let [one, other] = [&lines, &again].map(|lines| lines.get(same).map_or("the end", String::as_str));
    Some(format!("seed {seed}, line {same} of {} and {}:\n{one}\n{other}", lines.len(), again.len()))
}

#[test]
fn a_seed_tells_one_story() {
    let seeds: Vec<u64> = (0..TOLD_TWICE).collect();
    let partings = on_all_cores(&seeds, parting);
    assert!(partings.is_empty(), "{}", partings.join("\n\n"));
}

/// Another process has other addresses, and other keys for its tables.
#[test]
fn a_seed_tells_the_same_story_in_another_process() {
    let program = std::env::current_exe().expect("a test knows where it is");
    for seed in 0..TOLD_ELSEWHERE {
        let here = run(seed, Settings::default()).unwrap_or_else(|failure| panic!("{failure}"));
        let there = Command::new(&program)
            .args(["--exact", "every_seed_keeps_what_was_promised", "--nocapture"])
            .env("SIM_SEED", seed.to_string())
            .output()
            .expect("a test can start itself");
        let told = String::from_utf8_lossy(&there.stdout);
        assert!(told.contains(&line_of(seed, &here)), "{} is told otherwise: {told}", line_of(seed, &here));
    }
}

/// What is wrong with how a broken promise is noticed.
fn misjudged(sabotage: &Sabotage) -> Option<String> {
    let settings = Settings { sabotage: Some(*sabotage), ..Settings::default() };
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
    let wrong = on_all_cores(Sabotage::ALL, misjudged);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
