//! A builder for the pods of tests.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodIP, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::{labels, meta, time};
use crate::meta::controller_reference;
use crate::object::Typed;

pub(crate) struct PodBuilder(Pod);

/// A pod of namespace `ns` that no node has seen.
pub(crate) fn pod(name: &str) -> PodBuilder {
    PodBuilder(Pod { metadata: meta("ns", name), spec: Some(PodSpec::default()), status: Some(PodStatus::default()) })
}

impl PodBuilder {
    fn status(&mut self) -> &mut PodStatus {
        self.0.status.get_or_insert_default()
    }

    pub(crate) fn labels(mut self, pairs: &[(&str, &str)]) -> Self {
        self.0.metadata.labels = labels(pairs);
        self
    }

    pub(crate) fn annotation(mut self, key: &str, value: &str) -> Self {
        self.0.metadata.annotations.get_or_insert_default().insert(key.into(), value.into());
        self
    }

    pub(crate) fn on(mut self, node: &str) -> Self {
        self.0.spec.get_or_insert_default().node_name = Some(node.into());
        self
    }

    pub(crate) fn running(self) -> Self {
        self.phase("Running")
    }

    pub(crate) fn phase(mut self, phase: &str) -> Self {
        self.status().phase = Some(phase.into());
        self
    }

    pub(crate) fn ready_since(mut self, at: &str) -> Self {
        let ready = PodCondition {
            type_: "Ready".into(),
            status: "True".into(),
            last_transition_time: Some(time(at)),
            ..PodCondition::default()
        };
        let conditions = self.status().conditions.get_or_insert_default();
        conditions.retain(|condition| condition.type_ != "Ready");
        conditions.push(ready);
        self
    }

    pub(crate) fn ip(mut self, ip: &str) -> Self {
        self.status().pod_ip = Some(ip.into());
        self.status().pod_ips = Some(vec![PodIP { ip: ip.into() }]);
        self
    }

    pub(crate) fn restarts(mut self, count: i32) -> Self {
        self.status().container_statuses =
            Some(vec![ContainerStatus { restart_count: count, ..ContainerStatus::default() }]);
        self
    }

    pub(crate) fn created(mut self, at: &str) -> Self {
        self.0.metadata.creation_timestamp = Some(time(at));
        self
    }

    pub(crate) fn deleted(mut self, at: &str) -> Self {
        self.0.metadata.deletion_timestamp = Some(time(at));
        self
    }

    pub(crate) fn managed_by<O: Typed>(self, owner: &O) -> Self {
        self.owner(controller_reference(owner))
    }

    pub(crate) fn owner(mut self, owner: OwnerReference) -> Self {
        self.0.metadata.owner_references.get_or_insert_default().push(owner);
        self
    }

    pub(crate) fn edit(mut self, edit: impl FnOnce(&mut Pod)) -> Self {
        edit(&mut self.0);
        self
    }

    pub(crate) fn build(self) -> Pod {
        self.0
    }
}
