//! pure: what the Kubernetes API is, apart from any server: kinds with their defaults, validation, update rules and
//! printed columns; metadata, selectors, quantities, patches, and errors.
//!
//! Semantics are those of Kubernetes v1.36; the types are `k8s-openapi`'s. Nothing here reads a clock, a file or a socket.

pub mod duration;
pub mod kind;
pub mod kinds;
pub mod managed;
pub mod metrics;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod selector;
pub mod status;
pub mod strict;
pub mod table;
pub mod validation;

pub use kind::{Kind, Object, Resource};
pub use kinds::KINDS;
pub use status::ApiError;
