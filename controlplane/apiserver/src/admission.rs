//! Admission: what the cluster adds to a request and what it refuses, after authorization and before validation.
//!
//! Plugins run in the order of one table. A plugin may add operations that commit in one transaction with the object (an
//! allocated address, a quota's new count), so that a crash or a rival never sees one without the other.

pub mod namespace_lifecycle;
pub mod node_restriction;
pub mod pod_defaults;
pub mod service_addresses;

use coracle_api::ApiError;
use coracle_api::kind::{Object, Subresource};
use coracle_store::Op;
use jiff::Timestamp;

use crate::api::ApiServer;
use crate::auth::User;
use crate::registry::Served;

/// What is done to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It is made.
    Create,
    /// It is changed.
    Update,
    /// It is removed for good, or begins to be.
    Delete,
}

/// A request as plugins see it.
pub struct Review<'a> {
    /// The server, for its store and its kinds. Reads are from memory.
    pub api: &'a ApiServer,
    /// Who asks.
    pub user: &'a User,
    /// The kind.
    pub served: &'a Served,
    /// The namespace, empty in the cluster's scope.
    pub namespace: &'a str,
    /// The object's name; empty while it is to be generated.
    pub name: &'a str,
    /// What is done.
    pub operation: Operation,
    /// The subresource it is done through.
    pub subresource: Option<Subresource>,
    /// The object as it is to be; the last state for a deletion.
    pub object: &'a mut dyn Object,
    /// The object as it was.
    pub old: Option<&'a dyn Object>,
    /// Nothing will be written.
    pub dry_run: bool,
    /// The time of the request.
    pub now: Timestamp,
    /// Operations that must commit together with the object.
    pub effects: Vec<Op>,
}

impl Review<'_> {
    /// A 403 about this object.
    #[must_use]
    pub fn forbid(&self, why: &str) -> ApiError {
        ApiError::forbidden(self.served.kind.resource(), self.name, why)
    }
}

/// One rule of admission.
pub trait Plugin: Send + Sync {
    /// Its name, as in `--enable-admission-plugins` of Kubernetes.
    fn name(&self) -> &'static str;

    /// Adds to the object, or refuses it.
    ///
    /// # Errors
    /// The request is refused.
    fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError>;
}

/// The plugins in their order.
#[derive(Default)]
pub struct Chain(Vec<Box<dyn Plugin>>);

impl Chain {
    /// A chain of plugins.
    #[must_use]
    pub fn new(plugins: Vec<Box<dyn Plugin>>) -> Self {
        Self(plugins)
    }

    /// Runs all of them.
    ///
    /// # Errors
    /// The first refusal.
    pub fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        self.0.iter().try_for_each(|plugin| plugin.admit(review))
    }
}
