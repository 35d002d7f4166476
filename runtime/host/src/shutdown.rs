//! `coracle:runtime/shutdown`: how a guest learns that its container is to end, as a process does by SIGTERM. A guest that
//! does not import it is ended at once, like a process that does not handle the signal.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use wasmtime::component::{Component, Linker, Resource};
use wasmtime_wasi::{
    WasiView, async_trait,
    p2::{DynPollable, Pollable, subscribe},
};

use crate::guest::Guest;

/// The interface's name.
const INTERFACE: &str = "coracle:runtime/shutdown@0.1.0";

/// The request to end, shared by a container's instances.
#[derive(Debug, Clone, Default)]
pub struct ShutdownSignal {
    token: Arc<CancellationToken>,
}

impl ShutdownSignal {
    /// A signal not yet given.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the guest to end.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// Whether the guest was asked to end.
    pub fn requested(&self) -> bool {
        self.token.is_cancelled()
    }
}

/// A pollable's state: ready once the signal was given.
struct Waiting(Arc<CancellationToken>);

#[async_trait]
impl Pollable for Waiting {
    async fn ready(&mut self) {
        self.0.cancelled().await;
    }
}

/// Adds the interface.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut shutdown = linker.instance(INTERFACE)?;
    shutdown.func_wrap("requested", |store, (): ()| Ok((store.data().config.shutdown.requested(),)))?;
    shutdown.func_wrap("subscribe", |mut store, (): ()| {
        let waiting = Waiting(store.data().config.shutdown.token.clone());
        let table = store.data_mut().ctx().table;
        let waiting = table.push(waiting)?;
        let pollable: Resource<DynPollable> = subscribe(table, waiting)?;
        Ok((pollable,))
    })
}

/// Whether a component listens to the signal.
pub(crate) fn is_imported(component: &Component) -> bool {
    let package = INTERFACE.split_once('@').map_or(INTERFACE, |(name, _)| name);
    component
        .component_type()
        .imports(component.engine())
        .any(|(name, _)| name.split_once('@').map_or(name, |(name, _)| name) == package)
}
