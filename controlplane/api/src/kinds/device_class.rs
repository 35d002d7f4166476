//! DeviceClass: a name for devices of a sort.

use k8s_openapi::api::resource::v1::DeviceClass;

use crate::kind::{Info, Resource};

impl Resource for DeviceClass {
    const INFO: Info = Info { has_generation: true, ..Info::cluster("deviceclasses", "deviceclass") };

    fn spec_changed(&self, old: &Self) -> bool {
        self.spec != old.spec
    }
}
