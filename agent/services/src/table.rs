//! From Services and EndpointSlices to a table of virtual ports and their backends, and from one table to the next. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};

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

/// Where connections go: every frontend with its backends in a stable order. No backend means that connections are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table(pub BTreeMap<Frontend, Vec<SocketAddrV4>>);

/// One step from a table to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The frontend.
    pub frontend: Frontend,
    /// Its backends until now; `None` if it is new.
    pub before: Option<Vec<SocketAddrV4>>,
    /// Its backends from now on; `None` if it goes.
    pub after: Option<Vec<SocketAddrV4>>,
}

/// The frontends of one Service, with the backends its slices give.
#[must_use]
pub fn frontends<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
    node: &str,
) -> BTreeMap<Frontend, Vec<SocketAddrV4>> {
    let mut out = BTreeMap::new();
    let Some(spec) = &service.spec else { return out };
    if spec.type_.as_deref() == Some("ExternalName") {
        return out;
    }
    let cluster_ips = addresses(spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip));
    let ingress = service.status.iter().flat_map(|s| s.load_balancer.iter()).flat_map(|l| l.ingress.iter().flatten());
    let external = addresses(spec.external_ips.iter().flatten().chain(ingress.filter_map(|i| i.ip.as_ref())));
    let internal_local = spec.internal_traffic_policy.as_deref() == Some("Local");
    let external_local = spec.external_traffic_policy.as_deref() == Some("Local");
    for port in spec.ports.iter().flatten() {
        let (Some(protocol), Ok(number)) = (Protocol::parse(port.protocol.as_deref()), u16::try_from(port.port)) else {
            continue;
        };
        let backends = |local: bool| backends(slices.clone(), port, protocol, local.then_some(node));
        for ip in &cluster_ips {
            out.insert(Frontend::Address(*ip, protocol, number), backends(internal_local));
        }
        for ip in &external {
            out.insert(Frontend::Address(*ip, protocol, number), backends(external_local));
        }
        if let Some(node_port) = port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0) {
            out.insert(Frontend::NodePort(protocol, node_port), backends(external_local));
        }
    }
    out
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
    let collect = |wanted: fn(&EndpointConditions) -> bool| {
        let mut out = BTreeSet::new();
        for slice in slices.clone().filter(|s| s.address_type == "IPv4") {
            let numbers = slice.ports.iter().flatten().filter(|p| {
                p.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
                    && Protocol::parse(p.protocol.as_deref()) == Some(protocol)
            });
            let numbers: Vec<u16> = numbers.filter_map(|p| u16::try_from(p.port?).ok()).collect();
            for endpoint in slice.endpoints.iter().flatten().filter(|e| is_here(e, only_node) && wanted(&conditions(e)))
            {
                let ips = endpoint.addresses.iter().filter_map(|a| a.parse::<Ipv4Addr>().ok());
                out.extend(ips.flat_map(|ip| numbers.iter().map(move |n| SocketAddrV4::new(ip, *n))));
            }
        }
        out
    };
    let ready = collect(|c| c.ready != Some(false));
    let chosen =
        if ready.is_empty() { collect(|c| c.serving == Some(true) && c.terminating == Some(true)) } else { ready };
    chosen.into_iter().collect()
}

fn conditions(endpoint: &Endpoint) -> EndpointConditions {
    endpoint.conditions.clone().unwrap_or_default()
}

fn is_here(endpoint: &Endpoint, only_node: Option<&str>) -> bool {
    only_node.is_none_or(|node| endpoint.node_name.as_deref() == Some(node))
}

impl Table {
    /// Puts what one Service wants in the place of what it had, and gives the changes.
    pub fn replace(&mut self, had: &BTreeSet<Frontend>, wants: &BTreeMap<Frontend, Vec<SocketAddrV4>>) -> Vec<Change> {
        let mut changes = Vec::new();
        for frontend in had.iter().filter(|f| !wants.contains_key(f)) {
            if let Some(before) = self.0.remove(frontend) {
                changes.push(Change { frontend: *frontend, before: Some(before), after: None });
            }
        }
        for (frontend, backends) in wants {
            let before = self.0.insert(*frontend, backends.clone());
            if before.as_ref() != Some(backends) {
                changes.push(Change { frontend: *frontend, before, after: Some(backends.clone()) });
            }
        }
        changes
    }
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
        assert_eq!(frontends(&service, slices.iter(), "n1"), expect);
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

    #[test]
    fn replacing_gives_the_changes_only() {
        let a: Vec<SocketAddrV4> = vec!["10.42.0.1:1".parse().unwrap()];
        let mut table = Table::default();
        let wants = BTreeMap::from([(VIP, a.clone()), (PORT, a.clone())]);
        assert_eq!(table.replace(&BTreeSet::new(), &wants).len(), 2);
        let had: BTreeSet<_> = wants.keys().copied().collect();
        assert_eq!(table.replace(&had, &wants), []);
        let fewer = BTreeMap::from([(VIP, vec![])]);
        assert_eq!(
            table.replace(&had, &fewer),
            [
                Change { frontend: PORT, before: Some(a.clone()), after: None },
                Change { frontend: VIP, before: Some(a), after: Some(vec![]) },
            ]
        );
    }
}
