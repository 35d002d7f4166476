//! What users do, through the API: apps come, are scaled, rolled and deleted, pods are deleted and evicted, nodes are
//! cordoned and drained, namespaces and families of objects come and go. What they declare in the end fits the smallest
//! cluster, so that all of it can come about.

use std::sync::Arc;

use coracle_store::{SqliteStore, Store};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};

use crate::apps::{self, App, FILLER, LOW, NAMESPACE, path};
use crate::books::Books;
use crate::client::Client;
use crate::objects::{all, is_ending, is_task, name_of, namespace_of, node_of, uid_of};
use crate::stories::HOLD;

/// Three nodes hold 15 pods of half a CPU and a few tasks: two apps of three pods, and one of one, with two more each
/// while they roll, fit. Few pods suffice to show what can meet, and leave the time for many worlds.
const MOST_APPS: usize = 2;
const MOST_REPLICAS: i32 = 3;
/// More than there is room for beside the apps.
const FILLER_REPLICAS: i32 = 10;
/// Tasks that are there at once, ended ones included.
const MOST_TASKS: usize = 4;
/// Namespaces that come and go at once, each with an app of its own.
const MOST_NAMESPACES: usize = 1;

/// What an action disturbs beyond what rollouts may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Disturbs {
    Nothing,
    App(String),
    Everything,
}

/// Requests to be sent one after the other; what the server refuses is let be: the next action comes soon.
pub(crate) struct Errand {
    pub(crate) disturbs: Disturbs,
    calls: Vec<Call>,
}

enum Call {
    Post(String, Value),
    Merge(String, Value),
    Delete(String, Value),
    /// An object and two that it owns.
    Family(String),
    /// Lets go of a held object.
    Release(String, String),
}

impl Errand {
    fn new(disturbs: Disturbs, calls: Vec<Call>) -> Self {
        Self { disturbs, calls }
    }

    /// Carries it out.
    pub(crate) async fn run(self, client: Client, books: Arc<Books>) {
        for call in self.calls {
            // Whether it is accepted is the server's affair; the world is judged by what it stores.
            let _ = match call {
                Call::Post(path, object) => client.post(&path, &object).await.map(drop),
                Call::Merge(path, patch) => client.merge(&path, &patch).await,
                Call::Delete(path, options) => client.delete(&path, &options).await,
                Call::Family(name) => family(&client, &name).await,
                Call::Release(path, uid) => {
                    books.with(|records| records.stories.release(&uid));
                    client.merge(&path, &json!({"metadata": {"uid": uid, "finalizers": null}})).await
                }
            };
        }
    }
}

async fn family(client: &Client, name: &str) -> Result<(), crate::client::Refusal> {
    let all = path(NAMESPACE, "configmaps", "");
    let owner = client.post(&all, &apps::config_map(NAMESPACE, name)).await?;
    let uid = owner["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    for number in 0..2 {
        client.post(&all, &apps::owned(NAMESPACE, &format!("{name}-{number}"), (name, &uid))).await?;
    }
    Ok(())
}

/// The users.
pub(crate) struct Users {
    rng: SmallRng,
    count: u32,
}

