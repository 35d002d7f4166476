//! VolumeAttachment: a volume to be attached to a node.

use k8s_openapi::api::storage::v1::VolumeAttachment;

use super::fields::text;
use super::meta::{age_cell, name_cell, spec_and_status};
use crate::kind::{Info, Resource, Subresource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, IMMUTABLE, Path, dns1123_subdomain, json};

impl Resource for VolumeAttachment {
    const INFO: Info = Info {
        subresources: &[Subresource::Status],
        columns: &[
            Column::NAME,
            Column::text("Attacher", "attacher indicates the name of the volume driver that MUST handle this request."),
            Column::text("PV", "PersistentVolumeName represents the name of the persistent volume to attach"),
            Column::text("Node", "nodeName represents the node that the volume should be attached to."),
            Column {
                type_: "boolean",
                ..Column::text("Attached", "attached indicates the volume is successfully attached.")
            },
            Column::AGE,
        ],
        ..Info::cluster("volumeattachments", "volumeattachment")
    };

    spec_and_status!();

    fn validate(&self, errors: &mut Errors) {
        let at = Path::new("spec");
        if self.spec.attacher.is_empty() {
            errors.required(&at.child("attacher"), "");
        }
        errors.invalid_each(&at.child("nodeName"), &self.spec.node_name, dns1123_subdomain(&self.spec.node_name));
        let source = &self.spec.source;
        let at = at.child("source");
        match (&source.inline_volume_spec, &source.persistent_volume_name) {
            (None, None) => {
                errors.required(&at, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
            }
            (Some(_), Some(_)) => {
                errors.forbidden(&at, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
            }
            (None, Some(name)) if name.is_empty() => errors.required(&at.child("persistentVolumeName"), ""),
            _ => {}
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.spec != old.spec {
            errors.invalid(&Path::new("spec"), json(&self.spec), IMMUTABLE);
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        vec![
            name_cell(&self.metadata),
            self.spec.attacher.clone().into(),
            text(&self.spec.source.persistent_volume_name).into(),
            self.spec.node_name.clone().into(),
            self.status.as_ref().is_some_and(|s| s.attached).into(),
            age_cell(&self.metadata, now),
        ]
    }
}
