//! The streams that requests have become: each a task of its own, which outlives its request and ends with the server.

use std::sync::Arc;
use std::time::Duration;

use coracle_api::ApiError;
use coracle_streaming::BoxedStream;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Streams at once. Each may cost some hundred kilobytes.
const MAX_SESSIONS: usize = 1024;
/// Seconds after which a client may try again when all are in use.
const RETRY_SECONDS: i32 = 5;

/// All streams of a server.
pub(crate) struct Sessions {
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Default for Sessions {
    fn default() -> Self {
        let room = Arc::new(Semaphore::new(MAX_SESSIONS));
        Self { room, tasks: TaskTracker::new(), stop: CancellationToken::new() }
    }
}

impl Sessions {
    /// Room for one more.
    pub(crate) fn permit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            ApiError::too_many_requests("too many streams are open, please try again later", RETRY_SECONDS)
        })
    }

    /// Runs a stream once its client has the answer.
    pub(crate) fn spawn<F>(
        &self,
        permit: OwnedSemaphorePermit,
        upgrade: OnUpgrade,
        work: impl FnOnce(BoxedStream) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send,
    {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let _permit = permit;
            let work = async {
                // A client that left before it had the answer has no stream.
                if let Ok(client) = upgrade.await {
                    work(Box::new(TokioIo::new(client))).await;
                }
            };
            // What is cut off needs no answer.
            let _ = stop.run_until_cancelled(work).await;
        });
    }

    /// Runs what a stream or an answer needs beside it. It ends by itself, or with the server.
    pub(crate) fn drive(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let _ = stop.run_until_cancelled(work).await;
        });
    }

    /// Ends all streams, and waits for them up to `limit`.
    pub(crate) async fn stop(&self, limit: Duration) {
        self.stop.cancel();
        self.tasks.close();
        // They have been told; the process ends with or without them.
        let _ = tokio::time::timeout(limit, self.tasks.wait()).await;
    }
}
