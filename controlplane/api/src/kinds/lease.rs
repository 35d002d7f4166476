//! Lease: a claim that is renewed, for leaders and heartbeats.

use k8s_openapi::api::coordination::v1::Lease;

use super::fields::text;
use super::meta::{age_cell, name_cell};
use crate::kind::{Info, Resource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path};

impl Resource for Lease {
    const INFO: Info = Info {
        columns: &[
            Column::NAME,
            Column::text("Holder", "holderIdentity contains the identity of the holder of a current lease."),
            Column::AGE,
        ],
        create_on_update: true,
        needs_version: true,
        ..Info::namespaced("leases", "lease")
    };

    fn validate(&self, errors: &mut Errors) {
        let Some(spec) = &self.spec else { return };
        let at = Path::new("spec");
        if let Some(seconds) = spec.lease_duration_seconds.filter(|s| *s <= 0) {
            errors.invalid(&at.child("leaseDurationSeconds"), seconds, "must be greater than 0");
        }
        if let Some(count) = spec.lease_transitions.filter(|c| *c < 0) {
            errors.invalid(&at.child("leaseTransitions"), count, "must be greater than or equal to 0");
        }
        if !text(&spec.preferred_holder).is_empty() && text(&spec.strategy).is_empty() {
            let why = "may only be specified when `strategy` is defined";
            errors.forbidden(&at.child("preferredHolder"), why);
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let holder = self.spec.as_ref().map(|s| text(&s.holder_identity)).unwrap_or_default();
        vec![name_cell(&self.metadata), holder.into(), age_cell(&self.metadata, now)]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{expect, faults, row};

    #[test]
    fn leases() {
        let lease = |spec: Value| json!({"metadata": {"name": "l", "namespace": "n", "creationTimestamp": "2024-05-01T11:55:00Z"}, "spec": spec});
        expect(&faults::<Lease>(lease(json!({"leaseDurationSeconds": 40}))), &[]);
        expect(
            &faults::<Lease>(lease(json!({"leaseDurationSeconds": 0, "leaseTransitions": -1, "preferredHolder": "a"}))),
            &[
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
                "spec.preferredHolder: Forbidden: may only be specified when `strategy` is defined",
            ],
        );
        assert_eq!(row::<Lease>(lease(json!({"holderIdentity": "h"}))), "l|h|5m");
    }
}
