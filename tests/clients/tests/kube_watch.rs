//! The watchers of the `kube` crate: what they say happened is what happened, each thing once, also when the server is
//! killed in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use coracle_test_clients::{eventually, on_cluster};
use futures::{Stream, StreamExt as _, TryStreamExt as _, pin_mut};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);

fn config_map(name: &str, value: &str) -> Result<ConfigMap> {
    Ok(serde_json::from_value(
        json!({"metadata": {"name": name, "labels": {"test": "watch"}}, "data": {"value": value}}),
    )?)
}

fn config_maps(client: Client) -> Api<ConfigMap> {
    Api::namespaced(client, "default")
}

async fn make(api: &Api<ConfigMap>, names: impl IntoIterator<Item = String>) -> Result<()> {
    for name in names {
        api.create(&PostParams::default(), &config_map(&name, "first")?).await?;
    }
    Ok(())
}

async fn set(api: &Api<ConfigMap>, name: &str, value: &str) -> Result<()> {
    api.patch(name, &PatchParams::default(), &Patch::Merge(json!({"data": {"value": value}}))).await?;
    Ok(())
}

/// Labelled objects only: the cluster's own (its root certificates) would come between.
fn ours() -> Config {
    Config::default().labels("test=watch")
}

/// What a watcher has been told, as a program would keep it.
#[derive(Debug, Default)]
struct Told {
    /// Name to uid and version, of what exists.
    known: BTreeMap<String, (String, String)>,
    fresh: BTreeMap<String, (String, String)>,
    starts: usize,
    done: usize,
    /// Every version that was told as a change, to notice one that is told twice.
    changes: BTreeSet<(String, String)>,
    /// What should not have been said.
    wrong: Vec<String>,
}

impl Told {
    fn hear<K: Resource>(&mut self, event: &Event<K>) {
        let state = |object: &K| {
            (object.name_any(), (object.uid().unwrap_or_default(), object.resource_version().unwrap_or_default()))
        };
        match event {
            Event::Init => {
                self.starts += 1;
                self.fresh.clear();
            }
            Event::InitApply(object) => {
                let (name, state) = state(object);
                if self.fresh.insert(name.clone(), state).is_some() {
                    self.wrong.push(format!("{name} is twice in one list"));
                }
            }
            Event::InitDone => {
                self.done += 1;
                self.known = std::mem::take(&mut self.fresh);
            }
            Event::Apply(object) => {
                let (name, state) = state(object);
                if !self.changes.insert((name.clone(), state.1.clone())) {
                    self.wrong.push(format!("{name} at {} is told twice", state.1));
                }
                self.known.insert(name, state);
            }
            Event::Delete(object) => {
                let (name, _) = state(object);
                if self.known.remove(&name).is_none() {
                    self.wrong.push(format!("{name} goes and was not there"));
                }
            }
        }
    }
}

/// Tries again after the same short while.
struct Steady;

impl Iterator for Steady {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(100))
    }
}

impl Backoff for Steady {
    fn reset(&mut self) {}
}

/// Follows a watcher in a task of its own, through errors, as controllers do.
fn follow<K>(stream: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static) -> Arc<Mutex<Told>>
where
    K: Resource + Send + 'static,
{
    let told = Arc::new(Mutex::new(Told::default()));
    let heard = Arc::clone(&told);
    tokio::spawn(async move {
        let stream = stream.backoff(Steady);
        pin_mut!(stream);
        while let Some(event) = stream.next().await {
            if let Ok(event) = event {
                heard.lock().expect("nobody panicked").hear(&event);
            }
        }
    });
    told
}

/// What the server has, in the same form.
async fn listed(api: &Api<ConfigMap>) -> Result<BTreeMap<String, (String, String)>> {
    let list = api.list(&ListParams::default().labels("test=watch")).await?;
    let state = |o: &ConfigMap| (o.name_any(), (o.uid().unwrap_or_default(), o.resource_version().unwrap_or_default()));
    Ok(list.items.iter().map(state).collect())
}

/// Waits until the watcher knows exactly what the server has, and checks what it was told on the way.
async fn agrees(told: &Mutex<Told>, api: &Api<ConfigMap>) -> Result<()> {
    eventually(SOON, async || {
        let expect = listed(api).await?;
        let told = told.lock().expect("nobody panicked");
        ensure!(told.done > 0, "no list yet");
        ensure!(told.known == expect, "told {:?}\nthere is {expect:?}", told.known);
        Ok(())
    })
    .await?;
    let told = told.lock().expect("nobody panicked");
    ensure!(told.wrong.is_empty(), "{:?}", told.wrong);
    Ok(())
}

#[test]
fn a_watcher_goes_on_where_it_was_when_the_server_is_killed() -> Result<()> {
    on_cluster(async |client, cluster| {
        let api = config_maps(client.clone());
        make(&api, (0..30).map(|i| format!("before-{i}"))).await?;
        let told = follow(watcher(api.clone(), ours()));
        agrees(&told, &api).await?;
        for round in 0..3 {
            // What happens right before the end must be told after it.
            for i in 0..10 {
                set(&api, &format!("before-{i}"), &format!("changed-{round}")).await?;
            }
            cluster.kill()?;
            cluster.launch(&[])?;
            make(&api, (0..10).map(|i| format!("after-{round}-{i}"))).await?;
            api.delete(&format!("before-{}", 20 + round), &DeleteParams::default()).await?;
            agrees(&told, &api).await?;
        }
        let told = told.lock().expect("nobody panicked");
        ensure!(told.starts == 1, "the watcher had to list {} times", told.starts);
        // Each write was told as a change of its own: 30 of the patches, 30 of the creations.
        ensure!(told.changes.len() == 60, "{} changes were told", told.changes.len());
        Ok(())
    })
}

