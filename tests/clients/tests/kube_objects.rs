//! What a program does to objects through the `kube` crate: patches of each sort, subresources, errors it can tell apart, locks.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use coracle_test_clients::{eventually, on_cluster};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{
    DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams, PropagationPolicy,
};
use kube::core::Status;
use kube::discovery::Discovery;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);

fn deployment(name: &str, replicas: i32) -> Result<Deployment> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"runtimeClassName": "wasm", "terminationGracePeriodSeconds": 1, "containers": [
                {"name": "a", "image": "hello:v1", "ports": [{"containerPort": 8080}], "env": [{"name": "ONE", "value": "1"}]},
            ]},
        }},
    }))?)
}

/// What the server said against it.
fn refused<T: std::fmt::Debug>(result: kube::Result<T>) -> Result<Box<Status>> {
    match result {
        Err(kube::Error::Api(status)) => Ok(status),
        other => bail!("it was not refused: {other:?}"),
    }
}

#[test]
fn patches_of_each_sort_do_what_they_say() -> Result<()> {
    on_cluster(async |client, _| {
        let api: Api<Deployment> = Api::default_namespaced(client);
        api.create(&PostParams::default(), &deployment("web", 0)?).await?;
        let by = PatchParams::default();
        let env = |deployment: &Deployment| -> Vec<String> {
            let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.clone()).unwrap_or_default();
            pod.containers
                .iter()
                .flat_map(|c| {
                    let name = c.name.clone();
                    c.env
                        .iter()
                        .flatten()
                        .map(move |e| format!("{name}:{}={}", e.name, e.value.as_deref().unwrap_or("")))
                })
                .collect()
        };
        // Strategic: lists merge by their key.
        let two = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "a", "env": [{"name": "TWO", "value": "2"}]},
            {"name": "b", "image": "hello:v2", "env": [{"name": "THREE", "value": "3"}]},
        ]}}}});
        let patched = api.patch("web", &by, &Patch::Strategic(two)).await?;
        let mut found = env(&patched);
        found.sort();
        ensure!(found == ["a:ONE=1", "a:TWO=2", "b:THREE=3"], "{found:?}");
        let without = json!({"spec": {"template": {"spec": {"containers": [{"name": "b", "$patch": "delete"}]}}}});
        ensure!(!env(&api.patch("web", &by, &Patch::Strategic(without)).await?).iter().any(|e| e.starts_with("b:")));
        // Merge: lists are replaced, null removes.
        let merge = json!({"metadata": {"labels": {"x": "y", "z": null}}, "spec": {"template": {"spec": {"containers": [
            {"name": "only", "image": "hello:v1"},
        ]}}}});
        let patched = api.patch("web", &by, &Patch::Merge(merge)).await?;
        ensure!(
            env(&patched).is_empty() && patched.labels() == &BTreeMap::from([("x".into(), "y".into())]),
            "{patched:?}"
        );
        // JSON: operations in turn; a test that fails stops all.
        let operations = |expect: &str| -> Result<Patch<()>> {
            Ok(Patch::Json(serde_json::from_value(json!([
                {"op": "test", "path": "/spec/template/spec/containers/0/image", "value": expect},
                {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "hello:v2"},
                {"op": "remove", "path": "/metadata/labels/x"},
            ]))?))
        };
        let patched = api.patch("web", &by, &operations("hello:v1")?).await?;
        ensure!(patched.labels().is_empty(), "{patched:?}");
        let status = refused(api.patch("web", &by, &operations("hello:v1")?).await)?;
        ensure!(status.code == 422 && status.is_invalid(), "{status:?}");
        // A dry run answers what would be and changes nothing.
        let dry = api
            .patch("web", &PatchParams { dry_run: true, ..by.clone() }, &Patch::Merge(json!({"spec": {"replicas": 9}})))
            .await?;
        ensure!(dry.spec.and_then(|s| s.replicas) == Some(9));
        ensure!(api.get("web").await?.spec.and_then(|s| s.replicas) == Some(0));
        let wrong = refused(api.patch("web", &by, &Patch::Merge(json!({"spec": {"replicas": -1}}))).await)?;
        ensure!(wrong.is_invalid() && wrong.message.contains("spec.replicas: Invalid value: -1"), "{wrong:?}");
        Ok(())
    })
}

