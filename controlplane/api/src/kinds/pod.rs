//! Pod: containers that share one address and life. The rules of its spec are those of every template of pods.

mod containers;
mod defaults;
mod env;
mod probes;
mod references;
mod requirements;
mod resize;
mod resources;
mod row;
mod scheduling;
mod security;
mod spec;
#[cfg(test)]
mod subresource_tests;
#[cfg(test)]
mod tests;
mod update;
mod volumes;
mod warnings;

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodSpec, PodStatus};

pub(crate) use containers::validate_protocol;
pub(crate) use defaults::default_template;
pub use references::{PodReference, pod_references};
pub(crate) use requirements::validate_amount;
pub use resources::{PodTotals, charged_totals, declared_totals, qos_class};
pub(crate) use scheduling::{validate_effect, validate_node_selector};
pub(crate) use spec::validate_template;
pub(crate) use warnings::spec_warnings;

use super::fields::{is_true, list, text};
use crate::kind::{Info, Resource, Subresource};
use crate::table::Cell;
use crate::validation::{Errors, Path};

impl Resource for Pod {
    const INFO: Info = Info {
        short_names: &["po"],
        categories: &["all"],
        subresources: &[
            Subresource::Status,
            Subresource::Binding,
            Subresource::Eviction,
            Subresource::EphemeralContainers,
            Subresource::Resize,
            Subresource::Log,
            Subresource::Exec,
            Subresource::Attach,
            Subresource::PortForward,
            Subresource::Proxy,
        ],
        selectable_fields: &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        columns: row::COLUMNS,
        has_generation: true,
        ..Info::namespaced("pods", "pod")
    };

    fn apply_defaults(&mut self) {
        defaults::default_pod(self);
    }

    fn prepare_create(&mut self) {
        let spec = self.spec.get_or_insert_default();
        let gated = !list(&spec.scheduling_gates).is_empty();
        self.status = Some(PodStatus {
            phase: Some("Pending".to_owned()),
            qos_class: Some(resources::qos_class(spec).to_owned()),
            conditions: gated.then(|| {
                vec![PodCondition {
                    type_: "PodScheduled".to_owned(),
                    status: "False".to_owned(),
                    reason: Some("SchedulingGated".to_owned()),
                    message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
                    ..Default::default()
                }]
            }),
            ..Default::default()
        });
        scheduling::merge_label_keys(self);
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        self.metadata.owner_references.clone_from(&old.metadata.owner_references);
        // A node that does not know the class keeps what was computed when the pod was made.
        let (Some(status), Some(old)) = (&mut self.status, &old.status) else { return };
        if status.qos_class.is_none() {
            status.qos_class.clone_from(&old.qos_class);
        }
    }

    fn spec_changed(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn validate(&self, errors: &mut Errors) {
        let empty = PodSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let meta = Path::new("metadata");
        spec::validate_pod_annotations(&self.metadata, spec, &meta.child("annotations"), errors);
        spec::validate_pod_spec(spec, &self.metadata, &Path::new("spec"), errors);
    }

    fn validate_create(&self, errors: &mut Errors) {
        let Some(spec) = &self.spec else { return };
        let at = Path::new("spec");
        if !list(&spec.ephemeral_containers).is_empty() {
            errors.forbidden(&at.child("ephemeralContainers"), "cannot be set on create");
        }
        if !text(&spec.node_name).is_empty() && !list(&spec.scheduling_gates).is_empty() {
            errors.forbidden(&at.child("nodeName"), "cannot be set until all schedulingGates have been cleared");
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        update::validate_update(self, old, errors);
    }

    fn validate_status_update(&self, old: &Self, errors: &mut Errors) {
        update::validate_status_update(self, old, errors);
    }

    fn validate_subresource_update(&self, subresource: Subresource, old: &Self, errors: &mut Errors) {
        let refused = match subresource {
            Subresource::Resize => resize::refusal(old),
            Subresource::EphemeralContainers => update::refuses_ephemeral(old),
            _ => return,
        };
        if let Some(why) = refused {
            return errors.forbidden(&Path::ROOT, why);
        }
        Resource::validate(self, errors);
        if subresource == Subresource::Resize {
            resize::validate(self, old, errors);
        } else {
            update::validate_ephemeral(self, old, errors);
        }
    }

    /// A pod that no node runs, or no longer runs, goes at once.
    fn grace_period_seconds(&self, requested: Option<i64>) -> Option<i64> {
        let spec = self.spec.as_ref();
        let is_bound = spec.and_then(|s| s.node_name.as_deref()).is_some_and(|n| !n.is_empty());
        let phase = self.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        if !is_bound || matches!(phase, "Succeeded" | "Failed") {
            return Some(0);
        }
        let seconds = requested.or(spec.and_then(|s| s.termination_grace_period_seconds)).unwrap_or(0);
        Some(if seconds < 0 { 1 } else { seconds })
    }

    fn warnings(&self) -> Vec<String> {
        self.spec.as_ref().map(|spec| spec_warnings(spec, &Path::new("spec"))).unwrap_or_default()
    }

    fn selectable_field(&self, name: &str) -> Cow<'_, str> {
        let spec = self.spec.as_ref();
        let status = self.status.as_ref();
        let value = match name {
            "spec.nodeName" => spec.map(|s| text(&s.node_name)),
            "spec.restartPolicy" => spec.map(|s| text(&s.restart_policy)),
            "spec.schedulerName" => spec.map(|s| text(&s.scheduler_name)),
            "spec.serviceAccountName" => spec.map(|s| text(&s.service_account_name)),
            "spec.hostNetwork" => Some(if spec.is_some_and(|s| is_true(s.host_network)) { "true" } else { "false" }),
            "status.phase" => status.map(|s| text(&s.phase)),
            "status.podIP" | "status.podIPs" => status.map(|s| text(&s.pod_ip)),
            "status.nominatedNodeName" => status.map(|s| text(&s.nominated_node_name)),
            _ => None,
        };
        Cow::Borrowed(value.unwrap_or_default())
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        row::row(self, now)
    }
}
