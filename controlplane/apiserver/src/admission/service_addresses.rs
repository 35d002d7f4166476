//! Cluster IPs and node ports of Services. Each address is an `IPAddress` object, each node port a claim of its own, created
//! in the Service's own transaction: the store's compare-and-swap never gives one out twice, whoever asks and whenever
//! it crashes.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use coracle_api::ApiError;
use coracle_api::validation::{Errors, FieldPath};
use coracle_store::{Collection, Key, Op, Value};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{IPAddress, IPAddressSpec, ParentReference};
use rand::Rng as _;

use super::{Operation, Plugin, Review};
use crate::meta;
use crate::registry::{Served, encode};

/// Random draws before the range is searched in order.
const DRAWS: usize = 32;

/// Gives Services their addresses.
pub struct ServiceAddresses {
    range: Ipv4Net,
    node_ports: std::ops::RangeInclusive<u16>,
    claims: Collection,
}

impl ServiceAddresses {
    /// Addresses of `range`, ports of `node_ports`.
    #[must_use]
    pub fn new(range: Ipv4Net, node_ports: std::ops::RangeInclusive<u16>) -> Self {
        Self { range, node_ports, claims: Collection::new("coracle", "nodeports") }
    }

    /// Kubernetes keeps a low band for addresses that are asked for by number (KEP-3070), so that random ones seldom meet
    /// them: min(max(16, size / 16), 256).
    fn first_random(&self) -> u32 {
        (self.size() / 16).clamp(16, 256).min(self.size() / 2)
    }

    fn size(&self) -> u32 {
        // Without the network's and the broadcast's address.
        (1_u32 << (32 - u32::from(self.range.prefix_len()))).saturating_sub(2).max(1)
    }

    fn nth(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.range.network()) + 1 + n)
    }

    fn free_address(&self, review: &Review<'_>, taken: &BTreeSet<IpAddr>) -> Result<Ipv4Addr, ApiError> {
        let served = review.api.registry.of::<IPAddress>();
        let is_free = |ip: Ipv4Addr| {
            !taken.contains(&IpAddr::V4(ip)) && review.api.store.get(&served.key("", &ip.to_string())).is_none()
        };
        let (low, size) = (self.first_random(), self.size());
        let mut rng = review.api.dice();
        for _ in 0..DRAWS {
            let ip = self.nth(rng.random_range(low..size.max(low + 1)));
            if is_free(ip) {
                return Ok(ip);
            }
        }
        (low..size)
            .chain(0..low)
            .map(|n| self.nth(n))
            .find(|ip| is_free(*ip))
            .ok_or_else(|| ApiError::internal("failed to allocate a serviceIP: range is full"))
    }

    fn claim_key(&self, protocol: &str, port: u16) -> Key {
        self.claims.key("", &format!("{protocol}-{port}"))
    }

    fn free_port(&self, review: &Review<'_>, protocol: &str, taken: &BTreeSet<Key>) -> Result<u16, ApiError> {
        let is_free = |port: u16| {
            let key = self.claim_key(protocol, port);
            !taken.contains(&key) && review.api.store.get(&key).is_none()
        };
        let mut rng = review.api.dice();
        for _ in 0..DRAWS {
            let port = rng.random_range(self.node_ports.clone());
            if is_free(port) {
                return Ok(port);
            }
        }
        self.node_ports
            .clone()
            .find(|port| is_free(*port))
            .ok_or_else(|| ApiError::internal("failed to allocate a nodePort: range is full"))
    }
}

/// What a Service holds: its addresses and its ports.
#[derive(Default, PartialEq, Eq)]
struct Held {
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<(String, u16)>,
}

fn held(spec: Option<&ServiceSpec>) -> Held {
    let Some(spec) = spec else { return Held::default() };
    let addresses =
        spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).filter_map(|ip| ip.parse().ok()).collect();
    let port = |p: &ServicePort| Some((protocol(p).to_owned(), u16::try_from(p.node_port?).ok().filter(|n| *n > 0)?));
    let mut ports: BTreeSet<_> = spec.ports.iter().flatten().filter_map(port).collect();
    if let Some(health) = spec.health_check_node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0) {
        ports.insert(("TCP".to_owned(), health));
    }
    Held { addresses, ports }
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