#[test]
fn errors_can_be_told_apart() -> Result<()> {
    on_cluster(async |client, _| {
        let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
        let object: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "x"}, "data": {"a": "b"}}))?;
        ensure!(refused(api.get("x").await)?.is_not_found());
        ensure!(api.get_opt("x").await?.is_none());
        let made = api.create(&PostParams::default(), &object).await?;
        let twice = refused(api.create(&PostParams::default(), &object).await)?;
        ensure!(twice.is_already_exists() && twice.message == "configmaps \"x\" already exists", "{twice:?}");
        api.replace("x", &PostParams::default(), &ConfigMap { immutable: Some(false), ..made.clone() }).await?;
        let stale = refused(api.replace("x", &PostParams::default(), &ConfigMap { data: None, ..made.clone() }).await)?;
        ensure!(stale.is_conflict() && stale.message.contains("the object has been modified"), "{stale:?}");
        let other = DeleteParams::default()
            .preconditions(kube::api::Preconditions { uid: Some("nobody".to_owned()), resource_version: None });
        ensure!(refused(api.delete("x", &other).await)?.is_conflict());
        let elsewhere: Api<ConfigMap> = Api::namespaced(client, "nowhere");
        let nowhere = refused(elsewhere.create(&PostParams::default(), &object).await)?;
        ensure!(nowhere.is_not_found() && nowhere.message == "namespaces \"nowhere\" not found", "{nowhere:?}");

        // The entry of an object that may be there or not.
        let entry = api.entry("y").await?.or_insert(ConfigMap::default);
        entry
            .and_modify(|o| drop(o.data.get_or_insert_default().insert("n".into(), "1".into())))
            .commit(&PostParams::default())
            .await?;
        ensure!(api.get("y").await?.data.is_some_and(|data| data["n"] == "1"));
        let list = api.list(&ListParams::default().fields("metadata.name=y")).await?;
        ensure!(list.items.len() == 1, "{list:?}");
        api.delete_collection(&DeleteParams::default(), &ListParams::default().fields("metadata.name=y")).await?;
        ensure!(api.get_opt("y").await?.is_none() && api.get_opt("x").await?.is_some());
        Ok(())
    })
}

#[test]
fn subresources_and_waiting() -> Result<()> {
    on_cluster(async |client, _| {
        let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
        let pods: Api<Pod> = Api::default_namespaced(client);
        deployments.create(&PostParams::default(), &deployment("web", 1)?).await?;
        let done = await_condition(deployments.clone(), "web", conditions::is_deployment_completed());
        tokio::time::timeout(SOON, done).await??;
        let scale = deployments.get_scale("web").await?;
        ensure!(scale.status.is_some_and(|s| s.replicas == 1 && s.selector.as_deref() == Some("app=web")));
        deployments
            .patch_scale("web", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 3}})))
            .await?;
        eventually(SOON, async || {
            let ready = deployments.get_status("web").await?.status.and_then(|s| s.ready_replicas);
            ensure!(ready == Some(3), "{ready:?} are ready");
            Ok(())
        })
        .await?;
        // Status by its own door only.
        let note = json!({"status": {"conditions": [{"type": "Seen", "status": "True"}]}});
        let by_status =
            deployments.patch_status("web", &PatchParams::default(), &Patch::Strategic(note.clone())).await?;
        let seen =
            |d: &Deployment| d.status.iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| c.type_ == "Seen");
        ensure!(seen(&by_status), "{by_status:?}");

        let list = pods.list(&ListParams::default().labels("app=web")).await?;
        let pod = list.items.first().context("no pod")?;
        let (name, uid) = (pod.name_any(), pod.uid().context("no uid")?);
        pods.evict(&name, &kube::api::EvictParams::default()).await?;
        tokio::time::timeout(SOON, await_condition(pods.clone(), &name, conditions::is_deleted(&uid))).await??;

        let foreground =
            DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
        deployments.delete("web", &foreground).await?;
        eventually(SOON, async || {
            ensure!(deployments.get_opt("web").await?.is_none(), "it is still there");
            Ok(())
        })
        .await?;
        let left = pods.list(&ListParams::default().labels("app=web")).await?;
        ensure!(left.items.is_empty(), "its pods should have gone first: {left:?}");
        Ok(())
    })
}

#[test]
fn an_eviction_waits_for_the_budget() -> Result<()> {
    on_cluster(async |client, cluster| {
        let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
        let pods: Api<Pod> = Api::default_namespaced(client);
        deployments.create(&PostParams::default(), &deployment("web", 2)?).await?;
        cluster.k("create pdb web --selector=app=web --min-available=2")?;
        cluster.k("rollout status deploy/web --timeout=30s")?;
        eventually(SOON, async || {
            let healthy = cluster.field("pdb web", "{.status.currentHealthy}")?;
            ensure!(healthy == "2", "{healthy} healthy");
            Ok(())
        })
        .await?;
        let list = pods.list(&ListParams::default().labels("app=web")).await?;
        let name = list.items.first().context("no pod")?.name_any();
        let status = refused(pods.evict(&name, &kube::api::EvictParams::default()).await)?;
        ensure!(status.code == 429 && status.reason == "TooManyRequests", "{status:?}");
        ensure!(status.message == "Cannot evict pod as it would violate the pod's disruption budget.", "{status:?}");
        cluster.k("scale deploy/web --replicas=3")?;
        eventually(SOON, async || Ok(pods.evict(&name, &kube::api::EvictParams::default()).await?)).await?;
        Ok(())
    })
}

