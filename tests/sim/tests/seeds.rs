//! Many seeds of the whole cluster. `SIM_SEED=n` runs one again; `SIM_SEEDS=count` runs so many.

use coracle_sim::run;

/// Seeds that found something.
const KEPT: &[u64] = &[21];
/// Seeds of a plain run: about half a minute; more by the variable.
const DEFAULT_SEEDS: u64 = 20;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

#[test]
fn every_seed_keeps_what_was_promised() {
    let seeds: Vec<u64> = match number("SIM_SEED") {
        Some(seed) => vec![seed],
        None => KEPT.iter().copied().chain(0..number("SIM_SEEDS").unwrap_or(DEFAULT_SEEDS)).collect(),
    };
    let failures: Vec<String> =
        seeds.iter().filter_map(|seed| run(*seed).err()).map(|failure| failure.to_string()).collect();
    assert!(failures.is_empty(), "{} of {} seeds failed:\n{}", failures.len(), seeds.len(), failures.join("\n"));
}

#[test]
fn a_seed_tells_the_same_story_each_time() {
    for seed in [1, 2] {
        assert_eq!(run(seed), run(seed));
    }
}
