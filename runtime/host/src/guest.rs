//! What one container gives each of its instances, and the state that a store holds for one. A component gets what is
//! listed here and nothing else.

use std::{path::PathBuf, sync::Arc};

use coracle_engine::{CpuAccount, MemoryBudget, StoreLimiter};
use wasmtime::{Engine, Store, component::ResourceTable};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxView, WasiView, sockets::SocketAddrUse};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::{
    PodNetwork,
    http_out::{HttpClient, OutgoingHttp},
    shutdown::ShutdownSignal,
    stdio::{LogSink, LogStream, StdStream},
};

/// Most bytes of random data in one call.
const MAX_RANDOM_BYTES: u64 = 64 * 1024;

/// Whether a guest may write in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryAccess {
    /// Reading only.
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

/// A directory of the host that a guest sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Where it is.
    pub host_path: PathBuf,
    /// Where the guest sees it.
    pub guest_path: String,
    /// What the guest may do there.
    pub access: DirectoryAccess,
}

/// All that a container gives its instances.
#[derive(Clone)]
pub struct GuestConfig {
    /// Command line, the program's name first.
    pub args: Vec<String>,
    /// Environment, in order.
    pub env: Vec<(String, String)>,
    /// Directory that relative paths start from.
    pub working_dir: Option<String>,
    /// Directories it sees.
    pub directories: Vec<Directory>,
    /// Where its output goes.
    pub log: Arc<dyn LogSink>,
    /// The pod's network.
    pub network: Arc<PodNetwork>,
    /// The memory that all its instances share.
    pub memory: Arc<MemoryBudget>,
    /// The account that all its instances' CPU time goes on.
    pub cpu: Arc<CpuAccount>,
    /// Carries its outgoing HTTP requests.
    pub http: Arc<HttpClient>,
    /// Tells the guest to end.
    pub shutdown: ShutdownSignal,
}

/// Why an instance could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A directory of the host is not there or cannot be opened.
    #[error("cannot open {path} for the mount at {guest_path}: {message}")]
    Directory {
        /// Where it should be.
        path: PathBuf,
        /// Where the guest was to see it.
        guest_path: String,
        /// Why.
        message: String,
    },
    /// A socket for the server could not be made.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The pod's address and the port.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The instance trapped while it was made, or the host has no room for it.
    #[error("{0:#}")]
    Instantiate(wasmtime::Error),
}

/// The state of one instance's store.
pub(crate) struct Guest {
    wasi: WasiCtx,
    http_ctx: WasiHttpCtx,
    http_hooks: OutgoingHttp,
    table: ResourceTable,
    limiter: StoreLimiter,
    pub(crate) network: Arc<PodNetwork>,
    pub(crate) shutdown: ShutdownSignal,
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http_ctx, table: &mut self.table, hooks: &mut self.http_hooks }
    }
}

impl GuestConfig {
    /// A store for a new instance.
    pub(crate) fn store(&self, engine: &Engine) -> Result<Store<Guest>, SetupError> {
        let guest = Guest {
            wasi: self.wasi()?,
            http_ctx: WasiHttpCtx::new(),
            http_hooks: OutgoingHttp::new(self.http.clone(), self.network.clone()),
            table: ResourceTable::new(),
            limiter: StoreLimiter::new(self.memory.clone()),
            network: self.network.clone(),
            shutdown: self.shutdown.clone(),
        };
        let mut store = Store::new(engine, guest);
        store.limiter(|guest| &mut guest.limiter);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        Ok(store)
    }

    fn wasi(&self) -> Result<WasiCtx, SetupError> {
        let mut wasi = WasiCtx::builder();
        wasi.args(&self.args)
            .envs(&self.env)
            .stdout(LogStream { sink: self.log.clone(), stream: StdStream::Stdout })
            .stderr(LogStream { sink: self.log.clone(), stream: StdStream::Stderr })
            .max_random_size(MAX_RANDOM_BYTES)
            .allow_tcp(true)
            .allow_udp(true)
            .allow_ip_name_lookup(true);
        if let Some(directory) = &self.working_dir {
            wasi.initial_cwd(directory);
        }
        let network = self.network.clone();
        wasi.socket_addr_check(move |address, purpose| {
            let allowed = match purpose {
                SocketAddrUse::TcpBind | SocketAddrUse::UdpBind | SocketAddrUse::TcpListen => network.may_bind(address),
                SocketAddrUse::TcpConnect | SocketAddrUse::UdpSend => network.may_reach(address),
                SocketAddrUse::TcpAccept | SocketAddrUse::UdpReceive => true,
            };
            Box::pin(std::future::ready(allowed))
        });
        for directory in &self.directories {
            let access = match directory.access {
                DirectoryAccess::ReadOnly => FsPerms::ReadOnly,
                DirectoryAccess::ReadWrite => FsPerms::ReadWrite,
            };
            wasi.preopened_dir(&directory.host_path, &directory.guest_path, access).map_err(|error| {
                SetupError::Directory {
                    path: directory.host_path.clone(),
                    guest_path: directory.guest_path.clone(),
                    message: format!("{error:#}"),
                }
            })?;
        }
        Ok(wasi.build())
    }
}
