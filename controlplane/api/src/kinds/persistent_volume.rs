//! PersistentVolume: a piece of storage of the cluster.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec, PersistentVolumeStatus};

use super::fields::{canonical_resources, default_to, list, text};
use super::meta::{age_cell, name_cell, status_apart};
use super::volume::{
    access_modes_text, storage_class, storage_text, validate_access_modes, validate_positive, validate_volume_mode,
};
use crate::kind::{Info, Resource, Subresource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, IMMUTABLE, Path, dns1123_subdomain, json};

const RECLAIM_POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];

impl Resource for PersistentVolume {
    const INFO: Info = Info {
        short_names: &["pv"],
        subresources: &[Subresource::Status],
        columns: &[
            Column::NAME,
            Column::text("Capacity", "capacity is the description of the persistent volume's resources and capacity."),
            Column::text("Access Modes", "accessModes contains all ways the volume can be mounted."),
            Column::text("Reclaim Policy", "persistentVolumeReclaimPolicy defines what happens to a persistent volume when released from its claim."),
            Column::text("Status", "phase indicates if a volume is available, bound to a claim, or released by a claim."),
            Column::text("Claim", "claimRef is part of a bi-directional binding between PersistentVolume and PersistentVolumeClaim."),
            Column::text("StorageClass", "StorageClass of the pv"),
            Column::text("VolumeAttributesClass", "VolumeAttributesClass of the pv"),
            Column::text("Reason", "reason is a brief CamelCase string that describes any failure and is meant for machine parsing and tidy display in the CLI."),
            Column::AGE,
            Column::text("VolumeMode", "volumeMode defines if a volume is intended to be used with a formatted filesystem or to remain in raw block state.").wide(),
        ],
        is_acted_on: false, ..Info::cluster("persistentvolumes", "persistentvolume")
    };

