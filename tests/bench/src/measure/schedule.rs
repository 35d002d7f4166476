//! From a pod's creation to its binding, as a watcher sees it, with many pods at once and nodes that only exist in the API.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::time::timeout;

use super::pods::collection;
use crate::{
    bench::Bench,
    client::Call,
    cordon::with_cordon,
    fleet::with_fleet,
    latency::{Latencies, Stamps},
    load::{Load, Until},
    objects::{self, Placement, marker, number_in, numbered},
    report::{Line, rounded},
    scratch::in_namespace,
    watch::Watch,
};

/// What the pods are called.
const PREFIX: &str = "sched";
/// How long all of them may take.
const LIMIT: Duration = Duration::from_secs(600);

/// Schedules pods
#[derive(Debug, Clone, Args)]
pub(crate) struct Schedule {
    /// Nodes to place them on
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) nodes: u64,

    /// Pods to place
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub(crate) pods: u64,

    /// Connections that create them, each with one request at a time
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) connections: usize,
}

/// Schedules pods.
pub(crate) async fn run(bench: &mut Bench, args: &Schedule) -> Result<()> {
    // A cluster's own nodes would run the pods.
    with_cordon(bench, async |bench| {
        with_fleet(bench, args.nodes, async |bench, _| {
            in_namespace(bench, "schedule", async |bench, namespace| place(bench, args, namespace).await).await
        })
        .await
    })
    .await
}

async fn place(bench: &mut Bench, args: &Schedule, namespace: &str) -> Result<()> {
    let (path, body) = (collection(namespace), objects::pod(&Placement::Scheduled));
    let revision = Watch::revision(bench, &path).await?;
    let mut watch = Watch::open(bench, &path, &revision, "").await?;
    let mut load = Load::connect(&bench.endpoint, args.connections).await?;
    let stamps = Arc::new(Stamps::new(usize::try_from(args.pods)?));

    let probe = bench.probe(&format!("schedule-{}", args.nodes))?;
    let begun = Instant::now();
    let noted = Arc::clone(&stamps);
    let creating = load.run(Until::Count(args.pods), move |number| {
        let call = Call::post(path.as_str(), body.fill(&numbered(PREFIX, number)));
        noted.mark(number as usize);
        call
    });
    let binding = async { timeout(LIMIT, bound(&mut watch, &stamps, args.pods)).await.context("pods stay unbound")? };
    let (created, latencies) = tokio::try_join!(creating, binding)?;
    let elapsed = begun.elapsed();
    let usage = probe.stop()?;

    let line = Line::new(format!("schedule-{}", args.nodes), args.pods as f64 / elapsed.as_secs_f64(), "1/s")
        .latencies(&latencies)
        .usage_each(&usage, latencies.len())
        .with("nodes", args.nodes)
        .with("pods", args.pods)
        .with("connections", args.connections)
        .with("created_per_second", rounded(created.rate()));
    bench.emit(line)
}

/// Waits until all pods are bound; the time each took.
async fn bound(watch: &mut Watch, stamps: &Stamps, pods: u64) -> Result<Latencies> {
    let marker = marker(PREFIX);
    let mut seen = vec![false; usize::try_from(pods)?];
    let mut latencies = Latencies::with_capacity(seen.len());
    while latencies.len() < seen.len() {
        let each = |line: &[u8]| {
            let Some(number) = number_in(line, &marker).filter(|number| is_bound(line) && !seen[*number]) else {
                return;
            };
            if let Some(took) = stamps.since(number) {
                seen[number] = true;
                latencies.record(took);
            }
        };
        watch.next(each).await?.context("the server ended the watch")?;
    }
    Ok(latencies)
}

/// Whether an event's pod has a node.
fn is_bound(line: &[u8]) -> bool {
    str::from_utf8(line).is_ok_and(|text| text.contains("\"nodeName\":\""))
}
