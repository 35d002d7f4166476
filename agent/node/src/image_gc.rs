//! Removes unused images of both sorts when the disk they are on fills, and says on the node what cannot be removed, as the
//! kubelet does. Which ones go is decided in `agent/core`.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::MetadataExt,
    path::Path,
    time::Duration,
};

use coracle_agent_containerd::StoredImages;
use coracle_agent_core::{
    image_gc::{ImageGcPolicy, ImageUse},
    workload::{ImageInfo, Workload, WorkloadError},
};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{machine, node_events::NodeEvents, runtimes::Runtimes};

/// Time between two looks at the disk: the kubelet's `ImageGCPeriod`.
const LOOK: Duration = Duration::from_secs(300);
/// Shortest time between two looks, when images are about to be old enough.
const LOOK_SOON: Duration = Duration::from_secs(1);

/// The collector of a node's images.
pub(crate) struct Collector {
    runtimes: Runtimes,
    policy: ImageGcPolicy,
    events: NodeEvents,
    known: ImageUse,
    began: Instant,
    /// Whether the last look ended with an error: one alone may be a runtime that is just starting.
    failed: bool,
}

/// Why the disk is as full as before.
#[derive(Debug, thiserror::Error)]
enum GcError {
    #[error("the images cannot be listed: {0}")]
    Runtime(#[from] WorkloadError),
    #[error("invalid capacity 0 on image filesystem")]
    Capacity,
    #[error(
        "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found {found} bytes eligible to free."
    )]
    TooLittle { wanted: u64, found: u64 },
    #[error("wanted to free {wanted} bytes, but freed {freed} bytes space with errors in image deletion: {errors}")]
    Removal { wanted: u64, freed: u64, errors: String },
}

/// The images of one file system.
#[derive(Default)]
struct Disk<'a> {
    images: Vec<&'a ImageInfo>,
    directory: Option<&'a Path>,
}

impl Collector {
    pub(crate) fn new(runtimes: Runtimes, policy: ImageGcPolicy, events: NodeEvents) -> Self {
        Self { runtimes, policy, events, known: ImageUse::default(), began: Instant::now(), failed: false }
    }

    /// Collects until told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(next) => {}
            }
            let ripe = tokio::select! {
                () = stop.cancelled() => return,
                ripe = self.look() => ripe,
            };
            let now = Instant::now();
            let soon = ripe.map(|at| (self.began + at).max(now + LOOK_SOON));
            next = soon.map_or(now + LOOK, |soon| soon.min(now + LOOK));
        }
    }

    /// Looks at the disks, and says what went wrong. Answers when an image will be old enough that is wanted gone.
    async fn look(&mut self) -> Option<Duration> {
        let (errors, ripe) = match self.collect().await {
            Ok(found) => found,
            Err(error) => (vec![error], None),
        };
        for error in &errors {
            let words = error.to_string();
            match error {
                GcError::TooLittle { .. } => self.events.warn("FreeDiskSpaceFailed", &words).await,
                GcError::Capacity => self.events.warn("InvalidDiskCapacity", &words).await,
                GcError::Runtime(_) | GcError::Removal { .. } => {}
            }
            tracing::warn!(%error, "images were not collected");
            // The kubelet says it from the second time on.
            if self.failed {
                self.events.warn("ImageGCFailed", &words).await;
            }
        }
        self.failed = !errors.is_empty();
        ripe
    }

    /// Collects on each disk; what went wrong on any of them, and when the next image will be old enough.
    async fn collect(&mut self) -> Result<(Vec<GcError>, Option<Duration>), GcError> {
        let stored = self.runtimes.stored_images().await?;
        let images: Vec<ImageInfo> = stored.iter().flat_map(|stored| &stored.images).cloned().collect();
        let in_use: BTreeSet<String> = stored.iter().flat_map(|stored| &stored.in_use).cloned().collect();
        let now = self.began.elapsed();
        self.known.note(now, &images, &in_use);
        let (mut errors, mut ripe) = (Vec::new(), None::<Duration>);
        for disk in disks(&stored).into_values() {
            let candidates = self.known.candidates(now, &disk.images, self.policy.minimum_age);
            if let Err(error) = self.collect_on(&disk, &candidates.ids).await {
                ripe = ripe.into_iter().chain(candidates.next_at).min();
                errors.push(error);
            }
        }
        Ok((errors, ripe))
    }

    async fn collect_on(&self, disk: &Disk<'_>, candidates: &[String]) -> Result<(), GcError> {
        let (total, free) = disk.directory.and_then(machine::disk).unwrap_or_default();
        if total == 0 {
            return Err(GcError::Capacity);
        }
        let wanted = self.policy.thresholds.excess_bytes(total, free);
        let (mut freed, mut errors) = (0, Vec::new());
        for id in candidates {
            if freed >= wanted {
                break;
            }
            match self.runtimes.remove_image(id).await {
                Ok(bytes) => {
                    tracing::info!(image = id, bytes, "an unused image was removed: the disk is filling");
                    freed += bytes;
                }
                // A pod has come to use it since.
                Err(WorkloadError::ImageInUse(_)) => {}
                Err(error) => errors.push(format!("{id}: {error}")),
            }
        }
        match (errors.is_empty(), freed >= wanted) {
            (false, _) => Err(GcError::Removal { wanted, freed, errors: errors.join(", ") }),
            (true, false) => Err(GcError::TooLittle { wanted, found: freed }),
            (true, true) => Ok(()),
        }
    }
}

/// The images by the file system they are on: those of two runtimes may share one.
fn disks(stored: &[StoredImages]) -> BTreeMap<u64, Disk<'_>> {
    let mut disks: BTreeMap<u64, Disk<'_>> = BTreeMap::new();
    for stored in stored {
        // One that cannot be looked at has no capacity, and is told so.
        let device = std::fs::metadata(&stored.directory).map_or(0, |metadata| metadata.dev());
        let disk = disks.entry(device).or_default();
        disk.images.extend(&stored.images);
        disk.directory.get_or_insert(&stored.directory);
    }
    disks
}
