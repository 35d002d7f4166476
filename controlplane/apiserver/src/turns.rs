//! Turns: writers of a namespace that lost their effects to each other (two pods charged to one quota) try again one
//! after another, so that each gets through however many they are. It decides nothing.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Those who wait, by namespace.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<String, Weak<Semaphore>>>);

impl Turns {
    /// Waits for a turn in a namespace; it ends with the value.
    pub(crate) async fn take(&self, namespace: &str) -> Option<OwnedSemaphorePermit> {
        let queue = self.queue(namespace);
        // None of these is ever closed, which is the only way to fail.
        queue.acquire_owned().await.ok()
    }

    fn queue(&self, namespace: &str) -> Arc<Semaphore> {
        let mut queues = self.0.lock();
        if let Some(queue) = queues.get(namespace).and_then(Weak::upgrade) {
            return queue;
        }
        queues.retain(|_, queue| queue.strong_count() > 0);
        let queue = Arc::new(Semaphore::new(1));
        queues.insert(namespace.to_owned(), Arc::downgrade(&queue));
        queue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_are_taken_one_by_one_in_each_namespace() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        assert!(first.is_some());
        assert_eq!(turns.queue("a").available_permits(), 0);
        assert!(turns.take("b").await.is_some(), "another namespace does not wait");
        drop(first);
        assert!(turns.take("a").await.is_some());
        drop(turns.queue("c"));
        assert_eq!(turns.0.lock().len(), 1, "queues that nobody holds are forgotten");
    }
}
