//! shell: the WebAssembly engine: compiles components at low priority, keeps their compiled form on disk, shares one
//! compiled component among all who run it, bounds memory and CPU time. It knows no host interface, no pod and no image.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod budget;
mod busy;
mod cache;
mod compile;
mod config;
mod error;
mod meter;
mod registry;
mod runtime;
mod ticker;

pub use budget::{MemoryBudget, MemoryLimitExceeded, StoreLimiter};
pub use cache::{CacheLimits, CompiledCache};
pub use config::{EngineOptions, Engines, Tier};
pub use error::EngineError;
pub use meter::{CpuAccount, CpuQuota, Metered, note_interruption};
pub use registry::{ComponentDigest, Registry, Shared};
pub use runtime::GuestRuntime;
