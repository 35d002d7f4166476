//! A namespace of the cluster for one measurement: made, ready for pods, and gone afterwards with all that is in it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use hyper::body::Bytes;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    bench::Bench,
    client::{Call, Connection},
};

/// How long the cluster may take to make a namespace usable.
const USABLE_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take to delete a namespace with everything in it.
const GONE_LIMIT: Duration = Duration::from_secs(600);

/// Does work in a new namespace, which is deleted whether the work succeeds or not.
pub(crate) async fn in_namespace<T>(
    bench: &mut Bench,
    tag: &str,
    work: impl AsyncFnOnce(&mut Bench, &str) -> Result<T>,
) -> Result<T> {
    let name = format!("bench-{tag}-{:06x}", rand::random::<u32>() & 0xff_ffff);
    create(bench, &name).await?;
    let result = work(bench, &name).await;
    let deleted = delete(bench, &name).await.with_context(|| format!("the namespace {name} may still be there"));
    let value = result?;
    deleted?;
    Ok(value)
}

async fn create(bench: &Bench, name: &str) -> Result<()> {
    let mut connection = bench.connect().await?;
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}).to_string();
    connection.run(Call::post("/api/v1/namespaces", body)).await?;
    // Pods are refused until their service account is there.
    let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
    until(USABLE_LIMIT, async || Ok(connection.attempt(Call::get(account.as_str())).await?.0 == 200))
        .await
        .context("the namespace got no default service account: does the controller manager run?")
}

async fn delete(bench: &Bench, name: &str) -> Result<()> {
    let mut connection = bench.connect().await?;
    let path = format!("/api/v1/namespaces/{name}");
    connection.run(Call::delete(path.as_str())).await?;
    // Nobody may run these pods, so nobody would confirm their end. From now on no controller can make new ones.
    delete_collection(&mut connection, &format!("{path}/pods?gracePeriodSeconds=0")).await?;
    until(GONE_LIMIT, async || Ok(connection.attempt(Call::get(path.as_str())).await?.0 == 404)).await
}

/// Deletes all objects of a collection, as far as the path's query chooses them.
pub(crate) async fn delete_collection(connection: &mut Connection, path: &str) -> Result<()> {
    until(GONE_LIMIT, async || match connection.attempt(Call::delete(path)).await? {
        // With its namespace it may be gone already.
        (200..=299 | 404, _) => Ok(true),
        // So many objects that the server gave up waiting for itself: it is asked again for the rest.
        (429 | 504, _) => Ok(false),
        (status, body) => bail!("DELETE {path}: {status}: {}", String::from_utf8_lossy(&body)),
    })
    .await
}

/// Asks again and again, ever more seldom.
pub(crate) async fn until(limit: Duration, mut done: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(5);
    while !done().await? {
        if begun.elapsed() > limit {
            bail!("it did not happen in {} seconds", limit.as_secs());
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
    Ok(())
}

/// The value of a string field that a body holds once, without reading the rest.
pub(crate) fn field<'a>(body: &'a Bytes, key: &str) -> Option<&'a str> {
    let text = str::from_utf8(body).ok()?;
    let from = text.find(&format!("\"{key}\":\""))? + key.len() + 4;
    text[from..].split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found() {
        let body = Bytes::from_static(br#"{"kind":"PodList","metadata":{"resourceVersion":"12"},"items":[]}"#);
        assert_eq!(field(&body, "resourceVersion"), Some("12"));
        assert_eq!(field(&body, "continue"), None);
    }
}
