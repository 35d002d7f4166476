//! A node as the scheduler sees it, parsed once from the API's type, and what changed between two versions of it.

use k8s_openapi::api::core::v1 as core;

use crate::ids::NodeName;
use crate::labels::Labels;
use crate::resources::Resources;
use crate::spread::{REGION, ZONE};
use crate::taint::Taint;

/// An image that a node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeImage {
    /// Its names.
    pub names: Box<[Box<str>]>,
    /// Its size in bytes.
    pub size: i64,
}

/// A node, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name.
    pub name: NodeName,
    /// Its labels.
    pub labels: Labels,
    /// Its taints.
    pub taints: Box<[Taint]>,
    /// `spec.unschedulable`: cordoned.
    pub cordoned: bool,
    /// What pods may use in total.
    pub allocatable: Resources,
    /// How many pods it takes.
    pub allowed_pods: i64,
    /// The images it holds.
    pub images: Box<[NodeImage]>,
}

/// Which parts of a node changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeChanges {
    /// The node is new.
    pub added: bool,
    /// Its labels changed.
    pub labels: bool,
    /// Its taints or `spec.unschedulable` changed.
    pub taints: bool,
    /// What it offers changed.
    pub allocatable: bool,
    /// Its images changed; no waiting pod cares.
    pub images: bool,
}

impl NodeInfo {
    /// Parses a node.
    pub fn parse(node: &core::Node) -> Self {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let (allocatable, allowed_pods) = Resources::allocatable(status.and_then(|s| s.allocatable.as_ref()));
        Self {
            name: node.metadata.name.as_deref().unwrap_or_default().into(),
            labels: Labels::from_map(node.metadata.labels.as_ref()),
            taints: spec
                .and_then(|s| s.taints.as_deref())
                .unwrap_or_default()
                .iter()
                .filter_map(Taint::parse)
                .collect(),
            cordoned: spec.and_then(|s| s.unschedulable).unwrap_or(false),
            allocatable,
            allowed_pods,
            images: status
                .and_then(|s| s.images.as_deref())
                .unwrap_or_default()
                .iter()
                .map(|image| NodeImage {
                    names: image.names.iter().flatten().map(|n| n.as_str().into()).collect(),
                    size: image.size_bytes.unwrap_or(0),
                })
                .collect(),
        }
    }

    /// What differs from an earlier version.
    pub fn changes_since(&self, before: &Self) -> NodeChanges {
        NodeChanges {
            added: false,
            labels: self.labels != before.labels,
            taints: self.taints != before.taints || self.cordoned != before.cordoned,
            allocatable: self.allocatable != before.allocatable || self.allowed_pods != before.allowed_pods,
            images: self.images != before.images,
        }
    }

    /// Region and zone, by which nodes take turns in being looked at.
    pub(crate) fn zone(&self) -> (&str, &str) {
        (self.labels.get(REGION).unwrap_or_default(), self.labels.get(ZONE).unwrap_or_default())
    }
}
