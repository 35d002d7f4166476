//! pure: the controllers of Kubernetes v1.36 as functions from what is observed to what should be written.
//!
//! A controller reads a [`Cache`] and gives back a [`Plan`]: plain data that somebody else carries out. It never does I/O,
//! reads no clock, holds no state between two runs, and never learns what triggered it. To add one: a file, a row in
//! [`CONTROLLERS`], a test.

mod backends;
mod cache;
mod config;
mod deployment;
mod disruption;
mod endpoint_mirror;
mod endpoint_slice;
mod endpoints;
mod event_ttl;
mod garbage;
mod ip_addresses;
mod meta;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod object;
mod plan;
mod pod_gc;
mod pods;
mod replica_set;
mod replicas;
mod replication_controller;
mod resource_quota;
mod root_ca;
mod service_account;
mod slices;
mod table;
mod taint_eviction;

#[cfg(test)]
mod model;

pub use cache::{Cache, Identity, Lookup};
pub use config::Config;
pub use object::{Kind, KindVisitor, Object, Resource, Scope, Typed};
pub use plan::{
    Action, FailedVerb, Failure, Note, NoteType, Pace, Plan, Preconditions, Propagation, Step, Subresource, Target,
};
pub use table::{CONTROLLERS, Change, Context, Controller, IdentityChange, Key, Watch};
