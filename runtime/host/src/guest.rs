//! What one container gives each of its instances, and the state that a store holds for one. A component gets what is
//! listed here and nothing else.

use std::{path::PathBuf, sync::Arc};

use coracle_engine::{CpuAccount, MemoryBudget, StoreLimiter, note_interruption};
use wasmtime::{Engine, Store, UpdateDeadline, component::ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView, sockets::SocketAddrUse};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::{
    PodNetwork,
    descriptors::MAX_RESOURCES,
    http_out::{HttpClient, OutgoingHttp},
    preopens::Directories,
    shutdown::ShutdownSignal,
    stdio::{GuestStdin, LogSink, LogStream, StdStream},
};

/// Most bytes of random data in one call.
const MAX_RANDOM_BYTES: u64 = 64 * 1024;

/// All that a container gives its instances, which share it.
pub struct GuestConfig {
    /// Command line, the program's name first.
    pub args: Arc<[String]>,
    /// Environment, in order.
    pub env: Arc<[(String, String)]>,
    /// Directory that relative paths start from.
    pub working_dir: Option<String>,
    /// Directories it sees.
    pub directories: Directories,
    /// Where its output goes.
    pub log: Arc<dyn LogSink>,
    /// What it reads; nothing if there is none.
    pub stdin: Option<GuestStdin>,
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
    /// The node holds as many instances as it has room for.
    #[error(
        "this node has no room for another WebAssembly instance: {0:#}; areas of memory are what it has most instances by: \
         `sysctl vm.max_map_count` says how many, and more of them count from the next start on"
    )]
    NoRoom(wasmtime::Error),
    /// The instance trapped while it was made.
    #[error("{0:#}")]
    Instantiate(wasmtime::Error),
}

impl SetupError {
    /// Why an instance could not be made.
    pub(crate) fn of_instance(error: wasmtime::Error) -> Self {
        if is_lack_of_room(&error) { Self::NoRoom(error) } else { Self::Instantiate(error) }
    }
}

/// Whether there may be room for this instance at another moment.
pub(crate) fn is_lack_of_room(error: &wasmtime::Error) -> bool {
    error.chain().any(|cause| cause.is::<wasmtime::PoolConcurrencyLimitError>())
}

/// The state of one instance's store.
pub(crate) struct Guest {
    /// Made when the guest first calls one of wasmtime's own interfaces. Many requests end without such a call, and seeding
    /// its random numbers takes longer than anything else that a store is made of.
    wasi: Option<WasiCtx>,
    http_ctx: WasiHttpCtx,
    http_hooks: OutgoingHttp,
    table: ResourceTable,
    limiter: StoreLimiter,
    pub(crate) config: Arc<GuestConfig>,
}

impl Guest {
    /// The pod's network.
    pub(crate) fn network(&self) -> &PodNetwork {
        &self.config.network
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let ctx = self.wasi.get_or_insert_with(|| self.config.wasi());
        WasiCtxView { ctx, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http_ctx, table: &mut self.table, hooks: &mut self.http_hooks }
    }
}

impl GuestConfig {
    /// A store for a new instance.
    pub(crate) fn store(self: &Arc<Self>, engine: &Engine) -> Store<Guest> {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        let guest = Guest {
            wasi: None,
            http_ctx: WasiHttpCtx::new(),
            http_hooks: OutgoingHttp::new(self.clone()),
            table,
            limiter: StoreLimiter::new(self.memory.clone()),
            config: self.clone(),
        };
        let mut store = Store::new(engine, guest);
        store.limiter(|guest| &mut guest.limiter);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|_| {
            note_interruption();
            Ok(UpdateDeadline::Yield(1))
        });
        store
    }

    /// What wasmtime's own interfaces need. It is made for each instance that uses them, so what is big in it is shared:
    /// arguments, environment and directories are given out by interfaces of our own.
    fn wasi(self: &Arc<Self>) -> WasiCtx {
        let mut wasi = WasiCtx::builder();
        wasi.stdout(LogStream { sink: self.log.clone(), stream: StdStream::Stdout })
            .stderr(LogStream { sink: self.log.clone(), stream: StdStream::Stderr })
            .max_random_size(MAX_RANDOM_BYTES)
            .allow_tcp(true)
            .allow_udp(true)
            .allow_ip_name_lookup(true);
        if let Some(stdin) = &self.stdin {
            wasi.stdin(stdin.clone());
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
        wasi.build()
    }
}
