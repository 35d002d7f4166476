//! shell: what a component sees of the world: WASI on the pod's own address, files it was given, log lines, HTTP in and out.
//! One file per host interface. It runs programs and serves requests, and never decides what runs or when it is started again.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod command;
mod descriptors;
mod environment;
mod guest;
mod http_out;
mod linker;
mod name_lookup;
mod network;
mod outcome;
mod preopens;
mod request;
mod server;
mod shutdown;
mod sockets_p3;
mod stdio;
mod tcp;
mod udp;

pub use command::{Running, start_command};
pub use guest::{GuestConfig, SetupError};
pub use http_out::HttpClient;
pub use linker::{Program, ProgramKind, ProgramRegistry, program_registry};
pub use name_lookup::{Lookup, LookupError, Resolver, SystemResolver};
pub use network::{PodAddresses, PodNetwork, Refused};
pub use outcome::Outcome;
pub use preopens::{Directories, Directory, DirectoryAccess};
pub use request::check_server;
pub use server::{HttpServer, InstancePolicy, ServerLimits, ServerStats};
pub use shutdown::ShutdownSignal;
pub use stdio::{GuestStdin, LogSink, StdStream};
