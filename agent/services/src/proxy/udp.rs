//! Datagrams of one NodePort: each client has a socket of its own to its backend, so that answers find their way back, until
//! nothing has come or gone for a while.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{AbortHandle, JoinSet};

use super::{Place, Room, Targets, choice::Choice};

/// A flow without datagrams is forgotten after this: the kernel's `nf_conntrack_udp_timeout_stream`.
const IDLE: Duration = Duration::from_secs(120);
/// Largest datagram.
const MAX_DATAGRAM: usize = 65_535;

/// A client's way to its backend.
struct Flow {
    backend: SocketAddrV4,
    socket: Arc<UdpSocket>,
    answers: AbortHandle,
}

/// Serves a port until its Service gives it up.
pub(super) async fn listen(place: Place, mut targets: Targets, room: Room) {
    let bound = super::open(place, &mut targets, super::BIND_AGAIN, |ip, port| UdpSocket::bind((ip, port))).await;
    let Some(socket) = bound.map(Arc::new) else { return };
    let (choice, mut flows) = (Choice::default(), HashMap::<SocketAddr, Flow>::new());
    // Each task passes one client's answers back; it ends when the flow is idle, or when this set is dropped.
    let mut answering: JoinSet<SocketAddr> = JoinSet::new();
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                let Ok((size, client)) = received else { continue };
                let there = match flows.get(&client) {
                    Some(flow) => Some(flow.socket.clone()),
                    None => {
                        let target = targets.borrow().clone();
                        let backend = choice.order(&target, client.ip(), Instant::now()).first().copied();
                        // Without a backend, or room for one more, the datagram is lost, as datagrams may be.
                        let of_port = Arc::clone(&room.of_port).try_acquire_owned().ok();
                        let permit = of_port.zip(Arc::clone(&room.all).try_acquire_owned().ok());
                        match backend.zip(permit) {
                            None => None,
                            Some((backend, permit)) => match open(backend).await {
                                Err(_) => None,
                                Ok(own) => {
                                    choice.took(&target, client.ip(), backend, Instant::now());
                                    let own = Arc::new(own);
                                    let task = answer(own.clone(), socket.clone(), client, permit);
                                    let answers = answering.spawn(task);
                                    flows.insert(client, Flow { backend, socket: own.clone(), answers });
                                    Some(own)
                                }
                            },
                        }
                    }
                };
                if let Some(there) = there {
                    let _ = there.send(&buffer[..size]).await;
                }
            }
            Some(Ok(client)) = answering.join_next() => drop(flows.remove(&client)),
            changed = targets.changed() => {
                if changed.is_err() {
                    return;
                }
                // A flow to a backend that is gone would never be answered again.
                let target = targets.borrow().clone();
                flows.retain(|_, flow| {
                    let stays = target.backends.contains(&flow.backend);
                    if !stays {
                        flow.answers.abort();
                    }
                    stays
                });
            }
        }
    }
}

async fn open(backend: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(backend).await?;
    Ok(socket)
}

/// Passes answers back until none has come for a while.
async fn answer(
    from: Arc<UdpSocket>,
    to: Arc<UdpSocket>,
    client: SocketAddr,
    _room: (OwnedSemaphorePermit, OwnedSemaphorePermit),
) -> SocketAddr {
    let mut buffer = vec![0; MAX_DATAGRAM];
    while let Ok(received) = tokio::time::timeout(IDLE, from.recv(&mut buffer)).await {
        // An error is the backend's refusal of an earlier datagram: the next one may be answered.
        if let Ok(size) = received
            && to.send_to(&buffer[..size], client).await.is_err()
        {
            break;
        }
    }
    client
}
