//! PodTemplate: a template of pods kept for its own sake.

use k8s_openapi::api::core::v1::PodTemplate;

use crate::kind::{Info, Resource};

impl Resource for PodTemplate {
    const INFO: Info = Info {
        has_generation: true,
        ..Info::namespaced("podtemplates", "podtemplate")
    };

    fn spec_changed(&self, old: &Self) -> bool {
        self.template != old.template
    }
}
