//! CSIStorageCapacity: how much a driver can still provide in a part of the cluster.

use k8s_openapi::api::storage::v1::CSIStorageCapacity;

use super::meta::name_cell;
use crate::kind::{Info, Resource};
use crate::quantity::Amount;
use crate::table::{Cell, Column};
use crate::validation::{Errors, IMMUTABLE, Path, dns1123_subdomain, json, validate_label_selector};

impl Resource for CSIStorageCapacity {
    const INFO: Info = Info {
        columns: &[
            Column::NAME,
            Column::text(
                "StorageClassName",
                "storageClassName represents the name of the StorageClass that the reported capacity applies to.",
            ),
            Column::text(
                "Capacity",
                "capacity is the value reported by the CSI driver in its GetCapacityResponse for a GetCapacityRequest that matches the previous fields.",
            ),
        ],
        needs_version: true,
        is_acted_on: false,
        ..Info::namespaced("csistoragecapacities", "csistoragecapacity")
    };

    fn validate(&self, errors: &mut Errors) {
        if let Some(topology) = &self.node_topology {
            validate_label_selector(topology, &Path::new("nodeTopology"), errors);
        }
        let class = &self.storage_class_name;
        errors.invalid_each(&Path::new("storageClassName"), class, dns1123_subdomain(class));
        if let Some(capacity) = &self.capacity
            && Amount::of(capacity).is_ok_and(|amount| amount.is_negative())
        {
            errors.invalid(&Path::new("capacity"), &capacity.0, "must be greater than or equal to 0");
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.node_topology != old.node_topology {
            errors.invalid(&Path::new("nodeTopology"), json(&self.node_topology), IMMUTABLE);
        }
        if self.storage_class_name != old.storage_class_name {
            errors.invalid(&Path::new("storageClassName"), &self.storage_class_name, IMMUTABLE);
        }
    }

    fn row(&self, _now: jiff::Timestamp) -> Vec<Cell> {
        vec![
            name_cell(&self.metadata),
            self.storage_class_name.clone().into(),
            self.capacity.as_ref().map_or("<unset>", |q| q.0.as_str()).into(),
        ]
    }
}
