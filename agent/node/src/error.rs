//! What keeps an agent from starting, and what ends it. Everything else is retried or told in an Event.

use std::{io, path::PathBuf};

use coracle_agent_wasm::WasmError;

/// Why an agent cannot start, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A directory cannot be made or used.
    #[error("cannot use {path}: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The agent's own records cannot be read.
    #[error(
        "the agent's database {path} cannot be used: {source}; stop the agent and move the file away to start without it"
    )]
    Database {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The Wasm runtime does not start.
    #[error("the Wasm runtime cannot start: {0}")]
    Wasm(#[from] WasmError),
    /// The loop that looks after pods has failed.
    #[error("the agent's event loop has failed: {0}")]
    Failed(String),
    /// The runtimes cannot say what they have.
    #[error("a runtime cannot be asked what it runs: {0}")]
    Runtime(#[from] coracle_agent_core::workload::WorkloadError),
}
