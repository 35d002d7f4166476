//! ResourceQuota: how much a namespace may use.

use k8s_openapi::api::core::v1::ResourceQuota;

use super::meta::spec_and_status;
use crate::kind::{Info, Resource, Subresource};

impl Resource for ResourceQuota {
    const INFO: Info = Info {
        short_names: &["quota"],
        subresources: &[Subresource::Status],
        ..Info::namespaced("resourcequotas", "resourcequota")
    };

    spec_and_status!();
}
