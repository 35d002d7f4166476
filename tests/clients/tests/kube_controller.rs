//! A controller of the `kube` crate: it keeps a child for each object it looks after, and cleans up before one goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use coracle_test_clients::{eventually, on_cluster};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{Event as Finalizer, finalizer};
use kube::runtime::watcher;
use kube::{Api, Client, Resource as _, ResourceExt as _};
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);
const FINALIZER: &str = "tests.coracle.dev/record";

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Finalizer(Box<dyn std::error::Error + Send + Sync>),
    #[error("{0} has no value")]
    Incomplete(String),
}

fn parents(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "default")
}

/// Makes the child what it should be: the parent's value, spelled backwards.
async fn apply(parent: &ConfigMap, api: &Api<ConfigMap>) -> Result<(), Failed> {
    let value = parent.data.as_ref().and_then(|data| data.get("value"));
    let value = value.ok_or_else(|| Failed::Incomplete(parent.name_any()))?;
    let name = format!("{}-child", parent.name_any());
    let wanted = BTreeMap::from([("eulav".to_owned(), value.chars().rev().collect::<String>())]);
    match api.get_opt(&name).await? {
        None => {
            let mut child = ConfigMap { data: Some(wanted), ..ConfigMap::default() };
            child.metadata.name = Some(name);
            child.metadata.owner_references = Some(parent.controller_owner_ref(&()).into_iter().collect());
            match api.create(&PostParams::default(), &child).await {
                // Someone was quicker: the next turn sees it.
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                created => drop(created?),
            }
        }
        Some(child) if child.data.as_ref() == Some(&wanted) => {}
        Some(mut child) => {
            child.data = Some(wanted);
            api.replace(&name, &PostParams::default(), &child).await?;
        }
    }
    Ok(())
}

/// Notes that the parent was cleaned up, which must happen before it is gone.
async fn clean_up(parent: &ConfigMap, api: &Api<ConfigMap>) -> Result<(), Failed> {
    let note = Patch::Merge(json!({"data": {parent.name_any(): "cleaned up"}}));
    api.patch("records", &PatchParams::default(), &note).await?;
    Ok(())
}

async fn reconcile(parent: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, Failed> {
    let api = parents(&client);
    let turn = finalizer(&api, FINALIZER, parent, async |event| {
        match event {
            Finalizer::Apply(parent) => apply(&parent, &api).await?,
            Finalizer::Cleanup(parent) => clean_up(&parent, &api).await?,
        }
        Ok::<_, Failed>(Action::await_change())
    });
    turn.await.map_err(|error| Failed::Finalizer(Box::new(error)))
}

async fn child_is(api: &Api<ConfigMap>, name: &str, expect: &str) -> Result<String> {
    eventually(SOON, async || {
        let child = api.get(name).await?;
        let value = child.data.as_ref().and_then(|data| data.get("eulav")).cloned();
        ensure!(value.as_deref() == Some(expect), "{name} holds {value:?}");
        child.uid().context("no uid")
    })
    .await
}

#[test]
fn a_controller_keeps_its_children_and_cleans_up() -> Result<()> {
    on_cluster(async |client, cluster| {
        let api = parents(&client);
        api.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": "records"}}))?).await?;
        let controller = Controller::new(api.clone(), watcher::Config::default().labels("tier=parent"))
            .owns(api.clone(), watcher::Config::default())
            .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(100)), Arc::new(client.clone()))
            .for_each(async |_| {});
        let task = tokio::spawn(controller);
        let parent = |name: &str, value: &str| {
            serde_json::from_value::<ConfigMap>(
                json!({"metadata": {"name": name, "labels": {"tier": "parent"}}, "data": {"value": value}}),
            )
        };
        for (name, value) in [("one", "abc"), ("two", "def")] {
            api.create(&PostParams::default(), &parent(name, value)?).await?;
        }
        let first = child_is(&api, "one-child", "cba").await?;
        child_is(&api, "two-child", "fed").await?;

        // A change of the parent, a change of the child, a child that goes, and a server that goes: it is as it should be again.
        api.patch("one", &PatchParams::default(), &Patch::Merge(json!({"data": {"value": "xyz"}}))).await?;
        ensure!(child_is(&api, "one-child", "zyx").await? == first, "the child was replaced");
        api.patch("one-child", &PatchParams::default(), &Patch::Merge(json!({"data": {"eulav": "wrong"}}))).await?;
        child_is(&api, "one-child", "zyx").await?;
        api.delete("one-child", &DeleteParams::default()).await?;
        ensure!(child_is(&api, "one-child", "zyx").await? != first, "the child was not deleted");
        cluster.kill()?;
        cluster.launch(&[])?;
        api.delete("two-child", &DeleteParams::default()).await?;
        child_is(&api, "two-child", "fed").await?;

        // The finalizer holds the parent until the controller is done; then the garbage collector takes the child.
        ensure!(api.get("one").await?.finalizers() == [FINALIZER], "no finalizer");
        api.delete("one", &DeleteParams::default()).await?;
        eventually(SOON, async || {
            ensure!(api.get_opt("one").await?.is_none(), "the parent is still there");
            ensure!(api.get_opt("one-child").await?.is_none(), "the child is still there");
            Ok(())
        })
        .await?;
        let records = api.get("records").await?.data.unwrap_or_default();
        ensure!(records.get("one").is_some_and(|note| note == "cleaned up"), "{records:?}");
        child_is(&api, "two-child", "fed").await?;
        ensure!(!task.is_finished(), "the controller ended");
        task.abort();
        Ok(())
    })
}
