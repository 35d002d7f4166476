//! `wasi:sockets/types@0.3` on the pod's addresses: the functions that carry an address are replaced, all others stay
//! wasmtime's. It never opens a socket itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use wasmtime::component::{Access, Linker, Resource};
use wasmtime_wasi::{
    p3::{
        bindings::sockets::types::{
            ErrorCode, HostTcpSocket, HostTcpSocketWithStore, HostUdpSocket, HostUdpSocketWithStore, IpAddressFamily,
            IpSocketAddress,
        },
        sockets::{SocketError, SocketResult},
    },
    sockets::{TcpSocket, UdpSocket, WasiSockets, WasiSocketsCtxView, WasiSocketsView},
};

use crate::{
    guest::Guest,
    network::{PodNetwork, Refused, Transport},
};

/// The interface whose functions are replaced, in the version that wasmtime's bindings define.
const INTERFACE: &str = "wasi:sockets/types@0.3.0";

/// Replaces the functions; the linker must hold wasmtime's and allow shadowing.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    add_tcp(linker)?;
    add_udp(linker)
}

fn add_tcp(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    type Tcp = Resource<TcpSocket>;
    let mut types = linker.instance(INTERFACE)?;
    types.func_wrap_async("[method]tcp-socket.bind", |mut store, (socket, local): (Tcp, IpSocketAddress)| {
        Box::new(async move {
            let local = match store.data().network().bind(local.into()) {
                Ok(local) => local.into(),
                Err(refused) => return Ok((Err(ErrorCode::from(refused)),)),
            };
            answer(HostTcpSocket::bind(&mut store.data_mut().sockets(), socket, local).await)
        })
    })?;
    types.func_wrap_concurrent(
        "[method]tcp-socket.connect",
        |accessor, (socket, remote): (Tcp, IpSocketAddress)| {
            Box::pin(async move {
                let route = accessor.with(|mut store| store.data_mut().network().route(remote.into(), Transport::Tcp));
                let route = match route {
                    Ok(route) => route,
                    Err(refused) => return Ok((Err(ErrorCode::from(refused)),)),
                };
                if let Some(from) = route.from {
                    let bound = accessor.with(|mut store| {
                        bind_now(
                            store.data_mut().sockets(),
                            Resource::new_borrow(socket.rep()),
                            SocketAddr::new(from, 0),
                        )
                    });
                    if let Err(error) = bound {
                        return answer(Err(error));
                    }
                }
                let sockets = accessor.with_getter::<WasiSockets>(Guest::sockets);
                answer(<WasiSockets as HostTcpSocketWithStore<Guest>>::connect(&sockets, socket, route.to.into()).await)
            })
        },
    )?;
    types.func_wrap_async("[method]tcp-socket.listen", |mut store, (socket,): (Tcp,)| {
        Box::new(async move {
            // Listening without binding binds a free port of every address: here, of the pod's.
            let pod = store.data().config.network.clone();
            if let Err(error) = bind_if_unbound(store.data_mut().sockets(), &pod, &socket) {
                return answer(Err(error));
            }
            let access = Access::<Guest, WasiSockets>::new(store, Guest::sockets);
            answer(<WasiSockets as HostTcpSocketWithStore<Guest>>::listen(access, socket).await)
        })
    })?;
    types.func_wrap("[method]tcp-socket.get-local-address", |mut store, (socket,): (Tcp,)| {
        let address = HostTcpSocket::get_local_address(&mut store.data_mut().sockets(), socket);
        shown(store.data().network(), address)
    })?;
    types.func_wrap("[method]tcp-socket.get-remote-address", |mut store, (socket,): (Tcp,)| {
        let address = HostTcpSocket::get_remote_address(&mut store.data_mut().sockets(), socket);
        shown(store.data().network(), address)
    })
}

