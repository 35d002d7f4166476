//! Removes unused images when the disk fills: from 85 % until 80 %, the longest unused first, as the kubelet does. Images in
//! use, imported by hand, or used in the last two minutes stay.

use std::{path::PathBuf, sync::Arc, time::Duration};

use coracle_agent_core::Workload;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::machine;

/// Time between two looks at the disk.
const LOOK: Duration = Duration::from_secs(300);
/// `imageGCHighThresholdPercent` and `imageGCLowThresholdPercent`.
const THRESHOLDS: (u64, u64) = (85, 80);
/// `imageMinimumGCAge`.
const MINIMUM_AGE: SignedDuration = SignedDuration::from_mins(2);

/// Collects until told to stop.
pub(crate) async fn run(runtime: Arc<dyn Workload>, data_dir: PathBuf, stop: CancellationToken) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        let Some((total, free)) = machine::disk(&data_dir) else { continue };
        let excess = excess_bytes(total, free);
        if excess > 0 {
            collect(&*runtime, excess).await;
        }
    }
}

/// Bytes to free; 0 below the high threshold.
fn excess_bytes(total: u64, free: u64) -> u64 {
    let used = total.saturating_sub(free);
    let share = |percent: u64| u64::try_from(u128::from(total) * u128::from(percent) / 100).unwrap_or(u64::MAX);
    if used < share(THRESHOLDS.0) { 0 } else { used - share(THRESHOLDS.1) }
}

async fn collect(runtime: &dyn Workload, wanted: u64) {
    let mut images = runtime.images().await.unwrap_or_default();
    let now = Timestamp::now();
    images.retain(|image| !image.pinned && image.last_used.is_none_or(|used| now.duration_since(used) >= MINIMUM_AGE));
    images.sort_by_key(|image| image.last_used);
    let mut freed = 0;
    for image in images {
        if freed >= wanted {
            return;
        }
        match runtime.remove_image(&image.image_id).await {
            Ok(bytes) => {
                tracing::info!(image = image.image_id, bytes, "an unused image was removed: the disk is filling");
                freed += bytes;
            }
            Err(error) => tracing::debug!(%error, image = image.image_id, "an image stays"),
        }
    }
    if freed < wanted {
        tracing::warn!(wanted, freed, "the disk is filling and no unused image is left to remove");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_freed_below_the_high_threshold() {
        assert_eq!(excess_bytes(1000, 200), 0);
        assert_eq!(excess_bytes(1000, 150), 50);
        assert_eq!(excess_bytes(1000, 0), 200);
    }
}
