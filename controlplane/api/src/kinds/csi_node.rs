//! CSINode: the storage drivers of a node.

use k8s_openapi::api::storage::v1::CSINode;

use super::meta::{age_cell, name_cell};
use crate::kind::{Info, Resource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path};

impl Resource for CSINode {
    const INFO: Info = Info {
        columns: &[
            Column::NAME,
            Column::integer("Drivers", "drivers is a list of information of all CSI Drivers existing on a node."),
            Column::AGE,
        ],
        ..Info::cluster("csinodes", "csinode")
    };

    fn validate(&self, errors: &mut Errors) {
        let at = Path::new("spec");
        for (i, driver) in self.spec.drivers.iter().enumerate() {
            let all = at.child("drivers");
            let at = all.index(i);
            for (field, value) in [("name", &driver.name), ("nodeID", &driver.node_id)] {
                if value.is_empty() {
                    errors.required(&at.child(field), "");
                }
            }
            if self.spec.drivers[..i].iter().any(|d| d.name == driver.name) {
                errors.duplicate(&at.child("name"), &driver.name);
            }
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        vec![name_cell(&self.metadata), self.spec.drivers.len().into(), age_cell(&self.metadata, now)]
    }
}
