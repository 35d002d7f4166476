//! Work that keeps a processor busy for long: tables of thousands of objects, compression of megabytes. It is done aside of
//! the threads that serve everybody else, by as few at once as there are processors.

use coracle_api::ApiError;
use tokio::sync::Semaphore;

/// Where such work is done.
#[derive(Debug)]
pub(crate) struct Aside(Semaphore);

impl Default for Aside {
    fn default() -> Self {
        Self(Semaphore::new(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)))
    }
}

impl Aside {
    /// Does it when it is its turn.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let _turn = self.0.acquire().await.map_err(|closed| ApiError::internal(closed.to_string()))?;
        tokio::task::spawn_blocking(work).await.map_err(|failed| ApiError::internal(failed.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn no_more_are_at_work_than_there_are_processors() {
        let aside = Aside(Semaphore::new(2));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = |number: usize| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            aside.run(move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(std::time::Duration::from_millis(5));
                now.fetch_sub(1, Ordering::SeqCst);
                number
            })
        };
        let done = futures::future::join_all((0..20).map(work)).await;
        let numbers: Vec<usize> = done.into_iter().map(Result::unwrap).collect();
        assert_eq!(numbers, (0..20).collect::<Vec<_>>());
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
    }

    #[tokio::test]
    async fn the_thread_that_serves_goes_on() {
        let aside = Aside::default();
        let (release, held) = std::sync::mpsc::sync_channel::<()>(1);
        let work = aside.run(move || held.recv().is_ok());
        // On the only thread there is: were the work done here, nothing would release it.
        let other = async move { release.send(()) };
        let (done, sent) = tokio::join!(work, other);
        assert!(done.unwrap() && sent.is_ok());
    }
}
