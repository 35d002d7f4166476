//! Deployment: rolls a template out over ReplicaSets (pkg/controller/deployment). One run works on copies of the
//! ReplicaSets; what differs in the end is written, each set once.

mod limits;
mod revisions;
mod rolling;
mod scaling;
mod sets;
mod status;
#[cfg(test)]
mod tests;

use coracle_api::selector::Selector;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;

use crate::cache::Cache;
use crate::meta::{MetaExt, adopt, refers_to_kind, release};
use crate::object::Kind;
use crate::plan::{Action, Note, Plan};
use crate::table::{Change, Context, Controller, Key, Watch, itself, no_keys};

use limits::replicas_of;
use sets::Rollout;

pub(crate) const CONTROLLER: Controller = Controller {
    name: "deployment-controller",
    watches: &[
        Watch::Objects(Kind::Deployment, itself),
        Watch::Objects(Kind::ReplicaSet, of_replica_set),
        Watch::Objects(Kind::Pod, of_pod),
    ],
    reconcile,
    initial_keys: no_keys,
};

/// The revision of a template in the deployment's history.
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";

fn of_replica_set(change: Change<'_>, cache: &dyn Cache) -> Vec<Key> {
    let mut keys = Vec::new();
    for state in change.states() {
        if let Some(owner) = state.meta().controller().filter(|owner| refers_to_kind::<Deployment>(owner)) {
            keys.push(Key::new(state.meta().namespace(), &owner.name));
        }
    }
    if let Some(orphan) = change.new.filter(|set| set.meta().controller().is_none()) {
        for deployment in cache.all::<Deployment>(Some(orphan.meta().namespace())) {
            if selector_of(&deployment).is_some_and(|selector| selector.matches(orphan.meta().label_map())) {
                keys.push(Key::of_typed(deployment.as_ref()));
            }
        }
    }
    keys.dedup();
    keys
}

/// A Deployment of type Recreate waits for its old pods to be gone.
fn of_pod(change: Change<'_>, cache: &dyn Cache) -> Vec<Key> {
    let (Some(gone), None) = (change.old, change.new) else { return Vec::new() };
    let Some(owner) = gone.meta().controller().filter(|owner| refers_to_kind::<ReplicaSet>(owner)) else {
        return Vec::new();
    };
    let Some(set) = cache.one::<ReplicaSet>(gone.meta().namespace(), &owner.name) else { return Vec::new() };
    let Some(manager) = set.controller().filter(|owner| refers_to_kind::<Deployment>(owner)) else { return Vec::new() };
    vec![Key::new(set.namespace(), &manager.name)]
}

fn selector_of(deployment: &Deployment) -> Option<Selector> {
    Selector::from_label_selector(&deployment.spec.as_ref()?.selector).ok()
}

fn reconcile(context: &mut Context<'_>, key: &Key) -> Plan {
    let Some(deployment) = context.cache.one::<Deployment>(&key.namespace, &key.name) else { return Plan::none() };
    let (Some(spec), Some(selector)) = (deployment.spec.as_ref(), selector_of(&deployment)) else {
        return Plan::none();
    };
    if selector.is_empty() {
        return selecting_all(&deployment);
    }
    let mut plan = Plan::none();
    let claimed = claim(&deployment, &selector, context.cache, &mut plan);
    if !plan.steps.is_empty() {
        return plan;
    }
    let mut rollout = Rollout::new(&deployment, spec, claimed, context);
    if deployment.is_deleting() {
        rollout.plain_status();
        return rollout.finish();
    }
    rollout.pause_conditions();
    rollout.sync_revisions();
    let recreate = spec.strategy.as_ref().is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate"));
    if spec.paused == Some(true) || rollout.was_scaled() {
        rollout.scale_all();
        if spec.paused == Some(true) {
            rollout.clean_up();
        }
        rollout.plain_status();
    } else if recreate {
        let old_pods = old_pods_remain(&rollout, context.cache);
        rollout.recreate(old_pods);
        rollout.rollout_status();
    } else {
        rollout.roll();
        rollout.rollout_status();
    }
    rollout.finish()
}

fn selecting_all(deployment: &Deployment) -> Plan {
    let mut plan = Plan::none();
    let mut status = deployment.status.clone().unwrap_or_default();
    if status.observed_generation < deployment.metadata.generation {
        const TEXT: &str = "This deployment is selecting all pods. A non-empty selector is required.";
        plan.tell(Note::warning(deployment, "SelectingAll", TEXT));
        status.observed_generation = deployment.metadata.generation;
        plan.push(Action::UpdateStatus(Deployment { status: Some(status), ..deployment.clone() }.into()));
    }
    plan
}

fn claim(
    deployment: &Deployment,
    selector: &Selector,
    cache: &dyn Cache,
    plan: &mut Plan,
) -> Vec<std::sync::Arc<ReplicaSet>> {
    let mut claimed = Vec::new();
    let mut sets = cache.owned::<ReplicaSet>(deployment.uid());
    sets.extend(cache.matching::<ReplicaSet>(deployment.namespace(), selector));
    sets.sort_by(|a, b| a.name().cmp(b.name()));
    sets.dedup_by(|a, b| a.name() == b.name());
    for set in sets {
        let matches = selector.matches(set.label_map());
        match set.controller() {
            Some(owner) if owner.uid != deployment.uid() => {}
            Some(_) if matches || deployment.is_deleting() => claimed.push(set),
            Some(_) => plan.push(release(&set, deployment.uid())),
            None if matches && !deployment.is_deleting() && !set.is_deleting() => plan.push(adopt(&set, deployment)),
            None => {}
        }
    }
    claimed
}

/// Whether pods of older templates have yet to end.
fn old_pods_remain(rollout: &Rollout<'_>, cache: &dyn Cache) -> bool {
    rollout.old.iter().any(|set| {
        set.seen.status.as_ref().is_some_and(|status| status.replicas > 0)
            || cache.owned::<Pod>(set.seen.uid()).iter().any(|pod| !crate::pods::is_terminal(pod))
    })
}

impl Rollout<'_> {
    /// Scales old sets to nothing, waits for their pods to end, then brings the new set up.
    fn recreate(&mut self, old_pods_remain: bool) {
        let active: Vec<usize> =
            (0..self.old.len()).filter(|&index| replicas_of(&self.old[index].wanted) > 0).collect();
        if !active.is_empty() {
            for index in active {
                self.old[index].scale_to(0, self.spec);
            }
        } else if !old_pods_remain {
            match self.new.as_mut() {
                None => self.create_new(),
                Some(new) => new.scale_to(self.spec.replicas.unwrap_or(1), self.spec),
            }
            self.clean_up_if_complete();
        }
    }

    /// Turns what differs into writes. The deployment itself is written once a run, its revision with its status as
    /// upstream does: an update of the whole would raise the generation, since annotations count for it.
    fn finish(mut self) -> Plan {
        let sets = self.new.into_iter().chain(self.old);
        for set in sets {
            self.plan.steps.extend(set.into_step(self.deployment));
        }
        let mut changed = Deployment { status: Some(self.status), ..self.deployment.clone() };
        if let Some(revision) = self.revision {
            changed.metadata.annotations.get_or_insert_default().insert(REVISION.to_owned(), revision);
        }
        if changed != *self.deployment {
            self.plan.push(Action::UpdateStatus(changed.into()));
        }
        self.plan
    }
}
