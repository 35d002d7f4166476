//! Events about the node itself, as the kubelet writes them: that it starts, and each change of its conditions.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::{Api, Client, api::PostParams};
use serde_json::json;

/// Events about a node have no namespace of their own.
const NAMESPACE: &str = "default";

/// Says what happens to a node.
pub(crate) struct NodeEvents {
    client: Client,
    node: String,
    /// The conditions that were told, by name.
    told: BTreeMap<String, bool>,
    /// Whether the node was closed to new pods when that was last seen.
    cordoned: Option<bool>,
}

impl NodeEvents {
    pub(crate) fn new(client: Client, node: impl Into<String>) -> Self {
        Self { client, node: node.into(), told: BTreeMap::new(), cordoned: None }
    }

    /// Says which conditions have changed since the last time; all of them the first time, after that the agent starts.
    pub(crate) async fn conditions(&mut self, now: impl Iterator<Item = (&str, bool)>) {
        if self.told.is_empty() {
            self.write("Normal", "Starting", "Starting kubelet.").await;
        }
        for reason in self.news(now) {
            let message = format!("Node {} status is now: {reason}", self.node);
            self.write("Normal", reason, &message).await;
        }
    }

    /// Says that something on the node is not as it should be.
    pub(crate) async fn warn(&self, reason: &str, message: &str) {
        self.write("Warning", reason, message).await;
    }

    /// Says that the node was closed to new pods, or opened again. What it is at first is no news, but that it is closed.
    pub(crate) async fn cordon(&mut self, cordoned: bool) {
        if let Some(reason) = self.cordon_news(cordoned) {
            let message = format!("Node {} status is now: {reason}", self.node);
            self.write("Normal", reason, &message).await;
        }
    }

    fn cordon_news(&mut self, cordoned: bool) -> Option<&'static str> {
        let before = self.cordoned.replace(cordoned).unwrap_or(false);
        (before != cordoned).then_some(if cordoned { "NodeNotSchedulable" } else { "NodeSchedulable" })
    }

    fn news<'a>(&mut self, now: impl Iterator<Item = (&'a str, bool)>) -> Vec<&'static str> {
        let changed = |(name, holds): (&'a str, bool)| {
            let same = self.told.insert(name.to_owned(), holds) == Some(holds);
            reason(name, holds).filter(|_| !same)
        };
        now.filter_map(changed).collect()
    }

    async fn write(&self, kind: &str, reason: &str, message: &str) {
        let now = Timestamp::now();
        let second = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let name = format!("{}.{:x}", self.node, now.as_nanosecond());
        let event = serde_json::from_value::<Event>(json!({
            "metadata": {"name": name, "namespace": NAMESPACE},
            // The kubelet knows no uid of its node and gives its name for one; `kubectl describe` looks for both.
            "involvedObject": {"kind": "Node", "name": self.node, "uid": self.node},
            "reason": reason,
            "message": message,
            "type": kind,
            "count": 1,
            "firstTimestamp": second,
            "lastTimestamp": second,
            "source": {"component": "kubelet", "host": self.node},
            "reportingComponent": "kubelet",
            "reportingInstance": self.node,
        }));
        let Ok(event) = event else { return };
        let events: Api<Event> = Api::namespaced(self.client.clone(), NAMESPACE);
        if let Err(error) = events.create(&PostParams::default(), &event).await {
            tracing::debug!(%error, reason, "an event of the node was not written");
        }
    }
}

/// The reason of an event about a condition that has come to hold, or not to (`pkg/kubelet/nodestatus/setters.go`).
fn reason(condition: &str, holds: bool) -> Option<&'static str> {
    Some(match (condition, holds) {
        ("MemoryPressure", true) => "NodeHasInsufficientMemory",
        ("MemoryPressure", false) => "NodeHasSufficientMemory",
        ("DiskPressure", true) => "NodeHasDiskPressure",
        ("DiskPressure", false) => "NodeHasNoDiskPressure",
        ("PIDPressure", true) => "NodeHasInsufficientPID",
        ("PIDPressure", false) => "NodeHasSufficientPID",
        ("Ready", true) => "NodeReady",
        ("Ready", false) => "NodeNotReady",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_changes_are_told() {
        let client = Client::try_from(kube::Config::new("http://127.0.0.1:1/".parse().unwrap())).unwrap();
        let mut events = NodeEvents::new(client, "n");
        let mut check = |ready, disk, expect: &[&str]| {
            assert_eq!(events.news([("DiskPressure", disk), ("Ready", ready), ("Else", true)].into_iter()), expect);
        };
        check(false, false, &["NodeHasNoDiskPressure", "NodeNotReady"]);
        check(false, false, &[]);
        check(true, false, &["NodeReady"]);
        check(true, true, &["NodeHasDiskPressure"]);
    }

    #[tokio::test]
    async fn a_cordon_is_told_when_it_changes() {
        let client = Client::try_from(kube::Config::new("http://127.0.0.1:1/".parse().unwrap())).unwrap();
        let mut events = NodeEvents::new(client, "n");
        let told = [false, true, true, false].map(|cordoned| events.cordon_news(cordoned));
        assert_eq!(told, [None, Some("NodeNotSchedulable"), None, Some("NodeSchedulable")]);
    }
}
