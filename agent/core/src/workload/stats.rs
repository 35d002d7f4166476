//! What runtimes measure of the pods they run: counters and sizes as they are, no rates.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{PodUid, WorkloadError};

/// Resource use of all pods of a runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The pods of which something runs, and others that the runtime knows.
    pub pods: BTreeMap<PodUid, PodStats>,
    /// Why some pods are missing.
    pub problem: Option<WorkloadError>,
}

/// Resource use of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodStats {
    /// By container name; running ones only.
    pub containers: BTreeMap<String, ContainerStats>,
    /// The runtime's name for the pod's network, where it has one of its own: what the runtime calls its network plugin with.
    pub sandbox_id: Option<String>,
}

/// Resource use of one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerStats {
    /// When the counter of CPU time was read.
    pub at: Timestamp,
    /// CPU time since its start.
    pub cpu_nanoseconds: u64,
    /// Its memory.
    pub memory: MemoryStats,
    /// What it has written to its own layer; `None` if the runtime does not say.
    pub root_fs: Option<DiskUse>,
}

/// Memory of one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// All of it, file caches too.
    pub usage_bytes: u64,
    /// What cannot be taken back at once.
    pub working_set_bytes: u64,
    /// Anonymous memory; `None` if the runtime does not say, as for the others.
    pub rss_bytes: Option<u64>,
    /// Page faults since its start.
    pub page_faults: Option<u64>,
    /// Those for which a disk was read.
    pub major_page_faults: Option<u64>,
}

/// Room that files take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUse {
    /// Bytes on disk.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

impl std::ops::AddAssign for DiskUse {
    fn add_assign(&mut self, more: Self) {
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.inodes = self.inodes.saturating_add(more.inodes);
    }
}
