//! pure: the node agent's decisions. One state machine per pod turns what is declared and what was observed into
//! commands for a runtime, probes, events and a status. It never opens a file or a socket, never reads a clock, and never
//! spawns: the shell (`agent/node`) feeds it and carries out what it says.

pub mod admission;
pub mod agent;
pub mod backoff;
pub mod credentials;
pub mod effect;
pub mod env;
pub mod event;
pub mod expand;
pub mod field;
pub mod image_gc;
mod pod;
pub mod record;
pub mod resources;
pub mod storage;
pub mod time;
pub mod volume;
pub mod workload;

pub use agent::Agent;
pub use effect::{Effect, NodeFacts};
pub use time::Now;
pub use workload::{Command, PodUid, Report, Workload};
