//! A LIST of many running pods, one request after another on one connection.

use anyhow::Result;
use clap::Args;

use super::pods::collection;
use crate::{
    bench::Bench,
    client::Call,
    fleet::with_fleet,
    load::{Load, Until},
    objects::{self, Placement, Template, numbered},
    report::Line,
    scratch::in_namespace,
};

/// Nodes that the pods are on.
const NODES: u64 = 10;

/// Lists pods
#[derive(Debug, Clone, Args)]
pub(crate) struct List {
    /// Pods in the namespace
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) pods: u64,

    /// Lists that are measured
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub(crate) lists: u64,

    /// Connections, each with one request at a time
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) connections: usize,
}

/// Lists pods.
pub(crate) async fn run(bench: &mut Bench, args: &List) -> Result<()> {
    with_fleet(bench, NODES, async |bench, fleet| {
        let bodies: Vec<Template> = (0..NODES).map(|number| objects::pod(&Placement::On(fleet.node(number)))).collect();
        in_namespace(bench, "list-pods", async |bench, namespace| {
            fill(bench, namespace, args.pods, bodies).await?;
            let mut load = Load::connect(&bench.endpoint, args.connections).await?;
            let path = collection(namespace);
            let probe = bench.probe("list-pods")?;
            let outcome = load.run(Until::Count(args.lists), move |_| Call::get(path.as_str())).await?;
            let usage = probe.stop()?;
            let line = Line::new("list-pods", outcome.rate(), "1/s")
                .latencies(&outcome.latencies)
                .usage_each(&usage, outcome.latencies.len())
                .with("connections", args.connections)
                .with("pods", args.pods)
                .with("bytes_each", outcome.bytes / outcome.done.max(1));
            bench.emit(line)
        })
        .await
    })
    .await
}

/// Makes running pods.
async fn fill(bench: &Bench, namespace: &str, pods: u64, bodies: Vec<Template>) -> Result<()> {
    let mut load = Load::connect(&bench.endpoint, 8).await?;
    let path = collection(namespace);
    let into = path.clone();
    load.run(Until::Count(pods), move |number| {
        let body = &bodies[number as usize % bodies.len()];
        Call::post(into.as_str(), body.fill(&numbered("pod", number)))
    })
    .await?;
    load.run(Until::Count(pods), move |number| {
        let path = format!("{path}/{}/status", numbered("pod", number));
        Call::merge_patch(path, objects::running_status(number))
    })
    .await?;
    Ok(())
}