impl Plugin for ServiceAddresses {
    fn name(&self) -> &'static str {
        "ServiceAddresses"
    }

    fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        if review.served.kind.kind != "Service" || review.subresource.is_some() {
            return Ok(());
        }
        let before = held(review.old.and_then(|o| o.as_any().downcast_ref::<Service>()).and_then(|s| s.spec.as_ref()));
        if review.operation == Operation::Delete {
            return self.settle(review, &before, &Held::default());
        }
        let Some(mut service) = review.object().as_any().downcast_ref::<Service>().cloned() else { return Ok(()) };
        let spec = service.spec.get_or_insert_default();
        if let Some(old) = review.old.and_then(|o| o.as_any().downcast_ref::<Service>()).and_then(|s| s.spec.as_ref()) {
            keep(spec, old);
        }
        self.fill_addresses(review, spec)?;
        self.fill_ports(review, spec, &before)?;
        let after = held(service.spec.as_ref());
        if let Some(target) = review.object_mut().as_any_mut().downcast_mut::<Service>() {
            *target = service;
        }
        self.settle(review, &before, &after)
    }
}

/// An update that leaves out what was allocated keeps it (`patchAllocatedValues`).
fn keep(spec: &mut ServiceSpec, old: &ServiceSpec) {
    let external = |s: &ServiceSpec| s.type_.as_deref() == Some("ExternalName");
    if external(spec) || external(old) {
        return;
    }
    if spec.cluster_ip.as_deref().unwrap_or_default().is_empty() {
        spec.cluster_ip.clone_from(&old.cluster_ip);
        if spec.cluster_ips.as_ref().is_none_or(Vec::is_empty) {
            spec.cluster_ips.clone_from(&old.cluster_ips);
        }
    }
    if needs_node_ports(spec) && needs_node_ports(old) {
        for port in spec.ports.iter_mut().flatten().filter(|p| p.node_port.unwrap_or(0) == 0) {
            let same = |p: &&ServicePort| p.port == port.port && protocol(p) == protocol(port);
            port.node_port = old.ports.iter().flatten().find(same).and_then(|p| p.node_port);
        }
    }
}

