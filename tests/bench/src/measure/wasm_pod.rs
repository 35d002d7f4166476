//! From a Wasm pod's creation to its readiness, as a watcher sees it, one pod after another.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Deserialize;
use tokio::time::timeout;

use super::pods::collection;
use crate::{
    bench::Bench,
    client::Call,
    latency::Latencies,
    objects::{self, numbered},
    report::Line,
    scratch::in_namespace,
    server::HELLO,
    watch::Watch,
};

/// What the pods are called.
const PREFIX: &str = "one";
/// How long one pod may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs pods
#[derive(Debug, Clone, Args)]
pub(crate) struct WasmPod {
    /// Pods, one after another
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) pods: u64,

    /// Their image, which the nodes are to know
    #[arg(long, value_name = "NAME", default_value = HELLO)]
    pub(crate) image: String,
}

/// What is read of an event of a watch of pods.
#[derive(Debug, Deserialize)]
pub(crate) struct Event {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) object: Pod,
}

/// What is read of a pod.
#[derive(Debug, Deserialize)]
pub(crate) struct Pod {
    pub(crate) metadata: Metadata,
    #[serde(default)]
    pub(crate) status: Status,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Status {
    #[serde(rename = "podIP")]
    pub(crate) pod_ip: Option<String>,
    conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Pod {
    pub(crate) fn is_ready(&self) -> bool {
        self.status.conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True")
    }
}

/// Runs pods one after another.
pub(crate) async fn run(bench: &mut Bench, args: &WasmPod) -> Result<()> {
    in_namespace(bench, "wasm-pod", async |bench, namespace| {
        let (path, body) = (collection(namespace), objects::wasm_pod(&args.image));
        let revision = Watch::revision(bench, &path).await?;
        let mut watch = Watch::open(bench, &path, &revision, "").await?;
        let mut connection = bench.connect().await?;
        let mut latencies = Latencies::default();
        let probe = bench.probe("wasm-pod")?;
        for number in 0..args.pods {
            let name = numbered(PREFIX, number);
            let begun = Instant::now();
            connection.run(Call::post(path.as_str(), body.fill(&name))).await?;
            event(&mut watch, |event| event.object.metadata.name == name && event.object.is_ready()).await?;
            latencies.record(begun.elapsed());
            connection.run(Call::delete(format!("{path}/{name}?gracePeriodSeconds=0"))).await?;
            event(&mut watch, |event| event.object.metadata.name == name && event.kind == "DELETED").await?;
        }
        let usage = probe.stop()?;
        let line = Line::new("wasm-pod", latencies.summary().map_or(f64::NAN, |summary| summary.p50_ms), "ms")
            .latencies(&latencies)
            .usage_each(&usage, latencies.len())
            .with("image", args.image.as_str());
        bench.emit(line)
    })
    .await
}

/// Waits for an event of a pod and gives it back.
pub(crate) async fn event(watch: &mut Watch, wanted: impl Fn(&Event) -> bool) -> Result<Event> {
    let (mut found, mut wrong) = (None, None);
    let waiting = watch.until(|line| match serde_json::from_slice::<Event>(line) {
        Ok(event) if wanted(&event) => {
            found = Some(event);
            true
        }
        Ok(_) => false,
        Err(error) => {
            wrong = Some(format!("{error}: {}", String::from_utf8_lossy(&line[..line.len().min(200)])));
            true
        }
    });
    timeout(LIMIT, waiting).await.context("the pod did not get so far in time")??;
    match (found, wrong) {
        (Some(event), _) => Ok(event),
        (None, wrong) => bail!("an event that is none: {}", wrong.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_the_condition() {
        let check = |status: &str, expect: bool| {
            let line = format!(r#"{{"type":"MODIFIED","object":{{"metadata":{{"name":"a"}},"status":{status}}}}}"#);
            let event: Event = serde_json::from_str(&line).unwrap();
            assert_eq!(event.object.is_ready(), expect);
        };
        check(r#"{"conditions":[{"type":"Ready","status":"True"}],"podIP":"10.42.0.7"}"#, true);
        check(r#"{"conditions":[{"type":"Ready","status":"False"},{"type":"Initialized","status":"True"}]}"#, false);
        check("{}", false);
    }
}
