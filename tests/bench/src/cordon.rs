//! Keeps new pods from the nodes that a cluster has, so that they go where a measurement wants them.

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::{bench::Bench, client::Call};

const NODES: &str = "/api/v1/nodes";

/// What is read of a list of nodes.
#[derive(Debug, Deserialize)]
struct Nodes {
    items: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    unschedulable: bool,
}

/// Does work while all nodes that are there now take no pods. Those that took some before do so again afterwards, whether
/// the work succeeds or not.
pub(crate) async fn with_cordon<T>(bench: &mut Bench, work: impl AsyncFnOnce(&mut Bench) -> Result<T>) -> Result<T> {
    let body = bench.connect().await?.fetch(Call::get(NODES)).await?;
    let open = schedulable(&body)?;
    let result = match mark(bench, &open, Pods::Refused).await {
        Ok(()) => work(bench).await,
        Err(error) => Err(error),
    };
    let restored = mark(bench, &open, Pods::Taken).await.context("some nodes may still be unschedulable");
    let value = result?;
    restored?;
    Ok(value)
}

/// What a node does with new pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pods {
    Refused,
    Taken,
}

/// The names of the nodes of a list that take pods.
fn schedulable(list: &[u8]) -> Result<Vec<String>> {
    let nodes: Nodes = serde_json::from_slice(list).context("the list of nodes")?;
    let open = nodes.items.into_iter().filter(|node| !node.spec.unschedulable);
    Ok(open.map(|node| node.metadata.name).collect())
}

async fn mark(bench: &Bench, nodes: &[String], pods: Pods) -> Result<()> {
    let mut connection = bench.connect().await?;
    let patch = serde_json::json!({"spec": {"unschedulable": pods == Pods::Refused}}).to_string();
    for name in nodes {
        connection.run(Call::merge_patch(format!("{NODES}/{name}"), patch.clone())).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nodes_that_take_pods_are_marked() {
        let list = br#"{"kind":"NodeList","items":[
            {"metadata":{"name":"a"},"spec":{"podCIDR":"10.42.0.0/24"}},
            {"metadata":{"name":"b"},"spec":{"unschedulable":true}},
            {"metadata":{"name":"c"}}
        ]}"#;
        assert_eq!(schedulable(list).unwrap(), ["a", "c"]);
        assert!(schedulable(b"{}").is_err());
    }
}
