//! CSINode: the storage drivers of a node.

use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver};

use super::fields::list;
use super::meta::{age_cell, name_cell};
use super::volume::validate_driver;
use crate::kind::{Info, Resource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, IMMUTABLE, Path, json, qualified_name, validate_non_negative};

/// The longest name a driver has for a node.
const MAX_NODE_ID: usize = 256;

impl Resource for CSINode {
    const INFO: Info = Info {
        columns: &[
            Column::NAME,
            Column::integer("Drivers", "Drivers indicates the number of CSI drivers registered on the node"),
            Column::AGE,
        ],
        needs_version: true,
        is_acted_on: false,
        ..Info::cluster("csinodes", "csinode")
    };

    fn validate(&self, errors: &mut Errors) {
        let at = Path::new("spec");
        for (i, driver) in self.spec.drivers.iter().enumerate() {
            let all = at.child("drivers");
            let at = all.index(i);
            let seen = self.spec.drivers[..i].iter().any(|d| d.name == driver.name);
            validate_node_driver(driver, seen, &at, errors);
        }
    }

    /// A driver may come and go, but while it is there only its limits change.
    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let at = Path::new("spec");
        for before in &old.spec.drivers {
            for driver in self.spec.drivers.iter().filter(|d| d.name == before.name) {
                let without_limits = |driver: &CSINodeDriver| CSINodeDriver { allocatable: None, ..driver.clone() };
                let driver = without_limits(driver);
                if driver != without_limits(before) {
                    errors.invalid(&at.child("drivers"), json(&driver), IMMUTABLE);
                }
            }
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        vec![name_cell(&self.metadata), self.spec.drivers.len().into(), age_cell(&self.metadata, now)]
    }
}

fn validate_node_driver(driver: &CSINodeDriver, seen: bool, at: &Path<'_>, errors: &mut Errors) {
    validate_driver(&driver.name, &at.child("name"), errors);
    let id = &driver.node_id;
    if id.is_empty() {
        errors.required(&at.child("nodeID"), "");
    }
    if id.len() > MAX_NODE_ID {
        errors.invalid(&at.child("nodeID"), id, format!("must be {MAX_NODE_ID} characters or less"));
    }
    if let Some(count) = driver.allocatable.as_ref().and_then(|a| a.count) {
        let at = at.child("allocatable");
        validate_non_negative(count, &at.child("count"), errors);
    }
    if seen {
        errors.duplicate(&at.child("name"), &driver.name);
    }
    let keys = list(&driver.topology_keys);
    for (i, key) in keys.iter().enumerate() {
        if key.is_empty() {
            errors.required(at, "");
        }
        if keys[..i].contains(key) {
            errors.duplicate(at, key);
        }
        errors.invalid_each(at, key, qualified_name(key));
    }
}
