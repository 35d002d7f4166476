//! The rules by which a guest's socket addresses become the host's. Every pod has its own address and no network namespace:
//! wildcard binds go to the pod's address, and `127.0.0.1` becomes a loopback address that only this pod uses. Pure but for
//! one probe that asks the kernel who listens on that loopback address.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::name_lookup::Resolver;

/// The addresses of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodAddresses {
    /// The node's own network: nothing is changed.
    Host,
    /// Addresses of the pod's own.
    Own {
        /// The IPv4 address, if the pod has one.
        v4: Option<Ipv4Addr>,
        /// The IPv6 address, if the pod has one.
        v6: Option<Ipv6Addr>,
    },
}

impl PodAddresses {
    /// From the list that a pod's status shows: the first of each family counts.
    pub fn from_ips(ips: &[IpAddr]) -> Self {
        let v4 = ips.iter().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None });
        let v6 = ips.iter().find_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None });
        Self::Own { v4, v6 }
    }
}

/// Why an address is not for this pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Not an address of the pod: `EADDRNOTAVAIL`.
    NotBindable,
    /// No address of this family in the pod, so no way there: `EHOSTUNREACH`.
    Unreachable,
}

/// The transport of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

/// Where a connection goes and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    /// The address to connect to.
    pub(crate) to: SocketAddr,
    /// The address to bind first; `None` leaves it to the kernel.
    pub(crate) from: Option<IpAddr>,
}

/// The network of one pod, shared by its containers.
#[derive(Clone)]
pub struct PodNetwork {
    addresses: PodAddresses,
    resolver: Arc<dyn Resolver>,
}

impl PodNetwork {
    /// A pod's network.
    pub fn new(addresses: PodAddresses, resolver: Arc<dyn Resolver>) -> Arc<Self> {
        Arc::new(Self { addresses, resolver })
    }

    /// How names are resolved in the pod.
    pub fn resolver(&self) -> &Arc<dyn Resolver> {
        &self.resolver
    }

    /// The addresses of the host at which listeners of the pod are found: its own, then the one that stands for its loopback.
    pub fn own_addresses(&self) -> Vec<IpAddr> {
        match self.addresses {
            PodAddresses::Host => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            PodAddresses::Own { v4, v6 } => {
                let loopback = v4.map(|own| Self::loopback(own).into());
                v4.map(IpAddr::from).into_iter().chain(v6.map(IpAddr::from)).chain(loopback).collect()
            }
        }
    }

    /// The loopback address that stands for the pod's `127.0.0.1`: 127.128.0.0/9 with the low 23 bits of the pod's address,
    /// which are its own on this node.
    fn loopback(v4: Ipv4Addr) -> Ipv4Addr {
        let [_, b, c, d] = v4.octets();
        Ipv4Addr::new(127, 128 | b, c, d)
    }

    /// The address to bind when the guest asks for `wanted`.
    pub(crate) fn bind(&self, wanted: SocketAddr) -> Result<SocketAddr, Refused> {
        let PodAddresses::Own { v4, v6 } = self.addresses else { return Ok(wanted) };
        let ip = match wanted.ip() {
            IpAddr::V4(ip) => {
                let own = v4.ok_or(Refused::NotBindable)?;
                match ip {
                    Ipv4Addr::UNSPECIFIED => own.into(),
                    ip if ip == own => own.into(),
                    Ipv4Addr::LOCALHOST => Self::loopback(own).into(),
                    _ => return Err(Refused::NotBindable),
                }
            }
            IpAddr::V6(ip) => {
                let own = v6.ok_or(Refused::NotBindable)?;
                if !(ip.is_unspecified() || ip == own) {
                    return Err(Refused::NotBindable);
                }
                own.into()
            }
        };
        Ok(SocketAddr::new(ip, wanted.port()))
    }

    /// The way to `remote`. A connection to the pod's loopback goes to who listens there, else to the pod's address, where
    /// those are that listen on every address.
    pub(crate) fn route(&self, remote: SocketAddr, transport: Transport) -> Result<Route, Refused> {
        let PodAddresses::Own { v4, v6 } = self.addresses else { return Ok(Route { to: remote, from: None }) };
        // `::ffff:a.b.c.d` is the IPv4 address for the kernel, and so for these rules.
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        if !is_one_host(remote.ip()) {
            return Err(Refused::Unreachable);
        }
        match remote.ip() {
            IpAddr::V4(ip) => {
                let own = v4.ok_or(Refused::Unreachable)?;
                // In an unprivileged node the pods' own addresses are loopback addresses of the host.
                let loopback = ip.is_loopback() && !(own.is_loopback() && is_pod_range(ip));
                if loopback {
                    let private = SocketAddr::new(Self::loopback(own).into(), remote.port());
                    if somebody_listens(private, transport) {
                        return Ok(Route { to: private, from: None });
                    }
                    return Ok(Route { to: SocketAddr::new(own.into(), remote.port()), from: Some(own.into()) });
                }
                let same_scope = own.is_loopback() == ip.is_loopback();
                Ok(Route { to: remote, from: same_scope.then_some(own.into()) })
            }
            IpAddr::V6(ip) => {
                let own = v6.ok_or(Refused::Unreachable)?;
                let to = if ip.is_loopback() { SocketAddr::new(own.into(), remote.port()) } else { remote };
                Ok(Route { to, from: Some(own.into()) })
            }
        }
    }

