//! What can go wrong in the engine, by what the caller can do about it.

use std::{io, path::PathBuf};

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The machine cannot give what the engine needs; nothing will run.
    #[error("cannot make the WebAssembly engine: {0:#}")]
    Engine(wasmtime::Error),
    /// The component is invalid or uses what the engine does not have; trying again is useless.
    #[error("cannot compile the component: {0:#}")]
    Compile(wasmtime::Error),
    /// The component is valid but does not fit what this host offers (an import it lacks, a size beyond its limits).
    #[error("{0:#}")]
    Link(wasmtime::Error),
    /// The component's file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A thread or a directory could not be made.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The compiler gave up without a result.
    #[error("the compiler stopped: {0}")]
    CompilerStopped(String),
}
