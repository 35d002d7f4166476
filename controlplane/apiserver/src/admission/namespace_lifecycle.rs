//! `NamespaceLifecycle`: nothing new in a namespace that is missing or going, and the first namespaces stay. That the namespace
//! is as it was judged is part of the transaction: nothing can be left behind in one that went meanwhile.

use coracle_api::ApiError;
use coracle_api::status::ResourceName;
use coracle_store::Op;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;

use super::{Operation, Plugin, Review};
use crate::registry::Stored;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// See the module.
pub struct NamespaceLifecycle;

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        let kind = review.served.kind;
        if kind.kind == "Namespace" && review.operation == Operation::Delete && IMMORTAL.contains(&review.name) {
            return Err(review.forbid("this namespace may not be deleted"));
        }
        if review.namespace.is_empty() || review.operation != Operation::Create {
            return Ok(());
        }
        let namespaces = review.api.registry.of::<Namespace>();
        let name = review.namespace;
        let missing = || ApiError::not_found(ResourceName { group: "", plural: "namespaces" }, name);
        let key = namespaces.key("", name);
        let entry = review.api.store.get(&key).ok_or_else(missing)?;
        let expected = entry.revision;
        let stored = Stored::of(namespaces.kind, entry)?;
        if stored.object().meta().deletion_timestamp.is_none() {
            review.effects.push(Op::Check { key, expected });
            return Ok(());
        }
        let why = format!("unable to create new content in namespace {name} because it is being terminated");
        let mut error = review.forbid(&why);
        if let Some(details) = error.details.as_mut() {
            details.causes = Some(vec![StatusCause {
                reason: Some("NamespaceTerminating".to_owned()),
                message: Some(format!("namespace {name} is being terminated")),
                field: Some("metadata.namespace".to_owned()),
            }]);
        }
        Err(error)
    }
}
