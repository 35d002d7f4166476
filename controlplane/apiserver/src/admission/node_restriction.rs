//! `NodeRestriction`: an agent writes its own Node, its own Lease and the pods that are bound to it, and no other; and of these
//! nothing by which it would get what others keep from it.

mod pods;
mod tokens;

use coracle_api::ApiError;
use coracle_api::validation::labels_denied_to_node;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim};
use k8s_openapi::api::resource::v1::ResourceSlice;

pub(crate) use self::tokens::admit as admit_token;
use super::{Operation, Plugin, Review};

const LEASES: &str = "kube-node-lease";

/// See the module.
pub struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        let Some(node) = review.user.node_name().map(str::to_owned) else { return Ok(()) };
        match review.served.kind.kind {
            "Node" => own_node(review, &node),
            "Lease" => lease(review, &node),
            "CSINode" if review.name != node => {
                Err(review.forbid("can only access CSINode with the same name as the requesting node"))
            }
            "ResourceSlice" => slice(review, &node),
            "PersistentVolumeClaim" => claim(review, &node),
            "Pod" => pods::admit(review, &node),
            _ => Ok(()),
        }
    }
}

fn own_node(review: &Review<'_>, node: &str) -> Result<(), ApiError> {
    if review.name != node {
        return Err(review.forbid(&format!("node {node:?} is not allowed to modify node {:?}", review.name)));
    }
    let Some(new) = review.object().as_any().downcast_ref::<Node>() else { return Ok(()) };
    let old = review.old.and_then(|old| old.as_any().downcast_ref::<Node>());
    let labels = labels_denied_to_node(old.and_then(|old| old.metadata.labels.as_ref()), new.metadata.labels.as_ref());
    let labels = labels.join(", ");
    match review.operation {
        Operation::Create if !labels.is_empty() => {
            Err(review.forbid(&format!("node {node:?} is not allowed to set the following labels: {labels}")))
        }
        Operation::Update => {
            let taints = |node: Option<&Node>| {
                node.and_then(|node| node.spec.as_ref()).and_then(|spec| spec.taints.clone()).unwrap_or_default()
            };
            if taints(old) != taints(Some(new)) {
                return Err(review.forbid(&format!("node {node:?} is not allowed to modify taints")));
            }
            if !labels.is_empty() {
                return Err(review.forbid(&format!("is not allowed to modify labels: {labels}")));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn lease(review: &Review<'_>, node: &str) -> Result<(), ApiError> {
    if review.namespace != LEASES {
        return Err(review.forbid(&format!("can only access leases in the {LEASES:?} system namespace")));
    }
    if review.name != node {
        return Err(review.forbid("can only access node lease with the same name as the requesting node"));
    }
    Ok(())
}

fn slice(review: &Review<'_>, node: &str) -> Result<(), ApiError> {
    let object = review.old.unwrap_or(review.object());
    let of = object.as_any().downcast_ref::<ResourceSlice>().and_then(|slice| slice.spec.node_name.as_deref());
    if of == Some(node) {
        return Ok(());
    }
    let verb = match review.operation {
        Operation::Create => "create",
        Operation::Update => "update",
        Operation::Delete => "delete",
    };
    Err(review.forbid(&format!("can only {verb} ResourceSlice with the same NodeName as the requesting node")))
}

/// Of a claim an agent writes what it learned of its size, and nothing else.
fn claim(review: &Review<'_>, node: &str) -> Result<(), ApiError> {
    let rest = |object: &dyn coracle_api::Object| {
        let mut claim = object.as_any().downcast_ref::<PersistentVolumeClaim>()?.clone();
        (claim.metadata.resource_version, claim.metadata.managed_fields) = (None, None);
        if let Some(status) = &mut claim.status {
            (status.capacity, status.conditions) = (None, None);
            (status.allocated_resources, status.allocated_resource_statuses) = (None, None);
        }
        Some(claim)
    };
    match review.old.map(rest) {
        Some(old) if review.operation == Operation::Update && old == rest(review.object()) => Ok(()),
        _ => Err(review.forbid(&format!(
            "node {node:?} is not allowed to update fields other than status.capacity and status.conditions"
        ))),
    }
}
