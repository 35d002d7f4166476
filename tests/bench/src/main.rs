//! Measures a cluster: one subcommand per measurement, one line of JSON per figure on the standard output, everything else
//! on the standard error. It works against any API server that a kubeconfig names, so figures of several can be compared.

mod bench;
mod client;
mod cordon;
mod fleet;
mod latency;
mod load;
mod measure;
mod netns;
mod objects;
mod probe;
mod process;
mod report;
mod scratch;
mod server;
mod targets;
mod watch;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::{bench::Bench, client::Endpoint, process::Process, report::Report};

/// Measures a Kubernetes cluster; every figure is one line of JSON, with latencies in milliseconds
#[derive(Debug, Parser)]
#[command(name = "coracle-bench", version, max_term_width = 110)]
struct Line {
    /// The cluster to measure [default: $KUBECONFIG, else ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// The server's process on this machine, whose CPU time and memory are measured too
    #[arg(long, global = true, value_name = "PID")]
    server_pid: Option<u32>,

    /// Where perf writes a profile of the server for each measurement
    #[arg(long, global = true, value_name = "DIR")]
    profile: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// ConfigMaps of 1 KiB created in a second
    ConfigmapCreate(measure::config_maps::Closed),
    /// ConfigMaps of 1 KiB read in a second
    ConfigmapGet(measure::config_maps::Closed),
    /// Pods created in a second, which nobody places
    PodCreate(measure::config_maps::Closed),
    /// Time of a list of running pods
    ListPods(measure::list::List),
    /// Delay of events to many watchers
    WatchFanout(measure::fanout::Fanout),
    /// Pods created and bound in a second
    Schedule(measure::schedule::Schedule),
    /// Memory at rest, with a Deployment of Wasm pods and after it, and the time until all are ready
    Memory(measure::memory::Memory),
    /// Time from the program's start to its readiness
    Start(measure::start::Start),
    /// Time from a Wasm pod's creation to its readiness
    WasmPod(measure::wasm_pod::WasmPod),
    /// Requests in a second to a wasi:http component
    WasiHttp(measure::wasi_http::WasiHttp),
    /// CPU time and commits of a cluster at rest
    Idle(measure::idle::Idle),
    /// Creates and reads in a second with few and with many objects stored
    Flat(measure::flat::Flat),
    /// Size of the program
    BinarySize {
        /// The program
        #[arg(long, value_name = "FILE")]
        coracle: PathBuf,
    },
    /// Every measurement, on servers of its own
    All(measure::all::All),
}

impl Command {
    /// Whether it starts servers, which as root set up the kernel's networking.
    fn starts_servers(&self) -> bool {
        matches!(self, Self::Start(_) | Self::All(_))
    }
}

fn main() -> ExitCode {
    let line = match Line::try_parse() {
        Ok(line) => line,
        Err(error) => {
            // Help goes to the standard output and is no error.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match carry_out(line) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(line: Line) -> Result<ExitCode> {
    // One thread: the load must leave the other cores to the server.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let told = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        if line.command.starts_servers() && netns::wanted() {
            return netns::rerun(told).await;
        }
        tokio::select! {
            result = run(line) => result.map(|()| ExitCode::SUCCESS),
            () = told => bail!("interrupted: namespaces and nodes whose names begin with bench- may still be there"),
        }
    })
}

async fn run(line: Line) -> Result<()> {
    match &line.command {
        Command::BinarySize { coracle } => measure::binary_size::run(&mut Report::default(), coracle),
        Command::Start(args) => measure::start::run(&mut Report::default(), args).await,
        Command::All(args) => measure::all::run(args, line.profile.clone()).await,
        _ => on_cluster(line).await,
    }
}

/// What works on a cluster that runs already.
async fn on_cluster(line: Line) -> Result<()> {
    use Command::*;
    let bench = &mut Bench {
        endpoint: Endpoint::from_kubeconfig(line.kubeconfig.as_deref()).await?,
        server: line.server_pid.map(|pid| Process { pid }),
        profiles: line.profile,
        report: Report::default(),
    };
    match line.command {
        ConfigmapCreate(args) => measure::config_maps::create(bench, &args).await,
        ConfigmapGet(args) => measure::config_maps::get(bench, &args).await,
        PodCreate(args) => measure::pods::create(bench, &args).await,
        ListPods(args) => measure::list::run(bench, &args).await,
        WatchFanout(args) => measure::fanout::run(bench, &args).await,
        Schedule(args) => measure::schedule::run(bench, &args).await,
        Memory(args) => measure::memory::run(bench, &args).await,
        WasmPod(args) => measure::wasm_pod::run(bench, &args).await,
        WasiHttp(args) => measure::wasi_http::run(bench, &args).await,
        Idle(args) => measure::idle::run(bench, &args).await,
        Flat(args) => measure::flat::run(bench, &args).await,
        BinarySize { .. } | Start(_) | All(_) => Ok(()),
    }
}