    /// Where a datagram that a guest sends to `remote` goes.
    pub(crate) fn datagram_to(&self, remote: SocketAddr) -> Result<SocketAddr, Refused> {
        self.route(remote, Transport::Udp).map(|route| route.to)
    }

    /// An address of the host as the guest is to see it.
    pub(crate) fn shown(&self, address: SocketAddr) -> SocketAddr {
        match (self.addresses, address.ip()) {
            (PodAddresses::Own { v4: Some(own), .. }, IpAddr::V4(ip)) if ip == Self::loopback(own) => {
                SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port())
            }
            _ => address,
        }
    }

    /// The last check before the system call, after the rules above: whether the pod may bind this address of the host.
    pub(crate) fn may_bind(&self, address: SocketAddr) -> bool {
        let PodAddresses::Own { v4, v6 } = self.addresses else { return true };
        match address.ip() {
            // What an unbound socket gets when it connects.
            ip if ip.is_unspecified() => address.port() == 0,
            IpAddr::V4(ip) => v4.is_some_and(|own| ip == own || ip == Self::loopback(own)),
            IpAddr::V6(ip) => v6 == Some(ip),
        }
    }

    /// The last check before the system call: whether the pod may send to this address of the host. The host's own
    /// loopback services are not for pods.
    pub(crate) fn may_reach(&self, address: SocketAddr) -> bool {
        let PodAddresses::Own { v4, v6 } = self.addresses else { return true };
        match address.ip().to_canonical() {
            ip if !is_one_host(ip) => false,
            IpAddr::V4(ip) if ip.is_loopback() => {
                v4.is_some_and(|own| ip == own || ip == Self::loopback(own) || (own.is_loopback() && is_pod_range(ip)))
            }
            IpAddr::V4(_) => v4.is_some(),
            IpAddr::V6(ip) => v6.is_some() && !ip.is_loopback(),
        }
    }
}

/// Whether an address is that of one host. To `0.0.0.0` and `::` the kernel connects over the host's own loopback; broadcast
/// and multicast reach whoever listens in the host's network.
fn is_one_host(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[0] != 0 && !ip.is_broadcast() && !ip.is_multicast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    }
}

/// The loopback addresses that unprivileged nodes give to pods: 127.64.0.0/10.
fn is_pod_range(ip: Ipv4Addr) -> bool {
    let [a, b, _, _] = ip.octets();
    a == 127 && b & 0xC0 == 64
}

