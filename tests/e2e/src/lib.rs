//! shell: a cluster for end-to-end tests: the built program in a network namespace of its own, driven by the real `kubectl`
//! and `curl`. What a test needs and the machine lacks is named in the failure.

mod cluster;
mod command;
mod machine;
mod namespace;
mod oci_image;
mod running;
pub mod streams;
mod tmpfs;

pub use cluster::{Cluster, ROOT};
pub use command::{Output, run};
pub use machine::{BUSYBOX, Machine};
pub use namespace::Namespace;
pub use oci_image::OciImage;
pub use running::Running;
pub use tmpfs::Tmpfs;

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

/// Longest wait for something a pod does.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Checks that all `lines` are among those of `text`, indented or not.
///
/// # Errors
/// One is missing.
pub fn has_lines(text: &str, lines: &[&str]) -> Result<()> {
    for line in lines {
        ensure!(text.lines().any(|known| known.trim() == *line), "{line:?} is missing in:\n{text}");
    }
    Ok(())
}

/// Waits until `check` gives a value; fails with what it said last after `limit`.
///
/// # Errors
/// The condition did not come about in time.
pub fn eventually<T>(limit: Duration, mut check: impl FnMut() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(error) if started.elapsed() > limit => bail!("not within {limit:?}: {error:#}"),
            Err(_) => std::thread::sleep(POLL),
        }
    }
}
