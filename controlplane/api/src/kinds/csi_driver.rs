//! CSIDriver: what a storage driver can do.

use std::collections::BTreeSet;

use k8s_openapi::api::storage::v1::{CSIDriver, TokenRequest};

use super::fields::{default_to, is_true, list};
use super::meta::{age_cell, name_cell};
use crate::kind::{Info, Resource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, IMMUTABLE, Path, json};

/// The shortest life of a token, and the longest, in seconds.
const TOKEN_SECONDS: (i64, i64) = (600, 1 << 32);
const MIN_UPDATE_PERIOD_SECONDS: i64 = 10;

impl Resource for CSIDriver {
    const INFO: Info = Info {
        columns: &[
            Column::NAME,
            Column {
                type_: "boolean",
                ..Column::text(
                    "AttachRequired",
                    "attachRequired indicates this CSI volume driver requires an attach operation",
                )
            },
            Column {
                type_: "boolean",
                ..Column::text(
                    "PodInfoOnMount",
                    "podInfoOnMount indicates this CSI volume driver requires additional pod information",
                )
            },
            Column {
                type_: "boolean",
                ..Column::text(
                    "StorageCapacity",
                    "storageCapacity indicates that the CSI volume driver wants pod scheduling to consider the storage capacity",
                )
            },
            Column::text(
                "TokenRequests",
                "tokenRequests indicates the CSI driver needs pods' service account tokens it is mounting volume for",
            ),
            Column {
                type_: "boolean",
                ..Column::text(
                    "RequiresRepublish",
                    "requiresRepublish indicates the CSI driver wants `NodePublishVolume` being periodically called",
                )
            },
            Column::text("Modes", "volumeLifecycleModes defines what kind of volumes this CSI volume driver supports."),
            Column::AGE,
        ],
        has_generation: true,
        needs_version: true,
        is_acted_on: false,
        ..Info::cluster("csidrivers", "csidriver")
    };

    fn spec_changed(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn apply_defaults(&mut self) {
        let spec = &mut self.spec;
        spec.attach_required.get_or_insert(true);
        spec.pod_info_on_mount.get_or_insert(false);
        spec.storage_capacity.get_or_insert(false);
        spec.requires_republish.get_or_insert(false);
        spec.se_linux_mount.get_or_insert(false);
        default_to(&mut spec.fs_group_policy, "ReadWriteOnceWithFSType");
        if list(&spec.volume_lifecycle_modes).is_empty() {
            spec.volume_lifecycle_modes = Some(vec!["Persistent".to_owned()]);
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let at = Path::new("spec");
        let policy = self.spec.fs_group_policy.as_deref().unwrap_or_default();
        if !matches!(policy, "" | "File" | "None" | "ReadWriteOnceWithFSType") {
            errors.not_supported(&at.child("fsGroupPolicy"), policy, &["File", "None", "ReadWriteOnceWithFSType"]);
        }
        validate_tokens(list(&self.spec.token_requests), &at.child("tokenRequests"), errors);
        for mode in list(&self.spec.volume_lifecycle_modes) {
            if !matches!(mode.as_str(), "Ephemeral" | "Persistent") {
                errors.not_supported(&at.child("volumeLifecycleModes"), mode, &["Persistent", "Ephemeral"]);
            }
        }
        if let Some(period) =
            self.spec.node_allocatable_update_period_seconds.filter(|p| *p < MIN_UPDATE_PERIOD_SECONDS)
        {
            let at = at.child("nodeAllocatableUpdatePeriodSeconds");
            errors.invalid(&at, period, "must be greater than or equal to 10 seconds");
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let at = Path::new("spec");
        let (spec, old) = (&self.spec, &old.spec);
        if spec.attach_required != old.attach_required {
            // Kubernetes names the field like this.
            errors.invalid(&at.child("attachedRequired"), json(&spec.attach_required), IMMUTABLE);
        }
        if spec.volume_lifecycle_modes != old.volume_lifecycle_modes {
            errors.invalid(&at.child("volumeLifecycleModes"), json(&spec.volume_lifecycle_modes), IMMUTABLE);
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        vec![
            name_cell(&self.metadata),
            self.spec.attach_required.unwrap_or(true).into(),
            is_true(self.spec.pod_info_on_mount).into(),
            is_true(self.spec.storage_capacity).into(),
            match &self.spec.token_requests {
                None => "<unset>".to_owned(),
                Some(tokens) => tokens.iter().map(|t| t.audience.as_str()).collect::<Vec<_>>().join(","),
            }
            .into(),
            is_true(self.spec.requires_republish).into(),
            match list(&self.spec.volume_lifecycle_modes) {
                [] => "<none>".to_owned(),
                modes => modes.join(","),
            }
            .into(),
            age_cell(&self.metadata, now),
        ]
    }
}

/// Tokens for as many audiences, each of which lives for a while.
fn validate_tokens(tokens: &[TokenRequest], at: &Path<'_>, errors: &mut Errors) {
    let mut audiences = BTreeSet::new();
    for (i, token) in tokens.iter().enumerate() {
        let at = at.index(i);
        if !audiences.insert(token.audience.as_str()) {
            errors.duplicate(&at.child("audience"), &token.audience);
            continue;
        }
        let Some(seconds) = token.expiration_seconds else { continue };
        let at = at.child("expirationSeconds");
        if seconds < TOKEN_SECONDS.0 {
            errors.invalid(&at, seconds, "may not specify a duration less than 10 minutes");
        }
        if seconds > TOKEN_SECONDS.1 {
            errors.invalid(&at, seconds, "may not specify a duration larger than 2^32 seconds");
        }
    }
}
