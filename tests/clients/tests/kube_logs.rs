//! Logs through the `kube` crate: whole, in part, and as they come.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use coracle_test_clients::on_cluster;
use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, LogParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);

fn pod(name: &str, words: &[&str]) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"runtimeClassName": "wasm", "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [
            {"name": "c", "image": "misbehave:v1", "imagePullPolicy": "IfNotPresent", "args": words},
        ]},
    }))?)
}

#[test]
fn a_log_is_streamed_while_it_is_written() -> Result<()> {
    on_cluster(async |client, _| {
        let api: Api<Pod> = Api::default_namespaced(client);
        api.create(&PostParams::default(), &pod("ticks", &["tick"])?).await?;
        tokio::time::timeout(SOON, await_condition(api.clone(), "ticks", conditions::is_pod_running())).await??;
        let follow = LogParams { follow: true, ..LogParams::default() };
        let mut lines = api.log_stream("ticks", &follow).await?.lines();
        for expect in ["tick 1", "tick 2", "tick 3"] {
            let line = tokio::time::timeout(SOON, lines.try_next()).await??.context("the log ended")?;
            ensure!(line == expect, "{line}");
        }
        // The container's end is the stream's.
        api.delete("ticks", &DeleteParams::default()).await?;
        tokio::time::timeout(SOON, async {
            while lines.try_next().await?.is_some() {}
            anyhow::Ok(())
        })
        .await??;
        Ok(())
    })
}

#[test]
fn a_log_is_read_in_part() -> Result<()> {
    on_cluster(async |client, _| {
        let api: Api<Pod> = Api::default_namespaced(client);
        api.create(&PostParams::default(), &pod("talks", &["print", "9"])?).await?;
        let ended = |pod: Option<&Pod>| {
            pod.and_then(|pod| pod.status.as_ref()).is_some_and(|status| status.phase.as_deref() == Some("Succeeded"))
        };
        tokio::time::timeout(SOON, await_condition(api.clone(), "talks", ended)).await??;
        let read = async |with: LogParams| api.logs("talks", &with).await;
        ensure!(read(LogParams::default()).await?.lines().count() == 9);
        ensure!(read(LogParams { tail_lines: Some(2), ..LogParams::default() }).await? == "line 8\nline 9\n");
        ensure!(read(LogParams { limit_bytes: Some(7), ..LogParams::default() }).await? == "line 1\n");
        ensure!(read(LogParams { since_seconds: Some(600), ..LogParams::default() }).await?.lines().count() == 9);
        let stamped = read(LogParams { timestamps: true, ..LogParams::default() }).await?;
        ensure!(stamped.lines().all(|l| l.split_once(' ').is_some_and(|(t, _)| t.ends_with('Z'))), "{stamped}");
        match read(LogParams { previous: true, ..LogParams::default() }).await {
            Err(kube::Error::Api(status)) => ensure!(
                status.message == "previous terminated container \"c\" in pod \"talks\" not found",
                "{status:?}"
            ),
            other => anyhow::bail!("there was no earlier container: {other:?}"),
        }
        Ok(())
    })
}
