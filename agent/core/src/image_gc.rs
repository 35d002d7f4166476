//! Which unused images go when the disk fills, as the kubelet's image collector chooses
//! (`pkg/kubelet/images/image_gc_manager.go`): the longest unused first, none that is in use or too young. It removes nothing
//! and reads no disk.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use crate::workload::ImageInfo;

/// `imageGCHighThresholdPercent` and `imageGCLowThresholdPercent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// The share of the disk from which on images are removed.
    pub high_percent: u8,
    /// The share to which they are.
    pub low_percent: u8,
}

/// When images are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageGcPolicy {
    /// Between which shares of the disk.
    pub thresholds: Thresholds,
    /// `imageMinimumGCAge`: an image that was just pulled may be about to be used.
    pub minimum_age: Duration,
}

impl Default for ImageGcPolicy {
    /// The kubelet's: 85 %, 80 %, two minutes.
    fn default() -> Self {
        Self { thresholds: Thresholds { high_percent: 85, low_percent: 80 }, minimum_age: Duration::from_secs(120) }
    }
}

impl Thresholds {
    /// Whether they can be kept to.
    ///
    /// # Errors
    /// In the kubelet's words.
    pub fn check(self) -> Result<(), String> {
        let Self { high_percent: high, low_percent: low } = self;
        match (high, low) {
            (101.., _) => Err(format!("invalid HighThresholdPercent {high}, must be in range [0-100]")),
            (_, 101..) => Err(format!("invalid LowThresholdPercent {low}, must be in range [0-100]")),
            _ if low > high => {
                Err(format!("LowThresholdPercent {low} can not be higher than HighThresholdPercent {high}"))
            }
            _ => Ok(()),
        }
    }

    /// Bytes to free of a file system; 0 below the high threshold. The percentage is counted as the kubelet does.
    pub fn excess_bytes(self, total: u64, free: u64) -> u64 {
        let (total, free) = (u128::from(total), u128::from(free.min(total)));
        if total == 0 || 100 - free * 100 / total < u128::from(self.high_percent) {
            return 0;
        }
        let wanted_free = total * 100_u128.saturating_sub(self.low_percent.into()) / 100;
        u64::try_from(wanted_free.saturating_sub(free)).unwrap_or(u64::MAX)
    }
}

/// What is remembered of the images of a node, since no runtime tells it.
#[derive(Debug, Default)]
pub struct ImageUse {
    seen: HashMap<String, Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    first: Duration,
    /// When it was last seen in use.
    used: Option<Duration>,
}

/// What may be removed of the images of a file system.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// Ids in the order in which they go.
    pub ids: Vec<String>,
    /// When the next one will be old enough, on the clock of the call.
    pub next_at: Option<Duration>,
}

impl ImageUse {
    /// Takes in what images there are and which of them containers are made of, at a time of a clock that is never set.
    pub fn note(&mut self, now: Duration, images: &[ImageInfo], in_use: &BTreeSet<String>) {
        let there: BTreeSet<&str> = images.iter().map(|image| image.image_id.as_str()).collect();
        self.seen.retain(|id, _| there.contains(id.as_str()));
        for image in images {
            let seen = self.seen.entry(image.image_id.clone()).or_insert(Seen { first: now, used: None });
            if in_use.contains(&image.image_id) {
                seen.used = Some(now);
            }
        }
    }

    /// Which of these images may go, as far as was noted at this time.
    pub fn candidates(&self, now: Duration, images: &[&ImageInfo], minimum_age: Duration) -> Candidates {
        let mut found = Candidates::default();
        let mut old: Vec<(Option<Duration>, Duration, &str)> = Vec::new();
        for image in images.iter().filter(|image| !image.pinned) {
            let Some(seen) = self.seen.get(&image.image_id) else { continue };
            if seen.used.is_some_and(|used| used >= now) {
                continue;
            }
            let ripe_at = seen.first + minimum_age;
            if ripe_at <= now {
                old.push((seen.used, seen.first, &image.image_id));
            } else {
                found.next_at = Some(found.next_at.map_or(ripe_at, |next| next.min(ripe_at)));
            }
        }
        old.sort_unstable();
        found.ids = old.into_iter().map(|(_, _, id)| id.to_owned()).collect();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, pinned: bool) -> ImageInfo {
        ImageInfo { image_id: id.into(), names: Vec::new(), size_bytes: 1, pinned }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn used(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn nothing_is_freed_below_the_high_threshold() {
        let usual = ImageGcPolicy::default().thresholds;
        for (total, free, wanted) in
            [(1000, 200, 0), (1000, 160, 0), (1000, 150, 50), (1000, 0, 200), (1000, 2000, 0), (0, 0, 0)]
        {
            assert_eq!(usual.excess_bytes(total, free), wanted, "{free} of {total} free");
        }
        assert_eq!(usual.excess_bytes(1000, 159), 41, "84.1 % are 85 % of whole ones");
        assert_eq!(Thresholds { high_percent: 1, low_percent: 0 }.excess_bytes(1000, 990), 10);
    }

    #[test]
    fn thresholds_are_two_percentages_the_lower_last() {
        let check = |high_percent, low_percent| Thresholds { high_percent, low_percent }.check();
        assert_eq!((check(85, 80), check(1, 1), check(100, 0)), (Ok(()), Ok(()), Ok(())));
        for (high, low, words) in
            [(101, 0, "HighThresholdPercent 101,"), (0, 200, "LowThresholdPercent 200,"), (80, 85, "can not be higher")]
        {
            assert!(check(high, low).unwrap_err().contains(words), "{high} {low}");
        }
    }

    #[test]
    fn the_longest_unused_go_first_and_none_that_is_used_pinned_or_young() {
        let mut known = ImageUse::default();
        let mut images: Vec<ImageInfo> = ["a", "b", "c", "d"].map(|id| image(id, false)).into();
        images.push(image("e", true));
        known.note(seconds(0), &images, &used(&["b"]));
        known.note(seconds(100), &images, &used(&["c"]));
        images.push(image("young", false));
        images.push(image("younger", false));
        known.note(seconds(150), &images[..6], &used(&["c", "d"]));
        known.note(seconds(200), &images, &used(&["d"]));
        let all: Vec<&ImageInfo> = images.iter().collect();
        let found = known.candidates(seconds(200), &all, seconds(120));
        assert_eq!(found.ids, ["a", "b", "c"], "never used, used at 0, used at 150");
        assert_eq!(found.next_at, Some(seconds(270)));
        let only = known.candidates(seconds(200), &all[1..2], seconds(120));
        assert_eq!(only, Candidates { ids: vec!["b".into()], next_at: None });
    }

    #[test]
    fn what_has_gone_and_come_again_is_young() {
        let mut known = ImageUse::default();
        let images = [image("a", false)];
        known.note(seconds(0), &images, &used(&[]));
        known.note(seconds(10), &[], &used(&[]));
        known.note(seconds(500), &images, &used(&[]));
        let found = known.candidates(seconds(500), &[&images[0]], seconds(120));
        assert_eq!(found, Candidates { ids: Vec::new(), next_at: Some(seconds(620)) });
    }
}