    fn apply_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        default_to(&mut spec.persistent_volume_reclaim_policy, "Retain");
        spec.volume_mode.get_or_insert_with(|| "Filesystem".to_owned());
        if let Some(host_path) = &mut spec.host_path {
            host_path.type_.get_or_insert_default();
        }
        canonical_resources(spec.capacity.as_mut());
        default_to(&mut self.status.get_or_insert_default().phase, "Pending");
    }

    fn prepare_create(&mut self) {
        self.status = Some(PersistentVolumeStatus { phase: Some("Pending".to_owned()), ..Default::default() });
    }

    status_apart!();

    fn validate(&self, errors: &mut Errors) {
        let empty = Default::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let at = Path::new("spec");
        if list(&spec.access_modes).is_empty() {
            errors.required(&at.child("accessModes"), "");
        }
        validate_access_modes(list(&spec.access_modes), &at.child("accessModes"), errors);
        match &spec.capacity {
            Some(capacity) if !capacity.is_empty() => {
                if capacity.len() > 1 || !capacity.contains_key("storage") {
                    errors.not_supported(&at.child("capacity"), json(capacity), &["storage"]);
                }
                validate_positive(capacity, &at.child("capacity"), errors);
            }
            _ => errors.required(&at.child("capacity"), ""),
        }
        validate_source(spec, &at, errors);
        let policy = text(&spec.persistent_volume_reclaim_policy);
        if !policy.is_empty() && !RECLAIM_POLICIES.contains(&policy) {
            errors.not_supported(&at.child("persistentVolumeReclaimPolicy"), policy, &RECLAIM_POLICIES);
        }
        if let Some(class) = spec.storage_class_name.as_ref().filter(|c| !c.is_empty()) {
            errors.invalid_each(&at.child("storageClassName"), class, dns1123_subdomain(class));
        }
        validate_volume_mode(spec.volume_mode.as_ref(), &at.child("volumeMode"), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let (Some(spec), Some(old)) = (&self.spec, &old.spec) else { return };
        let at = Path::new("spec");
        if sources(spec) != sources(old) {
            let why = "spec.persistentvolumesource is immutable after creation";
            errors.forbidden(&at.child("persistentvolumesource"), why);
        }
        if spec.volume_mode != old.volume_mode {
            errors.invalid(&at.child("volumeMode"), json(&spec.volume_mode), IMMUTABLE);
        }
        if old.node_affinity.is_some() && spec.node_affinity != old.node_affinity {
            errors.invalid(&at.child("nodeAffinity"), json(&spec.node_affinity), IMMUTABLE);
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let empty = Default::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let status = self.status.as_ref();
        let phase = status.map(|s| text(&s.phase)).unwrap_or_default();
        let claim = spec.claim_ref.as_ref().map(|c| format!("{}/{}", text(&c.namespace), text(&c.name)));
        vec![
            name_cell(&self.metadata),
            storage_text(spec.capacity.as_ref()).into(),
            access_modes_text(list(&spec.access_modes)).into(),
            text(&spec.persistent_volume_reclaim_policy).into(),
            if self.metadata.deletion_timestamp.is_some() { "Terminating" } else { phase }.into(),
            claim.unwrap_or_default().into(),
            storage_class(&self.metadata, spec.storage_class_name.as_ref()).into(),
            spec.volume_attributes_class_name.as_deref().unwrap_or("<unset>").into(),
            status.map(|s| text(&s.reason)).unwrap_or_default().into(),
            age_cell(&self.metadata, now),
            spec.volume_mode.as_deref().unwrap_or("<unset>").into(),
        ]
    }
}

/// The fields of the spec that say where the storage is, by name.
fn sources(spec: &PersistentVolumeSpec) -> serde_json::Map<String, serde_json::Value> {
    const OTHERS: [&str; 9] = [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    ];
    let serde_json::Value::Object(mut fields) = json(spec) else { return serde_json::Map::new() };
    fields.retain(|name, _| !OTHERS.contains(&name.as_str()));
    fields
}

fn validate_source(spec: &PersistentVolumeSpec, at: &Path<'_>, errors: &mut Errors) {
    let sources = sources(spec);
    if sources.is_empty() {
        errors.required(at, "must specify a volume type");
    }
    for name in sources.keys().skip(1) {
        errors.forbidden(&at.child(name), "may not specify more than 1 volume type");
    }
    if let Some(host_path) = &spec.host_path {
        let at_path = at.child("hostPath");
        if host_path.path.is_empty() {
            errors.required(&at_path.child("path"), "");
        }
        if host_path.path.split('/').any(|part| part == "..") {
            errors.invalid(&at_path.child("path"), &host_path.path, "must not contain '..'");
        }
        let recycles = text(&spec.persistent_volume_reclaim_policy) == "Recycle";
        if recycles && host_path.path.trim_end_matches('/').is_empty() {
            let why = "may not be 'recycle' for a hostPath mount of '/'";
            errors.forbidden(&at.child("persistentVolumeReclaimPolicy"), why);
        }
    }
    if let Some(nfs) = &spec.nfs {
        let at = at.child("nfs");
        for (field, value) in [("server", &nfs.server), ("path", &nfs.path)] {
            if value.is_empty() {
                errors.required(&at.child(field), "");
            }
        }
        if !nfs.path.starts_with('/') {
            errors.invalid(&at.child("path"), &nfs.path, "must be an absolute path");
        }
    }
    if let Some(csi) = &spec.csi {
        let at = at.child("csi");
        for (field, value) in [("driver", &csi.driver), ("volumeHandle", &csi.volume_handle)] {
            if value.is_empty() {
                errors.required(&at.child(field), "");
            }
        }
    }
    if let Some(local) = &spec.local {
        if local.path.is_empty() {
            let at = at.child("local");
            errors.required(&at.child("path"), "");
        }
        if spec.node_affinity.as_ref().is_none_or(|a| a.required.is_none()) {
            errors.required(&at.child("nodeAffinity"), "Local volume requires node affinity");
        }
    }
}
