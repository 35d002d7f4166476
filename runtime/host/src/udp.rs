//! `wasi:sockets/udp@0.2` on the pod's addresses: the functions that carry an address are replaced, all others stay
//! wasmtime's. It never opens a socket itself.

use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::{
    p2::{
        Network, UdpSocket,
        bindings::sockets::{
            network::{ErrorCode, IpSocketAddress},
            udp::{
                HostIncomingDatagramStream, HostOutgoingDatagramStream, HostUdpSocket, IncomingDatagramStream,
                OutgoingDatagram, OutgoingDatagramStream,
            },
        },
    },
    sockets::WasiSocketsView,
};

use crate::{
    guest::Guest,
    tcp::{answer, shown},
};

/// The interface whose functions are replaced, in the version that wasmtime's bindings define.
const INTERFACE: &str = "wasi:sockets/udp@0.2.12";

/// Replaces the functions; the linker must hold wasmtime's and allow shadowing.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut udp = linker.instance(INTERFACE)?;
    udp.func_wrap_async(
        "[method]udp-socket.start-bind",
        |mut store, (socket, network, local): (Resource<UdpSocket>, Resource<Network>, IpSocketAddress)| {
            Box::new(async move {
                let local = match store.data().network().bind(local.into()) {
                    Ok(local) => local.into(),
                    Err(refused) => return Ok((Err(ErrorCode::from(refused)),)),
                };
                answer(HostUdpSocket::start_bind(&mut store.data_mut().sockets(), socket, network, local).await)
            })
        },
    )?;
    udp.func_wrap_async(
        "[method]udp-socket.stream",
        |mut store, (socket, remote): (Resource<UdpSocket>, Option<IpSocketAddress>)| {
            Box::new(async move {
                let remote = match remote.map(|remote| store.data().network().datagram_to(remote.into())).transpose() {
                    Ok(remote) => remote.map(IpSocketAddress::from),
                    Err(refused) => return Ok((Err(ErrorCode::from(refused)),)),
                };
                answer(HostUdpSocket::stream(&mut store.data_mut().sockets(), socket, remote).await)
            })
        },
    )?;
    udp.func_wrap("[method]udp-socket.local-address", |mut store, (socket,): (Resource<UdpSocket>,)| {
        let address = HostUdpSocket::local_address(&mut store.data_mut().sockets(), socket);
        shown(store.data().network(), address)
    })?;
    udp.func_wrap("[method]udp-socket.remote-address", |mut store, (socket,): (Resource<UdpSocket>,)| {
        let address = HostUdpSocket::remote_address(&mut store.data_mut().sockets(), socket);
        shown(store.data().network(), address)
    })?;
    udp.func_wrap(
        "[method]outgoing-datagram-stream.send",
        |mut store, (stream, mut datagrams): (Resource<OutgoingDatagramStream>, Vec<OutgoingDatagram>)| {
            for datagram in &mut datagrams {
                if let Some(remote) = &mut datagram.remote_address {
                    match store.data().network().datagram_to((*remote).into()) {
                        Ok(to) => *remote = to.into(),
                        Err(refused) => return Ok((Err(ErrorCode::from(refused)),)),
                    }
                }
            }
            answer(HostOutgoingDatagramStream::send(&mut store.data_mut().sockets(), stream, datagrams))
        },
    )?;
    udp.func_wrap(
        "[method]incoming-datagram-stream.receive",
        |mut store, (stream, most): (Resource<IncomingDatagramStream>, u64)| {
            let received = HostIncomingDatagramStream::receive(&mut store.data_mut().sockets(), stream, most);
            let pod = store.data().network();
            answer(received.map(|mut datagrams| {
                for datagram in &mut datagrams {
                    datagram.remote_address = pod.shown(datagram.remote_address.into()).into();
                }
                datagrams
            }))
        },
    )
}
