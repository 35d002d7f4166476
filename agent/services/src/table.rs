//! From Services and EndpointSlices to a table of virtual ports and their backends, and from one table to the next. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use k8s_openapi::jiff::Timestamp;

/// Transport of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some(_) => None,
        }
    }
}

/// Where clients connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Frontend {
    /// An address and port: cluster IPs, external IPs, load balancers' addresses.
    Address(Ipv4Addr, Protocol, u16),
    /// A port of every address of the node.
    NodePort(Protocol, u16),
}

/// Where the connections of one frontend go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// Its backends. Their order says nothing; [`Table::replace`] keeps it as still as it can.
    pub backends: Vec<SocketAddrV4>,
    /// `sessionAffinity: ClientIP`: seconds for which a client keeps its backend.
    pub affinity_seconds: Option<u32>,
    /// What happens to a connection when there is no backend.
    pub without: Without,
    /// Whether the frontend is an address of this machine, which a process can listen on (`hostPort` with `hostIP`).
    pub on_host: bool,
}

/// What happens to a connection that no backend takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Without {
    /// It is refused: there is no endpoint anywhere.
    #[default]
    Refuse,
    /// It is dropped: there are endpoints, but the Service's policy keeps to this node's, and there are none.
    Drop,
}

/// By what right somebody has a frontend, the stronger first: nobody takes the traffic of an address that is another's own by
/// naming it among his external ones (CVE-2020-8554).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// A cluster IP or a node port: the API gives it out once.
    Given,
    /// An external IP or the address of a load balancer: anybody may name it.
    Named,
    /// A container's `hostPort`.
    HostPort,
}

/// A Service or a pod that has frontends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// Among owners of equal right the older one comes first.
    pub created: Option<Timestamp>,
    /// What kind of object it is.
    pub kind: OwnerKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Kinds of owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OwnerKind {
    /// A Service.
    Service,
    /// A pod.
    Pod,
}

/// What an owner wants of its frontends.
pub type Wants = BTreeMap<Frontend, (Right, Target)>;

/// Every frontend with its target, and everybody who wants it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    placed: BTreeMap<Frontend, Target>,
    claims: BTreeMap<Frontend, BTreeMap<(Right, Owner), Target>>,
    owned: HashMap<Owner, BTreeMap<Frontend, Right>>,
}

/// One step from a table to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The frontend.
    pub frontend: Frontend,
    /// Its target until now; `None` if it is new.
    pub before: Option<Target>,
    /// Its target from now on; `None` if it goes.
    pub after: Option<Target>,
}

/// Where load balancers ask whether this node has endpoints of a Service (`healthCheckNodePort`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The port.
    pub port: u16,
    /// The Service's namespace and name.
    pub service: (String, String),
    /// Ready endpoints on this node.
    pub local_endpoints: usize,
}

/// Seconds a client keeps its backend where the Service says nothing else.
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;

/// The frontends of one Service, with the targets its slices give.
#[must_use]
pub fn frontends<'a>(service: &Service, slices: impl Iterator<Item = &'a EndpointSlice> + Clone, node: &str) -> Wants {
    let mut out = Wants::new();
    let Some(spec) = &service.spec else { return out };
    if spec.type_.as_deref() == Some("ExternalName") {
        return out;
    }
    let cluster_ips = addresses(spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip));
    let ingress = service.status.iter().flat_map(|s| s.load_balancer.iter()).flat_map(|l| l.ingress.iter().flatten());
    // A load balancer that is a proxy of its own wants to see its traffic (KEP-1860).
    let ingress = ingress.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    let external = addresses(spec.external_ips.iter().flatten().chain(ingress.filter_map(|i| i.ip.as_ref())));
    let internal_local = spec.internal_traffic_policy.as_deref() == Some("Local");
    let external_local = spec.external_traffic_policy.as_deref() == Some("Local");
    let affinity_seconds = affinity(spec);
    for port in spec.ports.iter().flatten() {
        let (Some(protocol), Ok(number)) = (Protocol::parse(port.protocol.as_deref()), u16::try_from(port.port)) else {
            continue;
        };
        let target = |local: bool| {
            let all = || backends(slices.clone(), port, protocol, None);
            let chosen = if local { backends(slices.clone(), port, protocol, Some(node)) } else { all() };
            let elsewhere = local && chosen.is_empty() && !all().is_empty();
            let without = if elsewhere { Without::Drop } else { Without::Refuse };
            Target { backends: chosen, affinity_seconds, without, on_host: false }
        };
        for ip in &cluster_ips {
            out.insert(Frontend::Address(*ip, protocol, number), (Right::Given, target(internal_local)));
        }
        for ip in &external {
            let frontend = Frontend::Address(*ip, protocol, number);
            out.entry(frontend).or_insert_with(|| (Right::Named, target(external_local)));
        }
        if let Some(node_port) = port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0) {
            out.insert(Frontend::NodePort(protocol, node_port), (Right::Given, target(external_local)));
        }
    }
    out
}

