//! `hostPort`s of containers: frontends on the node's own addresses, with one pod each as their backend. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use crate::table::{Frontend, Owner, OwnerKind, Protocol, Right, Target, Wants};

/// The ports of all pods of the node, by namespace and name.
pub type HostPorts = BTreeMap<(String, String), BTreeSet<HostPort>>;

/// One port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// `hostIP`; unspecified is every address of the node.
    pub host_ip: IpAddr,
    /// `hostPort`.
    pub port: u16,
    /// `protocol`.
    pub protocol: Protocol,
    /// Where the container listens.
    pub backend: SocketAddrV4,
}

/// The owner that a pod is in the table.
pub(crate) fn owner((namespace, name): &(String, String)) -> Owner {
    Owner { created: None, kind: OwnerKind::Pod, namespace: namespace.clone(), name: name.clone() }
}

/// What a pod wants of the table.
pub(crate) fn wants(ports: &BTreeSet<HostPort>) -> Wants {
    let want = |port: &HostPort| {
        let frontend = match port.host_ip {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Frontend::NodePort(port.protocol, port.port),
            IpAddr::V4(ip) => Frontend::Address(ip, port.protocol, port.port),
            IpAddr::V6(ip) if ip.is_unspecified() => Frontend::NodePort(port.protocol, port.port),
            IpAddr::V6(_) => return None,
        };
        let target = Target { backends: vec![port.backend], on_host: true, ..Target::default() };
        Some((frontend, (Right::HostPort, target)))
    };
    ports.iter().filter_map(want).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_port_is_a_node_port_of_one_pod() {
        let port = |host_ip: &str, port| HostPort {
            host_ip: host_ip.parse().unwrap(),
            port,
            protocol: Protocol::Tcp,
            backend: "10.42.0.7:8080".parse().unwrap(),
        };
        let ports = [port("0.0.0.0", 9090), port("127.0.0.1", 9091), port("fd00::1", 9092), port("::", 9093)];
        let frontends: Vec<Frontend> = wants(&ports.into()).into_keys().collect();
        let local = Frontend::Address(Ipv4Addr::LOCALHOST, Protocol::Tcp, 9091);
        let any = |port| Frontend::NodePort(Protocol::Tcp, port);
        assert_eq!(frontends, [local, any(9090), any(9093)]);
    }
}
