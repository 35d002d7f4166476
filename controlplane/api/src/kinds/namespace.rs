//! Namespace: a scope for names. It goes away when nothing is in it any more, which its own finalizer stands for.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus};

use super::fields::{list, text};
use super::meta::{age_cell, name_cell};
use crate::kind::{Info, NameRule, Resource, Subresource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path, qualified_name};

const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// The finalizer of the controller that empties namespaces.
const FINALIZER: &str = "kubernetes";

impl Resource for Namespace {
    const INFO: Info = Info {
        short_names: &["ns"],
        name_rule: NameRule::Label,
        subresources: &[Subresource::Status, Subresource::Finalize],
        selectable_fields: &["name", "status.phase"],
        columns: &[Column::NAME, Column::text("Status", "The status of the namespace"), Column::AGE],
        has_delete_collection: false,
        ..Info::cluster("namespaces", "namespace")
    };

    fn apply_defaults(&mut self) {
        if let Some(name) = self.metadata.name.clone().filter(|n| !n.is_empty()) {
            self.metadata.labels.get_or_insert_default().insert(NAME_LABEL.to_owned(), name);
        }
        self.spec.get_or_insert_default();
        self.status.get_or_insert_default().phase.get_or_insert_with(|| "Active".to_owned());
    }

    fn prepare_create(&mut self) {
        self.status = Some(NamespaceStatus { phase: Some("Active".to_owned()), ..Default::default() });
        let finalizers = self.spec.get_or_insert_default().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
        // A generated name is known only now.
        if let Some(name) = self.metadata.name.clone() {
            self.metadata.labels.get_or_insert_default().insert(NAME_LABEL.to_owned(), name);
        }
    }

    fn prepare_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        self.status.clone_from(&old.status);
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn begin_deletion(&mut self) {
        self.status.get_or_insert_default().phase = Some("Terminating".to_owned());
    }

    fn holds_deletion(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| !list(&spec.finalizers).is_empty())
    }

    fn validate(&self, errors: &mut Errors) {
        let finalizers = self.spec.as_ref().map(|s| list(&s.finalizers)).unwrap_or_default();
        let at = Path::new("spec");
        let at = at.child("finalizers");
        for finalizer in finalizers {
            errors.invalid_each(&at, finalizer, qualified_name(finalizer));
            if !finalizer.contains('/') && !matches!(finalizer.as_str(), FINALIZER | "orphan" | "foregroundDeletion") {
                let detail = "name is neither a standard finalizer name nor is it fully qualified";
                errors.invalid(&at, finalizer, detail);
            }
        }
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut Errors) {
        let phase = self.status.as_ref().map(|s| text(&s.phase)).unwrap_or_default();
        let at = Path::new("status");
        let at = at.child("Phase");
        match (self.metadata.deletion_timestamp.is_some(), phase) {
            (false, "Active") | (true, "Terminating") => {}
            (false, _) => errors.invalid(&at, phase, "may only be 'Active' if `deletionTimestamp` is empty"),
            (true, _) => errors.invalid(&at, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty"),
        }
    }

    fn selectable_field(&self, name: &str) -> Cow<'_, str> {
        Cow::Borrowed(match name {
            "name" => text(&self.metadata.name),
            "status.phase" => self.status.as_ref().map(|s| text(&s.phase)).unwrap_or_default(),
            _ => "",
        })
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let phase = self.status.as_ref().map(|s| text(&s.phase)).unwrap_or_default();
        vec![name_cell(&self.metadata), phase.into(), age_cell(&self.metadata, now)]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, expect, faults, row};

    #[test]
    fn namespaces() {
        let made: Namespace = created(json!({"metadata": {"name": "a"}, "status": {"phase": "Odd"}}));
        let value = serde_json::to_value(&made).unwrap();
        assert_eq!(value["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "a"}));
        assert_eq!(value["spec"], json!({"finalizers": ["kubernetes"]}));
        assert_eq!(value["status"], json!({"phase": "Active"}));
        let finalizers = |f: Value| faults::<Namespace>(json!({"metadata": {"name": "a"}, "spec": {"finalizers": f}}));
        expect(&finalizers(json!(["a.io/b"])), &[]);
        expect(
            &finalizers(json!(["mine"])),
            &["spec.finalizers: Invalid value: \"mine\": name is neither a standard finalizer name"],
        );
        let line = row::<Namespace>(
            json!({"metadata": {"name": "a", "creationTimestamp": "2024-05-01T11:55:00Z"}, "status": {"phase": "Active"}}),
        );
        assert_eq!(line, "a|Active|5m");
    }

    #[test]
    fn the_phase_follows_deletion() {
        let old: Namespace = created(json!({"metadata": {"name": "a"}}));
        let mut new = old.clone();
        new.status = Some(NamespaceStatus { phase: Some("Terminating".to_owned()), ..Default::default() });
        let mut errors = Errors::new();
        new.validate_status_update(&old, &mut errors);
        assert_eq!(errors.len(), 1);
    }
}
