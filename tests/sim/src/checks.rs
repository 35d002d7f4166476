//! What must hold at every step. It looks at the store and at what really runs; it never asks those who are checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use coracle_agent_core::PodUid;
use coracle_store::{SqliteStore, Store};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::apps::FILLER;
use crate::endpoints::ready_of;
use crate::node::{Notice, SimNode};
use crate::objects::{
    all, has_condition, is_ended, is_ending, is_owned_by, is_task, name_of, namespace_of, node_of, uid_of,
};

/// How long an app may be short of pods after it was disturbed: the disturbance itself takes its time to arrive.
const SHOWS: Duration = Duration::from_secs(3);

/// The checks and what they remember.
#[derive(Default)]
pub(crate) struct Checks {
    /// How often each node, by its number, started a pod's container.
    starts: BTreeMap<(usize, PodUid), u32>,
    excuses: BTreeMap<PodUid, u32>,
    unwell: BTreeSet<PodUid>,
    /// Apps that were complete and are not disturbed since.
    calm: BTreeSet<(String, String)>,
    disturbed: BTreeMap<String, Duration>,
    all_disturbed_until: Duration,
}

impl Checks {
    /// An app may be short of pods from now on, until it is complete again.
    pub(crate) fn disturb(&mut self, app: &str, now: Duration) {
        self.disturbed.insert(app.to_owned(), now + SHOWS);
    }

    /// All of them may.
    pub(crate) fn disturb_all(&mut self, now: Duration) {
        self.all_disturbed_until = now + SHOWS;
    }

    /// An agent died: what did not outlive it may be started again.
    pub(crate) fn agent_died(&mut self, started_there: &BTreeSet<PodUid>, running: &BTreeSet<PodUid>) {
        for uid in started_there.difference(running) {
            *self.excuses.entry(uid.clone()).or_default() += 1;
        }
    }

    /// Pods that a node ever started.
    pub(crate) fn started(&self, node: usize) -> BTreeSet<PodUid> {
        self.starts.keys().filter(|(at, _)| *at == node).map(|(_, pod)| pod.clone()).collect()
    }

    /// Looks at what a node's agent told its runtime to do.
    pub(crate) fn notice(
        &mut self,
        (node, at): (usize, &SimNode),
        notice: &Notice,
        store: &SqliteStore,
        now: Duration,
    ) -> Result<(), String> {
        match notice {
            Notice::Failure(pod) => {
                *self.excuses.entry(pod.clone()).or_default() += 1;
                // A task that ends is in nobody's way.
                if wanted(store, pod).is_some_and(|pod| !is_task(&pod)) {
                    self.disturb_all(now);
                }
            }
            Notice::Unwell(pod) => {
                *self.excuses.entry(pod.clone()).or_default() += 1;
                self.unwell.insert(pod.clone());
                self.disturb_all(now);
            }
            Notice::Started(key) => {
                let pod = &key.pod;
                let ended = wanted(store, pod).is_some_and(|pod| is_ended(&pod));
                if ended && !at.may_have_forgotten_the_end_of(pod) {
                    return Err(format!("{key} was started though its pod has ended"));
                }
                let starts = self.starts.entry((node, pod.clone())).or_default();
                *starts += 1;
                if *starts > 1 + self.excuses.get(pod).copied().unwrap_or(0) {
                    return Err(format!("the healthy container {key} was started again"));
                }
            }
            Notice::Stopped(key) => {
                if wanted(store, &key.pod).is_some() && !self.unwell.contains(&key.pod) {
                    return Err(format!("the container {key} was stopped though nobody deleted its pod"));
                }
            }
        }
        Ok(())
    }

    /// What holds at every step.
    pub(crate) fn step(&mut self, store: &SqliteStore, nodes: &[SimNode], now: Duration) -> Result<(), String> {
        one_home(nodes)?;
        let (pods, sets) = (all::<Pod>(store), all::<ReplicaSet>(store));
        for app in all::<Deployment>(store) {
            let name = name_of(&app.metadata);
            let key = (namespace_of(&app.metadata).to_owned(), name.to_owned());
            let disturbed =
                now < self.all_disturbed_until || self.disturbed.get(name).is_some_and(|until| now < *until);
            let own = pods_of(&app, &sets, &pods);
            if disturbed || name == FILLER || is_ending(&app.metadata) {
                self.calm.remove(&key);
                continue;
            }
            if complete(&app, &own).is_ok() && serves(store, &app, &own).is_ok() {
                self.calm.insert(key.clone());
            }
            if self.calm.contains(&key) {
                within_limits(&app, &sets, &own)?;
                never_empty(store, &app)?;
            }
        }
        Ok(())
    }
}

fn one_home(nodes: &[SimNode]) -> Result<(), String> {
    let mut homes: BTreeMap<&PodUid, &str> = BTreeMap::new();
    for node in nodes {
        for key in node.runtime.running() {
            if let Some(other) = homes.insert(&key.pod, &node.name).filter(|other| **other != node.name) {
                return Err(format!("the pod {} runs on {other} and on {}", key.pod, node.name));
            }
        }
    }
    Ok(())
}

pub(crate) fn replicas(app: &Deployment) -> usize {
    let wanted = app.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    usize::try_from(wanted).unwrap_or(0)
}

