//! VolumeAttributesClass: attributes of volumes that may change in use.

use k8s_openapi::api::storage::v1::VolumeAttributesClass;

use super::meta::{age_cell, name_cell};
use super::storage_class::validate_parameters;
use crate::kind::{Info, Resource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, IMMUTABLE, Path, json};

impl Resource for VolumeAttributesClass {
    const INFO: Info = Info {
        short_names: &["vac"],
        columns: &[Column::NAME, Column::text("DriverName", "Name of the CSI driver"), Column::AGE],
        ..Info::cluster("volumeattributesclasses", "volumeattributesclass")
    };

    fn validate(&self, errors: &mut Errors) {
        if self.driver_name.is_empty() {
            errors.required(&Path::new("driverName"), "");
        }
        if self.parameters.as_ref().is_none_or(|p| p.is_empty()) {
            errors.required(&Path::new("parameters"), "must contain at least one key/value pair");
        }
        validate_parameters(self.parameters.as_ref(), &Path::new("parameters"), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.driver_name != old.driver_name {
            errors.invalid(&Path::new("driverName"), &self.driver_name, IMMUTABLE);
        }
        if self.parameters != old.parameters {
            errors.invalid(&Path::new("parameters"), json(&self.parameters), IMMUTABLE);
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        vec![name_cell(&self.metadata), self.driver_name.clone().into(), age_cell(&self.metadata, now)]
    }
}
