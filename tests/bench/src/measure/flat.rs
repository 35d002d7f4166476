//! Whether costs stay the same as objects become many: creates and reads a second at each of some sizes.

use anyhow::Result;
use clap::Args;

use super::config_maps::{Closed, DATA_BYTES, collection};
use crate::{
    bench::Bench,
    client::Call,
    load::{Load, Until},
    objects::{self, numbered},
    report::Line,
    scratch::in_namespace,
};

/// Measures at several sizes
#[derive(Debug, Clone, Args)]
pub(crate) struct Flat {
    /// Objects in the store at each measurement, growing
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1000, 200_000])]
    pub(crate) sizes: Vec<u64>,

    #[command(flatten)]
    pub(crate) closed: Closed,
}

/// Measures at each size.
pub(crate) async fn run(bench: &mut Bench, args: &Flat) -> Result<()> {
    in_namespace(bench, "flat", async |bench, namespace| {
        let path = collection(namespace);
        let mut load = Load::connect(&bench.endpoint, args.closed.connections).await?;
        let mut stored = 0;
        for size in &args.sizes {
            eprintln!("filling up to {size} objects");
            fill(&mut load, &path, stored, *size).await?;
            stored = stored.max(*size);
            creates(bench, &mut load, &path, &args.closed, stored).await?;
            gets(bench, &mut load, &path, &args.closed, stored).await?;
        }
        // Request by request: one request for all would take longer than some servers allow one to.
        load.run(Until::Count(stored), move |number| Call::delete(format!("{path}/{}", numbered("cm", number))))
            .await?;
        Ok(())
    })
    .await
}

async fn fill(load: &mut Load, path: &str, from: u64, to: u64) -> Result<()> {
    let (path, body) = (path.to_owned(), objects::config_map(DATA_BYTES));
    let make = move |number| Call::post(path.as_str(), body.fill(&numbered("cm", from + number)));
    load.run(Until::Count(to.saturating_sub(from)), make).await.map(drop)
}

async fn creates(bench: &mut Bench, load: &mut Load, path: &str, closed: &Closed, stored: u64) -> Result<()> {
    let (into, body) = (path.to_owned(), objects::config_map(DATA_BYTES));
    let name = format!("flat-create-{stored}");
    let probe = bench.probe(&name)?;
    let make = move |number| Call::post(into.as_str(), body.fill(&numbered("more", number)));
    let outcome = load.run(closed.until(), make).await?;
    let usage = probe.stop()?;
    let line = Line::new(name, outcome.rate(), "1/s")
        .latencies(&outcome.latencies)
        .usage_each(&usage, outcome.latencies.len())
        .with("connections", closed.connections)
        .with("objects", stored);
    bench.emit(line)?;
    let path = path.to_owned();
    let remove = move |number| Call::delete(format!("{path}/{}", numbered("more", number)));
    load.run(Until::Count(outcome.done), remove).await.map(drop)
}

async fn gets(bench: &mut Bench, load: &mut Load, path: &str, closed: &Closed, stored: u64) -> Result<()> {
    let path = path.to_owned();
    let name = format!("flat-get-{stored}");
    let probe = bench.probe(&name)?;
    let make = move |number| Call::get(format!("{path}/{}", numbered("cm", scattered(number, stored))));
    let outcome = load.run(closed.until(), make).await?;
    let usage = probe.stop()?;
    let line = Line::new(name, outcome.rate(), "1/s")
        .latencies(&outcome.latencies)
        .usage_each(&usage, outcome.latencies.len())
        .with("connections", closed.connections)
        .with("objects", stored);
    bench.emit(line)
}

/// Reads jump through all objects, so that no cache of neighbours helps.
fn scattered(number: u64, size: u64) -> u64 {
    const STEP: u64 = 7_919;
    number.wrapping_mul(STEP) % size
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn reads_reach_every_object() {
        let reached: BTreeSet<_> = (0..1000).map(|number| scattered(number, 1000)).collect();
        assert_eq!(reached.len(), 1000);
    }
}