/// Takes the lock when nobody has it; what another holds stays.
async fn acquire(leases: &Api<Lease>, who: &str) -> Result<bool> {
    let now = MicroTime(Timestamp::now());
    let mut lease = match leases.get_opt("leader").await? {
        Some(lease) => lease,
        None => {
            let fresh = serde_json::from_value(json!({"metadata": {"name": "leader"}, "spec": {}}))?;
            match leases.create(&PostParams::default(), &fresh).await {
                Ok(lease) => lease,
                Err(kube::Error::Api(status)) if status.is_already_exists() => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    };
    let spec = lease.spec.get_or_insert_default();
    if spec.holder_identity.as_deref().is_some_and(|holder| !holder.is_empty() && holder != who) {
        return Ok(false);
    }
    spec.holder_identity = Some(who.to_owned());
    spec.lease_duration_seconds = Some(15);
    spec.renew_time = Some(now);
    match leases.replace("leader", &PostParams::default(), &lease).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[test]
fn a_lease_has_one_holder_at_a_time() -> Result<()> {
    on_cluster(async |client, cluster| {
        let leases: Api<Lease> = Api::default_namespaced(client.clone());
        let candidates: Vec<String> = (0..8).map(|i| format!("candidate-{i}")).collect();
        let tries = candidates.iter().map(|who| acquire(&leases, who));
        let took = futures::future::try_join_all(tries).await?;
        // The creator may have lost its object to another before it wrote its name: then someone else did.
        let winners = took.iter().filter(|won| **won).count();
        ensure!(winners <= 1, "{winners} took it at once");
        let mut holder = None;
        for who in candidates.iter().cycle().take(16) {
            if acquire(&leases, who).await? {
                holder.get_or_insert_with(|| who.clone());
                ensure!(holder.as_ref() == Some(who), "{who} took it from {holder:?}");
            }
        }
        let holder = holder.context("nobody took it")?;
        // What was answered survives the server.
        cluster.kill()?;
        cluster.launch(&[])?;
        let spec = leases.get("leader").await?.spec.context("no spec")?;
        ensure!(spec.holder_identity.as_ref() == Some(&holder), "{spec:?}");
        Ok(())
    })
}

#[test]
fn kinds_are_discovered_and_used_without_types() -> Result<()> {
    on_cluster(async |client, _| {
        for discovery in
            [Discovery::new(client.clone()).run().await?, Discovery::new(client.clone()).run_aggregated().await?]
        {
            for (group, version, kind, namespaced) in [
                ("", "v1", "Pod", true),
                ("apps", "v1", "Deployment", true),
                ("", "v1", "Node", false),
                ("batch", "v1", "CronJob", true),
            ] {
                let gvk = GroupVersionKind::gvk(group, version, kind);
                let (resource, can) = discovery.resolve_gvk(&gvk).with_context(|| format!("no {kind}"))?;
                ensure!(can.supports_operation("watch") && can.supports_operation("patch"), "{kind}: {can:?}");
                ensure!((can.scope == kube::discovery::Scope::Namespaced) == namespaced, "{resource:?}");
            }
            let gvk = GroupVersionKind::gvk("", "v1", "ConfigMap");
            let (resource, _) = discovery.resolve_gvk(&gvk).context("no ConfigMap")?;
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource);
            let mut object = DynamicObject::new("untyped", &resource);
            object.data = json!({"data": {"a": "b"}});
            api.create(&PostParams::default(), &object).await?;
            ensure!(api.get("untyped").await?.data["data"]["a"] == "b");
            api.delete("untyped", &DeleteParams::default()).await?;
        }
        Ok(())
    })
}

#[test]
fn programs_publish_events() -> Result<()> {
    on_cluster(async |client: Client, cluster| {
        let api: Api<Namespace> = Api::all(client.clone());
        let about = api.get("default").await?.object_ref(&());
        let recorder = Recorder::new(client, "tests".into());
        let event = Event {
            type_: EventType::Warning,
            reason: "Tried".to_owned(),
            note: Some("a note of a program".to_owned()),
            action: "Trying".to_owned(),
            secondary: None,
        };
        recorder.publish(&event, &about).await?;
        // The second of a kind is counted on the first.
        recorder.publish(&event, &about).await?;
        let shown = cluster.k("get events -A --field-selector reason=Tried")?;
        ensure!(shown.lines().count() == 2 && shown.contains("a note of a program"), "{shown}");
        let count = cluster.field("events.events.k8s.io -A", "{.items[?(@.reason==\"Tried\")].series.count}")?;
        ensure!(count == "2", "counted {count}");
        Ok(())
    })
}