fn needs_node_ports(spec: &ServiceSpec) -> bool {
    match spec.type_.as_deref() {
        Some("NodePort") => true,
        Some("LoadBalancer") => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

impl ServiceAddresses {
    fn fill_addresses(&self, review: &Review<'_>, spec: &mut ServiceSpec) -> Result<(), ApiError> {
        if spec.type_.as_deref() == Some("ExternalName") {
            spec.cluster_ip = None;
            spec.cluster_ips = None;
            spec.ip_families = None;
            spec.ip_family_policy = None;
            return Ok(());
        }
        check_families(review, spec)?;
        spec.ip_families.get_or_insert_with(|| vec!["IPv4".to_owned()]);
        spec.ip_family_policy.get_or_insert_with(|| "SingleStack".to_owned());
        let asked = spec.cluster_ip.clone().filter(|ip| !ip.is_empty());
        let asked = asked.or_else(|| spec.cluster_ips.as_ref().and_then(|ips| ips.first().cloned()));
        let ip = match asked {
            Some(none) if none == "None" => none,
            Some(text) => {
                self.check_address(review, &text)?;
                text
            }
            None => self.free_address(review, &BTreeSet::new())?.to_string(),
        };
        spec.cluster_ips = Some(vec![ip.clone()]);
        spec.cluster_ip = Some(ip);
        Ok(())
    }

    fn check_address(&self, review: &Review<'_>, text: &str) -> Result<(), ApiError> {
        let in_range = text.parse::<Ipv4Addr>().is_ok_and(|ip| self.range.contains(&ip));
        if in_range {
            return Ok(());
        }
        let mut errors = Errors::new();
        let path = FieldPath::new("spec").child("clusterIPs");
        let why = format!(
            "failed to allocate IP {text}: the provided IP ({text}) is not in the valid range. The range of valid IPs is {}",
            self.range
        );
        errors.invalid(&path, serde_json::json!([text]), why);
        Err(ApiError::invalid("", "Service", review.name, &errors))
    }

    fn fill_ports(&self, review: &Review<'_>, spec: &mut ServiceSpec, before: &Held) -> Result<(), ApiError> {
        if !needs_node_ports(spec) {
            for port in spec.ports.iter_mut().flatten() {
                // A type without node ports gives those it had back.
                let was_ours = port
                    .node_port
                    .and_then(|n| u16::try_from(n).ok())
                    .is_some_and(|n| before.ports.contains(&(protocol(port).to_owned(), n)));
                if was_ours && spec.type_.as_deref() != Some("LoadBalancer") {
                    port.node_port = None;
                }
            }
            return Ok(());
        }
        let mut taken: BTreeSet<Key> = held(Some(spec)).ports.iter().map(|(p, n)| self.claim_key(p, *n)).collect();
        for (i, port) in spec.ports.iter_mut().flatten().enumerate() {
            let protocol = protocol(port).to_owned();
            match port.node_port.filter(|n| *n != 0) {
                Some(n) => self.check_port(review, i, n)?,
                None => {
                    let n = self.free_port(review, &protocol, &taken)?;
                    taken.insert(self.claim_key(&protocol, n));
                    port.node_port = Some(i32::from(n));
                }
            }
        }
        let local =
            spec.type_.as_deref() == Some("LoadBalancer") && spec.external_traffic_policy.as_deref() == Some("Local");
        if local && spec.health_check_node_port.unwrap_or(0) == 0 {
            spec.health_check_node_port = Some(i32::from(self.free_port(review, "TCP", &taken)?));
        }
        Ok(())
    }

    fn check_port(&self, review: &Review<'_>, index: usize, port: i32) -> Result<(), ApiError> {
        if u16::try_from(port).is_ok_and(|p| self.node_ports.contains(&p)) {
            return Ok(());
        }
        let range = format!("{}-{}", self.node_ports.start(), self.node_ports.end());
        let why = format!("provided port is not in the valid range. The range of valid ports is {range}");
        Err(port_error(review, index, port, &why))
    }

    /// Adds the operations that turn what the Service held into what it is to hold.
    fn settle(&self, review: &mut Review<'_>, before: &Held, after: &Held) -> Result<(), ApiError> {
        let addresses = review.api.registry.of::<IPAddress>().clone();
        for ip in after.addresses.difference(&before.addresses) {
            let op = self.claim_address(review, &addresses, *ip)?;
            review.effects.push(op);
        }
        for ip in before.addresses.difference(&after.addresses) {
            release(review, addresses.key("", &ip.to_string()));
        }
        for (protocol, port) in after.ports.difference(&before.ports) {
            let key = self.claim_key(protocol, *port);
            if review.api.store.get(&key).is_some() {
                return Err(port_error(review, 0, i32::from(*port), "provided port is already allocated"));
            }
            let owner = format!("\"{}/{}\"", review.namespace, review.name);
            review.effects.push(Op::Create { key, value: Value::plain(owner) });
        }
        for (protocol, port) in before.ports.difference(&after.ports) {
            release(review, self.claim_key(protocol, *port));
        }
        Ok(())
    }

    fn claim_address(&self, review: &Review<'_>, served: &Served, ip: IpAddr) -> Result<Op, ApiError> {
        let key = served.key("", &ip.to_string());
        if review.api.store.get(&key).is_some() {
            let mut errors = Errors::new();
            let path = FieldPath::new("spec").child("clusterIPs");
            let why = format!("failed to allocate IP {ip}: provided IP is already allocated");
            errors.invalid(&path, serde_json::json!([ip.to_string()]), why);
            return Err(ApiError::invalid("", "Service", review.name, &errors));
        }
        let mut address = IPAddress {
            spec: IPAddressSpec {
                parent_ref: ParentReference {
                    group: Some(String::new()),
                    resource: "services".to_owned(),
                    namespace: Some(review.namespace.to_owned()),
                    name: review.name.to_owned(),
                },
            },
            ..Default::default()
        };
        address.metadata.name = Some(ip.to_string());
        let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        let labels = [
            ("ipaddress.kubernetes.io/ip-family", family),
            ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io"),
        ];
        address.metadata.labels = Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        meta::fill_new(served.kind, "", &mut address, review.now, &mut review.api.dice())?;
        Ok(Op::Create { key, value: encode(served.kind, Box::new(address), None)? })
    }
}

/// This cluster has addresses of IPv4 only. A Service that is no more than a name for what somebody else lists may have any.
fn check_families(review: &Review<'_>, spec: &ServiceSpec) -> Result<(), ApiError> {
    let headless = spec.cluster_ip.as_deref() == Some("None");
    if headless && spec.selector.as_ref().is_none_or(std::collections::BTreeMap::is_empty) {
        return Ok(());
    }
    let mut errors = Errors::new();
    let at = FieldPath::new("spec");
    for (i, family) in spec.ip_families.iter().flatten().enumerate().filter(|(_, family)| *family == "IPv6") {
        errors.invalid(&at.child("ipFamilies").index(i), family.as_str(), "not configured on this cluster");
    }
    if let Some(policy) = spec.ip_family_policy.as_deref().filter(|policy| *policy == "RequireDualStack") {
        let why = "this cluster is not configured for dual-stack services";
        errors.invalid(&at.child("ipFamilyPolicy"), policy, why);
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("", "Service", review.name, &errors)) }
}

fn port_error(review: &Review<'_>, index: usize, port: i32, why: &str) -> ApiError {
    let mut errors = Errors::new();
    errors.invalid(&FieldPath::new("spec").child("ports").index(index).child("nodePort"), port, why);
    ApiError::invalid("", "Service", review.name, &errors)
}

/// Gives a claim back, if it is there.
fn release(review: &mut Review<'_>, key: Key) {
    if let Some(entry) = review.api.store.get(&key) {
        review.effects.push(Op::Delete { key, expected: entry.revision });
    }
}
