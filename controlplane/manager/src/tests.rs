//! The manager over a real store and a real API server, all in this process. Only the nodes are played: a pod that is bound
//! becomes ready, one that is asked to go ends.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_apiserver::admission::Chain;
use coracle_apiserver::admission::namespace_lifecycle::NamespaceLifecycle;
use coracle_apiserver::auth::authenticate::Authenticator;
use coracle_apiserver::auth::authorize::BuiltInIdentities;
use coracle_apiserver::auth::token::Signer;
use coracle_apiserver::auth::{MASTERS, User};
use coracle_apiserver::{ApiServer, Door, Parts};
use coracle_controllers::Kind;
use coracle_store::{ListRange, Options, SqliteStore, Store};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Event, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;

/// How long a state may take to come about before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

struct Cluster {
    store: Arc<dyn Store>,
    door: Door,
    client: kube::Client,
    stop: CancellationToken,
    manager: tokio::task::JoinHandle<()>,
}

impl Cluster {
    async fn start() -> Self {
        let store: Arc<dyn Store> = Arc::new(SqliteStore::in_memory(Options::default()).unwrap());
        let signer = Signer::new(&Signer::generate_key().unwrap(), "https://test").unwrap();
        let api = ApiServer::new(Parts {
            store: Arc::clone(&store),
            authenticator: Authenticator::new(signer, Vec::new()),
            authorizer: Arc::new(BuiltInIdentities::new(Arc::clone(&store))),
            admission: Chain::new(vec![Box::new(NamespaceLifecycle)]),
        });
        let door = Door::new(api, User::authenticated("test", &[MASTERS]));
        let client = kube::Client::new(door.clone(), "default");
        let stop = CancellationToken::new();
        let config = ManagerConfig { root_ca: "PEM".into(), seed: Some(1), ..ManagerConfig::default() };
        let manager = tokio::spawn(Manager::run(Arc::clone(&store), door.clone(), config, stop.child_token()));
        let cluster = Self { store, door, client, stop, manager };
        for name in ["default", "work"] {
            cluster.create_cluster::<Namespace>(json!({ "metadata": { "name": name } })).await;
        }
        cluster
    }

    async fn stop(self) {
        self.stop.cancel();
        self.manager.await.unwrap();
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "work")
    }

    async fn create<K>(&self, object: Value) -> K
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        self.api::<K>().create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
    }

    async fn create_cluster<K>(&self, object: Value) -> K
    where
        K: kube::Resource<Scope = k8s_openapi::ClusterResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        Api::<K>::all(self.client.clone())
            .create(&PostParams::default(), &serde_json::from_value(object).unwrap())
            .await
            .unwrap()
    }

    async fn node(&self, name: &str) {
        // With its status, as agents register: the range it gets is as large as its capacity asks for.
        let status = json!({
            "capacity": { "cpu": "64", "memory": "256Gi", "pods": "500" },
            "allocatable": { "cpu": "64", "memory": "256Gi", "pods": "500" },
            "conditions": [{ "type": "Ready", "status": "True", "lastHeartbeatTime": jiff::Timestamp::now().to_string() }],
        });
        self.create_cluster::<Node>(json!({ "metadata": { "name": name }, "status": status })).await;
    }

    /// Waits, woken by changes alone, until `check` gives something.
    async fn eventually<T, F: Future<Output = Option<T>>>(&self, what: &str, mut check: impl FnMut() -> F) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let revision = self.store.revision();
            if let Some(found) = check().await {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "never: {what}");
            let _ = tokio::time::timeout(left, self.store.wait_for(revision.next())).await;
        }
    }

    /// Plays the nodes for every pod there is.
    async fn play_nodes(&self) {
        let pods = self.api::<Pod>();
        for (index, pod) in pods.list(&Default::default()).await.unwrap().items.into_iter().enumerate() {
            let name = pod.metadata.name.clone().unwrap();
            let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
            let ready = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()).is_some();
            if pod.metadata.deletion_timestamp.is_some() {
                let _ = pods
                    .delete(&name, &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() })
                    .await;
            } else if bound && !ready {
                let ip = format!("10.42.0.{}", index + 1);
                let status = json!({ "status": {
                    "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
                    "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }],
                }});
                let _ = pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await;
            }
        }
    }
}

fn deployment(replicas: i32) -> Value {
    json!({
        "metadata": { "name": "web" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "c", "image": "example.com/web:1" }] },
            },
        },
    })
}

