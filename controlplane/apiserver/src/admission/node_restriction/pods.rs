//! What an agent may do to pods: say how its own are, end them, and show those that it runs of its own accord.

use coracle_api::ApiError;
use coracle_api::kind::Subresource;
use coracle_api::kinds::{PodReference, pod_references};
use k8s_openapi::api::core::v1::{Node, Pod};

use super::super::{Operation, Review};
use crate::registry::Stored;

/// The mark of a pod that an agent runs of its own accord.
const MIRROR: &str = "kubernetes.io/config.mirror";

pub(super) fn admit(review: &Review<'_>, node: &str) -> Result<(), ApiError> {
    let Some(new) = review.object().as_any().downcast_ref::<Pod>() else { return Ok(()) };
    let old = review.old.and_then(|old| old.as_any().downcast_ref::<Pod>());
    let forbid = |why: String| Err(review.forbid(&why));
    match (review.operation, review.subresource) {
        (Operation::Create, None) => mirror(review, node, new),
        (Operation::Update, Some(Subresource::Status)) => {
            let Some(old) = old.filter(|pod| is_on(pod, node)) else {
                return forbid(format!(
                    "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
                ));
            };
            status(review, node, old, new)
        }
        (Operation::Delete, None) if is_on(old.unwrap_or(new), node) => Ok(()),
        (Operation::Delete, None) => {
            forbid(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
        }
        (_, subresource) => {
            let what = subresource.map_or(String::new(), |one| format!("/{}", one.as_str()));
            forbid(format!("unexpected operation on pods{what} by node {node:?}"))
        }
    }
}

fn is_on(pod: &Pod, node: &str) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
}

/// Labels decide who counts a pod as its own.
fn status(review: &Review<'_>, node: &str, old: &Pod, new: &Pod) -> Result<(), ApiError> {
    let labels = |pod: &Pod| pod.metadata.labels.clone().unwrap_or_default();
    if labels(old) != labels(new) {
        return Err(review.forbid(&format!("node {node:?} cannot update labels through pod status")));
    }
    let owners = |pod: &Pod| pod.metadata.owner_references.clone().unwrap_or_default();
    if owners(old) != owners(new) {
        return Err(review.forbid(&format!("node {node:?} cannot update owner references through pod status")));
    }
    let claims = |pod: &Pod| pod.status.as_ref().and_then(|status| status.resource_claim_statuses.clone());
    if claims(old).unwrap_or_default() != claims(new).unwrap_or_default() {
        return Err(review.forbid(&format!("node {node:?} cannot update resource claim statues")));
    }
    Ok(())
}

/// A pod that only shows what runs: it is the node's own, and refers to nothing that the node could read by it.
fn mirror(review: &Review<'_>, node: &str, pod: &Pod) -> Result<(), ApiError> {
    let forbid = |why: String| Err(review.forbid(&why));
    if !pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR)) {
        return forbid(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
    }
    if !is_on(pod, node) {
        return forbid(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    owned(review, node, pod)?;
    let what = pod_references(pod).into_iter().find_map(|reference| {
        Some(match reference {
            // The default is given to all pods by now, and leads to nothing without a token.
            PodReference::Account(name) if name == "default" => return None,
            PodReference::Account(_) => "a service account",
            PodReference::Secret(_) => "secrets",
            PodReference::ConfigMap(_) => "configmaps",
            PodReference::Claim(_) => "persistentvolumeclaims",
            PodReference::Devices(_) => "resourceclaims",
        })
    });
    match what {
        Some(what) => forbid(format!("node {node:?} can not create pods that reference {what}")),
        None => Ok(()),
    }
}

fn owned(review: &Review<'_>, node: &str, pod: &Pod) -> Result<(), ApiError> {
    let forbid = |why: String| Err(review.forbid(&why));
    let owner = match pod.metadata.owner_references.as_deref().unwrap_or_default() {
        [owner] => owner,
        [] => return forbid(format!("node {node:?} can only create pods with an owner reference set to itself")),
        _ => return forbid(format!("node {node:?} can only create pods with a single owner reference set to itself")),
    };
    if owner.api_version != "v1" || owner.kind != "Node" || owner.name != node {
        return forbid(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if owner.controller != Some(true) {
        return forbid(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if owner.block_owner_deletion == Some(true) {
        return forbid(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let nodes = review.api.registry.of::<Node>();
    let missing = || ApiError::not_found(nodes.kind.resource(), node);
    let entry = review.api.store.get(&nodes.key("", node)).ok_or_else(missing)?;
    let stored = Stored::of(nodes.kind, entry)?;
    let uid = stored.object().meta().uid.as_deref().unwrap_or_default();
    if owner.uid != uid {
        return forbid(format!("node {node} UID mismatch: expected {} got {uid}", owner.uid));
    }
    Ok(())
}
