//! `NodeRestriction`: an agent writes its own Node, the Leases and the pods that are bound to it, and no other.

use coracle_api::ApiError;
use coracle_api::kind::Subresource;
use k8s_openapi::api::core::v1::Pod;

use super::{Operation, Plugin, Review};

/// See the module.
pub struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        let Some(node) = review.user.node_name().map(str::to_owned) else { return Ok(()) };
        match review.served.kind.kind {
            "Node" if review.name != node => {
                let verb = if review.operation == Operation::Create { "create" } else { "modify" };
                Err(review.forbid(&format!("node {node:?} is not allowed to {verb} node {:?}", review.name)))
            }
            "Lease" if review.namespace == "kube-node-lease" && review.name != node => {
                Err(review.forbid("can only access node lease with the same name as the requesting node"))
            }
            "Pod" => pod(review, &node),
            _ => Ok(()),
        }
    }
}

fn pod(review: &Review<'_>, node: &str) -> Result<(), ApiError> {
    let object = review.old.unwrap_or(review.object());
    let bound = object.as_any().downcast_ref::<Pod>().and_then(|p| p.spec.as_ref()).and_then(|s| s.node_name.clone());
    if bound.as_deref() != Some(node) {
        return Err(review.forbid(&format!("node {node:?} can only touch pods with spec.nodeName set to itself")));
    }
    let mirror = object.meta().annotations.as_ref().is_some_and(|a| a.contains_key("kubernetes.io/config.mirror"));
    match (review.operation, review.subresource) {
        (Operation::Create, None) if !mirror => Err(review.forbid(&format!(
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
        ))),
        (Operation::Update, sub) if sub != Some(Subresource::Status) => {
            Err(review.forbid(&format!("node {node:?} can only update pod status")))
        }
        _ => Ok(()),
    }
}
