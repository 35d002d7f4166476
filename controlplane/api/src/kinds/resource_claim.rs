//! ResourceClaim: devices asked for.

use k8s_openapi::api::resource::v1::ResourceClaim;

use super::meta::spec_and_status;
use crate::kind::{Info, Resource, Subresource};

impl Resource for ResourceClaim {
    const INFO: Info =
        Info { subresources: &[Subresource::Status], ..Info::namespaced("resourceclaims", "resourceclaim") };

    spec_and_status!();
}