/// The health check of a Service that has one.
#[must_use]
pub fn health_check<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    node: &str,
) -> Option<HealthCheck> {
    let spec = service.spec.as_ref()?;
    if spec.external_traffic_policy.as_deref() != Some("Local") {
        return None;
    }
    let port = spec.health_check_node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)?;
    let here = |endpoint: &&Endpoint| is_here(endpoint, Some(node)) && conditions(endpoint).ready != Some(false);
    let endpoints = slices.flat_map(|slice| slice.endpoints.iter().flatten());
    let local: BTreeSet<&String> = endpoints.filter(here).flat_map(|endpoint| endpoint.addresses.first()).collect();
    let name = |text: &Option<String>| text.clone().unwrap_or_default();
    let service = (name(&service.metadata.namespace), name(&service.metadata.name));
    Some(HealthCheck { port, service, local_endpoints: local.len() })
}

fn affinity(spec: &ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|client| client.timeout_seconds).and_then(|seconds| u32::try_from(seconds).ok());
    Some(seconds.filter(|seconds| *seconds > 0).unwrap_or(DEFAULT_AFFINITY_SECONDS))
}

fn addresses<'a>(texts: impl Iterator<Item = &'a String>) -> BTreeSet<Ipv4Addr> {
    texts.filter_map(|ip| ip.parse().ok()).collect()
}

/// Ready endpoints; when there is none, those that are terminating and still serve (KEP-1669).
fn backends<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
    port: &ServicePort,
    protocol: Protocol,
    only_node: Option<&str>,
) -> Vec<SocketAddrV4> {
    let (mut ready, mut leaving) = (BTreeSet::new(), BTreeSet::new());
    for slice in slices.filter(|slice| slice.address_type == "IPv4") {
        let numbers = slice.ports.iter().flatten().filter(|p| {
            p.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
                && Protocol::parse(p.protocol.as_deref()) == Some(protocol)
        });
        let numbers: Vec<u16> = numbers.filter_map(|p| u16::try_from(p.port?).ok()).collect();
        for endpoint in slice.endpoints.iter().flatten().filter(|endpoint| is_here(endpoint, only_node)) {
            let said = endpoint.conditions.as_ref();
            let into = match said.map(|said| (said.ready, said.serving, said.terminating)) {
                Some((Some(false), Some(true), Some(true))) => &mut leaving,
                Some((Some(false), ..)) => continue,
                _ => &mut ready,
            };
            let ips = endpoint.addresses.iter().filter_map(|a| a.parse::<Ipv4Addr>().ok());
            into.extend(ips.flat_map(|ip| numbers.iter().map(move |n| SocketAddrV4::new(ip, *n))));
        }
    }
    let chosen = if ready.is_empty() { leaving } else { ready };
    chosen.into_iter().collect()
}

fn conditions(endpoint: &Endpoint) -> EndpointConditions {
    endpoint.conditions.clone().unwrap_or_default()
}

fn is_here(endpoint: &Endpoint, only_node: Option<&str>) -> bool {
    only_node.is_none_or(|node| endpoint.node_name.as_deref() == Some(node))
}

impl Table {
    /// Puts what an owner wants in the place of what it had, and gives the changes. Of several that want a frontend the one
    /// with the strongest right has it, and the next when that one gives it up. Backends that stay keep their place, so that
    /// one endpoint's change is one element's change.
    pub fn replace(&mut self, owner: &Owner, wants: Wants) -> Vec<Change> {
        let rights = wants.iter().map(|(frontend, (right, _))| (*frontend, *right)).collect();
        let had: BTreeMap<Frontend, Right> =
            if wants.is_empty() { self.owned.remove(owner) } else { self.owned.insert(owner.clone(), rights) }
                .unwrap_or_default();
        for (frontend, right) in &had {
            if let Some(claims) = self.claims.get_mut(frontend) {
                claims.remove(&(*right, owner.clone()));
                if claims.is_empty() {
                    self.claims.remove(frontend);
                }
            }
        }
        let mut touched: Vec<Frontend> = had.into_keys().filter(|frontend| !wants.contains_key(frontend)).collect();
        for (frontend, (right, target)) in wants {
            self.claims.entry(frontend).or_default().insert((right, owner.clone()), target);
            touched.push(frontend);
        }
        touched.into_iter().filter_map(|frontend| self.settle(frontend)).collect()
    }

