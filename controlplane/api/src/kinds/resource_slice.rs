//! ResourceSlice: devices a driver offers.

use k8s_openapi::api::resource::v1::ResourceSlice;

use crate::kind::{Info, Resource};

impl Resource for ResourceSlice {
    const INFO: Info = Info {
        selectable_fields: &["spec.driver", "spec.nodeName"],
        has_generation: true,
        ..Info::cluster("resourceslices", "resourceslice")
    };

    fn spec_changed(&self, old: &Self) -> bool {
        self.spec != old.spec
    }
}
