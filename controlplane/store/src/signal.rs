//! Tells waiting readers that there is something new to read, in the order in which they began to wait: from the same
//! calls follows the same order of wake-ups, which a simulation needs to repeat itself. (A `tokio::sync::watch` throws
//! dice to spread its receivers over several lists.) It carries no value and knows nothing of what changed.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// A count of changes, and those who wait for the next one.
pub(crate) struct Signal {
    changes: AtomicU64,
    waiting: Notify,
}

/// How far a [`Signal`] had come when it was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seen(u64);

impl Signal {
    pub(crate) fn new() -> Self {
        Self { changes: AtomicU64::new(0), waiting: Notify::new() }
    }

    /// Where the signal is. To be asked before reading what it speaks of, so that a change in between is not missed.
    pub(crate) fn seen(&self) -> Seen {
        Seen(self.changes.load(Ordering::Acquire))
    }

    /// Wakes everybody who waits. To be called after the change can be read.
    pub(crate) fn raise(&self) {
        // Counted before the wake-up: who asks for it too late for the one finds the other.
        self.changes.fetch_add(1, Ordering::Release);
        self.waiting.notify_waiters();
    }

    /// Waits until the signal has been raised since it was `seen`. Dropping the future loses nothing.
    pub(crate) async fn raised_since(&self, seen: Seen) {
        loop {
            // From here on a wake-up reaches us, even before the first poll.
            let woken = self.waiting.notified();
            if self.seen() != seen {
                return;
            }
            woken.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;
    use futures::stream::{FuturesUnordered, StreamExt};

    use super::*;

    #[test]
    fn a_change_since_the_last_look_is_never_missed() {
        let signal = Signal::new();
        let seen = signal.seen();
        let mut waiting = Box::pin(signal.raised_since(seen));
        assert!(waiting.as_mut().now_or_never().is_none(), "nothing has happened");
        signal.raise();
        assert!(waiting.as_mut().now_or_never().is_some(), "it was raised while waiting");
        assert!(signal.raised_since(seen).now_or_never().is_some(), "it was raised before waiting");
        assert!(signal.raised_since(signal.seen()).now_or_never().is_none(), "that was seen by now");
    }

    /// A collection that polls its members in the order in which they came, and then in the order of their wake-ups.
    #[test]
    fn those_who_wait_are_woken_in_the_order_in_which_they_came() {
        const MANY: usize = 100;
        let signal = Signal::new();
        for _ in 0..3 {
            let seen = signal.seen();
            let wait = |number: usize| {
                let signal = &signal;
                async move {
                    signal.raised_since(seen).await;
                    number
                }
            };
            let mut waiting: FuturesUnordered<_> = (0..MANY).map(wait).collect();
            assert!(waiting.next().now_or_never().is_none());
            signal.raise();
            let woken: Vec<usize> = std::iter::from_fn(|| waiting.next().now_or_never().flatten()).collect();
            assert_eq!(woken, (0..MANY).collect::<Vec<_>>());
        }
    }

    /// One reader for each of many threads, a writer that never pauses: each change but the last may be skipped, and
    /// nobody sleeps while there is one to be read.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nobody_sleeps_through_the_last_change() {
        const CHANGES: u64 = 20_000;
        let (signal, value) = (Arc::new(Signal::new()), Arc::new(AtomicU64::new(0)));
        let reader = || {
            let (signal, value) = (Arc::clone(&signal), Arc::clone(&value));
            tokio::spawn(async move {
                loop {
                    let seen = signal.seen();
                    if value.load(Ordering::Acquire) == CHANGES {
                        return;
                    }
                    signal.raised_since(seen).await;
                }
            })
        };
        let readers: Vec<_> = (0..16).map(|_| reader()).collect();
        for change in 1..=CHANGES {
            value.store(change, Ordering::Release);
            signal.raise();
            if change.is_multiple_of(64) {
                tokio::task::yield_now().await;
            }
        }
        for reader in readers {
            reader.await.unwrap();
        }
    }
}
