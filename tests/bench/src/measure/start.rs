//! From the start of the program to its readiness: the API, the node, and the first answer of `examples/hello`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::{
    latency::Latencies,
    report::{Line, Report},
    server::{Program, Server},
};

/// Where `examples/hello` is reached on the node.
const NODE_PORT: u16 = 30080;

/// What to start
#[derive(Debug, Clone, Args)]
pub(crate) struct Launch {
    /// The program
    #[arg(long, value_name = "FILE")]
    pub(crate) coracle: PathBuf,

    /// The project's folder of examples
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples"))]
    pub(crate) examples: PathBuf,
}

impl Launch {
    pub(crate) fn program(&self) -> Program {
        Program { coracle: self.coracle.clone(), examples: self.examples.clone() }
    }
}

/// Starts the program
#[derive(Debug, Clone, Args)]
pub(crate) struct Start {
    #[command(flatten)]
    pub(crate) launch: Launch,

    /// Starts with an empty data directory; each is followed by one with the same directory
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) rounds: u32,
}

/// Times of several starts.
#[derive(Default)]
struct Starts {
    api: Latencies,
    node: Latencies,
    hello: Latencies,
}

/// Starts servers one after another.
pub(crate) async fn run(report: &mut Report, args: &Start) -> Result<()> {
    let program = args.launch.program();
    let (mut first, mut again) = (Starts::default(), Starts::default());
    for _ in 0..args.rounds.max(1) {
        let mut server = Server::prepare(&program)?;
        for starts in [&mut first, &mut again] {
            once(&mut server, starts).await?;
        }
    }
    emit(report, "empty", &first)?;
    emit(report, "kept", &again)
}

async fn once(server: &mut Server, starts: &mut Starts) -> Result<()> {
    let manifests = server.example("hello");
    let (deployment, service) = (manifests.join("deployment.yaml"), manifests.join("service.yaml"));
    server.launch(&["--apply", &deployment.to_string_lossy(), "--apply", &service.to_string_lossy()])?;
    starts.api.record(server.ready().await?);
    starts.node.record(server.node_ready().await?);
    starts.hello.record(server.answers(NODE_PORT).await?);
    server.stop().await
}

/// The middle of all starts is the figure.
fn emit(report: &mut Report, data: &str, starts: &Starts) -> Result<()> {
    for (what, latencies) in [("readyz", &starts.api), ("node-ready", &starts.node), ("hello", &starts.hello)] {
        let middle = latencies.summary().map_or(f64::NAN, |summary| summary.p50_ms);
        let line = Line::new(format!("start-{what}-{data}"), middle, "ms").latencies(latencies);
        report.emit(line.with("starts", latencies.len()).with("data_directory", data))?;
    }
    Ok(())
}
