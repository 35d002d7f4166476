//! Whether the agent's loop still goes round: whoever says that the node is well looks here first, since a node whose loop
//! has stopped starts and stops no pod, however healthy its machine is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// How often the loop goes round at least.
pub(crate) const BEAT: Duration = Duration::from_secs(10);
/// A loop that was silent for so long has stopped. The kubelet gives its own loop three minutes, for its runtime may be slow;
/// nothing in this one waits.
const STOPPED_AFTER: Duration = Duration::from_secs(60);
/// The mark of a loop that has ended.
const ENDED: u64 = u64::MAX;

/// The beats of one loop. All clones are of the same.
#[derive(Clone, Debug)]
pub(crate) struct Beat {
    start: Instant,
    last_millis: Arc<AtomicU64>,
}

impl Beat {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), last_millis: Arc::default() }
    }

    /// The loop goes round.
    pub(crate) fn beat(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(ENDED - 1);
        self.last_millis.store(millis, Ordering::Relaxed);
    }

    /// The loop has ended and will not come back.
    pub(crate) fn end(&self) {
        self.last_millis.store(ENDED, Ordering::Relaxed);
    }

    /// What is wrong with the loop, in the kubelet's manner.
    pub(crate) fn problem(&self) -> Option<String> {
        self.problem_after(self.start.elapsed())
    }

    fn problem_after(&self, elapsed: Duration) -> Option<String> {
        let last = self.last_millis.load(Ordering::Relaxed);
        if last == ENDED {
            return Some("the agent's event loop has ended".to_owned());
        }
        let silent = elapsed.saturating_sub(Duration::from_millis(last));
        (silent > STOPPED_AFTER).then(|| {
            let (silent, limit) = (silent.as_secs(), STOPPED_AFTER.as_secs());
            format!("the agent's event loop was last seen active {silent}s ago; threshold is {limit}s")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_is_silent_or_has_ended_is_told() {
        let (beat, second) = (Beat::new(), Duration::from_secs(1));
        assert_eq!(beat.problem_after(STOPPED_AFTER), None);
        let silent = "the agent's event loop was last seen active 62s ago; threshold is 60s";
        assert_eq!(beat.problem_after(STOPPED_AFTER + second * 2).as_deref(), Some(silent));
        beat.last_millis.store(10_000, Ordering::Relaxed);
        assert_eq!(beat.problem_after(STOPPED_AFTER + second * 2), None);
        beat.clone().beat();
        assert_eq!(beat.problem(), None);
        beat.end();
        assert_eq!(beat.problem().as_deref(), Some("the agent's event loop has ended"));
    }
}
