//! ConfigMaps of 1 KiB: how many are created, and read, in a second.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::{
    bench::Bench,
    client::Call,
    load::{Load, Until},
    objects::{self, numbered},
    report::Line,
    scratch::in_namespace,
};

/// Data of each ConfigMap.
pub(crate) const DATA_BYTES: usize = 1024;
/// How many different ones are read in turn.
const READ: u64 = 1000;

/// A closed loop for some time
#[derive(Debug, Clone, Args)]
pub(crate) struct Closed {
    /// Connections, each with one request at a time
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) connections: usize,

    /// How long to measure
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) seconds: u64,
}

impl Closed {
    pub(crate) fn until(&self) -> Until {
        Until::Elapsed(Duration::from_secs(self.seconds))
    }
}

/// Creates ConfigMaps.
pub(crate) async fn create(bench: &mut Bench, args: &Closed) -> Result<()> {
    in_namespace(bench, "configmap-create", async |bench, namespace| {
        let mut load = Load::connect(&bench.endpoint, args.connections).await?;
        let (path, body) = (collection(namespace), objects::config_map(DATA_BYTES));
        let probe = bench.probe("configmap-create")?;
        let outcome =
            load.run(args.until(), move |number| Call::post(path.as_str(), body.fill(&numbered("cm", number)))).await?;
        let usage = probe.stop()?;
        let line = Line::new("configmap-create", outcome.rate(), "1/s")
            .latencies(&outcome.latencies)
            .usage_each(&usage, outcome.latencies.len())
            .with("connections", args.connections)
            .with("data_bytes", DATA_BYTES);
        bench.emit(line)
    })
    .await
}

/// Reads ConfigMaps.
pub(crate) async fn get(bench: &mut Bench, args: &Closed) -> Result<()> {
    in_namespace(bench, "configmap-get", async |bench, namespace| {
        let mut load = Load::connect(&bench.endpoint, args.connections).await?;
        let (path, body) = (collection(namespace), objects::config_map(DATA_BYTES));
        let into = path.clone();
        load.run(Until::Count(READ), move |number| Call::post(into.as_str(), body.fill(&numbered("cm", number))))
            .await?;
        let probe = bench.probe("configmap-get")?;
        let outcome = load
            .run(args.until(), move |number| Call::get(format!("{path}/{}", numbered("cm", number % READ))))
            .await?;
        let usage = probe.stop()?;
        let line = Line::new("configmap-get", outcome.rate(), "1/s")
            .latencies(&outcome.latencies)
            .usage_each(&usage, outcome.latencies.len())
            .with("connections", args.connections)
            .with("bytes_each", outcome.bytes / outcome.done.max(1));
        bench.emit(line)
    })
    .await
}

/// Where ConfigMaps of a namespace are.
pub(crate) fn collection(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}