#[test]
fn every_followed_kind_has_a_collection() {
    let catalog = catalog::Catalog::new(coracle_api::KINDS);
    for kind in runner::followed() {
        assert!(catalog.of_kind(kind).is_some(), "{kind:?} is no kind of the API");
    }
    assert!(catalog.of_reference("events.k8s.io/v1", "Event").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_deployment_to_endpoints_and_away_with_the_namespace() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    let service = json!({
        "metadata": { "name": "web" },
        "spec": { "clusterIP": "10.43.0.20", "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    });
    cluster.create::<Service>(service).await;
    cluster.create::<Deployment>(deployment(3)).await;

    let deployments = cluster.api::<Deployment>();
    cluster
        .eventually("the deployment is available", || async {
            cluster.play_nodes().await;
            let status = deployments.get("web").await.ok()?.status?;
            (status.available_replicas == Some(3) && status.updated_replicas == Some(3)).then_some(())
        })
        .await;
    cluster
        .eventually("all addresses are published", || async {
            let endpoints = cluster.api::<Endpoints>().get("web").await.ok()?;
            let ready = endpoints.subsets?.first()?.addresses.as_ref()?.len();
            let slices = cluster.api::<EndpointSlice>().list(&Default::default()).await.ok()?;
            let in_slices: usize = slices.items.iter().map(|slice| slice.endpoints.iter().flatten().count()).sum();
            (ready == 3 && in_slices == 3).then_some(())
        })
        .await;
    let reasons = ["ScalingReplicaSet", "SuccessfulCreate", "Scheduled"];
    cluster
        .eventually("events tell of it", || async {
            let events = cluster.api::<Event>().list(&Default::default()).await.ok()?.items;
            let told = |reason: &&str| events.iter().any(|event| event.reason.as_deref() == Some(*reason));
            reasons.iter().all(told).then_some(())
        })
        .await;
    assert!(cluster.api::<ServiceAccount>().get_opt("default").await.unwrap().is_some());
    assert!(cluster.api::<ConfigMap>().get_opt("kube-root-ca.crt").await.unwrap().is_some());
    let node = Api::<Node>::all(cluster.client.clone()).get("n1").await.unwrap();
    assert_eq!(node.spec.unwrap().pod_cidr.as_deref(), Some("10.42.0.0/22"));

    let namespaces = Api::<Namespace>::all(cluster.client.clone());
    namespaces.delete("work", &DeleteParams::default()).await.unwrap();
    cluster
        .eventually("the namespace is gone", || async {
            cluster.play_nodes().await;
            namespaces.get_opt("work").await.ok()?.is_none().then_some(())
        })
        .await;
    let catalog = catalog::Catalog::new(coracle_api::KINDS);
    for row in &catalog.rows {
        let left = cluster.store.list(&row.collection, &ListRange::namespace("work")).entries;
        assert!(left.is_empty(), "{:?} remain", row.collection);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_pod_is_replaced_and_a_deleted_deployment_takes_its_pods_along() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    cluster.create::<Deployment>(deployment(2)).await;
    let pods = cluster.api::<Pod>();
    let names = || async {
        cluster.play_nodes().await;
        let list = pods.list(&Default::default()).await.ok()?.items;
        Some(list.into_iter().filter_map(|pod| pod.metadata.name).collect::<Vec<_>>())
    };
    let first = cluster.eventually("two pods", || async { names().await.filter(|names| names.len() == 2) }).await;
    pods.delete(&first[0], &DeleteParams::default()).await.unwrap();
    cluster
        .eventually("another pod in its place", || async {
            names().await.filter(|names| names.len() == 2 && !names.contains(&first[0]))
        })
        .await;
    cluster.api::<Deployment>().delete("web", &DeleteParams::foreground()).await.unwrap();
    cluster
        .eventually("nothing is left", || async {
            let pods_left = names().await?.len();
            let sets_left = cluster.api::<ReplicaSet>().list(&Default::default()).await.ok()?.items.len();
            let gone = cluster.api::<Deployment>().get_opt("web").await.ok()?.is_none();
            (pods_left + sets_left == 0 && gone).then_some(())
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphaned_dependents_stay() {
    let cluster = Cluster::start().await;
    cluster.create::<Deployment>(deployment(1)).await;
    let sets = cluster.api::<ReplicaSet>();
    cluster
        .eventually("a set", || async { (sets.list(&Default::default()).await.ok()?.items.len() == 1).then_some(()) })
        .await;
    let orphan =
        DeleteParams { propagation_policy: Some(kube::api::PropagationPolicy::Orphan), ..DeleteParams::default() };
    cluster.api::<Deployment>().delete("web", &orphan).await.unwrap();
    cluster
        .eventually("the set has no owner", || async {
            let gone = cluster.api::<Deployment>().get_opt("web").await.ok()?.is_none();
            let list = sets.list(&Default::default()).await.ok()?.items;
            (gone && list.len() == 1 && list[0].metadata.owner_references.is_none()).then_some(())
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_waits_for_a_node_and_says_so() {
    let cluster = Cluster::start().await;
    cluster
        .create::<Pod>(json!({
            "metadata": { "name": "lonely" },
            "spec": { "containers": [{ "name": "c", "image": "example.com/web:1" }] },
        }))
        .await;
    let pods = cluster.api::<Pod>();
    let condition = cluster
        .eventually("the pod is unschedulable", || async {
            let conditions = pods.get("lonely").await.ok()?.status?.conditions?;
            conditions.into_iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
        })
        .await;
    assert_eq!(condition.reason.as_deref(), Some("Unschedulable"));
    assert!(condition.message.unwrap().starts_with("no nodes available to schedule pods"));
    cluster
        .eventually("an Event says so", || async {
            let events = cluster.api::<Event>().list(&Default::default()).await.ok()?.items;
            events.into_iter().find(|event| event.reason.as_deref() == Some("FailedScheduling"))
        })
        .await;
    cluster.node("n1").await;
    cluster
        .eventually("the pod has the node", || async {
            pods.get("lonely").await.ok()?.spec?.node_name.filter(|node| node == "n1")
        })
        .await;
    cluster.stop().await;
}

/// What is settled stays settled: neither time nor a restart of the manager brings writes about.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settled_cluster_is_not_written_to() {
    /// Longer than any reaction takes, shorter than any timer.
    const QUIET: Duration = Duration::from_millis(700);
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    cluster.create::<Service>(json!({
        "metadata": { "name": "web", "labels": { "app": "web" } },
        "spec": { "clusterIP": "10.43.0.20", "selector": { "app": "web" }, "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] },
    }))
    .await;
    cluster.create::<Deployment>(deployment(3)).await;
    let quiet = async |cluster: &Cluster| {
        let revision = cluster.store.revision();
        tokio::time::timeout(QUIET, cluster.store.wait_for(revision.next())).await.is_err()
    };
    let deployments = cluster.api::<Deployment>();
    cluster
        .eventually("the deployment is available", || async {
            cluster.play_nodes().await;
            (deployments.get("web").await.ok()?.status?.available_replicas == Some(3)).then_some(())
        })
        .await;
    let deadline = Instant::now() + PATIENCE;
    while !quiet(&cluster).await {
        assert!(Instant::now() < deadline, "the cluster never settles");
    }
    let settled = cluster.store.revision();
    cluster.stop.cancel();
    (&mut cluster.manager).await.unwrap();
    cluster.stop = CancellationToken::new();
    let config = ManagerConfig { root_ca: "PEM".into(), seed: Some(2), ..ManagerConfig::default() };
    let run = Manager::run(Arc::clone(&cluster.store), cluster.door.clone(), config, cluster.stop.child_token());
    cluster.manager = tokio::spawn(run);
    assert!(quiet(&cluster).await, "a restart writes: {:?}", changed_since(&cluster, settled).await);
    cluster.stop().await;
}

/// The keys that changed after a revision.
async fn changed_since(cluster: &Cluster, revision: coracle_store::Revision) -> Vec<String> {
    let mut changed = Vec::new();
    for row in catalog::Catalog::new(coracle_api::KINDS).rows {
        let mut watch = cluster.store.watch(&row.collection, coracle_store::WatchFrom::After(revision)).unwrap();
        changed.extend(watch.try_next().unwrap().iter().map(|event| event.entry().key.to_string()));
    }
    changed
}

/// Many pods on many nodes: all are bound, none twice, and the nodes share them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_is_bound() {
    const PODS: usize = 300;
    let cluster = Cluster::start().await;
    for index in 0..10 {
        cluster.node(&format!("n{index}")).await;
    }
    cluster.create::<Deployment>(deployment(i32::try_from(PODS).unwrap())).await;
    let row = catalog::Catalog::new(coracle_api::KINDS);
    let collection = row.of_kind(Kind::Pod).unwrap().collection.clone();
    let begun = Instant::now();
    let bound = cluster
        .eventually("all are bound", || async {
            let entries = cluster.store.list(&collection, &ListRange::all()).entries;
            let nodes: Vec<String> = entries
                .iter()
                .filter_map(|entry| serde_json::from_slice::<Pod>(&entry.bytes).unwrap().spec?.node_name)
                .collect();
            (nodes.len() == PODS).then_some(nodes)
        })
        .await;
    println!("{PODS} pods made and bound in {:?}", begun.elapsed());
    let on_first = bound.iter().filter(|node| *node == "n0").count();
    assert!((15..=45).contains(&on_first), "{on_first} of {PODS} pods on one of ten nodes");
    cluster.stop().await;
}
