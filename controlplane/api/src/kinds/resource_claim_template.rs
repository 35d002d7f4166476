//! ResourceClaimTemplate: from which a ResourceClaim is made for each pod.

use k8s_openapi::api::resource::v1::ResourceClaimTemplate;

use crate::kind::{Info, Resource};

impl Resource for ResourceClaimTemplate {
    const INFO: Info = Info::namespaced("resourceclaimtemplates", "resourceclaimtemplate");
}
