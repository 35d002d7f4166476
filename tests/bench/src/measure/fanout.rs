//! Many watchers of the same pods while pods are created at a steady rate: how late each event comes, and whether all come.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use clap::Args;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::pods::collection;
use crate::{
    bench::Bench,
    client::Call,
    latency::{Latencies, Stamps},
    objects::{self, Placement, Template, marker, number_in, numbered},
    report::{Line, rounded},
    scratch::in_namespace,
    watch::Watch,
};

/// What the pods are called.
const PREFIX: &str = "fan";
/// Connections that create pods in turn, so that one slow answer does not hold up the rate.
const CREATORS: u64 = 8;
/// How long events may be under way before they count as lost.
const LATE: Duration = Duration::from_secs(5);

/// Watches pods
#[derive(Debug, Clone, Args)]
pub(crate) struct Fanout {
    /// Watches, each on a connection of its own
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) watchers: usize,

    /// Pods created in a second
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(crate) rate: u32,

    /// How long to measure
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) seconds: u32,
}

/// What one watcher saw.
#[derive(Debug)]
struct Seen {
    latencies: Latencies,
    twice: u64,
    bytes: u64,
}

/// Watches pods.
pub(crate) async fn run(bench: &mut Bench, args: &Fanout) -> Result<()> {
    in_namespace(bench, "watch-fanout", async |bench, namespace| {
        let path = collection(namespace);
        let pods = u64::from(args.rate) * u64::from(args.seconds);
        let stamps = Arc::new(Stamps::new(usize::try_from(pods)?));
        let watches = open(bench, &path, args.watchers).await?;
        let probe = bench.probe("watch-fanout")?;
        let mut watchers = JoinSet::new();
        for watch in watches {
            watchers.spawn(see(watch, Arc::clone(&stamps)));
        }
        let created = create(bench, &path, args, pods, &stamps).await?;
        let mut all = Seen { latencies: Latencies::default(), twice: 0, bytes: 0 };
        while let Some(seen) = watchers.join_next().await {
            let seen = seen??;
            all.latencies.merge(seen.latencies);
            all.twice += seen.twice;
            all.bytes += seen.bytes;
        }
        let usage = probe.stop()?;
        let expected = pods * args.watchers as u64;
        let events = all.latencies.len();
        let cpu_per_second = usage.server.map(|cpu| rounded(cpu.as_secs_f64() / usage.elapsed.as_secs_f64()));
        let line = Line::new("watch-fanout", all.latencies.summary().map_or(f64::NAN, |s| s.p99_ms), "ms")
            .latencies(&all.latencies)
            .usage_each(&usage, events)
            .with("watchers", args.watchers)
            .with("rate", args.rate)
            .with("created_per_second", rounded(pods as f64 / created.as_secs_f64()))
            .with("server_cpu_per_second", cpu_per_second)
            .with("bytes_each", all.bytes / events.max(1) as u64)
            .with("lost", expected.saturating_sub(events as u64))
            .with("twice", all.twice);
        bench.emit(line)
    })
    .await
}

/// All from one revision, so that each is to see the same events.
async fn open(bench: &Bench, path: &str, watchers: usize) -> Result<Vec<Watch>> {
    let revision = Watch::revision(bench, path).await?;
    let mut watches = Vec::with_capacity(watchers);
    for _ in 0..watchers {
        watches.push(Watch::open(bench, path, &revision, "").await?);
    }
    Ok(watches)
}

/// Reads events until every pod was seen, or nothing came for long.
async fn see(mut watch: Watch, stamps: Arc<Stamps>) -> Result<Seen> {
    let (marker, pods) = (marker(PREFIX), stamps.len());
    let mut there = vec![false; pods];
    let mut seen = Seen { latencies: Latencies::with_capacity(pods), twice: 0, bytes: 0 };
    while seen.latencies.len() < pods {
        let each = |line: &[u8]| {
            seen.bytes += line.len() as u64;
            let Some(number) = number_in(line, &marker).filter(|_| line.starts_with(b"{\"type\":\"ADDED\"")) else {
                return;
            };
            match stamps.since(number) {
                Some(took) if !there[number] => {
                    there[number] = true;
                    seen.latencies.record(took);
                }
                _ => seen.twice += 1,
            }
        };
        match timeout(LATE, watch.next(each)).await {
            Ok(more) => match more? {
                Some(()) => {}
                None => bail!("the server ended a watch"),
            },
            Err(_) => break,
        }
    }
    Ok(seen)
}

/// Creates all pods at the rate asked for; the time it took.
async fn create(bench: &Bench, path: &str, args: &Fanout, pods: u64, stamps: &Arc<Stamps>) -> Result<Duration> {
    let mut connections = Vec::new();
    for _ in 0..CREATORS {
        connections.push(bench.connect().await?);
    }
    let body: Arc<Template> = Arc::new(objects::pod(&Placement::None));
    let (begun, pause) = (Instant::now(), Duration::from_secs(1) / args.rate.max(1));
    let mut creators = JoinSet::new();
    for (first, mut connection) in (0..).zip(connections) {
        let (path, body, stamps) = (path.to_owned(), Arc::clone(&body), Arc::clone(stamps));
        creators.spawn(async move {
            for number in (first..pods).step_by(CREATORS as usize) {
                sleep_until(begun + pause * u32::try_from(number)?).await;
                let call = Call::post(path.as_str(), body.fill(&numbered(PREFIX, number)));
                stamps.mark(usize::try_from(number)?);
                connection.run(call).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = creators.join_next().await {
        ended??;
    }
    Ok(begun.elapsed())
}
