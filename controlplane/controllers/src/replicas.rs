//! What ReplicaSet and ReplicationController have in common: keeping a number of equal pods. Each of them turns the counts
//! into its own status. Semantics: pkg/controller/replicaset.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use coracle_api::selector::Selector;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod, PodTemplateSpec};

use crate::cache::Cache;
use crate::meta::{MetaExt, adopt, generated_name, refers_to_kind, release};
use crate::object::Typed;
use crate::plan::{Action, FailedVerb, Failure, Note, Pace, Plan, Step};
use crate::pods::{
    Availability, availability, from_template, is_active, is_ready, is_terminating, node_name, sort_for_deletion,
};
use crate::table::{Change, Context, Key};

/// Pods created or deleted in one run (replicaset.BurstReplicas), so that one huge set does not starve the others.
const BURST: usize = 500;

/// Rest per pod between two counts of a large set: its pods report their states one by one, and each would call for a count
/// of all.
pub(crate) const COUNTING_REST: Duration = Duration::from_micros(50);

/// The pods that an owner wants, and those it has.
pub(crate) struct Replicas<'a, O: Typed> {
    pub(crate) owner: &'a O,
    pub(crate) desired: usize,
    pub(crate) min_ready_seconds: i32,
    pub(crate) template: Option<&'a PodTemplateSpec>,
    pub(crate) selector: Selector,
    /// Counts the related pods of each node, for the choice of victims.
    pub(crate) ranks: fn(&O, &dyn Cache) -> HashMap<String, usize>,
}

/// What the status reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) replicas: i32,
    pub(crate) fully_labeled: i32,
    pub(crate) ready: i32,
    pub(crate) available: i32,
    pub(crate) terminating: i32,
    /// When the next ready pod becomes available by the passing of time alone.
    pub(crate) next_available: Option<Timestamp>,
}

impl Counts {
    /// How many pods were counted.
    pub(crate) fn size(&self) -> usize {
        usize::try_from(self.replicas.saturating_add(self.terminating)).unwrap_or(0)
    }
}

impl<O: Typed> Replicas<'_, O> {
    /// Plans the writes to pods, and counts the pods that are there.
    pub(crate) fn reconcile(&self, context: &mut Context<'_>) -> (Plan, Counts) {
        let mut plan = Plan::none();
        let claimed = self.claim(context.cache, &mut plan);
        let mut counts = self.count(&claimed.active, context.now);
        counts.terminating = count_i32(claimed.terminating);
        // What is adopted or let go is not also created or deleted in the same run.
        if plan.steps.is_empty() && !self.owner.is_deleting() {
            self.scale(context, claimed.active, &mut plan);
        }
        if let Some(at) = counts.next_available {
            plan.requeue_at(context.now, at);
        }
        (plan, counts)
    }

    fn claim(&self, cache: &dyn Cache, plan: &mut Plan) -> Claimed {
        let uid = self.owner.uid();
        let mut pods: Vec<Arc<Pod>> = cache.owned::<Pod>(uid);
        pods.extend(cache.orphans(self.owner.namespace(), &self.selector));
        // An owner that does not manage it leaves a pod in both lists.
        pods.sort_by(|a, b| a.name().cmp(b.name()));
        pods.dedup_by(|a, b| a.name() == b.name());
        let mut claimed = Claimed::default();
        for pod in pods {
            let matches = self.selector.matches(pod.label_map());
            match pod.controller() {
                Some(owner) if owner.uid != uid => {}
                Some(_) if is_terminating(&pod) => claimed.terminating += 1,
                _ if !is_active(&pod) => {}
                Some(_) if matches => claimed.active.push(pod),
                Some(_) if self.owner.is_deleting() => {}
                Some(_) => plan.push(release(&pod, uid)),
                None if matches && !self.owner.is_deleting() => {
                    plan.push(adopt(&pod, self.owner));
                    claimed.active.push(pod);
                }
                None => {}
            }
        }
        claimed
    }

    fn count(&self, pods: &[Arc<Pod>], now: Timestamp) -> Counts {
        let mut counts = Counts { replicas: count_i32(pods.len()), ..Counts::default() };
        let template_labels =
            self.template.and_then(|template| template.metadata.as_ref()?.labels.clone()).unwrap_or_default();
        let template_selector = Selector::from_map(&template_labels);
        for pod in pods {
            counts.fully_labeled += i32::from(template_selector.matches(pod.label_map()));
            counts.ready += i32::from(is_ready(pod));
            match availability(pod, self.min_ready_seconds, now) {
                Availability::Available => counts.available += 1,
                Availability::At(at) => {
                    counts.next_available = Some(counts.next_available.map_or(at, |other| other.min(at)))
                }
                Availability::NotReady => {}
            }
        }
        counts
    }

    fn scale(&self, context: &mut Context<'_>, mut pods: Vec<Arc<Pod>>, plan: &mut Plan) {
        if pods.len() < self.desired {
            let Some(template) = self.template else { return };
            let namespace = context.cache.one::<Namespace>("", self.owner.namespace());
            if namespace.is_some_and(|namespace| namespace.is_deleting()) {
                return;
            }
            plan.pace = Pace::SlowStart;
            let base = format!("{}-", self.owner.name());
            for _ in 0..(self.desired - pods.len()).min(BURST) {
                let name = generated_name(&base, context.rng);
                let pod = from_template(self.owner, template, &base, name);
                plan.steps.push(create_step(self.owner, pod));
            }
        } else if pods.len() > self.desired {
            sort_for_deletion(&mut pods, &(self.ranks)(self.owner, context.cache), context.now);
            let surplus = (pods.len() - self.desired).min(BURST);
            for pod in pods.into_iter().take(surplus) {
                plan.steps.push(delete_step(self.owner, pod));
            }
        }
    }
}

