//! shell: runs pods' containers through a container runtime that speaks CRI v1 (containerd, CRI-O) over a unix socket: the
//! [`Workload`] port of `agent/core`. It decides nothing: what starts, stops and is tried again comes as commands.
//!
//! [`Workload`]: coracle_agent_core::workload::Workload

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod adopt;
mod connection;
mod container;
mod content;
mod cri;
mod events;
mod exit;
mod hosts;
mod image;
mod import;
mod labels;
mod network;
mod own_pull;
mod sandbox;
mod spec;
mod stats;
mod stream;
mod user;
mod workload;

pub use connection::ConnectError;
pub use import::ImportError;
pub use network::RuntimeNetwork;
pub use workload::{ContainerdConfig, ContainerdWorkload, ImagesOnDisk, StoredImages};
