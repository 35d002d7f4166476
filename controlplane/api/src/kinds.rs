//! The table of kinds: one file each, one row each. Routes, discovery, OpenAPI and storage keys follow from it.

mod config_map;
mod controller_revision;
mod cron_job;
mod daemon_set;
mod deployment;
mod endpoint_slice;
mod endpoints;
mod event;
mod event_v1;
mod job;
mod lease;
mod meta;
mod namespace;
mod node;
mod pod;
mod pod_template;
mod replica_set;
mod replication_controller;
mod secret;
mod service;
mod service_account;
mod stateful_set;

use k8s_openapi::api::{apps, batch, coordination, core, discovery, events};

use crate::kind::Kind;

/// Every kind this cluster serves, in the order of discovery.
pub static KINDS: &[Kind] = &[
    Kind::of::<core::v1::ConfigMap>(),
    Kind::of::<core::v1::Endpoints>(),
    Kind::of::<core::v1::Event>(),
    Kind::of::<core::v1::Namespace>(),
    Kind::of::<core::v1::Node>(),
    Kind::of::<core::v1::Pod>(),
    Kind::of::<core::v1::PodTemplate>(),
    Kind::of::<core::v1::ReplicationController>(),
    Kind::of::<core::v1::Secret>(),
    Kind::of::<core::v1::ServiceAccount>(),
    Kind::of::<core::v1::Service>(),
    Kind::of::<apps::v1::ControllerRevision>(),
    Kind::of::<apps::v1::DaemonSet>(),
    Kind::of::<apps::v1::Deployment>(),
    Kind::of::<apps::v1::ReplicaSet>(),
    Kind::of::<apps::v1::StatefulSet>(),
    Kind::of::<batch::v1::CronJob>(),
    Kind::of::<batch::v1::Job>(),
    Kind::of::<coordination::v1::Lease>(),
    Kind::of::<discovery::v1::EndpointSlice>(),
    Kind::of::<events::v1::Event>(),
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
