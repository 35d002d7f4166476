//! The tokio runtime that guests run on: apart from the agent's own, so that a guest that computes delays other guests by
//! no more than a tick and the agent not at all.

use std::{future::Future, num::NonZeroUsize, sync::Arc};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinHandle,
};

use crate::EngineError;

/// Most threads for file access of all guests together.
const MAX_BLOCKING_THREADS: usize = 16;

/// Stack of a worker: guests run on fibers of their own.
const THREAD_STACK_BYTES: usize = 1024 * 1024;

/// The guests' runtime. Clones share it; it ends with the last one.
#[derive(Clone, Debug)]
pub struct GuestRuntime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    handle: Handle,
    /// Taken by `drop`: a runtime must not be dropped where blocking is forbidden.
    runtime: Option<Runtime>,
}

impl GuestRuntime {
    /// Starts the worker threads; `None` is one per core.
    pub fn start(threads: Option<NonZeroUsize>) -> Result<Self, EngineError> {
        Self::start_named("wasm-guest", threads)
    }

    pub(crate) fn start_named(name: &str, threads: Option<NonZeroUsize>) -> Result<Self, EngineError> {
        let threads = threads.or_else(|| std::thread::available_parallelism().ok()).map_or(2, NonZeroUsize::get);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(MAX_BLOCKING_THREADS)
            .thread_stack_size(THREAD_STACK_BYTES)
            .thread_name(name)
            // Look at timers and sockets often: with tokio's 61, one computing guest delays all timers. Not after every poll:
            // what a look wakes last runs next, so that on one core two ends that answer each other at once would keep all
            // others waiting for as long as they go on.
            .event_interval(8)
            .enable_all()
            .build()
            .map_err(|source| EngineError::Io { what: "start the guests' threads", source })?;
        Ok(Self { inner: Arc::new(Inner { handle: runtime.handle().clone(), runtime: Some(runtime) }) })
    }

    /// Runs a future among the guests.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.inner.handle.spawn(future)
    }

    /// The runtime's handle, to make sockets and timers on it.
    pub fn handle(&self) -> &Handle {
        &self.inner.handle
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
