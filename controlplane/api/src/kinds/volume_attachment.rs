//! VolumeAttachment: a volume to be attached to a node.

use k8s_openapi::api::storage::v1::{VolumeAttachment, VolumeAttachmentStatus};

use super::fields::text;
use super::meta::{age_cell, name_cell, spec_and_status};
use super::volume::validate_driver;
use crate::kind::{Info, Resource, Subresource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, IMMUTABLE, Path, dns1123_subdomain, json, validate_id};

/// The most metadata of an attachment, in bytes.
const MAX_METADATA: usize = 256 * 1024;
/// The longest message of an error, in bytes.
const MAX_MESSAGE: usize = 1024;

impl Resource for VolumeAttachment {
    const INFO: Info = Info {
        subresources: &[Subresource::Status],
        columns: &[
            Column::NAME,
            Column {
                format: "name",
                ..Column::text(
                    "Attacher",
                    "attacher indicates the name of the volume driver that MUST handle this request.",
                )
            },
            Column::text("PV", "PersistentVolumeName represents the name of the persistent volume to attach"),
            Column::text("Node", "nodeName represents the node that the volume should be attached to."),
            Column {
                type_: "boolean",
                ..Column::text("Attached", "attached indicates the volume is successfully attached.")
            },
            Column::AGE,
        ],
        needs_version: true,
        is_acted_on: false,
        ..Info::cluster("volumeattachments", "volumeattachment")
    };

    spec_and_status!();

    fn validate(&self, errors: &mut Errors) {
        let at = Path::new("spec");
        let source = &self.spec.source;
        let source_at = at.child("source");
        match (&source.inline_volume_spec, &source.persistent_volume_name) {
            (None, None) => {
                errors.required(&source_at, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
            }
            (Some(_), Some(_)) => {
                errors.forbidden(&source_at, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
            }
            (None, Some(name)) if name.is_empty() => {
                let why = "must specify non empty persistentVolumeName";
                errors.required(&source_at.child("persistentVolumeName"), why);
            }
            _ => {}
        }
        errors.invalid_each(&at.child("nodeName"), &self.spec.node_name, dns1123_subdomain(&self.spec.node_name));
        validate_status(self.status.as_ref(), errors);
    }

    fn validate_create(&self, errors: &mut Errors) {
        let at = Path::new("spec");
        validate_driver(&self.spec.attacher, &at.child("attacher"), errors);
        if let Some(name) = &self.spec.source.persistent_volume_name {
            let at = at.child("source");
            errors.invalid_each(&at.child("persistentVolumeName"), name, dns1123_subdomain(name));
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.spec != old.spec {
            errors.invalid(&Path::new("spec"), json(&self.spec), IMMUTABLE);
        }
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut Errors) {
        validate_status(self.status.as_ref(), errors);
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

fn validate_status(status: Option<&VolumeAttachmentStatus>, errors: &mut Errors) {
    let Some(status) = status else { return };
    let at = Path::new("status");
    let metadata = status.attachment_metadata.iter().flatten();
    if metadata.map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_METADATA {
        errors.too_long(&at.child("attachmentMetadata"), MAX_METADATA);
    }
    for (field, error) in [("attachError", &status.attach_error), ("detachError", &status.detach_error)] {
        let Some(error) = error else { continue };
        let at = at.child(field);
        if text(&error.message).len() > MAX_MESSAGE {
            // The limit that Kubernetes tells is not the one it keeps.
            errors.too_long(&at.child("message"), MAX_METADATA);
        }
        if let Some(code) = error.error_code {
            validate_id(code.into(), &at.child("errorCode"), errors);
        }
    }
}
