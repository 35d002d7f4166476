//! StorageClass: how volumes are made for claims.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::TopologySelectorTerm;
use k8s_openapi::api::storage::v1::StorageClass;

use super::fields::{default_to, is_true, list, text};
use super::meta::age_cell;
use super::volume::class_name_cell;
use crate::kind::{Info, Resource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, IMMUTABLE, Path, qualified_name};

/// The most bytes of all parameters, and the most of them.
const PARAMETERS_MAX_BYTES: usize = 256 * 1024;
const PARAMETERS_MAX: usize = 512;
const DEFAULT_ANNOTATIONS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

impl Resource for StorageClass {
    const INFO: Info = Info {
        short_names: &["sc"],
        columns: &[
            Column::NAME,
            Column::text("Provisioner", "provisioner indicates the type of the provisioner."),
            Column::text(
                "ReclaimPolicy",
                "reclaimPolicy controls the reclaimPolicy for dynamically provisioned PersistentVolumes of this storage class. Defaults to Delete.",
            ),
            Column::text(
                "VolumeBindingMode",
                "volumeBindingMode indicates how PersistentVolumeClaims should be provisioned and bound.",
            ),
            Column::text(
                "AllowVolumeExpansion",
                "allowVolumeExpansion shows whether the storage class allow volume expand.",
            ),
            Column::AGE,
        ],
        is_acted_on: false,
        ..Info::cluster("storageclasses", "storageclass")
    };

    fn apply_defaults(&mut self) {
        default_to(&mut self.reclaim_policy, "Delete");
        default_to(&mut self.volume_binding_mode, "Immediate");
    }

    fn validate(&self, errors: &mut Errors) {
        validate_provisioner(&self.provisioner, &Path::new("provisioner"), errors);
        validate_parameters(self.parameters.as_ref(), &Path::new("parameters"), errors);
        let policy = text(&self.reclaim_policy);
        if !policy.is_empty() && !matches!(policy, "Delete" | "Retain") {
            errors.not_supported(&Path::new("reclaimPolicy"), policy, &["Delete", "Retain"]);
        }
        match text(&self.volume_binding_mode) {
            "" => errors.required(&Path::new("volumeBindingMode"), ""),
            "Immediate" | "WaitForFirstConsumer" => {}
            other => {
                let supported = ["Immediate", "WaitForFirstConsumer"];
                errors.not_supported(&Path::new("volumeBindingMode"), other, &supported);
            }
        }
        validate_topologies(list(&self.allowed_topologies), &Path::new("allowedTopologies"), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let changed = [
            ("parameters", self.parameters != old.parameters),
            ("provisioner", self.provisioner != old.provisioner),
            ("reclaimPolicy", self.reclaim_policy != old.reclaim_policy),
        ];
        for (field, _) in changed.into_iter().filter(|(_, changed)| *changed) {
            errors.forbidden(&Path::new(field), format!("updates to {field} are forbidden."));
        }
        if self.volume_binding_mode != old.volume_binding_mode {
            errors.invalid(&Path::new("volumeBindingMode"), text(&self.volume_binding_mode), IMMUTABLE);
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        vec![
            class_name_cell(&self.metadata, &DEFAULT_ANNOTATIONS),
            self.provisioner.clone().into(),
            self.reclaim_policy.as_deref().unwrap_or("Delete").into(),
            self.volume_binding_mode.as_deref().unwrap_or("Immediate").into(),
            is_true(self.allow_volume_expansion).into(),
            age_cell(&self.metadata, now),
        ]
    }
}

/// Who makes the volumes: a qualified name, of any case.
pub(super) fn validate_provisioner(name: &str, at: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(at, "");
    } else {
        errors.invalid_each(at, name, qualified_name(&name.to_lowercase()));
    }
}

/// Where the volumes may be: terms that differ, of keys that differ.
fn validate_topologies(terms: &[TopologySelectorTerm], at: &Path<'_>, errors: &mut Errors) {
    // A term that says nothing is one too many, once for each term there is.
    let mut seen: Vec<BTreeMap<&str, BTreeSet<&str>>> = vec![BTreeMap::new(); terms.len()];
    for (i, term) in terms.iter().enumerate() {
        let at = at.index(i);
        let at = at.child("matchLabelExpressions");
        let mut said = BTreeMap::new();
        for (i, expression) in list(&term.match_label_expressions).iter().enumerate() {
            let at = at.index(i);
            let values_at = at.child("values");
            if expression.values.is_empty() {
                errors.required(&values_at, "");
            }
            let mut values = BTreeSet::new();
            for (i, value) in expression.values.iter().enumerate() {
                if !values.insert(value.as_str()) {
                    errors.duplicate(&values_at.index(i), value);
                }
            }
            errors.invalid_each(&at.child("key"), &expression.key, qualified_name(&expression.key));
            if said.insert(expression.key.as_str(), values).is_some() {
                errors.duplicate(&at.child("key"), &expression.key);
            }
        }
        for _ in seen.iter().filter(|other| **other == said) {
            errors.duplicate(&at, "");
        }
        seen.push(said);
    }
}

/// The parameters of a class of storage.
pub(super) fn validate_parameters(parameters: Option<&BTreeMap<String, String>>, at: &Path<'_>, errors: &mut Errors) {
    let Some(parameters) = parameters else { return };
    if parameters.len() > PARAMETERS_MAX {
        errors.too_long(at, PARAMETERS_MAX);
        return;
    }
    if parameters.contains_key("") {
        errors.invalid(at, "", "field can not be empty.");
    }
    if parameters.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > PARAMETERS_MAX_BYTES {
        errors.too_long(at, PARAMETERS_MAX_BYTES);
    }
}
