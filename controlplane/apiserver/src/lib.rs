//! shell: the Kubernetes API over HTTP. Routes, discovery and OpenAPI follow from the table of kinds; handlers know no kind.
//!
//! Every write of anyone passes [`ApiServer::handle`]: authentication, authorization, defaults, admission, validation, store.

pub mod admission;
mod ambient;
mod api;
mod aside;
pub mod auth;
mod body;
mod compress;
mod discovery;
mod door;
mod fields;
mod handlers;
pub mod listen;
mod meta;
mod metrics;
mod nodes;
mod options;
pub mod pki;
mod pods;
mod pretty;
mod registry;
mod render;
mod request;
mod sessions;
mod turns;
mod usage;
mod wire;
mod writes;

pub use ambient::{Ambient, Clock};
pub use api::{ApiServer, Caller, Parts};
pub use body::{Body, StreamError};
pub use discovery::{KUBERNETES_VERSION, arch};
pub use door::Door;
pub use nodes::{Connected, NodeError, NodeProxy};
pub use registry::{Registry, Served, Stored};
pub use request::{Query, ResourcePath, Target, Verb};
pub use usage::{Figures, PodFigures, Span, Use};
