//! Names inside a pod: `localhost`, the pod's own name and its host aliases first, as `/etc/hosts` has them, then the node's
//! way of resolving for that pod.

mod cluster;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use coracle_agent_core::workload::{DnsSpec, SandboxSpec};
use coracle_host::{Lookup, Resolver, SystemResolver};

pub use cluster::{ClusterNames, ClusterResolver, Name};

/// Makes the resolver of a pod from its DNS settings. The node gives one that knows the cluster's names.
pub trait PodResolver: Send + Sync {
    /// The resolver for a pod of this namespace.
    fn for_pod(&self, namespace: &str, dns: &DnsSpec) -> Arc<dyn Resolver>;
}

/// Resolves as the node itself does, whatever the pod's settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeResolver;

impl PodResolver for NodeResolver {
    fn for_pod(&self, _namespace: &str, _dns: &DnsSpec) -> Arc<dyn Resolver> {
        Arc::new(SystemResolver)
    }
}

/// The names a pod knows by itself, before anything else.
pub(crate) struct HostsFirst {
    hosts: HashMap<String, Vec<IpAddr>>,
    next: Arc<dyn Resolver>,
}

impl HostsFirst {
    pub(crate) fn new(sandbox: &SandboxSpec, next: Arc<dyn Resolver>) -> Self {
        let mut hosts: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for (ip, names) in &sandbox.host_aliases {
            for name in names {
                hosts.entry(name.to_ascii_lowercase()).or_default().push(*ip);
            }
        }
        if !sandbox.ips.is_empty() {
            hosts.entry(sandbox.hostname.to_ascii_lowercase()).or_insert_with(|| sandbox.ips.clone());
        }
        hosts.insert("localhost".into(), vec![Ipv4Addr::LOCALHOST.into()]);
        Self { hosts, next }
    }
}

impl Resolver for HostsFirst {
    fn resolve(&self, name: &str) -> Lookup {
        match self.hosts.get(name.trim_end_matches('.')) {
            Some(addresses) => Box::pin(std::future::ready(Ok(addresses.clone()))),
            None => self.next.resolve(name),
        }
    }
}
