//! Names of Services, as the cluster's DNS would answer for them (the Kubernetes DNS-Based Service Discovery
//! specification), for whoever resolves on this node without asking a server.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::RwLock;

/// What a Service's name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Its cluster IPs, or the ready endpoints of a headless one. None when a headless one has no ready endpoint.
    Addresses(Vec<IpAddr>),
    /// Another name: `externalName`.
    Alias(String),
}

/// The names. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Names(Arc<RwLock<HashMap<(String, String), Named>>>);

#[derive(Debug)]
enum Named {
    ClusterIps(Vec<IpAddr>),
    Alias(String),
    /// Addresses of endpoints, and those of each `hostname`.
    Headless(BTreeSet<IpAddr>, BTreeMap<String, BTreeSet<IpAddr>>),
}

impl Names {
    /// What `SERVICE.NAMESPACE.svc` stands for; `None` when there is no such Service.
    #[must_use]
    pub fn service(&self, namespace: &str, service: &str) -> Option<Found> {
        let names = self.0.read();
        Some(match names.get(&(namespace.to_owned(), service.to_owned()))? {
            Named::ClusterIps(ips) => Found::Addresses(ips.clone()),
            Named::Alias(name) => Found::Alias(name.clone()),
            Named::Headless(ips, _) => Found::Addresses(ips.iter().copied().collect()),
        })
    }

    /// What `HOST.SERVICE.NAMESPACE.svc` stands for: endpoints of a headless Service with that hostname, or with that address,
    /// its dots written as dashes.
    #[must_use]
    pub fn endpoint(&self, namespace: &str, service: &str, host: &str) -> Option<Vec<IpAddr>> {
        let names = self.0.read();
        let Named::Headless(ips, hosts) = names.get(&(namespace.to_owned(), service.to_owned()))? else { return None };
        if let Some(found) = hosts.get(host) {
            return Some(found.iter().copied().collect());
        }
        let ip: IpAddr = host.replace('-', ".").parse().ok()?;
        ips.contains(&ip).then(|| vec![ip])
    }

    /// Follows a Service; `None` is one that is gone.
    pub(crate) fn set<'a>(
        &self,
        key: &(String, String),
        service: Option<&Service>,
        slices: impl Iterator<Item = &'a EndpointSlice>,
    ) {
        match service.and_then(|service| named(service, slices)) {
            Some(named) => drop(self.0.write().insert(key.clone(), named)),
            None => drop(self.0.write().remove(key)),
        }
    }
}

fn named<'a>(service: &Service, slices: impl Iterator<Item = &'a EndpointSlice>) -> Option<Named> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return spec.external_name.as_ref().map(|name| Named::Alias(name.trim_end_matches('.').to_ascii_lowercase()));
    }
    let ips: Vec<IpAddr> = {
        let mut texts: Vec<&String> = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).collect();
        texts.dedup();
        let mut ips: Vec<IpAddr> = texts.iter().filter_map(|text| text.parse().ok()).collect();
        ips.dedup();
        ips
    };
    if !ips.is_empty() {
        return Some(Named::ClusterIps(ips));
    }
    let (mut all, mut hosts) = (BTreeSet::new(), BTreeMap::<String, BTreeSet<IpAddr>>::new());
    for endpoint in slices.flat_map(|slice| slice.endpoints.iter().flatten()) {
        if endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(false) {
            continue;
        }
        let ips: Vec<IpAddr> = endpoint.addresses.iter().filter_map(|address| address.parse().ok()).collect();
        all.extend(&ips);
        if let Some(host) = endpoint.hostname.as_ref().filter(|host| !host.is_empty()) {
            hosts.entry(host.to_ascii_lowercase()).or_default().extend(ips);
        }
    }
    Some(Named::Headless(all, hosts))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn names(spec: Value, endpoints: Value) -> Names {
        let names = Names::default();
        let service = serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec})).unwrap();
        let slice: EndpointSlice =
            serde_json::from_value(json!({"metadata": {"name": "x"}, "addressType": "IPv4", "endpoints": endpoints}))
                .unwrap();
        names.set(&("ns".into(), "s".into()), Some(&service), [&slice].into_iter());
        names
    }

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn each_sort_of_service_has_its_answer() {
        let endpoints = json!([
            {"addresses": ["10.42.0.1"], "hostname": "db-0", "conditions": {"ready": true}},
            {"addresses": ["10.42.0.2"], "conditions": {"ready": false}},
            {"addresses": ["10.42.0.3"]},
        ]);
        let cluster = names(json!({"clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5"]}), endpoints.clone());
        assert_eq!(cluster.service("ns", "s"), Some(Found::Addresses(addresses(&["10.43.0.5"]))));
        assert_eq!(cluster.endpoint("ns", "s", "db-0"), None);
        assert_eq!(cluster.service("other", "s"), None);
        let headless = names(json!({"clusterIP": "None", "clusterIPs": ["None"]}), endpoints);
        assert_eq!(headless.service("ns", "s"), Some(Found::Addresses(addresses(&["10.42.0.1", "10.42.0.3"]))));
        assert_eq!(headless.endpoint("ns", "s", "db-0"), Some(addresses(&["10.42.0.1"])));
        assert_eq!(headless.endpoint("ns", "s", "10-42-0-3"), Some(addresses(&["10.42.0.3"])));
        assert_eq!(headless.endpoint("ns", "s", "10-42-0-2"), None);
        let alias = names(json!({"type": "ExternalName", "externalName": "Db.Example.com."}), json!([]));
        assert_eq!(alias.service("ns", "s"), Some(Found::Alias("db.example.com".into())));
        alias.set(&("ns".into(), "s".into()), None, std::iter::empty());
        assert_eq!(alias.service("ns", "s"), None);
    }
}