    /// Every frontend with its target.
    pub fn targets(&self) -> impl Iterator<Item = (&Frontend, &Target)> {
        self.placed.iter()
    }

    /// Gives a frontend to whoever has the strongest right to it.
    fn settle(&mut self, frontend: Frontend) -> Option<Change> {
        let wanted = self.claims.get(&frontend).and_then(|claims| claims.values().next());
        let before = self.placed.get(&frontend).cloned();
        let after = wanted.map(|wanted| {
            let mut after = wanted.clone();
            if let Some(before) = &before {
                after.backends = arranged(&before.backends, &wanted.backends);
            }
            after
        });
        match &after {
            Some(target) => self.placed.insert(frontend, target.clone()),
            None => self.placed.remove(&frontend),
        };
        (before != after).then_some(Change { frontend, before, after })
    }
}

/// The wanted backends with those that were there before in their places: holes are filled with new ones, then from the
/// end.
fn arranged(before: &[SocketAddrV4], wanted: &[SocketAddrV4]) -> Vec<SocketAddrV4> {
    let keep: BTreeSet<_> = wanted.iter().collect();
    let known: BTreeSet<_> = before.iter().collect();
    let mut new = wanted.iter().filter(|backend| !known.contains(backend)).copied();
    let kept = before.iter().map(|backend| keep.contains(backend).then_some(*backend));
    let mut places: Vec<Option<SocketAddrV4>> = kept.map(|place| place.or_else(|| new.next())).collect();
    places.extend(new.map(Some));
    let mut at = 0;
    while at < places.len() {
        if places[at].is_none() {
            // The last one that is there takes the hole's place.
            let last = places.pop().flatten();
            if at < places.len() {
                places[at] = last;
            }
        } else {
            at += 1;
        }
    }
    places.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(service: Value, slices: Value, expect: &[(Frontend, &[&str])]) {
        let service: Service = serde_json::from_value(service).unwrap();
        let slices: Vec<EndpointSlice> = serde_json::from_value(slices).unwrap();
        let expect: BTreeMap<_, Vec<SocketAddrV4>> =
            expect.iter().map(|(f, b)| (*f, b.iter().map(|a| a.parse().unwrap()).collect())).collect();
        let got = frontends(&service, slices.iter(), "n1");
        assert_eq!(got.into_iter().map(|(f, (_, target))| (f, target.backends)).collect::<BTreeMap<_, _>>(), expect);
    }

    fn service(extra: Value) -> Value {
        let mut spec = json!({
            "type": "NodePort", "clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5"],
            "ports": [{"name": "web", "port": 80, "protocol": "TCP", "nodePort": 30080}],
        });
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({"metadata": {"name": "s"}, "spec": spec})
    }

    fn slice(endpoints: Value) -> Value {
        json!([{"metadata": {"name": "x"}, "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}, {"name": "other", "port": 1, "protocol": "TCP"}]}])
    }

    const VIP: Frontend = Frontend::Address(Ipv4Addr::new(10, 43, 0, 5), Protocol::Tcp, 80);
    const PORT: Frontend = Frontend::NodePort(Protocol::Tcp, 30080);

    #[test]
    fn only_ready_endpoints_get_connections() {
        let endpoints = json!([
            {"addresses": ["10.42.0.2"], "conditions": {"ready": true}},
            {"addresses": ["10.42.0.3"], "conditions": {"ready": false}},
            {"addresses": ["10.42.0.1"]},
        ]);
        let both: &[&str] = &["10.42.0.1:8080", "10.42.0.2:8080"];
        check(service(json!({})), slice(endpoints), &[(VIP, both), (PORT, both)]);
    }

    #[test]
    fn terminating_endpoints_serve_when_nothing_else_does() {
        let leaving =
            json!({"addresses": ["10.42.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}});
        let last: &[&str] = &["10.42.0.2:8080"];
        check(service(json!({})), slice(json!([leaving])), &[(VIP, last), (PORT, last)]);
        let ready = json!({"addresses": ["10.42.0.9"], "conditions": {"ready": true}});
        let only: &[&str] = &["10.42.0.9:8080"];
        check(service(json!({})), slice(json!([leaving, ready])), &[(VIP, only), (PORT, only)]);
    }

    #[test]
    fn local_policies_keep_to_the_node() {
        let endpoints = json!([
            {"addresses": ["10.42.0.2"], "nodeName": "n1", "conditions": {"ready": true}},
            {"addresses": ["10.42.1.2"], "nodeName": "n2", "conditions": {"ready": true}},
        ]);
        let here: &[&str] = &["10.42.0.2:8080"];
        let all: &[&str] = &["10.42.0.2:8080", "10.42.1.2:8080"];
        check(
            service(json!({"externalTrafficPolicy": "Local"})),
            slice(endpoints.clone()),
            &[(VIP, all), (PORT, here)],
        );
        check(service(json!({"internalTrafficPolicy": "Local"})), slice(endpoints), &[(VIP, here), (PORT, all)]);
    }

    #[test]
    fn headless_and_external_services_have_no_virtual_ip() {
        check(service(json!({"type": "ExternalName"})), json!([]), &[]);
        check(
            service(json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"],
                "ports": [{"name": "web", "port": 80}]})),
            json!([]),
            &[],
        );
    }

    fn target(backends: &[&str]) -> Target {
        Target { backends: backends.iter().map(|a| a.parse().unwrap()).collect(), ..Target::default() }
    }

    fn owner(name: &str, second: i64) -> Owner {
        let created = Some(Timestamp::from_second(second).unwrap());
        Owner { created, kind: OwnerKind::Service, namespace: "ns".into(), name: name.into() }
    }

    #[test]
    fn replacing_gives_the_changes_only() {
        let (a, owner) = (target(&["10.42.0.1:1"]), owner("s", 1));
        let mut table = Table::default();
        let wants = Wants::from([(VIP, (Right::Given, a.clone())), (PORT, (Right::Given, a.clone()))]);
        assert_eq!(table.replace(&owner, wants.clone()).len(), 2);
        assert_eq!(table.replace(&owner, wants), []);
        let fewer = Wants::from([(VIP, (Right::Given, target(&[])))]);
        assert_eq!(
            table.replace(&owner, fewer),
            [
                Change { frontend: PORT, before: Some(a.clone()), after: None },
                Change { frontend: VIP, before: Some(a), after: Some(target(&[])) },
            ]
        );
        table.replace(&owner, Wants::new());
        assert_eq!(table, Table::default(), "nothing is left of who is gone");
    }

    #[test]
    fn nobody_takes_an_address_that_is_another_s() {
        let (theirs, mine) = (target(&["10.42.0.1:1"]), target(&["10.42.0.9:1"]));
        let want = |right, target: &Target| Wants::from([(VIP, (right, target.clone()))]);
        let at = |table: &Table| table.targets().map(|(_, target)| target.clone()).next();
        // Whatever the order, the cluster IP wins over one that is named, and an older owner over a younger.
        for first in [true, false] {
            let mut table = Table::default();
            let mut put = |strong: bool| match strong {
                true => table.replace(&owner("given", 9), want(Right::Given, &theirs)),
                false => table.replace(&owner("named", 1), want(Right::Named, &mine)),
            };
            put(first);
            put(!first);
            assert_eq!(at(&table), Some(theirs.clone()));
            // The other one's end changes nothing; this one's gives the address to the next.
            assert_eq!(table.clone().replace(&owner("named", 1), Wants::new()), []);
            table.replace(&owner("given", 9), Wants::new());
            assert_eq!(at(&table), Some(mine.clone()));
        }
        let mut table = Table::default();
        table.replace(&owner("young", 2), want(Right::Named, &mine));
        table.replace(&owner("old", 1), want(Right::Named, &theirs));
        assert_eq!(at(&table), Some(theirs.clone()));
        // A right that changes is not left behind.
        table.replace(&owner("young", 2), want(Right::Given, &mine));
        assert_eq!(at(&table), Some(mine.clone()));
        table.replace(&owner("young", 2), Wants::new());
        assert_eq!(at(&table), Some(theirs));
    }

    #[test]
    fn a_service_that_names_its_own_cluster_ip_keeps_it() {
        let object = service(json!({"externalIPs": ["10.43.0.5"], "externalTrafficPolicy": "Local"}));
        let service: Service = serde_json::from_value(object).unwrap();
        assert_eq!(frontends(&service, std::iter::empty(), "n1")[&VIP].0, Right::Given);
    }

    #[test]
    fn backends_keep_their_places() {
        let check = |before: &str, wanted: &str, expect: &str| {
            let list = |text: &str| -> Vec<SocketAddrV4> {
                text.chars().map(|c| format!("10.42.0.{}:1", u32::from(c) - 96).parse().unwrap()).collect()
            };
            assert_eq!(arranged(&list(before), &list(wanted)), list(expect), "{before} -> {wanted}");
        };
        check("", "abc", "abc");
        check("abc", "abc", "abc");
        check("bcd", "abcd", "bcda");
        check("abcd", "bcd", "dbc");
        check("abcd", "bcde", "ebcd");
        check("abcd", "d", "d");
        check("abcd", "", "");
        check("ab", "cd", "cd");
        check("abc", "b", "b");
    }

    #[test]
    fn clients_keep_their_backend_as_long_as_the_service_says() {
        let seconds = |extra: Value| {
            let service: Service = serde_json::from_value(service(extra)).unwrap();
            frontends(&service, std::iter::empty(), "n1")[&VIP].1.affinity_seconds
        };
        assert_eq!(seconds(json!({})), None);
        assert_eq!(seconds(json!({"sessionAffinity": "None"})), None);
        assert_eq!(seconds(json!({"sessionAffinity": "ClientIP"})), Some(10_800));
        let config = json!({"clientIP": {"timeoutSeconds": 60}});
        assert_eq!(seconds(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config})), Some(60));
    }

    #[test]
    fn a_local_policy_without_local_endpoints_drops_and_no_endpoint_at_all_refuses() {
        let without = |endpoints: Value| {
            let service: Service = serde_json::from_value(service(json!({"externalTrafficPolicy": "Local"}))).unwrap();
            let slices: Vec<EndpointSlice> = serde_json::from_value(slice(endpoints)).unwrap();
            let got = frontends(&service, slices.iter(), "n1");
            (got[&VIP].1.without, got[&PORT].1.without)
        };
        let far = json!([{"addresses": ["10.42.1.2"], "nodeName": "n2", "conditions": {"ready": true}}]);
        assert_eq!(without(far), (Without::Refuse, Without::Drop));
        assert_eq!(without(json!([])), (Without::Refuse, Without::Refuse));
        // Local endpoints that leave are better than none.
        let leaving = json!([{"addresses": ["10.42.0.2"], "nodeName": "n1",
            "conditions": {"ready": false, "serving": true, "terminating": true}}]);
        let last: &[&str] = &["10.42.0.2:8080"];
        check(service(json!({"externalTrafficPolicy": "Local"})), slice(leaving), &[(VIP, last), (PORT, last)]);
    }

    #[test]
    fn load_balancers_are_told_of_local_endpoints() {
        let check = |extra: Value, expect: Option<usize>| {
            let mut object = service(extra);
            object["metadata"]["namespace"] = json!("ns");
            let service: Service = serde_json::from_value(object).unwrap();
            let slices: Vec<EndpointSlice> = serde_json::from_value(slice(json!([
                {"addresses": ["10.42.0.2"], "nodeName": "n1", "conditions": {"ready": true}},
                {"addresses": ["10.42.0.3"], "nodeName": "n1", "conditions": {"ready": false}},
                {"addresses": ["10.42.1.2"], "nodeName": "n2", "conditions": {"ready": true}}])))
            .unwrap();
            let got = health_check(&service, slices.iter(), "n1");
            let service = ("ns".to_owned(), "s".to_owned());
            assert_eq!(got, expect.map(|local_endpoints| HealthCheck { port: 32000, service, local_endpoints }));
        };
        let local =
            |port: i32| json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": port});
        check(local(32000), Some(1));
        check(local(0), None);
        check(json!({"externalTrafficPolicy": "Cluster", "healthCheckNodePort": 32000}), None);
    }

    #[test]
    fn a_load_balancer_that_is_a_proxy_keeps_its_address() {
        let ingress = |mode: &str| {
            let mut object = service(json!({"type": "LoadBalancer"}));
            object["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.9", "ipMode": mode}]}});
            let service: Service = serde_json::from_value(object).unwrap();
            frontends(&service, std::iter::empty(), "n1").len()
        };
        assert_eq!((ingress("VIP"), ingress("Proxy")), (3, 2));
    }

    /// Pods that are not ready are published as ready endpoints by the controller: nothing here tells them apart.
    #[test]
    fn published_endpoints_get_connections_ready_or_not() {
        let endpoints = json!([{"addresses": ["10.42.0.3"], "conditions": {"ready": true, "serving": false}}]);
        let only: &[&str] = &["10.42.0.3:8080"];
        check(service(json!({"publishNotReadyAddresses": true})), slice(endpoints), &[(VIP, only), (PORT, only)]);
    }
}
