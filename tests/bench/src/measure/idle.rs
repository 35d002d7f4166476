//! A cluster in which nothing is asked for: what CPU time it takes, and how often it writes to its disk.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use hyper::body::Bytes;
use tokio::time::sleep;

use crate::{
    bench::Bench,
    client::Call,
    report::{Line, rounded},
};

/// Counters of a server's `/metrics`.
const COMMITS: &str = "coracle_store_commits_total";
const REVISION: &str = "coracle_store_revision";

/// Waits
#[derive(Debug, Clone, Args)]
pub(crate) struct Idle {
    /// How long to measure
    #[arg(long, value_name = "N", default_value_t = 120)]
    pub(crate) seconds: u64,
}

/// Counters at one moment, where the server has them.
struct Counters {
    commits: Option<f64>,
    revision: Option<f64>,
}

/// Measures an idle server.
pub(crate) async fn run(bench: &mut Bench, args: &Idle) -> Result<()> {
    let server = bench.server.context("--server-pid names the process whose CPU time is measured")?;
    let before = read(bench).await?;
    let probe = bench.probe("idle")?;
    let switches = server.switches()?;
    sleep(Duration::from_secs(args.seconds)).await;
    let wakeups = server.switches()?.saturating_sub(switches);
    let usage = probe.stop()?;
    let after = read(bench).await?;
    let seconds = usage.elapsed.as_secs_f64();
    let core = usage.server.map_or(f64::NAN, |cpu| cpu.as_secs_f64() / seconds * 100.0);
    let grown = |before: Option<f64>, after: Option<f64>| Some(after? - before?);
    let commits = grown(before.commits, after.commits);
    let line = Line::new("idle", core, "% of a core")
        .usage(&usage)
        .with("commits", commits)
        .with("commits_per_minute", commits.map(|count| rounded(count * 60.0 / seconds)))
        .with("revisions", grown(before.revision, after.revision))
        .with("wakeups_per_second", rounded(wakeups as f64 / seconds));
    bench.emit(line)
}

async fn read(bench: &Bench) -> Result<Counters> {
    // A connection that stays open might cost the server something.
    let page = bench.connect().await?.fetch(Call::get("/metrics")).await?;
    Ok(Counters { commits: sample(&page, COMMITS), revision: sample(&page, REVISION) })
}

/// The value of a sample without labels, in Prometheus' text format.
fn sample(page: &Bytes, name: &str) -> Option<f64> {
    let text = str::from_utf8(page).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_found_among_others() {
        let page = Bytes::from_static(b"# HELP a x\na_total 7\na 5\na{b=\"c\"} 6\n");
        assert_eq!(sample(&page, "a"), Some(5.0));
        assert_eq!(sample(&page, "a_total"), Some(7.0));
        assert_eq!(sample(&page, "b"), None);
    }
}