fn add_udp(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    type Udp = Resource<UdpSocket>;
    let mut types = linker.instance(INTERFACE)?;
    types.func_wrap_async("[method]udp-socket.bind", |mut store, (socket, local): (Udp, IpSocketAddress)| {
        Box::new(async move {
            let local = match store.data().network().bind(local.into()) {
                Ok(local) => local.into(),
                Err(refused) => return Ok((Err(ErrorCode::from(refused)),)),
            };
            answer(HostUdpSocket::bind(&mut store.data_mut().sockets(), socket, local).await)
        })
    })?;
    types.func_wrap_async("[method]udp-socket.connect", |mut store, (socket, remote): (Udp, IpSocketAddress)| {
        Box::new(async move {
            let to = match store.data().network().datagram_to(remote.into()) {
                Ok(to) => to.into(),
                Err(refused) => return Ok((Err(ErrorCode::from(refused)),)),
            };
            answer(HostUdpSocket::connect(&mut store.data_mut().sockets(), socket, to).await)
        })
    })?;
    types.func_wrap_concurrent(
        "[method]udp-socket.send",
        |accessor, (socket, data, remote): (Udp, Vec<u8>, Option<IpSocketAddress>)| {
            Box::pin(async move {
                let to = accessor.with(|mut store| {
                    let pod = store.data_mut().network();
                    remote.map(|remote| pod.datagram_to(remote.into())).transpose()
                });
                let to = match to {
                    Ok(to) => to.map(IpSocketAddress::from),
                    Err(refused) => return Ok((Err(ErrorCode::from(refused)),)),
                };
                let sockets = accessor.with_getter::<WasiSockets>(Guest::sockets);
                answer(<WasiSockets as HostUdpSocketWithStore<Guest>>::send(&sockets, socket, data, to).await)
            })
        },
    )?;
    types.func_wrap_concurrent("[method]udp-socket.receive", |accessor, (socket,): (Udp,)| {
        Box::pin(async move {
            let sockets = accessor.with_getter::<WasiSockets>(Guest::sockets);
            let received = <WasiSockets as HostUdpSocketWithStore<Guest>>::receive(&sockets, socket).await;
            answer(received.map(|(data, from)| {
                let from = accessor.with(|mut store| store.data_mut().network().shown(from.into()));
                (data, IpSocketAddress::from(from))
            }))
        })
    })?;
    types.func_wrap("[method]udp-socket.get-local-address", |mut store, (socket,): (Udp,)| {
        let address = HostUdpSocket::get_local_address(&mut store.data_mut().sockets(), socket);
        shown(store.data().network(), address)
    })?;
    types.func_wrap("[method]udp-socket.get-remote-address", |mut store, (socket,): (Udp,)| {
        let address = HostUdpSocket::get_remote_address(&mut store.data_mut().sockets(), socket);
        shown(store.data().network(), address)
    })
}

/// Binds without waiting: the only thing that could wait is the address check, and ours answers at once. A socket that is
/// bound already stays as it is.
fn bind_now(mut sockets: WasiSocketsCtxView<'_>, socket: Resource<TcpSocket>, local: SocketAddr) -> SocketResult<()> {
    use futures::FutureExt as _;
    let bound = HostTcpSocket::bind(&mut sockets, socket, local.into()).now_or_never();
    match bound.expect("the address check never waits") {
        Err(error) if matches!(error.downcast_ref(), Some(ErrorCode::InvalidState)) => Ok(()),
        bound => bound,
    }
}

fn bind_if_unbound(
    mut sockets: WasiSocketsCtxView<'_>,
    pod: &PodNetwork,
    socket: &Resource<TcpSocket>,
) -> SocketResult<()> {
    let this = || Resource::new_borrow(socket.rep());
    let family = HostTcpSocket::get_address_family(&mut sockets, this()).map_err(SocketError::trap)?;
    let any = match family {
        IpAddressFamily::Ipv4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddressFamily::Ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let local = pod.bind(SocketAddr::new(any, 0)).map_err(ErrorCode::from)?;
    bind_now(sockets, this(), local)
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

fn shown(
    pod: &PodNetwork,
    address: SocketResult<IpSocketAddress>,
) -> wasmtime::Result<(Result<IpSocketAddress, ErrorCode>,)> {
    answer(address.map(|address| pod.shown(address.into()).into()))
}
