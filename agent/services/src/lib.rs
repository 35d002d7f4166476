//! shell: Services on a node: virtual IPs and NodePorts reach the ready endpoints of each Service.
//!
//! With the needed privileges the kernel does it, by nftables maps that are changed element by element. Without them a
//! small proxy in user space serves NodePorts on this machine. What goes where is decided in [`table`], which is pure.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod conntrack;
mod health;
mod host_ports;
mod names;
mod nft;
mod proxy;
mod script;
pub mod table;
mod watch;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;

pub use host_ports::{HostPort, HostPorts};
pub use names::{Found, Names};
pub use nft::NftError;
pub use table::Protocol;

/// What the service proxy is told.
#[derive(Debug, Clone)]
pub struct ServicesConfig {
    /// This node's name, for traffic policies that keep to the node.
    pub node_name: String,
    /// This node's address, the source of its own connections to virtual IPs.
    pub node_address: Ipv4Addr,
    /// The range of virtual IPs. One process at a time serves it in a network namespace.
    pub service_range: Ipv4Net,
    /// Ranges of pods' addresses. They may be local addresses of the machine, and are never those of a NodePort.
    pub pod_ranges: Vec<Ipv4Net>,
    /// Where the names of Services are told.
    pub names: Names,
    /// The ports that this node's pods have on the node.
    pub host_ports: Receiver<HostPorts>,
}

/// How Services are served here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// By the kernel: cluster IPs and NodePorts.
    Kernel,
    /// By this process: NodePorts only.
    UserSpace,
}

/// Serves Services until told to stop, then takes away what it put into the kernel. `ready` is called once, with the way
/// it works, when the present Services are in place.
pub async fn run(
    client: kube::Client,
    config: ServicesConfig,
    stop: CancellationToken,
    ready: impl FnOnce(Mode) + Send,
) {
    match nft::Nft::open(&config).await {
        Ok(kernel) => watch::run(client, &config, watch::Backend::Kernel(kernel), stop, || ready(Mode::Kernel)).await,
        Err(error) => {
            tracing::warn!(%error, "cluster IPs are not served on this machine; NodePorts are, by this process");
            let proxy = watch::Backend::UserSpace(proxy::Proxy::new());
            watch::run(client, &config, proxy, stop, || ready(Mode::UserSpace)).await;
        }
    }
}
