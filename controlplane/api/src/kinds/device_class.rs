//! DeviceClass: a name for devices of a sort.

use k8s_openapi::api::resource::v1::{DeviceClass, DeviceClassSpec};

use super::devices::{Bound, MAX_OF_CLAIM, Seen, validate_configuration, validate_list, validate_selectors};
use super::fields::list;
use super::meta::{age_cell, name_cell};
use crate::kind::{Info, Resource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path, qualified_name};

impl Resource for DeviceClass {
    const INFO: Info = Info {
        columns: &[Column::NAME, Column::AGE],
        has_generation: true,
        is_acted_on: false,
        ..Info::cluster("deviceclasses", "deviceclass")
    };

    fn spec_changed(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn validate(&self, errors: &mut Errors) {
        let at = Path::new("spec");
        if let Some(name) = self.spec.extended_resource_name.as_ref().filter(|n| !is_extended_resource(n)) {
            errors.invalid(&at.child("extendedResourceName"), name, "must be a valid extended resource name");
        }
    }

    fn validate_create(&self, errors: &mut Errors) {
        validate_spec(&self.spec, None, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        validate_spec(&self.spec, Some(&old.spec), errors);
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        vec![name_cell(&self.metadata), age_cell(&self.metadata, now)]
    }
}

/// What has not changed may be longer than what is new.
fn validate_spec(spec: &DeviceClassSpec, old: Option<&DeviceClassSpec>, errors: &mut Errors) {
    let at = Path::new("spec");
    let seen = |same: bool| if same { Seen::Stored } else { Seen::New };
    let selectors = seen(old.is_some_and(|old| old.selectors == spec.selectors));
    validate_selectors(list(&spec.selectors), selectors, &at.child("selectors"), errors);
    let config = seen(old.is_some_and(|old| old.config == spec.config));
    let most = Bound::AtMost(MAX_OF_CLAIM);
    validate_list(list(&spec.config), most, &at.child("config"), errors, |entry, at, errors| {
        validate_configuration(entry.opaque.as_ref(), config, at, errors);
    });
}

/// A resource outside of Kubernetes' own domain, of which a quota has a good name too (`IsExtendedResourceName`).
fn is_extended_resource(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    !native && !name.starts_with("requests.") && qualified_name(&format!("requests.{name}")).is_empty()
}
