//! shell: runs pods' containers as WebAssembly components in the agent's own process: the [`Workload`] port of `agent/core`
//! over the runtime crates. It decides nothing: what starts, stops and is tried again comes as commands.
//!
//! [`Workload`]: coracle_agent_core::workload::Workload

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod attach;
mod container;
mod exit;
mod image;
mod log;
mod mounts;
mod open_files;
mod reporter;
mod resolver;
mod spec;
mod workload;

pub use log::LogLimits;
pub use resolver::{ClusterNames, ClusterResolver, Name, NodeResolver, PodResolver};
pub use spec::INSTANCES_ANNOTATION;
pub use workload::{STAGED, WasmConfig, WasmError, WasmWorkload};
