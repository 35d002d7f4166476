//! PersistentVolumeClaim: a wish for storage.

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimStatus, TypedLocalObjectReference, TypedObjectReference,
};

use super::fields::{canonical_resources, default_to, list, text};
use super::meta::{age_cell, name_cell, status_apart};
use super::volume::{
    access_modes_text, storage_class, storage_text, validate_access_modes, validate_positive, validate_volume_mode,
};
use crate::kind::{Info, Resource, Subresource};
use crate::quantity::Amount;
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path, dns1123_subdomain, validate_label_selector};

impl Resource for PersistentVolumeClaim {
    const INFO: Info = Info {
        short_names: &["pvc"],
        subresources: &[Subresource::Status],
        columns: &[
            Column::NAME,
            Column::text("Status", "phase represents the current phase of PersistentVolumeClaim."),
            Column::text("Volume", "volumeName is the binding reference to the PersistentVolume backing this claim."),
            Column::text("Capacity", "capacity represents the actual resources of the underlying volume."),
            Column::text(
                "Access Modes",
                "accessModes contains the actual access modes the volume backing the PVC has.",
            ),
            Column::text("StorageClass", "StorageClass of the pvc"),
            Column::text("VolumeAttributesClass", "VolumeAttributesClass of the pvc"),
            Column::AGE,
            Column::text("VolumeMode", "volumeMode defines what type of volume is required by the claim.").wide(),
        ],
        is_acted_on: false,
        ..Info::namespaced("persistentvolumeclaims", "persistentvolumeclaim")
    };

    fn apply_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.volume_mode.get_or_insert_with(|| "Filesystem".to_owned());
        if let Some(resources) = &mut spec.resources {
            canonical_resources(resources.requests.as_mut());
            canonical_resources(resources.limits.as_mut());
        }
        default_to(&mut self.status.get_or_insert_default().phase, "Pending");
    }

    fn prepare_create(&mut self) {
        self.status = Some(PersistentVolumeClaimStatus { phase: Some("Pending".to_owned()), ..Default::default() });
        let Some(spec) = &mut self.spec else { return };
        // The two fields say the same; the older one cannot name a namespace (`NormalizeDataSources`).
        match (&spec.data_source, &spec.data_source_ref) {
            (Some(source), None) => {
                spec.data_source_ref = Some(TypedObjectReference {
                    api_group: source.api_group.clone(),
                    kind: source.kind.clone(),
                    name: source.name.clone(),
                    namespace: None,
                });
            }
            (None, Some(source)) if text(&source.namespace).is_empty() => {
                spec.data_source = Some(TypedLocalObjectReference {
                    api_group: source.api_group.clone(),
                    kind: source.kind.clone(),
                    name: source.name.clone(),
                });
            }
            _ => {}
        }
    }

    status_apart!();

    fn validate(&self, errors: &mut Errors) {
        let empty = Default::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let at = Path::new("spec");
        if list(&spec.access_modes).is_empty() {
            errors.required(&at.child("accessModes"), "at least 1 access mode is required");
        }
        if let Some(selector) = &spec.selector {
            validate_label_selector(selector, &at.child("selector"), errors);
        }
        validate_access_modes(list(&spec.access_modes), &at.child("accessModes"), errors);
        let at_requests = at.child("resources");
        let at_requests = at_requests.child("requests");
        match spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
            Some(requests) if requests.contains_key("storage") => validate_positive(requests, &at_requests, errors),
            _ => errors.required(&at.child("resources").key("storage"), ""),
        }
        if let Some(class) = spec.storage_class_name.as_ref().filter(|c| !c.is_empty()) {
            errors.invalid_each(&at.child("storageClassName"), class, dns1123_subdomain(class));
        }
        validate_volume_mode(spec.volume_mode.as_ref(), &at.child("volumeMode"), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let (Some(new), Some(before)) = (&self.spec, &old.spec) else { return };
        let at = Path::new("spec");
        let bound = text(&old.status.clone().unwrap_or_default().phase) == "Bound";
        let mut same = new.clone();
        if text(&before.volume_name).is_empty() {
            // Binding sets the name, and may set the class too.
            same.volume_name.clone_from(&before.volume_name);
            if before.storage_class_name.is_none() {
                same.storage_class_name = None;
            }
        }
        same.volume_attributes_class_name.clone_from(&before.volume_attributes_class_name);
        let requests = |spec: &k8s_openapi::api::core::v1::PersistentVolumeClaimSpec| {
            spec.resources.as_ref().and_then(|r| r.requests.clone()).unwrap_or_default()
        };
        let (asked, asked_before) = (requests(new), requests(before));
        if bound {
            same.resources.clone_from(&before.resources);
        }
        if same != *before {
            let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
            errors.forbidden(&at, why);
        }
        let size = |list: &super::fields::ResourceList| list.get("storage").and_then(|q| Amount::of(q).ok());
        let capacity = old.status.as_ref().and_then(|s| s.capacity.as_ref()).and_then(size);
        if bound && size(&asked) < size(&asked_before) && size(&asked) <= capacity {
            let at = at.child("resources");
            let at = at.child("requests");
            errors.forbidden(&at.child("storage"), "field can not be less than status.capacity");
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let (no_spec, no_status) = (Default::default(), Default::default());
        let spec = self.spec.as_ref().unwrap_or(&no_spec);
        let status = self.status.as_ref().unwrap_or(&no_status);
        let volume = text(&spec.volume_name);
        // Without a volume there is no capacity to show.
        let (capacity, modes) = if volume.is_empty() {
            (String::new(), String::new())
        } else {
            (storage_text(status.capacity.as_ref()), access_modes_text(list(&status.access_modes)))
        };
        let phase = if self.metadata.deletion_timestamp.is_some() { "Terminating" } else { text(&status.phase) };
        vec![
            name_cell(&self.metadata),
            phase.into(),
            volume.into(),
            capacity.into(),
            modes.into(),
            storage_class(&self.metadata, spec.storage_class_name.as_ref()).into(),
            spec.volume_attributes_class_name.as_deref().unwrap_or("<unset>").into(),
            age_cell(&self.metadata, now),
            spec.volume_mode.as_deref().unwrap_or("<unset>").into(),
        ]
    }
}