impl Users {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: SmallRng::seed_from_u64(seed), count: 0 }
    }

    /// What the users begin with.
    pub(crate) fn begin(&mut self) -> Errand {
        let classes = "/apis/scheduling.k8s.io/v1/priorityclasses".to_owned();
        let mut calls = vec![Call::Post(classes, apps::low_priority())];
        calls.extend(self.app(NAMESPACE, "d0", None));
        calls.push(self.task());
        Errand::new(Disturbs::Nothing, calls)
    }

    /// The next thing they do. In quiet times rollouts and evictions are what is looked at most.
    pub(crate) fn next(&mut self, store: &SqliteStore, is_quiet: bool) -> Errand {
        let apps = self.apps(store);
        let app = apps.choose(&mut self.rng).cloned();
        let dice = if is_quiet { self.rng.random_range(8..26) } else { self.rng.random_range(0..26) };
        match (dice, app) {
            (0..=2, _) | (_, None) => self.create(apps.len()),
            (3, _) => self.node_errand(store),
            (4, _) => self.drain(store),
            (5, Some((name, _))) => self.delete_app(&name),
            (6 | 7, _) => self.fill(store),
            (8 | 9, Some((name, _))) => self.scale(&name),
            (10..=15, Some((name, _))) => self.roll(&name),
            (16, _) => self.delete_pod(store),
            (17..=19, _) => self.evict(store),
            (20, _) => self.family_errand(store),
            (21, _) => self.hold_errand(store),
            (22 | 23, _) => self.task_errand(store),
            (_, _) => self.namespace_errand(store),
        }
    }

    /// Leaves nothing in the way of what was declared.
    pub(crate) fn tidy(&mut self, store: &SqliteStore) -> Errand {
        let mut calls = vec![Call::Delete(path(NAMESPACE, "deployments", FILLER), apps::deletion("Background"))];
        for node in all::<Node>(store) {
            calls.push(cordon(name_of(&node.metadata), false));
        }
        for object in all::<ConfigMap>(store) {
            calls.extend(release(&object));
        }
        Errand::new(Disturbs::Everything, calls)
    }

    /// The names of the apps, with how many replicas they are to have.
    fn apps(&self, store: &dyn Store) -> Vec<(String, i32)> {
        let deployments = all::<Deployment>(store);
        let own = deployments.iter().filter(|app| namespace_of(&app.metadata) == NAMESPACE);
        own.filter(|app| name_of(&app.metadata) != FILLER && !is_ending(&app.metadata))
            .map(|app| {
                let replicas = app.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
                (name_of(&app.metadata).to_owned(), replicas)
            })
            .collect()
    }

    fn fresh(&mut self, kind: &str) -> String {
        self.count += 1;
        format!("{kind}{}", self.count)
    }

    fn app(&mut self, namespace: &str, name: &str, replicas: Option<i32>) -> Vec<Call> {
        let replicas = replicas.unwrap_or_else(|| self.rng.random_range(1..=MOST_REPLICAS));
        let app = App { namespace, name, replicas, priority_class: None };
        let mut calls = vec![
            Call::Post(path(namespace, "deployments", ""), app.deployment(&mut self.rng)),
            Call::Post(path(namespace, "services", ""), app.service(&mut self.rng)),
        ];
        if self.rng.random_bool(0.7) {
            calls.push(Call::Post(path(namespace, "poddisruptionbudgets", ""), app.budget(&mut self.rng)));
        }
        calls
    }

    fn task(&mut self) -> Call {
        let name = self.fresh("task");
        Call::Post(path(NAMESPACE, "pods", ""), apps::task(&name, &mut self.rng))
    }

    /// A task comes; one that has ended long ago goes.
    fn task_errand(&mut self, store: &SqliteStore) -> Errand {
        let pods = all::<Pod>(store);
        let tasks: Vec<&Arc<Pod>> = pods.iter().filter(|pod| is_task(pod)).collect();
        let call = match tasks.choose(&mut self.rng).filter(|_| tasks.len() >= MOST_TASKS) {
            Some(pod) => Call::Delete(path(NAMESPACE, "pods", name_of(&pod.metadata)), Value::Null),
            None => self.task(),
        };
        Errand::new(Disturbs::Nothing, vec![call])
    }

    fn create(&mut self, there: usize) -> Errand {
        if there >= MOST_APPS {
            return Errand::new(Disturbs::Nothing, Vec::new());
        }
        let name = self.fresh("d");
        let calls = self.app(NAMESPACE, &name, None);
        Errand::new(Disturbs::Nothing, calls)
    }

    fn scale(&mut self, name: &str) -> Errand {
        let replicas = self.rng.random_range(0..=MOST_REPLICAS);
        let call = Call::Merge(path(NAMESPACE, "deployments", name), json!({"spec": {"replicas": replicas}}));
        Errand::new(Disturbs::App(name.to_owned()), vec![call])
    }

    fn roll(&mut self, name: &str) -> Errand {
        let stamp = self.fresh("");
        let patch = json!({"spec": {"template": {"metadata": {"annotations": {"rolled": stamp}}}}});
        Errand::new(Disturbs::Nothing, vec![Call::Merge(path(NAMESPACE, "deployments", name), patch)])
    }

    fn delete_app(&mut self, name: &str) -> Errand {
        let policy = *["Background", "Foreground"].choose(&mut self.rng).unwrap_or(&"Background");
        let mut calls = vec![Call::Delete(path(NAMESPACE, "deployments", name), apps::deletion(policy))];
        for plural in ["services", "poddisruptionbudgets"] {
            calls.push(Call::Delete(path(NAMESPACE, plural, name), apps::deletion("Background")));
        }
        Errand::new(Disturbs::App(name.to_owned()), calls)
    }

    fn delete_pod(&mut self, store: &SqliteStore) -> Errand {
        let pods = all::<Pod>(store);
        let Some(pod) = pods.choose(&mut self.rng) else { return Errand::new(Disturbs::Nothing, Vec::new()) };
        let at = path(namespace_of(&pod.metadata), "pods", name_of(&pod.metadata));
        Errand::new(Disturbs::Everything, vec![Call::Delete(at, Value::Null)])
    }

    /// Two pods of one app at once where there are two, so that its budget has something to refuse.
    fn evict(&mut self, store: &SqliteStore) -> Errand {
        let budgets = all::<PodDisruptionBudget>(store);
        let Some(budget) = budgets.choose(&mut self.rng) else { return self.delete_pod(store) };
        let app = name_of(&budget.metadata).to_owned();
        let pods = all::<Pod>(store);
        let own: Vec<&Arc<Pod>> =
            pods.iter().filter(|pod| crate::objects::label(&pod.metadata, "app") == Some(&app)).collect();
        let calls = own.choose_multiple(&mut self.rng, 2).map(|pod| eviction(pod)).collect();
        Errand::new(Disturbs::App(app), calls)
    }

    fn drain(&mut self, store: &SqliteStore) -> Errand {
        let nodes = all::<Node>(store);
        let Some(node) = nodes.choose(&mut self.rng) else { return Errand::new(Disturbs::Nothing, Vec::new()) };
        let name = name_of(&node.metadata);
        let mut calls = vec![cordon(name, true)];
        let pods = all::<Pod>(store);
        calls.extend(pods.iter().filter(|pod| node_of(pod) == Some(name)).map(|pod| eviction(pod)));
        calls.push(cordon(name, false));
        Errand::new(Disturbs::Everything, calls)
    }

    /// A rollout can lack room while a node is cordoned.
    fn node_errand(&mut self, store: &SqliteStore) -> Errand {
        let nodes = all::<Node>(store);
        let Some(node) = nodes.choose(&mut self.rng) else { return Errand::new(Disturbs::Nothing, Vec::new()) };
        let call = if self.rng.random_bool(0.2) {
            Call::Delete(format!("/api/v1/nodes/{}", name_of(&node.metadata)), Value::Null)
        } else {
            cordon(name_of(&node.metadata), self.rng.random_bool(0.5))
        };
        Errand::new(Disturbs::Everything, vec![call])
    }

    /// The filler comes, or goes.
    fn fill(&mut self, store: &SqliteStore) -> Errand {
        let there = all::<Deployment>(store).iter().any(|app| name_of(&app.metadata) == FILLER);
        let call = if there {
            Call::Delete(path(NAMESPACE, "deployments", FILLER), apps::deletion("Background"))
        } else {
            let replicas = self.rng.random_range(2..=FILLER_REPLICAS);
            let filler = App { namespace: NAMESPACE, name: FILLER, replicas, priority_class: Some(LOW) };
            Call::Post(path(NAMESPACE, "deployments", ""), filler.deployment(&mut self.rng))
        };
        Errand::new(Disturbs::Nothing, vec![call])
    }

    /// A family comes, or one goes.
    fn family_errand(&mut self, store: &SqliteStore) -> Errand {
        let heads = |object: &&Arc<ConfigMap>| {
            name_of(&object.metadata).starts_with("family") && object.metadata.owner_references.is_none()
        };
        let objects = all::<ConfigMap>(store);
        let families: Vec<&Arc<ConfigMap>> = objects.iter().filter(heads).collect();
        let call = match families.choose(&mut self.rng).filter(|_| self.count.is_multiple_of(2)) {
            Some(head) => {
                let policy = *["Background", "Foreground"].choose(&mut self.rng).unwrap_or(&"Background");
                let at = path(NAMESPACE, "configmaps", name_of(&head.metadata));
                Call::Delete(at, apps::deletion(policy))
            }
            None => Call::Family(self.fresh("family")),
        };
        self.count += 1;
        Errand::new(Disturbs::Nothing, vec![call])
    }

    /// A held object comes, is deleted, or is let go.
    fn hold_errand(&mut self, store: &SqliteStore) -> Errand {
        let objects = all::<ConfigMap>(store);
        let held: Vec<&Arc<ConfigMap>> = objects.iter().filter(|object| is_held(object)).collect();
        let call = match held.choose(&mut self.rng) {
            Some(object) if is_ending(&object.metadata) => release(object),
            Some(object) => {
                let at = path(namespace_of(&object.metadata), "configmaps", name_of(&object.metadata));
                Some(Call::Delete(at, Value::Null))
            }
            None => {
                let object = apps::held(NAMESPACE, &self.fresh("held"));
                Some(Call::Post(path(NAMESPACE, "configmaps", ""), object))
            }
        };
        Errand::new(Disturbs::Nothing, call.into_iter().collect())
    }

    /// A namespace comes with an app and a held object, or goes with them.
    fn namespace_errand(&mut self, store: &SqliteStore) -> Errand {
        let namespaces = all::<Namespace>(store);
        let own: Vec<&Arc<Namespace>> =
            namespaces.iter().filter(|namespace| name_of(&namespace.metadata).starts_with("ns")).collect();
        if own.len() < MOST_NAMESPACES {
            let name = self.fresh("ns");
            let mut calls = vec![Call::Post("/api/v1/namespaces".into(), apps::namespace(&name))];
            // Made at once: its ServiceAccount may not be there yet, and a controller has to try again.
            calls.extend(self.app(&name, "inner", Some(1)));
            calls.push(Call::Post(path(&name, "configmaps", ""), apps::held(&name, "held")));
            return Errand::new(Disturbs::Nothing, calls);
        }
        let Some(namespace) = own.choose(&mut self.rng) else { return Errand::new(Disturbs::Nothing, Vec::new()) };
        let name = name_of(&namespace.metadata);
        let held = all::<ConfigMap>(store).into_iter().find(|o| is_held(o) && namespace_of(&o.metadata) == name);
        let call = match held {
            Some(object) if is_ending(&namespace.metadata) => release(&object),
            _ => Some(Call::Delete(format!("/api/v1/namespaces/{name}"), Value::Null)),
        };
        Errand::new(Disturbs::App("inner".into()), call.into_iter().collect())
    }
}

fn is_held(object: &ConfigMap) -> bool {
    object.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == HOLD)
}

fn release(object: &ConfigMap) -> Option<Call> {
    let at = path(namespace_of(&object.metadata), "configmaps", name_of(&object.metadata));
    is_held(object).then(|| Call::Release(at, uid_of(&object.metadata).to_owned()))
}

fn cordon(node: &str, cordoned: bool) -> Call {
    Call::Merge(format!("/api/v1/nodes/{node}"), json!({"spec": {"unschedulable": cordoned.then_some(true)}}))
}

fn eviction(pod: &Pod) -> Call {
    let (namespace, name) = (namespace_of(&pod.metadata), name_of(&pod.metadata));
    let at = format!("{}/eviction", path(namespace, "pods", name));
    let body = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace},
    });
    Call::Post(at, body)
}
