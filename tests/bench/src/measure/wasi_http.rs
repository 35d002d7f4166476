//! Requests to a `wasi:http` component, each of which gets an instance of its own.

use anyhow::{Context as _, Result};
use clap::Args;

use super::{config_maps::Closed, pods::collection, wasm_pod::event};
use crate::{
    bench::Bench,
    client::{Call, Endpoint},
    load::Load,
    objects::{self, numbered},
    report::{Line, rounded},
    scratch::in_namespace,
    server::HELLO,
    watch::Watch,
};

/// What the pod is called.
const PREFIX: &str = "http";
/// Where the component of the examples listens.
const PORT: u16 = 8080;

/// Asks a component
#[derive(Debug, Clone, Args)]
pub(crate) struct WasiHttp {
    /// Connections, each with one request at a time
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) connections: usize,

    /// How long to measure
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) seconds: u64,

    /// A server that runs already, instead of a new pod
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,

    /// The pod's image, which the nodes are to know
    #[arg(long, value_name = "NAME", default_value = HELLO)]
    pub(crate) image: String,
}

/// Asks a component.
pub(crate) async fn run(bench: &mut Bench, args: &WasiHttp) -> Result<()> {
    if let Some(url) = &args.url {
        return ask(bench, args, url).await;
    }
    in_namespace(bench, "wasi-http", async |bench, namespace| {
        let path = collection(namespace);
        let revision = Watch::revision(bench, &path).await?;
        let mut watch = Watch::open(bench, &path, &revision, "").await?;
        let body = objects::wasm_pod(&args.image).fill(&numbered(PREFIX, 0));
        bench.connect().await?.run(Call::post(path.as_str(), body)).await?;
        let ready = event(&mut watch, |event| event.object.is_ready()).await?;
        let address = ready.object.status.pod_ip.context("a ready pod has no address")?;
        ask(bench, args, &format!("http://{address}:{PORT}")).await
    })
    .await
}

async fn ask(bench: &mut Bench, args: &WasiHttp, url: &str) -> Result<()> {
    let mut load = Load::connect(&Endpoint::plain(url)?, args.connections).await?;
    let closed = Closed { connections: args.connections, seconds: args.seconds };
    let probe = bench.probe("wasi-http")?;
    let outcome = load.run(closed.until(), |_| Call::get("/")).await?;
    let usage = probe.stop()?;
    // What one core of the server would do, if it had several.
    let per_core = usage.server.map(|cpu| rounded(outcome.done as f64 / cpu.as_secs_f64()));
    let line = Line::new("wasi-http", outcome.rate(), "1/s")
        .latencies(&outcome.latencies)
        .usage_each(&usage, outcome.latencies.len())
        .with("connections", args.connections)
        .with("per_core", per_core)
        .with("bytes_each", outcome.bytes / outcome.done.max(1));
    bench.emit(line)
}
