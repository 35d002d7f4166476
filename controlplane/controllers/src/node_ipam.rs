//! Gives each node a range of pod addresses out of the cluster's (pkg/controller/nodeipam, range allocator), larger where the
//! node takes more pods than the usual range holds. All nodes are one key, so that no range is given out twice.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use coracle_api::quantity::Amount;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::json;

use crate::cache::Cache;
use crate::config::Config;
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

/// The namespace of the keys that tell of one node that no range is left for it. With many nodes too many, the run that
/// gives out ranges would tell of them all each time one comes.
const TELL: &str = "without-range";

fn of_node(change: Change<'_>, _: &dyn Cache) -> Vec<Key> {
    // A node that goes gives its range back, which another may wait for.
    let Some(Object::Node(node)) = change.new else { return vec![all_nodes()] };
    // A heartbeat brings no range about.
    let stands = |old: &Node| range_of(old) == range_of(node) && capacity(old) == capacity(node);
    let same = matches!(change.old, Some(Object::Node(old)) if stands(old));
    if range_of(node).is_some() || same { Vec::new() } else { vec![all_nodes(), Key::new(TELL, node.name())] }
}

/// The key that gives out ranges.
fn all_nodes() -> Key {
    Key::new("", "nodes")
}

fn capacity(node: &Node) -> Option<&BTreeMap<String, Quantity>> {
    node.status.as_ref()?.capacity.as_ref()
}

fn range_of(node: &Node) -> Option<&str> {
    node.spec.as_ref()?.pod_cidr.as_deref()
}

fn reconcile(context: &mut Context<'_>, key: &Key) -> Plan {
    let mut plan = Plan::none();
    let Some(cluster) = context.config.cluster_cidr else { return plan };
    let lacks = |node: &Node| range_of(node).is_none() && !node.is_deleting();
    // Mostly nobody waits for the range that a node gave back.
    if !context.cache.any(Kind::Node, &|object| matches!(object, Object::Node(node) if lacks(node))) {
        return plan;
    }
    let nodes = context.cache.all::<Node>(None);
    let mut free = Free::new(cluster, &nodes, context.config);
    if *key.namespace == *TELL {
        let node = nodes.iter().find(|node| node.name() == &*key.name && lacks(node));
        if let Some(node) = node.filter(|node| free.take(node).is_none()) {
            let text = format!("Node {} status is now: CIDRNotAvailable", node.name());
            plan.tell(Note::normal(node.as_ref(), "CIDRNotAvailable", text));
        }
        return plan;
    }
    for node in nodes.iter().filter(|node| lacks(node)) {
        let Some(range) = free.take(node) else { continue };
        let range = range.to_string();
        let patch = json!({ "spec": { "podCIDR": range, "podCIDRs": [range] } });
        plan.push(Action::patch(&node.clone().into_object(), patch));
    }
    plan
}

/// The ranges that no node has.
struct Free<'a> {
    cluster: IpNet,
    config: &'a Config,
    taken: HashSet<IpNet>,
    /// One walk per size: what was taken for one node is not tried again for the next.
    walks: HashMap<u8, Ranges>,
}

impl<'a> Free<'a> {
    fn new(cluster: IpNet, nodes: &[Arc<Node>], config: &'a Config) -> Self {
        let taken = nodes.iter().filter_map(|node| range_of(node)?.parse().ok()).collect();
        Self { cluster, config, taken, walks: HashMap::new() }
    }

    /// Takes the first range that is large enough for the node.
    fn take(&mut self, node: &Node) -> Option<IpNet> {
        let usual = self.config.node_cidr_prefix;
        let prefix = if self.cluster.addr().is_ipv4() { usual.min(prefix_for(node)) } else { usual };
        let walk = self.walks.entry(prefix).or_insert_with(|| Ranges::new(self.cluster, prefix));
        let (taken, config) = (&mut self.taken, self.config);
        let reserved = |range: &IpNet| config.reserved_addresses.iter().any(|address| range.contains(address));
        let range = walk.find(|range| !overlaps(taken, range) && !reserved(range))?;
        taken.insert(range);
        Some(range)
    }
}

fn overlaps(taken: &HashSet<IpNet>, range: &IpNet) -> bool {
    taken.contains(range) || taken.iter().any(|other| other.contains(range) || range.contains(other))
}

/// The longest prefix of a range that holds a node's pods (`status.capacity["pods"]`), a quarter more for those that end
/// while others begin, and the three addresses no pod gets.
fn prefix_for(node: &Node) -> u8 {
    let capacity = node.status.as_ref().and_then(|status| status.capacity.as_ref());
    let pods = capacity.and_then(|capacity| Amount::of(capacity.get("pods")?).ok()).map_or(0, Amount::value);
    let pods = u32::try_from(pods).unwrap_or(0).min(1 << 24);
    let addresses = (pods + pods.div_ceil(4) + 3).next_power_of_two();
    u8::try_from(32 - addresses.trailing_zeros()).unwrap_or(0)
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
    use k8s_openapi::api::core::v1::{NodeSpec, NodeStatus};

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
    fn many_pods_get_a_larger_range() {
        let check = |pods: &[&str], expect: &[&str]| {
            let mut model = Model::new();
            model.config.cluster_cidr = Some("10.42.0.0/16".parse().unwrap());
            model.config.node_cidr_prefix = 24;
            for (index, pods) in pods.iter().enumerate() {
                let mut node = node(&format!("n{index}"), None);
                let capacity = [("pods".to_owned(), Quantity((*pods).to_owned()))].into();
                node.status = Some(NodeStatus { capacity: Some(capacity), ..NodeStatus::default() });
                model.put(node);
            }
            model.run(&CONTROLLER, "", "nodes");
            let ranges: Vec<String> =
                model.all::<Node>().iter().map(|node| range_of(node).unwrap().to_owned()).collect();
            assert_eq!(ranges, expect);
        };
        check(&["110", "202"], &["10.42.0.0/24", "10.42.1.0/24"]);
        check(&["203"], &["10.42.0.0/23"]);
        check(&["110", "1100", "110"], &["10.42.0.0/24", "10.42.8.0/21", "10.42.1.0/24"]);
        check(&["10k"], &["10.42.0.0/18"]);
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

    #[test]
    fn each_node_that_gets_no_range_is_told_of_once() {
        let mut model = Model::new().with(node("a", None)).with(node("b", None)).with(node("c", None));
        model.config.cluster_cidr = Some("10.42.0.0/23".parse().unwrap());
        model.config.node_cidr_prefix = 24;
        model.run(&CONTROLLER, "", "nodes");
        assert_eq!(model.notes, []);
        for name in ["a", "b", "c"] {
            model.run(&CONTROLLER, TELL, name);
        }
        let told: Vec<_> = model.notes.iter().map(|note| note.message.as_str()).collect();
        assert_eq!(told, ["Node c status is now: CIDRNotAvailable"]);
        let keys = |old: Option<Node>, new: Node| {
            let (old, new) = (old.map(Object::from), Object::from(new));
            of_node(Change { old: old.as_ref(), new: Some(&new) }, &model).len()
        };
        assert_eq!(keys(None, node("c", None)), 2);
        assert_eq!(keys(Some(node("c", None)), node("c", None)), 0, "a heartbeat");
        assert_eq!(keys(None, node("a", Some("10.42.0.0/24"))), 0);
    }
}