#[test]
fn watchers_list_in_pages_or_as_a_stream() -> Result<()> {
    on_cluster(async |client, _| {
        let api = config_maps(client.clone());
        make(&api, (0..50).map(|i| format!("x-{i}"))).await?;
        let ways = [
            ("pages", ours().page_size(7)),
            ("stream", ours().streaming_lists()),
            ("any version", ours().any_semantic()),
            ("no bookmarks", ours().disable_bookmarks()),
        ];
        let followed: Vec<_> = ways.iter().map(|(_, way)| follow(watcher(api.clone(), way.clone()))).collect();
        for (told, (name, _)) in followed.iter().zip(&ways) {
            agrees(told, &api).await.context(*name)?;
        }
        make(&api, (0..20).map(|i| format!("y-{i}"))).await?;
        for i in (0..50).step_by(3) {
            api.delete(&format!("x-{i}"), &DeleteParams::default()).await?;
        }
        for (told, (name, _)) in followed.iter().zip(&ways) {
            agrees(told, &api).await.context(*name)?;
            let starts = told.lock().expect("nobody panicked").starts;
            ensure!(starts == 1, "{name}: listed {starts} times");
        }
        Ok(())
    })
}

#[test]
fn a_watch_that_ends_by_itself_goes_on_without_a_gap() -> Result<()> {
    on_cluster(async |client, _| {
        let api = config_maps(client.clone());
        // The server ends each watch after a second; the next one begins where it was.
        let told = follow(watcher(api.clone(), ours().timeout(1)));
        agrees(&told, &api).await?;
        let began = std::time::Instant::now();
        let mut made = 0;
        while began.elapsed() < Duration::from_millis(3500) {
            make(&api, [format!("z-{made}")]).await?;
            made += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        agrees(&told, &api).await?;
        let told = told.lock().expect("nobody panicked");
        ensure!(
            told.starts == 1 && told.changes.len() == made,
            "{} starts, {} of {made}",
            told.starts,
            told.changes.len()
        );
        Ok(())
    })
}

#[test]
fn a_reflector_holds_what_the_server_holds() -> Result<()> {
    on_cluster(async |client, _| {
        let api = config_maps(client.clone());
        let (store, writer) = reflector::store::<ConfigMap>();
        let stream = reflector(writer, watcher(api.clone(), ours()));
        let task = tokio::spawn(stream.try_for_each(async |_| Ok(())));
        tokio::time::timeout(SOON, store.wait_until_ready()).await??;
        ensure!(store.state().is_empty(), "there is nothing yet");
        // From several sides at once, so that changes of one object follow close on each other.
        let sides = (0..4).map(|side| {
            let api = api.clone();
            async move {
                for i in 0..25 {
                    let name = format!("side-{side}-{i}");
                    make(&api, [name.clone()]).await?;
                    set(&api, &name, "second").await?;
                    if i % 3 == 0 {
                        api.delete(&name, &DeleteParams::default()).await?;
                    }
                }
                anyhow::Ok(())
            }
        });
        futures::future::try_join_all(sides).await?;
        eventually(SOON, async || {
            let mut held: Vec<ConfigMap> = store.state().iter().map(|o| (**o).clone()).collect();
            held.sort_by_key(kube::ResourceExt::name_any);
            let mut there = api.list(&ListParams::default().labels("test=watch")).await?.items;
            there.sort_by_key(kube::ResourceExt::name_any);
            ensure!(there.len() == 64, "{} objects", there.len());
            ensure!(held == there, "{} held, {} there", held.len(), there.len());
            Ok(())
        })
        .await?;
        ensure!(!task.is_finished(), "the reflector ended");
        task.abort();
        Ok(())
    })
}

#[test]
fn metadata_is_watched_without_the_rest() -> Result<()> {
    on_cluster(async |client, _| {
        let api: Api<Deployment> = Api::namespaced(client.clone(), "default");
        let seen: Api<PartialObjectMeta<Deployment>> = Api::namespaced(client.clone(), "default");
        let stream = watcher(seen, Config::default()).applied_objects();
        pin_mut!(stream);
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "seen"},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": {
                "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "hello:v1"}]}}},
        }))?;
        api.create(&PostParams::default(), &deployment).await?;
        let first: PartialObjectMeta<Deployment> =
            tokio::time::timeout(SOON, stream.try_next()).await??.context("the watch ended")?;
        ensure!(first.name_any() == "seen" && first.uid().is_some(), "{first:?}");
        let types = first.types.clone().context("no types")?;
        ensure!(types.kind == "PartialObjectMetadata" && types.api_version == "meta.k8s.io/v1", "{types:?}");

        api.patch_metadata(
            "seen",
            &PatchParams::default(),
            &Patch::Merge(json!({"metadata": {"labels": {"new": "x"}}})),
        )
        .await?;
        let labelled = async {
            while let Some(object) = stream.try_next().await? {
                if object.labels().get("new").is_some_and(|value| value == "x") {
                    return anyhow::Ok(object);
                }
            }
            anyhow::bail!("the watch ended")
        };
        tokio::time::timeout(SOON, labelled).await??;
        let listed = api.list_metadata(&ListParams::default()).await?;
        ensure!(listed.items.len() == 1 && listed.items[0].labels().contains_key("new"), "{listed:?}");
        Ok(())
    })
}
