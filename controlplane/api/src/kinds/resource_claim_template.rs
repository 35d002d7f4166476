//! ResourceClaimTemplate: from which a ResourceClaim is made for each pod.

use k8s_openapi::api::resource::v1::ResourceClaimTemplate;

use super::devices::{default_claim, validate_claim};
use super::meta::{age_cell, name_cell};
use crate::kind::{Info, Resource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, IMMUTABLE, Path, json, validate_annotations, validate_labels};

impl Resource for ResourceClaimTemplate {
    const INFO: Info = Info {
        columns: &[Column::NAME, Column::AGE],
        is_acted_on: false,
        ..Info::namespaced("resourceclaimtemplates", "resourceclaimtemplate")
    };

    fn apply_defaults(&mut self) {
        if let Some(claim) = &mut self.spec.spec.devices {
            default_claim(claim);
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let at = Path::new("spec");
        let (meta_at, spec_at) = (at.child("metadata"), at.child("spec"));
        if let Some(meta) = &self.spec.metadata {
            if let Some(annotations) = &meta.annotations {
                validate_annotations(annotations, &meta_at.child("annotations"), errors);
            }
            if let Some(labels) = &meta.labels {
                validate_labels(labels, &meta_at.child("labels"), errors);
            }
        }
        if let Some(claim) = &self.spec.spec.devices {
            validate_claim(claim, &spec_at.child("devices"), errors);
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.spec != old.spec {
            errors.invalid(&Path::new("spec"), json(&self.spec), IMMUTABLE);
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        vec![name_cell(&self.metadata), age_cell(&self.metadata, now)]
    }
}
