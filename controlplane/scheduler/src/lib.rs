//! pure: Kubernetes' scheduler as a function from a snapshot of the cluster to a placement, with the queue that says which
//! pod is next. It does no I/O, reads no clock and holds no lock; time and randomness are passed in, and somebody else
//! carries out what it decides.

pub mod affinity;
pub mod diagnosis;
pub mod event;
pub mod filter;
pub mod ids;
pub mod labels;
pub mod node;
pub mod node_selector;
pub mod pod;
pub mod preempt;
pub mod profile;
pub mod queue;
pub mod resources;
pub mod schedule;
pub mod scheduler;
pub mod score;
pub mod snapshot;
pub mod spread;
pub mod taint;
#[cfg(test)]
mod testing;

pub use diagnosis::{Reason, Unschedulable};
pub use ids::{NodeName, PodRef, Uid};
pub use node::NodeInfo;
pub use pod::PodInfo;
pub use preempt::{Budget, Preemption, preempt};
pub use profile::{Profile, ProfileError, Sampling};
pub use schedule::{Cursor, Placement, schedule};
pub use scheduler::{Change, Decision, Nomination, Scheduler};
pub use snapshot::Snapshot;
