//! `wasi:sockets/tcp@0.2` on the pod's addresses: the four functions that carry an address are replaced, all others stay
//! wasmtime's. It never opens a socket itself.

use std::net::SocketAddr;

use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::{
    p2::{
        Network, SocketError, SocketResult, TcpSocket,
        bindings::sockets::{
            network::{ErrorCode, IpSocketAddress},
            tcp::HostTcpSocket,
        },
    },
    sockets::{WasiSocketsCtxView, WasiSocketsView},
};

use crate::{
    guest::Guest,
    network::{PodNetwork, Refused, Transport},
};

/// The interface whose functions are replaced, in the version that wasmtime's bindings define.
const INTERFACE: &str = "wasi:sockets/tcp@0.2.12";

type BindArgs = (Resource<TcpSocket>, Resource<Network>, IpSocketAddress);

/// Replaces the functions; the linker must hold wasmtime's and allow shadowing.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut tcp = linker.instance(INTERFACE)?;
    tcp.func_wrap_async("[method]tcp-socket.start-bind", |mut store, (socket, network, local): BindArgs| {
        Box::new(async move {
            let pod = store.data().config.network.clone();
            answer(start_bind(store.data_mut().sockets(), &pod, socket, network, local.into()).await)
        })
    })?;
    tcp.func_wrap_async("[method]tcp-socket.start-connect", |mut store, (socket, network, remote): BindArgs| {
        Box::new(async move {
            let pod = store.data().config.network.clone();
            answer(start_connect(store.data_mut().sockets(), &pod, socket, network, remote.into()).await)
        })
    })?;
    tcp.func_wrap("[method]tcp-socket.local-address", |mut store, (socket,): (Resource<TcpSocket>,)| {
        let address = store.data_mut().sockets().local_address(socket);
        shown(store.data().network(), address)
    })?;
    tcp.func_wrap("[method]tcp-socket.remote-address", |mut store, (socket,): (Resource<TcpSocket>,)| {
        let address = store.data_mut().sockets().remote_address(socket);
        shown(store.data().network(), address)
    })
}

async fn start_bind(
    mut sockets: WasiSocketsCtxView<'_>,
    pod: &PodNetwork,
    socket: Resource<TcpSocket>,
    network: Resource<Network>,
    local: SocketAddr,
) -> SocketResult<()> {
    let local = pod.bind(local).map_err(ErrorCode::from)?;
    HostTcpSocket::start_bind(&mut sockets, socket, network, local.into()).await
}

async fn start_connect(
    mut sockets: WasiSocketsCtxView<'_>,
    pod: &PodNetwork,
    socket: Resource<TcpSocket>,
    network: Resource<Network>,
    remote: SocketAddr,
) -> SocketResult<()> {
    let route = pod.route(remote, Transport::Tcp).map_err(ErrorCode::from)?;
    if let Some(from) = route.from {
        let this = Resource::new_borrow(socket.rep());
        let that = Resource::new_borrow(network.rep());
        match HostTcpSocket::start_bind(&mut sockets, this, that, SocketAddr::new(from, 0).into()).await {
            Ok(()) => HostTcpSocket::finish_bind(&mut sockets, Resource::new_borrow(socket.rep()))?,
            // The guest has bound it itself, or the socket is past this: connecting says which.
            Err(error) if matches!(error.downcast_ref(), Some(ErrorCode::InvalidState)) => {}
            Err(error) => return Err(error),
        }
    }
    HostTcpSocket::start_connect(&mut sockets, socket, network, route.to.into())
}

impl From<Refused> for ErrorCode {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotBindable => Self::AddressNotBindable,
            Refused::Unreachable => Self::RemoteUnreachable,
        }
    }
}

/// A function's answer to the guest: an error of the interface goes to the guest, any other is a trap.
pub(crate) fn answer<T>(result: Result<T, SocketError>) -> wasmtime::Result<(Result<T, ErrorCode>,)> {
    match result {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}

/// An address of a socket, as the guest is to see it.
pub(crate) fn shown(
    pod: &PodNetwork,
    address: SocketResult<IpSocketAddress>,
) -> wasmtime::Result<(Result<IpSocketAddress, ErrorCode>,)> {
    answer(address.map(|address| pod.shown(address.into()).into()))
}
