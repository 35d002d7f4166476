//! Admission: what the cluster adds to a request and what it refuses, after authorization and before validation.
//!
//! Plugins run in the order of one table. A plugin may add operations that commit in one transaction with the object (an
//! allocated address, a quota's new count), so that a crash or a rival never sees one without the other.

pub mod certificate_requests;
pub mod limit_ranger;
pub mod namespace_lifecycle;
pub mod node_restriction;
pub mod pod_defaults;
pub mod resource_quota;
pub mod service_addresses;

use std::ops::Deref;

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

/// What a request is about, as plugins see it.
#[derive(Clone, Copy)]
pub struct About<'a> {
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
    /// The object as it was.
    pub old: Option<&'a dyn Object>,
    /// Nothing will be written.
    pub dry_run: bool,
    /// The time of the request.
    pub now: Timestamp,
}

/// A request under review.
pub struct Review<'a> {
    about: About<'a>,
    object: &'a mut dyn Object,
    change: Change,
    /// Operations that must commit together with the object.
    pub effects: Vec<Op>,
}

/// Whether plugins had their hands on the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is as it came.
    None,
    /// It may have changed.
    Possible,
}

/// What came of a review.
#[derive(Debug)]
pub struct Outcome {
    /// Operations that must commit together with the object.
    pub effects: Vec<Op>,
    /// Whether the object may have changed.
    pub change: Change,
}

impl<'a> Deref for Review<'a> {
    type Target = About<'a>;

    fn deref(&self) -> &About<'a> {
        &self.about
    }
}

impl<'a> Review<'a> {
    /// The review of an object as it is to be; of its last state for a deletion.
    #[must_use]
    pub fn new(about: About<'a>, object: &'a mut dyn Object) -> Self {
        Self { about, object, change: Change::None, effects: Vec::new() }
    }

    /// The object.
    #[must_use]
    pub fn object(&self) -> &dyn Object {
        self.object
    }

    /// The object, to change. Ask for it only to do so: what may have changed is encoded once more.
    pub fn object_mut(&mut self) -> &mut dyn Object {
        self.change = Change::Possible;
        self.object
    }

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
    pub fn admit(&self, mut review: Review<'_>) -> Result<Outcome, ApiError> {
        self.0.iter().try_for_each(|plugin| plugin.admit(&mut review))?;
        Ok(Outcome { effects: review.effects, change: review.change })
    }
}
