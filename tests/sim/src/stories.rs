//! What may not happen to an object on its way out: it never vanishes while somebody holds it, never before what it
//! must take with it, and is never preempted for what is not more important.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use coracle_store::{Entry, ListRange};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::books::{Commit, LAG};
use crate::objects::{collection, has_condition, is_ending, is_of, is_owned_by, meta_of, node_of, typed, uid_of};

/// The finalizer that only the users of this world take away.
pub(crate) const HOLD: &str = "sim.coracle.dev/hold";

/// What is remembered.
#[derive(Default)]
pub(crate) struct Stories {
    held: BTreeSet<String>,
    /// Pods without a node: how important, and when that was last so.
    pending: BTreeMap<String, (i32, Duration)>,
    unbound: BTreeSet<String>,
}

impl Stories {
    /// The users let go of an object.
    pub(crate) fn release(&mut self, uid: &str) {
        self.held.remove(uid);
    }

    pub(crate) fn look(&mut self, commit: &Commit<'_>) -> Result<(), String> {
        if is_of::<ConfigMap>(commit.key) || is_of::<ReplicaSet>(commit.key) {
            self.check_ends(commit)?;
        }
        if is_of::<Pod>(commit.key) {
            check_phase(commit)?;
            check_taken(commit)?;
            self.check_preemption(commit)?;
        }
        Ok(())
    }

    fn check_ends(&mut self, commit: &Commit<'_>) -> Result<(), String> {
        if let Some(new) = commit.new {
            let meta = meta_of(new);
            if meta.finalizers.iter().flatten().any(|finalizer| finalizer == HOLD) && commit.old.is_none() {
                self.held.insert(uid_of(&meta).to_owned());
            }
            return Ok(());
        }
        let Some(old) = commit.old else { return Ok(()) };
        let meta = meta_of(old);
        if self.held.contains(uid_of(&meta)) {
            return Err(format!("{} vanished though somebody holds it", commit.key));
        }
        let foreground = meta.finalizers.iter().flatten().any(|finalizer| finalizer == "foregroundDeletion");
        if foreground && let Some(left) = blocking(commit, uid_of(&meta)) {
            return Err(format!("{} vanished before {left}, which it must take with it", commit.key));
        }
        Ok(())
    }

    fn check_preemption(&mut self, commit: &Commit<'_>) -> Result<(), String> {
        let Some(pod) = commit.new.or(commit.old).and_then(|entry| typed::<Pod>(entry)) else { return Ok(()) };
        let uid = uid_of(&pod.metadata).to_owned();
        let priority = priority_of(&pod);
        if commit.new.is_some() && node_of(&pod).is_none() && !is_ending(&pod.metadata) {
            self.pending.insert(uid.clone(), (priority, commit.now));
            self.unbound.insert(uid.clone());
        } else if self.unbound.remove(&uid) {
            self.pending.insert(uid.clone(), (priority, commit.now));
        }
        let is_victim = |pod: &Pod| has_condition(pod, "DisruptionTarget") && was_preempted(pod);
        let before = commit.old.and_then(|entry| typed::<Pod>(entry)).is_some_and(|pod| is_victim(&pod));
        if commit.new.is_none() || before || !is_victim(&pod) {
            return Ok(());
        }
        let recent = |uid: &str, at: Duration| self.unbound.contains(uid) || commit.now <= at + LAG;
        let better = self.pending.iter().any(|(uid, (other, at))| *other > priority && recent(uid, *at));
        if better { Ok(()) } else { Err(format!("{} was preempted for nothing more important", commit.key)) }
    }
}

/// A pod that has ended has ended for good.
fn check_phase(commit: &Commit<'_>) -> Result<(), String> {
    let phase = |entry: &Arc<Entry>| typed::<Pod>(entry).and_then(|pod| pod.status.as_ref()?.phase.clone());
    let (Some(old), Some(new)) = (commit.old.and_then(phase), commit.new.and_then(phase)) else { return Ok(()) };
    if ["Succeeded", "Failed"].contains(&old.as_str()) && new != old {
        return Err(format!("{} left its final phase {old} for {new}", commit.key));
    }
    Ok(())
}

/// The scheduler promises no room that a node does not have, so no node turns a pod away for want of it. Kubernetes
/// leaves such a pod where it is, and so does the collector of pods: each would be lying about for ever.
fn check_taken(commit: &Commit<'_>) -> Result<(), String> {
    let Some(pod) = commit.new.and_then(|entry| typed::<Pod>(entry)) else { return Ok(()) };
    let status = pod.status.as_ref();
    match status.and_then(|status| status.reason.as_deref()).filter(|reason| reason.starts_with("OutOf")) {
        Some(reason) => {
            let message = status.and_then(|status| status.message.as_deref()).unwrap_or_default();
            Err(format!("{} was turned away by its node: {reason}, {message}", commit.key))
        }
        None => Ok(()),
    }
}

fn priority_of(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
}

fn was_preempted(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut reasons = conditions.filter(|condition| condition.type_ == "DisruptionTarget");
    reasons.any(|condition| condition.reason.as_deref() == Some("PreemptionByScheduler"))
}

/// An object that blocks the foreground deletion of its owner. One that has just come may have come too late to be
/// seen, in Kubernetes too.
fn blocking(commit: &Commit<'_>, uid: &str) -> Option<String> {
    let is_old = |meta: &ObjectMeta| {
        let created = meta.creation_timestamp.as_ref();
        created.is_some_and(|created| created.0 + LAG < crate::clock::wall(commit.now))
    };
    let places = [collection::<ConfigMap>(), collection::<ReplicaSet>(), collection::<Pod>()];
    for place in places {
        for entry in commit.store.list(&place, &ListRange::all()).entries {
            let meta = meta_of(&entry);
            let blocks = |owner: &OwnerReference| owner.uid == uid && owner.block_owner_deletion == Some(true);
            if is_owned_by(&meta, uid) && is_old(&meta) && meta.owner_references.iter().flatten().any(blocks) {
                return Some(entry.key.to_string());
            }
        }
    }
    None
}
