//! The settings of the controllers, with the defaults of kube-controller-manager v1.36.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

/// What an operator can set.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How long a node may be silent before it counts as unreachable (`--node-monitor-grace-period`).
    pub node_monitor_grace_period: Duration,
    /// How long a node may be silent before it has ever reported its status (`--node-startup-grace-period`).
    pub node_startup_grace_period: Duration,
    /// Pods on nodes that are gone stay this long, in case the node registers again.
    pub gone_node_quarantine: Duration,
    /// Ended pods beyond this number are deleted, oldest first (`--terminated-pod-gc-threshold`); 0 keeps all.
    pub terminated_pod_threshold: usize,
    /// How long an Event is kept after it last changed (`--event-ttl`).
    pub event_ttl: Duration,
    /// The range that nodes get their pod ranges from (`--cluster-cidr`); `None` leaves `spec.podCIDR` alone.
    pub cluster_cidr: Option<IpNet>,
    /// The size of a node's pod range (`--node-cidr-mask-size`).
    pub node_cidr_prefix: u8,
    /// The CA that `kube-root-ca.crt` carries in every namespace; empty publishes none.
    pub root_ca_pem: String,
    /// Addresses that no node's range may contain, the cluster's DNS for example.
    pub reserved_addresses: Vec<IpAddr>,
    /// Endpoints in one EndpointSlice (`--max-endpoints-per-slice`).
    pub max_endpoints_per_slice: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_monitor_grace_period: Duration::from_secs(40),
            node_startup_grace_period: Duration::from_secs(60),
            gone_node_quarantine: Duration::from_secs(40),
            terminated_pod_threshold: 12_500,
            event_ttl: Duration::from_secs(3600),
            cluster_cidr: None,
            node_cidr_prefix: 24,
            root_ca_pem: String::new(),
            reserved_addresses: Vec::new(),
            max_endpoints_per_slice: 100,
        }
    }
}