/// An app's pods, those that are being deleted left out.
pub(crate) fn pods_of<'a>(app: &Deployment, sets: &[Arc<ReplicaSet>], pods: &'a [Arc<Pod>]) -> Vec<&'a Pod> {
    let uid = uid_of(&app.metadata);
    let sets: Vec<&str> =
        sets.iter().filter(|set| is_owned_by(&set.metadata, uid)).map(|set| uid_of(&set.metadata)).collect();
    let own = |pod: &&Arc<Pod>| sets.iter().any(|set| is_owned_by(&pod.metadata, set));
    let there = pods.iter().filter(own).filter(|pod| !is_ending(&pod.metadata) && !is_ended(pod));
    there.map(|pod| &**pod).collect()
}

/// Whether an app has all that it declares, and says so.
pub(crate) fn complete(app: &Deployment, pods: &[&Pod]) -> Result<(), String> {
    let name = name_of(&app.metadata);
    let status = app.status.clone().unwrap_or_default();
    let wanted = replicas(app);
    let counts = [status.updated_replicas, status.replicas, status.available_replicas, status.ready_replicas];
    let counted = counts.iter().all(|count| usize::try_from(count.unwrap_or(0)) == Ok(wanted));
    let seen = status.observed_generation == app.metadata.generation;
    let ready = pods.iter().filter(|pod| is_ready(pod)).count();
    if !counted || !seen || pods.len() != wanted || ready != wanted || is_ending(&app.metadata) {
        let waiting: Vec<_> =
            pods.iter().filter(|pod| !is_ready(pod)).map(|pod| (&pod.metadata.name, node_of(pod))).collect();
        return Err(format!(
            "{name} has {ready} of {wanted} ready, {} pods, counts {counts:?}, not ready: {waiting:?}",
            pods.len()
        ));
    }
    Ok(())
}

/// Whether the Service of an app sends traffic to its pods and to nothing else.
pub(crate) fn serves(store: &dyn Store, app: &Deployment, pods: &[&Pod]) -> Result<(), String> {
    let (namespace, name) = (namespace_of(&app.metadata), name_of(&app.metadata));
    if crate::objects::one::<k8s_openapi::api::core::v1::Service>(store, namespace, name).is_none() {
        return Ok(());
    }
    let shown = ready_of(store, namespace, name);
    let wanted: BTreeSet<String> = pods.iter().map(|pod| uid_of(&pod.metadata).to_owned()).collect();
    if shown == wanted {
        return Ok(());
    }
    Err(format!("the Service {name} has {} endpoints for {} pods", shown.len(), wanted.len()))
}

/// A pod, if it is there and nobody asked for its end.
fn wanted(store: &SqliteStore, uid: &PodUid) -> Option<Arc<Pod>> {
    let is_it = |pod: &Arc<Pod>| uid_of(&pod.metadata) == uid.as_str() && !is_ending(&pod.metadata);
    all::<Pod>(store).into_iter().find(is_it)
}

fn bound(value: Option<&IntOrString>) -> usize {
    match value {
        Some(IntOrString::Int(number)) => usize::try_from(*number).unwrap_or(0),
        // The apps of this world declare numbers only.
        _ => usize::MAX / 2,
    }
}

fn rolling(app: &Deployment) -> (usize, usize) {
    let strategy = app.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let surge = bound(rolling.and_then(|rolling| rolling.max_surge.as_ref()));
    (surge, bound(rolling.and_then(|rolling| rolling.max_unavailable.as_ref())))
}

/// The surge bounds what is asked of the ReplicaSets, as in Kubernetes: their own deletions come a little later.
fn within_limits(app: &Deployment, sets: &[Arc<ReplicaSet>], pods: &[&Pod]) -> Result<(), String> {
    let (surge, unavailable) = rolling(app);
    let (wanted, ready) = (replicas(app), pods.iter().filter(|pod| is_ready(pod)).count());
    let uid = uid_of(&app.metadata);
    let own = sets.iter().filter(|set| is_owned_by(&set.metadata, uid)).filter_map(|set| set.spec.as_ref()?.replicas);
    let asked = usize::try_from(own.sum::<i32>()).unwrap_or(0);
    if asked > wanted + surge || ready + unavailable < wanted {
        return Err(format!(
            "{} broke its limits in a quiet rollout: {ready} ready of {} pods, {asked} asked, {wanted} wanted, \
             surge {surge}, unavailable {unavailable}",
            name_of(&app.metadata),
            pods.len()
        ));
    }
    Ok(())
}

/// Whether a rollout of an app leaves its Service with an endpoint at all times.
pub(crate) fn always_serves(app: &Deployment) -> bool {
    let (_, unavailable) = rolling(app);
    replicas(app) > unavailable
}

/// While an app rolls, its Service has somewhere to send traffic to.
fn never_empty(store: &SqliteStore, app: &Deployment) -> Result<(), String> {
    let (namespace, name) = (namespace_of(&app.metadata), name_of(&app.metadata));
    let has_service = crate::objects::one::<k8s_openapi::api::core::v1::Service>(store, namespace, name).is_some();
    if has_service && always_serves(app) && ready_of(store, namespace, name).is_empty() {
        return Err(format!("the Service {name} lost all its endpoints in a quiet rollout"));
    }
    Ok(())
}

fn is_ready(pod: &Pod) -> bool {
    has_condition(pod, "Ready")
}