#[derive(Default)]
struct Claimed {
    active: Vec<Arc<Pod>>,
    terminating: usize,
}

/// Creates a pod for its owner, with the Events that Kubernetes' pod control records.
pub(crate) fn create_step<O: Typed>(owner: &O, pod: Pod) -> Step {
    let created = format!("Created pod: {}", pod.name());
    Step {
        action: Action::Create(pod.into()),
        on_success: Some(Note::normal(owner, "SuccessfulCreate", created)),
        on_failure: Some(Note::warning(owner, "FailedCreate", "Error creating: ")),
    }
}

/// Deletes a pod for its owner, with the Events that Kubernetes' pod control records.
pub(crate) fn delete_step<O: Typed>(owner: &O, pod: Arc<Pod>) -> Step {
    let deleted = format!("Deleted pod: {}", pod.name());
    Step {
        action: Action::delete(&pod.into_object()),
        on_success: Some(Note::normal(owner, "SuccessfulDelete", deleted)),
        on_failure: Some(Note::warning(owner, "FailedDelete", "Error deleting: ")),
    }
}

/// A condition of an owner's status, which may be ReplicaFailure.
pub(crate) trait ReplicaCondition: Sized {
    /// The type of the condition.
    fn type_(&self) -> &str;
    /// A condition that is True.
    fn of(type_: &str, reason: &str, message: String, now: Timestamp) -> Self;
}

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// The conditions with ReplicaFailure as the last run's refused write calls for it. One that stands keeps its words and its
/// time until a run goes well.
pub(crate) fn with_failure<C: ReplicaCondition>(
    old: Option<Vec<C>>,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Option<Vec<C>> {
    let mut conditions = old.unwrap_or_default();
    let reason = failure.and_then(|failure| match failure.verb {
        FailedVerb::Create => Some(("FailedCreate", failure.message.clone())),
        FailedVerb::Delete => Some(("FailedDelete", failure.message.clone())),
        FailedVerb::Change => None,
    });
    match reason {
        None => conditions.retain(|condition| condition.type_() != REPLICA_FAILURE),
        Some(_) if conditions.iter().any(|condition| condition.type_() == REPLICA_FAILURE) => {}
        Some((reason, message)) => conditions.push(C::of(REPLICA_FAILURE, reason, message, now)),
    }
    (!conditions.is_empty()).then_some(conditions)
}

/// The active pods that `owners` manage, per node.
pub(crate) fn pods_per_node<'a>(
    owners: impl IntoIterator<Item = &'a str>,
    cache: &dyn Cache,
) -> HashMap<String, usize> {
    let mut ranks = HashMap::new();
    for uid in owners {
        for pod in cache.owned::<Pod>(uid) {
            if is_active(&pod) && !node_name(&pod).is_empty() {
                *ranks.entry(node_name(&pod).to_owned()).or_insert(0) += 1;
            }
        }
    }
    ranks
}

/// The keys that a change of a pod touches: its manager's of kind `O`, before and after; for a pod without one, every
/// object of kind `O` that would adopt it.
pub(crate) fn keys_of_pod<O: Typed>(
    change: Change<'_>,
    cache: &dyn Cache,
    selects: fn(&O, &BTreeMap<String, String>) -> bool,
) -> Vec<Key> {
    let mut keys = Vec::new();
    for state in change.states() {
        if let Some(owner) = state.meta().controller().filter(|owner| refers_to_kind::<O>(owner)) {
            keys.push(Key::new(state.meta().namespace(), &owner.name));
        }
    }
    if let Some(orphan) = change.new.filter(|pod| pod.meta().controller().is_none()) {
        let labels = orphan.meta().label_map();
        // Whoever could adopt it has looked already.
        if change.old.is_some_and(|old| old.meta().controller().is_none() && old.meta().label_map() == labels) {
            return keys;
        }
        let adopters = cache.all::<O>(Some(orphan.meta().namespace()));
        keys.extend(adopters.iter().filter(|owner| selects(owner, labels)).map(|owner| Key::of_typed(owner.as_ref())));
    }
    keys.dedup();
    keys
}

/// A count as the API carries it.
pub(crate) fn count_i32(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// A number of replicas from the API; validation keeps it from being negative.
pub(crate) fn desired_replicas(replicas: Option<i32>) -> usize {
    usize::try_from(replicas.unwrap_or(1)).unwrap_or(0)
}
