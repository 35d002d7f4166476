//! PodDisruptionBudget: how many pods must stay when some are evicted.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::meta::spec_and_status;
use crate::kind::{Info, Resource, Subresource};

impl Resource for PodDisruptionBudget {
    const INFO: Info = Info {
        short_names: &["pdb"],
        subresources: &[Subresource::Status],
        has_generation: true,
        ..Info::namespaced("poddisruptionbudgets", "poddisruptionbudget")
    };

    spec_and_status!();
}
