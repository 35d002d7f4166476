//! What ReplicaSet and ReplicationController share: they count the same, and show the same.

use k8s_openapi::api::apps::v1::ReplicaSetStatus;
use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationControllerStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::meta::{age_cell, name_cell};
use super::workload;
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path, validate_non_negative};

/// The columns, of which one names the kind.
pub(super) const fn columns(ready: &'static str) -> [Column; 8] {
    [
        Column::NAME,
        Column::integer("Desired", "Replicas is the number of desired pods."),
        Column::integer("Current", "Replicas is the most recently observed number of non-terminating pods."),
        Column::integer("Ready", ready),
        Column::AGE,
        Column::text("Containers", "Names of each container in the template.").wide(),
        Column::text("Images", "Images referenced by each container in the template.").wide(),
        Column::text("Selector", "Selector is a label query over pods that should match the replica count.").wide(),
    ]
}

/// The numbers of a status of either kind.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    observed_generation: Option<i64>,
    replicas: i32,
    fully_labeled: Option<i32>,
    ready: Option<i32>,
    available: Option<i32>,
}

macro_rules! counts_of {
    ($($status:ty),+) => {
        $(impl From<&$status> for Counts {
            fn from(status: &$status) -> Self {
                Self {
                    observed_generation: status.observed_generation,
                    replicas: status.replicas,
                    fully_labeled: status.fully_labeled_replicas,
                    ready: status.ready_replicas,
                    available: status.available_replicas,
                }
            }
        })+
    };
}
counts_of!(ReplicaSetStatus, ReplicationControllerStatus);

impl Counts {
    /// Those of a status that may not be there.
    pub(super) fn of<'a, S>(status: &'a Option<S>) -> Self
    where
        Self: From<&'a S>,
    {
        status.as_ref().map(Self::from).unwrap_or_default()
    }

    /// The rules for what a controller may write.
    pub(super) fn validate(self, errors: &mut Errors) {
        let at = Path::new("status");
        validate_non_negative(self.observed_generation.unwrap_or_default(), &at.child("observedGeneration"), errors);
        let parts = [
            ("fullyLabeledReplicas", self.fully_labeled),
            ("readyReplicas", self.ready),
            ("availableReplicas", self.available),
        ];
        workload::validate_counts(self.replicas, &parts, &at, errors);
    }

    /// The row of an object with these numbers.
    pub(super) fn row(
        self,
        meta: &ObjectMeta,
        desired: Option<i32>,
        template: Option<&PodTemplateSpec>,
        selector: String,
        now: jiff::Timestamp,
    ) -> Vec<Cell> {
        let empty = Default::default();
        let template = template.unwrap_or(&empty);
        vec![
            name_cell(meta),
            desired.unwrap_or_default().into(),
            self.replicas.into(),
            self.ready.unwrap_or_default().into(),
            age_cell(meta, now),
            workload::container_names(template).into(),
            workload::container_images(template).into(),
            selector.into(),
        ]
    }
}
