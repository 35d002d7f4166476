//! What must have come about once nothing disturbs the cluster any more: everything that is declared, and nothing else.

use std::collections::BTreeSet;

use coracle_api::KINDS;
use coracle_api::kind::Storage;
use coracle_store::{Collection, ListRange, SqliteStore, Store};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::budgets::{desired, healthy};
use crate::checks::{complete, pods_of, serves};
use crate::node::SimNode;
use crate::objects::{all, is_ended, is_ending, is_task, meta_of, name_of, node_of, uid_of};

/// Everything that is declared, compared with what is there; the first difference.
pub(crate) fn settled(store: &SqliteStore, nodes: &[SimNode]) -> Result<(), String> {
    apps(store)?;
    containers(store, nodes)?;
    budgets(store)?;
    addresses(store)?;
    for node in nodes {
        registered(store, &node.name)?;
    }
    metadata(store)
}

fn apps(store: &SqliteStore) -> Result<(), String> {
    let (pods, sets) = (all::<Pod>(store), all::<ReplicaSet>(store));
    let mut declared = BTreeSet::new();
    for app in all::<Deployment>(store) {
        let own = pods_of(&app, &sets, &pods);
        complete(&app, &own)?;
        serves(store, &app, &own)?;
        declared.extend(own.iter().map(|pod| uid_of(&pod.metadata)));
    }
    if let Some(task) = pods.iter().find(|pod| is_task(pod) && !is_ended(pod)) {
        return Err(format!("the task {} has not ended", portrait(task)));
    }
    let surplus: Vec<String> = pods
        .iter()
        .filter(|pod| !is_task(pod) && !declared.contains(uid_of(&pod.metadata)))
        .map(|pod| portrait(pod))
        .collect();
    if surplus.is_empty() { Ok(()) } else { Err(format!("pods are there that nobody declares: {surplus:?}")) }
}

/// What tells of a pod why it may still be there.
fn portrait(pod: &Pod) -> String {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("no phase");
    let node = node_of(pod).unwrap_or("no node");
    let ending = if is_ending(&pod.metadata) { "being deleted" } else { "not being deleted" };
    format!("{} ({phase}, {node}, {ending})", name_of(&pod.metadata))
}

fn containers(store: &SqliteStore, nodes: &[SimNode]) -> Result<(), String> {
    let running: BTreeSet<String> =
        nodes.iter().flat_map(|node| node.runtime.running()).map(|key| key.pod.as_str().to_owned()).collect();
    let pods = all::<Pod>(store);
    let wanted: BTreeSet<String> =
        pods.iter().filter(|pod| !is_ended(pod)).map(|pod| uid_of(&pod.metadata).to_owned()).collect();
    if running == wanted { Ok(()) } else { Err(format!("{} pods run, {} are wanted", running.len(), wanted.len())) }
}

fn budgets(store: &SqliteStore) -> Result<(), String> {
    for budget in all::<PodDisruptionBudget>(store) {
        let Some(status) = &budget.status else {
            return Err(format!("the budget {} was never looked at", name_of(&budget.metadata)));
        };
        let (healthy, desired) = (healthy(&budget, store).len(), desired(&budget, store));
        let told = (status.current_healthy, status.desired_healthy, status.disruptions_allowed);
        let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        let actual = (Some(count(healthy)), Some(count(desired)), Some(count(healthy.saturating_sub(desired))));
        if told != actual {
            return Err(format!("the budget {} tells {told:?} where {actual:?} is true", name_of(&budget.metadata)));
        }
    }
    Ok(())
}

fn addresses(store: &SqliteStore) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for service in all::<Service>(store) {
        let spec = service.spec.clone().unwrap_or_default();
        let ports = spec.ports.into_iter().flatten().filter_map(|port| port.node_port).map(|port| port.to_string());
        for held in spec.cluster_ip.into_iter().chain(ports) {
            if !seen.insert(held.clone()) {
                return Err(format!("{held} belongs to {} and to another Service", name_of(&service.metadata)));
            }
        }
    }
    Ok(())
}

fn registered(store: &SqliteStore, name: &str) -> Result<(), String> {
    let nodes = all::<Node>(store);
    let Some(node) = nodes.iter().find(|node| name_of(&node.metadata) == name) else {
        return Err(format!("the node {name} is not registered"));
    };
    match node.spec.as_ref().and_then(|spec| spec.taints.as_ref()) {
        Some(taints) if !taints.is_empty() => Err(format!("the node {name} is still tainted: {taints:?}")),
        _ => Ok(()),
    }
}

/// No object of any kind waits for its end, is left of an owner that is gone, or is in a namespace that is gone.
fn metadata(store: &SqliteStore) -> Result<(), String> {
    let mut uids = BTreeSet::new();
    let mut owned = Vec::new();
    let namespaces: BTreeSet<String> =
        all::<Namespace>(store).iter().map(|namespace| name_of(&namespace.metadata).to_owned()).collect();
    for kind in KINDS.iter().filter(|kind| matches!(kind.info.storage, Storage::Own)) {
        for entry in store.list(&Collection::from_prefix(&kind.collection()), &ListRange::all()).entries {
            let meta = meta_of(&entry);
            if meta.deletion_timestamp.is_some() {
                return Err(format!("{} is still being deleted", entry.key));
            }
            if kind.namespaced() && !namespaces.contains(entry.key.namespace()) {
                return Err(format!("{} outlived its namespace", entry.key));
            }
            uids.insert(uid_of(&meta).to_owned());
            let owners = meta.owner_references.into_iter().flatten();
            owned.extend(owners.map(|owner| (entry.key.to_string(), owner.uid)));
        }
    }
    match owned.into_iter().find(|(_, owner)| !uids.contains(owner)) {
        Some((key, _)) => Err(format!("{key} outlived its owner")),
        None => Ok(()),
    }
}
