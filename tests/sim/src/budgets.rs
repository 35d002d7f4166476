//! No eviction leaves fewer healthy pods than a budget promises.
//!
//! As in Kubernetes, an eviction is judged by what the disruption controller has last written; what became unhealthy by
//! itself since then is nobody's fault. So the promise is: at some moment since then there were enough healthy pods for
//! every eviction that was accepted after it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use coracle_store::{Entry, Key, Store};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::books::{Commit, LAG};
use crate::objects::{all, collection, is_of, is_serving, label, name_of, namespace_of, one, typed};

/// What a budget's pods were after one commit.
struct Moment {
    at: Duration,
    healthy: BTreeSet<String>,
    desired: usize,
    /// Healthy pods whose eviction was accepted after this moment.
    evicted_since: usize,
}

#[derive(Default)]
struct Record {
    moments: VecDeque<Moment>,
    /// When the controller last wrote what it saw.
    written_at: Duration,
}

/// What is remembered of budgets.
#[derive(Default)]
pub(crate) struct Budgets {
    known: BTreeMap<Key, Record>,
    accepted: u64,
}

impl Budgets {
    /// How many evictions were accepted under a budget.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted
    }

    pub(crate) fn look(&mut self, commit: &Commit<'_>) -> Result<(), String> {
        if is_of::<PodDisruptionBudget>(commit.key) {
            let Some(new) = commit.new else {
                self.known.remove(commit.key);
                return Ok(());
            };
            let added = newly_disrupted(commit.old, new);
            let record = self.known.entry(commit.key.clone()).or_default();
            if added.is_empty() {
                record.written_at = commit.now;
            }
            for pod in &added {
                self.accepted += 1;
                record.accept(pod, commit)?;
            }
        }
        if is_of::<Pod>(commit.key) || is_of::<PodDisruptionBudget>(commit.key) || is_of::<Deployment>(commit.key) {
            self.observe(commit);
        }
        Ok(())
    }

    fn observe(&mut self, commit: &Commit<'_>) {
        for budget in all::<PodDisruptionBudget>(commit.store) {
            let (namespace, name) = (namespace_of(&budget.metadata), name_of(&budget.metadata));
            if namespace != commit.key.namespace() {
                continue;
            }
            let key = collection::<PodDisruptionBudget>().key(namespace, name);
            let record = self.known.entry(key).or_default();
            let moment = Moment {
                at: commit.now,
                healthy: healthy(&budget, commit.store),
                desired: desired(&budget, commit.store),
                evicted_since: 0,
            };
            record.moments.push_back(moment);
            // The last moment before the window is how the window began.
            let from = record.window();
            while record.moments.get(1).is_some_and(|second| second.at < from) {
                record.moments.pop_front();
            }
        }
    }
}

impl Record {
    /// The earliest that the controller can have seen what it wrote last.
    fn window(&self) -> Duration {
        self.written_at.saturating_sub(LAG)
    }

    fn accept(&mut self, pod: &str, commit: &Commit<'_>) -> Result<(), String> {
        // A pod that was not healthy takes nothing from those that are.
        if !self.moments.iter().any(|moment| moment.healthy.contains(pod)) {
            return Ok(());
        }
        for moment in self.moments.iter_mut().filter(|moment| moment.healthy.contains(pod)) {
            moment.evicted_since += 1;
        }
        let enough = |moment: &Moment| moment.healthy.len() >= moment.desired + moment.evicted_since;
        if self.moments.iter().any(|moment| moment.healthy.contains(pod) && enough(moment)) {
            return Ok(());
        }
        let last = self.moments.back();
        let (healthy, desired) = last.map_or((0, 0), |moment| (moment.healthy.len(), moment.desired));
        Err(format!("{pod} was evicted against the budget {}: {healthy} healthy, {desired} promised", commit.key))
    }
}

fn newly_disrupted(old: Option<&Arc<Entry>>, new: &Arc<Entry>) -> Vec<String> {
    let names = |entry: &Arc<Entry>| -> BTreeSet<String> {
        let budget = typed::<PodDisruptionBudget>(entry);
        let disrupted = budget.and_then(|budget| budget.status.as_ref()?.disrupted_pods.clone());
        disrupted.into_iter().flatten().map(|(name, _)| name).collect()
    };
    let before = old.map(names).unwrap_or_default();
    names(new).difference(&before).cloned().collect()
}

/// The pods of a budget that serve, and whose eviction was not accepted.
pub(crate) fn healthy(budget: &PodDisruptionBudget, store: &dyn Store) -> BTreeSet<String> {
    let disrupted = budget.status.as_ref().and_then(|status| status.disrupted_pods.clone()).unwrap_or_default();
    let pods = all::<Pod>(store);
    let own = pods.iter().filter(|pod| covers(budget, pod) && is_serving(pod));
    own.map(|pod| name_of(&pod.metadata).to_owned()).filter(|name| !disrupted.contains_key(name)).collect()
}

/// How many healthy pods a budget promises. The budgets of this world name an app by its label, and give numbers.
pub(crate) fn desired(budget: &PodDisruptionBudget, store: &dyn Store) -> usize {
    let Some(spec) = &budget.spec else { return 0 };
    let number = |value: &IntOrString| match value {
        IntOrString::Int(number) => usize::try_from(*number).unwrap_or(0),
        IntOrString::String(_) => 0,
    };
    if let Some(least) = &spec.min_available {
        return number(least);
    }
    let app = one::<Deployment>(store, namespace_of(&budget.metadata), app_of(budget).unwrap_or_default());
    let replicas = app.and_then(|app| app.spec.as_ref()?.replicas).unwrap_or(0);
    let expected = usize::try_from(replicas).unwrap_or(0);
    expected.saturating_sub(spec.max_unavailable.as_ref().map_or(0, number))
}

fn app_of(budget: &PodDisruptionBudget) -> Option<&str> {
    let selector = budget.spec.as_ref()?.selector.as_ref()?;
    selector.match_labels.as_ref()?.get("app").map(String::as_str)
}

fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let app = app_of(budget);
    app.is_some() && label(&pod.metadata, "app") == app && namespace_of(&pod.metadata) == namespace_of(&budget.metadata)
}
