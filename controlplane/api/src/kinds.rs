//! The table of kinds: one file each, one row each. Routes, discovery, OpenAPI and storage keys follow from it.

mod access;
mod admission;
mod api_service;
mod certificate_signing_request;
mod cluster_role;
mod cluster_role_binding;
mod config_map;
mod controller_revision;
mod cron_job;
mod csi_driver;
mod csi_node;
mod csi_storage_capacity;
mod custom_resource_definition;
mod daemon_set;
mod deployment;
mod device_class;
mod devices;
mod endpoint_slice;
mod endpoints;
mod event;
mod event_v1;
mod fields;
mod flow_schema;
mod horizontal_pod_autoscaler;
mod horizontal_pod_autoscaler_v1;
mod ingress;
mod ingress_class;
mod ip_address;
mod job;
mod lease;
mod limit_range;
mod meta;
mod mutating_admission_policy;
mod mutating_admission_policy_binding;
mod mutating_webhook_configuration;
mod namespace;
mod network_policy;
mod node;
mod node_metrics;
mod persistent_volume;
mod persistent_volume_claim;
mod pod;
mod pod_disruption_budget;
mod pod_metrics;
mod pod_template;
mod priority_class;
mod priority_level_configuration;
mod replica_set;
mod replicas;
mod replication_controller;
mod resource_claim;
mod resource_claim_template;
mod resource_quota;
mod resource_slice;
mod role;
mod role_binding;
mod runtime_class;
mod secret;
mod service;
mod service_account;
mod service_cidr;
mod stateful_set;
mod storage_class;
mod subject_access_review;
#[cfg(test)]
mod testing;
mod token_review;
mod validating_admission_policy;
mod validating_admission_policy_binding;
mod validating_webhook_configuration;
mod volume;
mod volume_attachment;
mod volume_attributes_class;
mod workload;

pub use pod::{PodReference, PodTotals, charged_totals, declared_totals, pod_references, qos_class};

use k8s_openapi::api::{
    admissionregistration, apps, authentication, authorization, autoscaling, batch, certificates, coordination, core,
    discovery, events, flowcontrol, networking, policy, rbac, resource, scheduling, storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration;

use crate::kind::Kind;
use crate::metrics;

/// Every kind this cluster serves, in the order of discovery.
pub static KINDS: &[Kind] = &[
    Kind::of::<core::v1::ConfigMap>(),
    Kind::of::<core::v1::Endpoints>(),
    Kind::of::<core::v1::Event>(),
    Kind::of::<core::v1::LimitRange>(),
    Kind::of::<core::v1::Namespace>(),
    Kind::of::<core::v1::Node>(),
    Kind::of::<core::v1::PersistentVolumeClaim>(),
    Kind::of::<core::v1::PersistentVolume>(),
    Kind::of::<core::v1::Pod>(),
    Kind::of::<core::v1::PodTemplate>(),
    Kind::of::<core::v1::ReplicationController>(),
    Kind::of::<core::v1::ResourceQuota>(),
    Kind::of::<core::v1::Secret>(),
    Kind::of::<core::v1::ServiceAccount>(),
    Kind::of::<core::v1::Service>(),
    Kind::of::<apiregistration::v1::APIService>(),
    Kind::of::<apps::v1::ControllerRevision>(),
    Kind::of::<apps::v1::DaemonSet>(),
    Kind::of::<apps::v1::Deployment>(),
    Kind::of::<apps::v1::ReplicaSet>(),
    Kind::of::<apps::v1::StatefulSet>(),
    Kind::of::<events::v1::Event>(),
    Kind::unlisted::<authentication::v1::SelfSubjectReview>(),
    Kind::unlisted::<authentication::v1::TokenReview>(),
    Kind::unlisted::<authorization::v1::LocalSubjectAccessReview>(),
    Kind::unlisted::<authorization::v1::SelfSubjectAccessReview>(),
    Kind::unlisted::<authorization::v1::SelfSubjectRulesReview>(),
    Kind::unlisted::<authorization::v1::SubjectAccessReview>(),
    Kind::of::<autoscaling::v2::HorizontalPodAutoscaler>(),
    Kind::of::<autoscaling::v1::HorizontalPodAutoscaler>(),
    Kind::of::<batch::v1::CronJob>(),
    Kind::of::<batch::v1::Job>(),
    Kind::of::<certificates::v1::CertificateSigningRequest>(),
    Kind::of::<networking::v1::IngressClass>(),
    Kind::of::<networking::v1::Ingress>(),
    Kind::of::<networking::v1::IPAddress>(),
    Kind::of::<networking::v1::NetworkPolicy>(),
    Kind::of::<networking::v1::ServiceCIDR>(),
    Kind::of::<policy::v1::PodDisruptionBudget>(),
    Kind::of::<rbac::v1::ClusterRoleBinding>(),
    Kind::of::<rbac::v1::ClusterRole>(),
    Kind::of::<rbac::v1::RoleBinding>(),
    Kind::of::<rbac::v1::Role>(),
    Kind::of::<storage::v1::CSIDriver>(),
    Kind::of::<storage::v1::CSINode>(),
    Kind::of::<storage::v1::CSIStorageCapacity>(),
    Kind::of::<storage::v1::StorageClass>(),
    Kind::of::<storage::v1::VolumeAttachment>(),
    Kind::of::<storage::v1::VolumeAttributesClass>(),
    Kind::of::<admissionregistration::v1::MutatingAdmissionPolicy>(),
    Kind::of::<admissionregistration::v1::MutatingAdmissionPolicyBinding>(),
    Kind::of::<admissionregistration::v1::MutatingWebhookConfiguration>(),
    Kind::of::<admissionregistration::v1::ValidatingAdmissionPolicy>(),
    Kind::of::<admissionregistration::v1::ValidatingAdmissionPolicyBinding>(),
    Kind::of::<admissionregistration::v1::ValidatingWebhookConfiguration>(),
    Kind::of::<apiextensions::v1::CustomResourceDefinition>(),
    Kind::of::<scheduling::v1::PriorityClass>(),
    Kind::of::<coordination::v1::Lease>(),
    Kind::of::<k8s_openapi::api::node::v1::RuntimeClass>(),
    Kind::of::<discovery::v1::EndpointSlice>(),
    Kind::of::<resource::v1::DeviceClass>(),
    Kind::of::<resource::v1::ResourceClaim>(),
    Kind::of::<resource::v1::ResourceClaimTemplate>(),
    Kind::of::<resource::v1::ResourceSlice>(),
    Kind::of::<flowcontrol::v1::FlowSchema>(),
    Kind::of::<flowcontrol::v1::PriorityLevelConfiguration>(),
    Kind::of::<metrics::NodeMetrics>(),
    Kind::of::<metrics::PodMetrics>(),
];

/// The kind of a group, version and plural name.
#[must_use]
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| k.group == group && k.version == version && k.info.plural == plural)
}

/// The kind of an `apiVersion` and a `kind`.
#[must_use]
pub fn find_by_kind(api_version: &str, kind: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| k.api_version == api_version && k.kind == kind)
}
