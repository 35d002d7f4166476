//! ServiceAccount: an identity for pods.

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::kind::{Info, Resource, Subresource};

impl Resource for ServiceAccount {
    const INFO: Info = Info {
        short_names: &["sa"],
        subresources: &[Subresource::Token],
        ..Info::namespaced("serviceaccounts", "serviceaccount")
    };
}
