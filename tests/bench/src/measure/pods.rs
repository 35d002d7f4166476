//! Pods that nobody places: how many are created in a second.

use anyhow::Result;

use super::config_maps::Closed;
use crate::{
    bench::Bench,
    client::Call,
    load::Load,
    objects::{self, Placement, numbered},
    report::Line,
    scratch::in_namespace,
};

/// Creates pods.
pub(crate) async fn create(bench: &mut Bench, args: &Closed) -> Result<()> {
    in_namespace(bench, "pod-create", async |bench, namespace| {
        let mut load = Load::connect(&bench.endpoint, args.connections).await?;
        let (path, body) = (collection(namespace), objects::pod(&Placement::None));
        let probe = bench.probe("pod-create")?;
        let outcome = load
            .run(args.until(), move |number| Call::post(path.as_str(), body.fill(&numbered("pod", number))))
            .await?;
        let usage = probe.stop()?;
        let line = Line::new("pod-create", outcome.rate(), "1/s")
            .latencies(&outcome.latencies)
            .usage_each(&usage, outcome.latencies.len())
            .with("connections", args.connections)
            .with("bytes_each", outcome.bytes / outcome.done.max(1));
        bench.emit(line)
    })
    .await
}

/// Where pods of a namespace are.
pub(crate) fn collection(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}
