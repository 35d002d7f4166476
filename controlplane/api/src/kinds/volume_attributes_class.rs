//! VolumeAttributesClass: attributes of volumes that may change in use.

use k8s_openapi::api::storage::v1::VolumeAttributesClass;

use super::meta::age_cell;
use super::storage_class::{validate_parameters, validate_provisioner};
use super::volume::class_name_cell;
use crate::kind::{Info, Resource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path};

const DEFAULT_ANNOTATIONS: [&str; 1] = ["volumeattributesclass.alpha.kubernetes.io/is-default-class"];

impl Resource for VolumeAttributesClass {
    const INFO: Info = Info {
        short_names: &["vac"],
        columns: &[
            Column::NAME,
            Column::text("DriverName", "Name of the CSI driver This field is immutable."),
            Column::AGE,
        ],
        ..Info::cluster("volumeattributesclasses", "volumeattributesclass")
    };

    fn validate(&self, errors: &mut Errors) {
        validate_provisioner(&self.driver_name, &Path::new("driverName"), errors);
        let at = Path::new("parameters");
        validate_parameters(self.parameters.as_ref(), &at, errors);
        if self.parameters.as_ref().is_none_or(|p| p.is_empty()) {
            errors.required(&at, "must contain at least one key/value pair");
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.driver_name != old.driver_name {
            errors.forbidden(&Path::new("driverName"), "updates to driverName are forbidden.");
        }
        if self.parameters != old.parameters {
            errors.forbidden(&Path::new("parameters"), "updates to parameters are forbidden.");
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        vec![
            class_name_cell(&self.metadata, &DEFAULT_ANNOTATIONS),
            self.driver_name.clone().into(),
            age_cell(&self.metadata, now),
        ]
    }
}
