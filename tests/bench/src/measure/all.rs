//! Every measurement in one run, against servers of this program's own. One that fails does not keep the others from running.

use anyhow::{Context as _, Result, bail};
use clap::Args;
use std::path::PathBuf;

use super::{
    binary_size, config_maps,
    config_maps::Closed,
    fanout, flat, idle, list, memory, pods, schedule,
    start::{self, Launch},
    wasi_http, wasm_pod,
};
use crate::{
    bench::Bench,
    client::Endpoint,
    process::{OneCore, Process},
    report::Report,
    server::{HELLO, Server},
    targets,
};

/// Runs everything
#[derive(Debug, Clone, Args)]
pub(crate) struct All {
    #[command(flatten)]
    pub(crate) launch: Launch,

    /// Writes a table in Markdown of all figures and what they are to be, at the end
    #[arg(long, value_name = "FILE")]
    pub(crate) table: Option<PathBuf>,

    /// How long each load runs
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) seconds: u64,

    /// How long the idle server is measured
    #[arg(long, value_name = "N", default_value_t = 120)]
    pub(crate) idle_seconds: u64,

    /// Leaves out what has 5,000 nodes or 200,000 objects
    #[arg(long)]
    pub(crate) quick: bool,
}

/// Which measurements failed.
#[derive(Default)]
struct Failures(Vec<&'static str>);

impl Failures {
    fn note(&mut self, name: &'static str, result: Result<()>) {
        if let Err(error) = result {
            eprintln!("{name} failed: {error:#}");
            self.0.push(name);
        }
    }
}

/// Runs everything.
pub(crate) async fn run(args: &All, profiles: Option<PathBuf>) -> Result<()> {
    let (mut report, mut failures) = (Report::default(), Failures::default());
    failures.note("binary-size", binary_size::run(&mut report, &args.launch.coracle));
    let starts = start::Start { launch: args.launch.clone(), rounds: 5 };
    failures.note("start", start::run(&mut report, &starts).await);

    let mut server = Server::prepare(&args.launch.program())?;
    let report = one_core(args, profiles.clone(), report, &mut failures).await?;
    let process = server.launch(&[])?;
    let mut bench = bench(&mut server, process, profiles, report).await?;
    node(&mut bench, args, &mut failures).await;
    api(&mut bench, args, &mut failures).await;
    failures.note("memory-after-loads", memory::read(&mut bench, "memory-after-loads").await);
    large(&mut bench, args, &mut failures).await;
    failures.note("stop", server.stop().await);

    if let Some(path) = &args.table {
        let table = targets::table(bench.report.lines());
        std::fs::write(path, table).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if !failures.0.is_empty() {
        bail!("these failed: {}", failures.0.join(", "));
    }
    Ok(())
}

/// A cluster to measure, once its node is ready.
async fn bench(server: &mut Server, process: Process, profiles: Option<PathBuf>, report: Report) -> Result<Bench> {
    server.ready().await?;
    server.node_ready().await?;
    let endpoint = Endpoint::from_kubeconfig(Some(&server.kubeconfig())).await?;
    Ok(Bench { endpoint, server: Some(process), profiles, report })
}

/// What is promised of one core, on a server that has no other.
async fn one_core(args: &All, profiles: Option<PathBuf>, report: Report, failures: &mut Failures) -> Result<Report> {
    let cores = OneCore::divide()?;
    let mut server = Server::prepare(&args.launch.program())?;
    let process = cores.start(|| server.launch(&[]))?;
    let mut bench = bench(&mut server, process, profiles, report).await?;
    let asked = wasi_http::WasiHttp { connections: 32, seconds: args.seconds, url: None, image: HELLO.to_owned() };
    failures.note("wasi-http", wasi_http::run(&mut bench, &asked).await);
    failures.note("stop", server.stop().await);
    Ok(bench.report)
}

/// What needs a node, on a server that has done nothing yet.
async fn node(bench: &mut Bench, args: &All, failures: &mut Failures) {
    let image = || HELLO.to_owned();
    failures.note("memory-idle", memory::read(bench, "memory-idle").await);
    failures.note("idle", idle::run(bench, &idle::Idle { seconds: args.idle_seconds }).await);
    let wasm_pod = wasm_pod::WasmPod { pods: 100, image: image() };
    failures.note("wasm-pod", wasm_pod::run(bench, &wasm_pod).await);
    let many = memory::Memory { pods: 1000, image: image() };
    failures.note("deployment", memory::deployment(bench, &many).await);
}

/// What needs the API and the scheduler.
async fn api(bench: &mut Bench, args: &All, failures: &mut Failures) {
    let closed = Closed { connections: 16, seconds: args.seconds };
    failures.note("configmap-create", config_maps::create(bench, &closed).await);
    failures.note("configmap-get", config_maps::get(bench, &closed).await);
    failures.note("pod-create", pods::create(bench, &closed).await);
    let list = list::List { pods: 1000, lists: 300, connections: 1 };
    failures.note("list-pods", list::run(bench, &list).await);
    let seconds = u32::try_from(args.seconds).unwrap_or(u32::MAX);
    failures.note("watch-fanout", fanout::run(bench, &fanout::Fanout { watchers: 100, rate: 200, seconds }).await);
    let few = schedule::Schedule { nodes: 100, pods: 2000, connections: 16 };
    failures.note("schedule-100", schedule::run(bench, &few).await);
    if !args.quick {
        let many = schedule::Schedule { nodes: 5000, pods: 10_000, connections: 16 };
        failures.note("schedule-5000", schedule::run(bench, &many).await);
    }
}

/// What fills the store.
async fn large(bench: &mut Bench, args: &All, failures: &mut Failures) {
    let closed = Closed { connections: 16, seconds: args.seconds };
    let sizes = if args.quick { vec![1000] } else { vec![1000, 200_000] };
    failures.note("flat", flat::run(bench, &flat::Flat { sizes, closed }).await);
}