/// Asks the kernel whether the address is taken. With SO_REUSEADDR, which guests' sockets have too, a TCP bind fails only
/// when another socket listens there.
fn somebody_listens(address: SocketAddr, transport: Transport) -> bool {
    let kind = match transport {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let Ok(socket) = Socket::new(Domain::for_address(address), kind.0, Some(kind.1)) else { return false };
    if transport == Transport::Tcp && socket.set_reuse_address(true).is_err() {
        return false;
    }
    socket.bind(&address.into()).is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name_lookup::SystemResolver;

    fn pod(ips: &[&str]) -> Arc<PodNetwork> {
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        PodNetwork::new(PodAddresses::from_ips(&ips), Arc::new(SystemResolver))
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn binds_go_to_the_pod() {
        let pod = pod(&["10.42.3.7", "fd00::7"]);
        for (wanted, expected) in [
            ("0.0.0.0:80", Ok(addr("10.42.3.7:80"))),
            ("10.42.3.7:80", Ok(addr("10.42.3.7:80"))),
            ("127.0.0.1:80", Ok(addr("127.170.3.7:80"))),
            ("[::]:80", Ok(addr("[fd00::7]:80"))),
            ("[::1]:80", Err(Refused::NotBindable)),
            ("10.42.3.8:80", Err(Refused::NotBindable)),
            ("127.170.3.8:80", Err(Refused::NotBindable)),
        ] {
            assert_eq!(pod.bind(addr(wanted)), expected, "{wanted}");
        }
    }

    #[test]
    fn listeners_are_found_where_binds_went() {
        let pod = pod(&["10.42.3.7", "fd00::7"]);
        for wanted in ["0.0.0.0:80", "127.0.0.1:80", "[::]:80"] {
            let bound = pod.bind(addr(wanted)).unwrap();
            assert!(pod.own_addresses().contains(&bound.ip()), "{wanted}");
        }
    }

    #[test]
    fn a_pod_without_ipv6_has_none() {
        let pod = pod(&["10.42.3.7"]);
        assert_eq!(pod.bind(addr("[::]:80")), Err(Refused::NotBindable));
        assert_eq!(pod.route(addr("[2001:db8::1]:80"), Transport::Tcp), Err(Refused::Unreachable));
    }

    #[test]
    fn connections_come_from_the_pod() {
        let from = |ip: &str| Some(ip.parse().unwrap());
        let privileged = pod(&["10.42.3.7"]);
        let unprivileged = pod(&["127.64.3.7"]);
        for (pod, remote, to, from) in [
            (&privileged, "10.43.0.1:443", "10.43.0.1:443", from("10.42.3.7")),
            (&privileged, "127.0.0.1:5432", "10.42.3.7:5432", from("10.42.3.7")),
            (&privileged, "127.64.0.1:5432", "10.42.3.7:5432", from("10.42.3.7")),
            (&unprivileged, "127.64.3.9:80", "127.64.3.9:80", from("127.64.3.7")),
            (&unprivileged, "127.0.0.1:80", "127.64.3.7:80", from("127.64.3.7")),
            (&unprivileged, "192.0.2.1:80", "192.0.2.1:80", None),
        ] {
            assert_eq!(pod.route(addr(remote), Transport::Tcp), Ok(Route { to: addr(to), from }), "{remote}");
        }
    }

    /// The kernel would take these for its own loopback, or for everybody.
    #[test]
    fn there_is_no_way_to_addresses_of_nobody_and_everybody() {
        let pod = pod(&["10.42.3.7", "fd00::7"]);
        for remote in
            ["0.0.0.0:80", "0.0.0.1:80", "[::]:80", "[::ffff:0.0.0.0]:80", "255.255.255.255:80", "[ff02::1]:80"]
        {
            for transport in [Transport::Tcp, Transport::Udp] {
                assert_eq!(pod.route(addr(remote), transport), Err(Refused::Unreachable), "{remote}");
            }
        }
        let mapped = pod.route(addr("[::ffff:127.0.0.1]:5432"), Transport::Tcp).unwrap();
        assert_eq!(mapped.to, addr("10.42.3.7:5432"), "the pod's own loopback, not the host's");
    }

    #[test]
    fn the_pod_s_own_loopback_is_preferred_when_somebody_listens() {
        let pod = pod(&["127.64.77.7"]);
        for (transport, kind) in [(Transport::Tcp, Type::STREAM), (Transport::Udp, Type::DGRAM)] {
            let bound = pod.bind(addr("127.0.0.1:0")).unwrap();
            assert_eq!(bound.ip(), "127.192.77.7".parse::<IpAddr>().unwrap());
            let socket = Socket::new(Domain::IPV4, kind, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&bound.into()).unwrap();
            let local = socket.local_addr().unwrap().as_socket().unwrap();
            if transport == Transport::Tcp {
                socket.listen(1).unwrap();
            }
            let route = pod.route(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), local.port()), transport).unwrap();
            assert_eq!(route, Route { to: local, from: None });
            assert_eq!(pod.shown(local), SocketAddr::new(Ipv4Addr::LOCALHOST.into(), local.port()));
        }
    }

    #[test]
    fn the_last_check_keeps_pods_off_each_other_and_off_the_host() {
        let privileged = pod(&["10.42.3.7"]);
        let unprivileged = pod(&["127.64.3.7"]);
        let dual = pod(&["10.42.3.7", "fd00::7"]);
        for (pod, address, bind, reach) in [
            (&privileged, "10.42.3.7:80", true, true),
            (&privileged, "127.170.3.7:80", true, true),
            (&privileged, "0.0.0.0:0", true, false),
            (&privileged, "0.0.0.0:80", false, false),
            (&privileged, "0.1.2.3:80", false, false),
            (&privileged, "255.255.255.255:80", false, false),
            (&privileged, "224.0.0.1:80", false, false),
            (&dual, "[::]:80", false, false),
            (&dual, "[ff02::1]:80", false, false),
            (&dual, "[::ffff:127.0.0.1]:80", false, false),
            (&dual, "[::ffff:0.0.0.0]:80", false, false),
            (&dual, "[2001:db8::1]:80", false, true),
            (&privileged, "10.42.3.8:80", false, true),
            (&privileged, "127.0.0.1:80", false, false),
            (&privileged, "127.170.3.8:80", false, false),
            (&privileged, "[::1]:80", false, false),
            (&unprivileged, "127.64.3.8:80", false, true),
            (&unprivileged, "127.0.0.1:80", false, false),
        ] {
            assert_eq!(pod.may_bind(addr(address)), bind, "bind {address}");
            assert_eq!(pod.may_reach(addr(address)), reach, "reach {address}");
        }
    }

    #[test]
    fn the_host_s_network_is_left_alone() {
        let host = PodNetwork::new(PodAddresses::Host, Arc::new(SystemResolver));
        assert_eq!(host.bind(addr("0.0.0.0:80")), Ok(addr("0.0.0.0:80")));
        let route = Route { to: addr("127.0.0.1:80"), from: None };
        assert_eq!(host.route(addr("127.0.0.1:80"), Transport::Tcp), Ok(route));
        assert!(host.may_bind(addr("0.0.0.0:80")) && host.may_reach(addr("127.0.0.1:80")));
    }
}
