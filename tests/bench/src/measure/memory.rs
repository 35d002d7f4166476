//! Resident memory of the server: at rest, with many Wasm pods, and after them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::time::{sleep, timeout};

use crate::{
    bench::Bench,
    client::Call,
    objects,
    report::{Line, rounded},
    scratch::in_namespace,
    server::HELLO,
    watch::Watch,
};

/// How long a server may settle before its memory is read: allocators give back what is unused with a delay.
const SETTLE: Duration = Duration::from_secs(10);
/// How long all pods may take.
const LIMIT: Duration = Duration::from_secs(300);
const DEPLOYMENT: &str = "many";

/// Runs a Deployment
#[derive(Debug, Clone, Args)]
pub(crate) struct Memory {
    /// Copies of the Deployment
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) pods: u32,

    /// Their image, which the nodes are to know
    #[arg(long, value_name = "NAME", default_value = HELLO)]
    pub(crate) image: String,
}

/// Measures before, with and after a Deployment.
pub(crate) async fn run(bench: &mut Bench, args: &Memory) -> Result<()> {
    read(bench, "memory-idle").await?;
    deployment(bench, args).await?;
    read(bench, "memory-after-pods").await
}

/// Lets the server settle and reads its memory.
pub(crate) async fn read(bench: &mut Bench, name: &str) -> Result<()> {
    let server = bench.server.context("--server-pid names the process whose memory is measured")?;
    sleep(SETTLE).await;
    let resident = server.resident()?;
    let megabytes = |bytes: u64| rounded(bytes as f64 / 1e6);
    let line = Line::new(name, megabytes(resident.total), "MB")
        .with("anonymous", megabytes(resident.anonymous))
        .with("file", megabytes(resident.file))
        .with("shared", megabytes(resident.shared));
    bench.emit(line)
}

/// The time until all copies of a new Deployment are ready, and the memory with them.
pub(crate) async fn deployment(bench: &mut Bench, args: &Memory) -> Result<()> {
    in_namespace(bench, "deployment", async |bench, namespace| {
        let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
        let revision = Watch::revision(bench, &path).await?;
        let mut watch = Watch::open(bench, &path, &revision, "").await?;
        let mut connection = bench.connect().await?;
        let body = objects::wasm_deployment(&args.image, args.pods).fill(DEPLOYMENT);
        let ready = format!("\"readyReplicas\":{}", args.pods);
        let name = format!("deployment-{}", args.pods);
        let probe = bench.probe(&name)?;
        let begun = Instant::now();
        connection.run(Call::post(path.as_str(), body)).await?;
        let all_ready = watch.until(|line| is_ready(line, &ready));
        timeout(LIMIT, all_ready).await.with_context(|| format!("not all {} pods became ready", args.pods))??;
        let elapsed = begun.elapsed();
        let usage = probe.stop()?;
        let line = Line::new(name, elapsed.as_secs_f64(), "s")
            .usage_each(&usage, args.pods as usize)
            .with("pods", args.pods)
            .with("image", args.image.as_str());
        bench.emit(line)?;
        match bench.server {
            Some(_) => read(bench, &format!("memory-{}-pods", args.pods)).await,
            None => Ok(()),
        }
    })
    .await
}

/// Whether an event tells so many ready replicas and not ten times as many.
fn is_ready(line: &[u8], wanted: &str) -> bool {
    let Ok(text) = str::from_utf8(line) else { return false };
    text.match_indices(wanted).any(|(at, _)| !text[at + wanted.len()..].starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_number_counts() {
        let check = |line: &str, expect| assert_eq!(is_ready(line.as_bytes(), "\"readyReplicas\":100"), expect);
        check(r#"{"status":{"readyReplicas":100,"replicas":100}}"#, true);
        check(r#"{"status":{"readyReplicas":100}}"#, true);
        check(r#"{"status":{"readyReplicas":1000}}"#, false);
        check(r#"{"status":{"readyReplicas":10}}"#, false);
        check(r#"{"status":{}}"#, false);
    }
}
