//! Threads for guests that compute. They are as many as the cores, so the system's scheduler shares the cores between them
//! and the threads of all who wait, whom it lets run as soon as they wake. They are started for the first such guest.

use std::sync::OnceLock;

use crate::GuestRuntime;

/// The place of computing guests.
#[derive(Debug, Default)]
pub(crate) struct BusyLane {
    runtime: OnceLock<Option<GuestRuntime>>,
}

impl BusyLane {
    /// Its threads, unless the system refuses to start them.
    pub(crate) fn get(&self) -> Option<&GuestRuntime> {
        let start = || match GuestRuntime::start_named("wasm-busy", None) {
            Ok(runtime) => Some(runtime),
            Err(error) => {
                tracing::warn!("guests that compute stay among the others: {error}");
                None
            }
        };
        self.runtime.get_or_init(start).as_ref()
    }
}
