//! Times of single operations and what is said of them. All values are kept: a run has at most some millions.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Recorded times, in the order they came.
#[derive(Debug, Default, Clone)]
pub(crate) struct Latencies {
    nanos: Vec<u64>,
}

/// What a report says of many times, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

impl Latencies {
    pub(crate) fn with_capacity(count: usize) -> Self {
        Self { nanos: Vec::with_capacity(count) }
    }

    pub(crate) fn record(&mut self, took: Duration) {
        self.nanos.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.nanos.extend(other.nanos);
    }

    pub(crate) fn len(&self) -> usize {
        self.nanos.len()
    }

    /// Nearest-rank percentiles; `None` when nothing was recorded.
    pub(crate) fn summary(&self) -> Option<Summary> {
        let mut sorted = self.nanos.clone();
        sorted.sort_unstable();
        Some(Summary { p50_ms: rank(&sorted, 50)?, p99_ms: rank(&sorted, 99)?, max_ms: rank(&sorted, 100)? })
    }
}

/// The smallest value that `percent` of all values do not exceed, in milliseconds.
fn rank(sorted: &[u64], percent: usize) -> Option<f64> {
    let position = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(position - 1).map(|nanos| Duration::from_nanos(*nanos).as_secs_f64() * 1e3)
}

/// When each of many operations began, noted by one task and read by others.
#[derive(Debug)]
pub(crate) struct Stamps {
    base: Instant,
    /// Nanoseconds since `base`; [`NEVER`] before the operation began.
    nanos: Box<[AtomicU64]>,
}

/// Not begun.
const NEVER: u64 = u64::MAX;

impl Stamps {
    pub(crate) fn new(count: usize) -> Self {
        Self { base: Instant::now(), nanos: (0..count).map(|_| AtomicU64::new(NEVER)).collect() }
    }

    pub(crate) fn len(&self) -> usize {
        self.nanos.len()
    }

    /// Notes that an operation begins now.
    pub(crate) fn mark(&self, number: usize) {
        let since = u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(NEVER - 1);
        self.nanos[number].store(since, Ordering::Relaxed);
    }

    /// The time since an operation began; `None` for one that did not.
    pub(crate) fn since(&self, number: usize) -> Option<Duration> {
        let begun = self.nanos.get(number)?.load(Ordering::Relaxed);
        (begun != NEVER).then(|| self.base.elapsed().saturating_sub(Duration::from_nanos(begun)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(millis: impl IntoIterator<Item = u64>) -> Latencies {
        let mut all = Latencies::default();
        millis.into_iter().for_each(|ms| all.record(Duration::from_millis(ms)));
        all
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let check = |millis: Vec<u64>, expect: Option<(f64, f64, f64)>| {
            let summary = of(millis).summary().map(|s| (s.p50_ms, s.p99_ms, s.max_ms));
            assert_eq!(summary, expect);
        };
        check(vec![], None);
        check(vec![7], Some((7.0, 7.0, 7.0)));
        check(vec![3, 1], Some((1.0, 3.0, 3.0)));
        check((1..=100).rev().collect(), Some((50.0, 99.0, 100.0)));
        check((1..=1000).collect(), Some((500.0, 990.0, 1000.0)));
        check((1..=101).collect(), Some((51.0, 100.0, 101.0)));
    }

    #[test]
    fn merged_times_count_once_each() {
        let mut all = of([1, 2]);
        all.merge(of([3]));
        assert_eq!(all.len(), 3);
        assert_eq!(all.summary().unwrap().p50_ms, 2.0);
    }

    #[test]
    fn only_what_began_has_an_age() {
        let stamps = Stamps::new(2);
        stamps.mark(1);
        assert_eq!(stamps.since(0), None);
        assert!(stamps.since(1).is_some());
        assert_eq!(stamps.since(2), None);
    }
}
