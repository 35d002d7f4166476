//! Gives each node a range of pod addresses out of the cluster's (pkg/controller/nodeipam, range allocator). All nodes are
//! one key, so that no range is given out twice.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use crate::cache::Cache;
use crate::meta::MetaExt;
use crate::object::{Kind, Object, Typed};
use crate::plan::{Action, Note, Plan};
use crate::table::{Change, Context, Controller, Key, Watch, no_keys};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "cidrAllocator",
    watches: &[Watch::Objects(Kind::Node, of_node)],
    reconcile,
    initial_keys: no_keys,
};

fn of_node(change: Change<'_>, _: &dyn Cache) -> Vec<Key> {
    let lacks = matches!(change.new, Some(Object::Node(node)) if range_of(node).is_none());
    // A node that goes gives its range back, which another may wait for.
    if lacks || change.new.is_none() { vec![Key::new("", "nodes")] } else { Vec::new() }
}

fn range_of(node: &Node) -> Option<&str> {
    node.spec.as_ref()?.pod_cidr.as_deref()
}

fn reconcile(context: &mut Context<'_>, _: &Key) -> Plan {
    let mut plan = Plan::none();
    let Some(cluster) = context.config.cluster_cidr else { return plan };
    let nodes = context.cache.all::<Node>(None);
    let taken: HashSet<IpNet> = nodes.iter().filter_map(|node| range_of(node)?.parse().ok()).collect();
    let overlaps = |range: &IpNet| {
        taken.contains(range) || taken.iter().any(|other| other.contains(range) || range.contains(other))
    };
    let free = |range: &IpNet| {
        !overlaps(range) && !context.config.reserved_addresses.iter().any(|address| range.contains(address))
    };
    let mut ranges = Ranges::new(cluster, context.config.node_cidr_prefix).filter(free);
    for node in nodes.into_iter().filter(|node| range_of(node).is_none() && !node.is_deleting()) {
        match ranges.next() {
            Some(range) => {
                let range = range.to_string();
                let patch = json!({ "spec": { "podCIDR": range, "podCIDRs": [range] } });
                plan.push(Action::patch(&node.into_object(), patch));
            }
            None => {
                let text = format!("Node {} status is now: CIDRNotAvailable", node.name());
                plan.tell(Note::normal(node.as_ref(), "CIDRNotAvailable", text));
            }
        }
    }
    plan
}

/// The subnets of a range in order. It goes no further than it is asked to, so that a wide IPv6 range costs nothing.
struct Ranges {
    next: Option<u128>,
    last: u128,
    step: u128,
    prefix: u8,
    v4: bool,
}

impl Ranges {
    fn new(cluster: IpNet, prefix: u8) -> Self {
        let (first, last, bits) = match cluster {
            IpNet::V4(net) => (u128::from(u32::from(net.network())), u128::from(u32::from(net.broadcast())), 32),
            IpNet::V6(net) => (u128::from(net.network()), u128::from(net.broadcast()), 128),
        };
        let fits = prefix <= bits && prefix >= cluster.prefix_len() && prefix > 0;
        let step = if fits { 1_u128 << (bits - prefix) } else { 0 };
        Self { next: fits.then_some(first), last, step, prefix, v4: bits == 32 }
    }
}

impl Iterator for Ranges {
    type Item = IpNet;

    fn next(&mut self) -> Option<IpNet> {
        let at = self.next?;
        self.next = at.checked_add(self.step).filter(|next| *next <= self.last);
        let address =
            if self.v4 { IpAddr::V4(Ipv4Addr::from(u32::try_from(at).ok()?)) } else { IpAddr::V6(Ipv6Addr::from(at)) };
        IpNet::new(address, self.prefix).ok()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::NodeSpec;

    use super::*;
    use crate::model::{Model, meta};

    fn node(name: &str, range: Option<&str>) -> Node {
        let spec = NodeSpec { pod_cidr: range.map(str::to_owned), ..NodeSpec::default() };
        Node { metadata: meta("", name), spec: Some(spec), status: None }
    }

    fn check(cluster: &str, prefix: u8, nodes: &[Option<&str>], expect: &[Option<&str>]) {
        let mut model = Model::new();
        model.config.cluster_cidr = Some(cluster.parse().unwrap());
        model.config.node_cidr_prefix = prefix;
        for (index, range) in nodes.iter().enumerate() {
            model.put(node(&format!("n{index}"), *range));
        }
        model.run(&CONTROLLER, "", "nodes");
        let ranges: Vec<Option<String>> =
            model.all::<Node>().iter().map(|node| range_of(node).map(str::to_owned)).collect();
        assert_eq!(ranges.iter().map(Option::as_deref).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn lowest_free_range_first() {
        check("10.42.0.0/16", 24, &[None, None], &[Some("10.42.0.0/24"), Some("10.42.1.0/24")]);
        check("10.42.0.0/16", 24, &[Some("10.42.0.0/24"), None], &[Some("10.42.0.0/24"), Some("10.42.1.0/24")]);
        check("10.42.0.0/16", 24, &[Some("10.42.0.0/18"), None], &[Some("10.42.0.0/18"), Some("10.42.64.0/24")]);
        check("10.42.0.0/23", 24, &[None, None, None], &[Some("10.42.0.0/24"), Some("10.42.1.0/24"), None]);
        check("fd00::/56", 64, &[None], &[Some("fd00::/64")]);
        check("10.42.0.0/24", 16, &[None], &[None]);
    }
}
