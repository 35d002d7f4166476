//! Names as a pod with the cluster's DNS resolves them: through its search domains (`resolv.conf(5)`), Services from what the
//! node knows of them, everything else as the node itself does.

use std::{net::IpAddr, sync::Arc};

use coracle_agent_core::workload::DnsSpec;
use coracle_host::{Lookup, LookupError, Resolver, SystemResolver};

use super::PodResolver;

/// `ndots` of pods (`pkg/kubelet/network/dns`).
const NDOTS: usize = 5;
/// Aliases of aliases that are followed.
const MAX_ALIASES: usize = 8;
/// Search domains that are tried (`MaxDNSSearchPaths`).
const MAX_SEARCHES: usize = 32;

/// What a Service's name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// Its addresses; none when it is headless and has no ready endpoint.
    Addresses(Vec<IpAddr>),
    /// Another name.
    Alias(String),
}

/// What the node knows of the cluster's names.
pub trait ClusterNames: Send + Sync {
    /// What a Service's name stands for; `None` when there is no such Service.
    fn service(&self, namespace: &str, service: &str) -> Option<Name>;
    /// Endpoints of a headless Service with this hostname, or this address with dashes.
    fn endpoint(&self, namespace: &str, service: &str, host: &str) -> Option<Vec<IpAddr>>;
}

/// Makes resolvers that know the cluster's names.
#[derive(Clone)]
pub struct ClusterResolver {
    names: Arc<dyn ClusterNames>,
    others: Arc<dyn Resolver>,
}

impl ClusterResolver {
    /// Over these names; others are asked of the node's own resolver.
    pub fn new(names: Arc<dyn ClusterNames>) -> Self {
        Self { names, others: Arc::new(SystemResolver) }
    }
}

impl PodResolver for ClusterResolver {
    fn for_pod(&self, namespace: &str, dns: &DnsSpec) -> Arc<dyn Resolver> {
        let Some(domain) = dns.cluster.clone() else { return self.others.clone() };
        let own = [format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
        let mut searches: Vec<String> = Vec::new();
        for search in own.into_iter().chain(dns.searches.iter().map(|search| search.to_ascii_lowercase())) {
            let search = search.trim_end_matches('.').to_owned();
            if !search.is_empty() && !searches.contains(&search) && searches.len() < MAX_SEARCHES {
                searches.push(search);
            }
        }
        let ndots = dns.options.iter().find_map(|option| option.strip_prefix("ndots:")?.parse().ok());
        Arc::new(OfPod { all: self.clone(), domain, searches, ndots: ndots.unwrap_or(NDOTS) })
    }
}

/// A pod's resolver.
#[derive(Clone)]
struct OfPod {
    all: ClusterResolver,
    domain: String,
    searches: Vec<String>,
    ndots: usize,
}

/// A name in the cluster's domain, or not.
enum Place {
    Known(Name),
    Unknown,
    Outside,
}

impl Resolver for OfPod {
    fn resolve(&self, name: &str) -> Lookup {
        let (pod, name) = (self.clone(), name.to_owned());
        Box::pin(async move {
            let mut last = LookupError::NotFound;
            for candidate in pod.candidates(&name) {
                match pod.one(candidate).await {
                    Err(LookupError::NotFound) => {}
                    // An answer that may come later is not an answer of no.
                    Err(error) => last = error,
                    found => return found,
                }
            }
            Err(last)
        })
    }
}

impl OfPod {
    /// The full names to try, in order.
    fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(full) = name.strip_suffix('.') {
            return vec![full.to_owned()];
        }
        let searched = self.searches.iter().map(|search| format!("{name}.{search}"));
        if name.matches('.').count() >= self.ndots {
            std::iter::once(name.to_owned()).chain(searched).collect()
        } else {
            searched.chain([name.to_owned()]).collect()
        }
    }

    async fn one(&self, mut name: String) -> Result<Vec<IpAddr>, LookupError> {
        for _ in 0..MAX_ALIASES {
            match self.place(&name) {
                Place::Known(Name::Addresses(addresses)) if !addresses.is_empty() => return Ok(addresses),
                Place::Known(Name::Addresses(_)) | Place::Unknown => return Err(LookupError::NotFound),
                Place::Known(Name::Alias(other)) => name = other,
                Place::Outside => return self.all.others.resolve(&name).await,
            }
        }
        Err(LookupError::NotFound)
    }

    /// What a full name is: `SERVICE.NAMESPACE.svc`, `HOST.SERVICE.NAMESPACE.svc` or `A-B-C-D.NAMESPACE.pod`, in the
    /// cluster's domain.
    fn place(&self, name: &str) -> Place {
        let Some(inner) = name.strip_suffix(self.domain.as_str()) else { return Place::Outside };
        let Some(inner) = inner.strip_suffix('.') else {
            return if inner.is_empty() { Place::Unknown } else { Place::Outside };
        };
        let labels: Vec<&str> = inner.split('.').collect();
        let names = &self.all.names;
        let known = match labels[..] {
            [service, namespace, "svc"] => names.service(namespace, service),
            [host, service, namespace, "svc"] => names.endpoint(namespace, service, host).map(Name::Addresses),
            [ip, _, "pod"] => ip.replace('-', ".").parse().ok().map(|ip| Name::Addresses(vec![ip])),
            _ => None,
        };
        known.map_or(Place::Unknown, Place::Known)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Known;

    impl ClusterNames for Known {
        fn service(&self, namespace: &str, service: &str) -> Option<Name> {
            let ip = |text: &str| Name::Addresses(vec![text.parse().unwrap()]);
            Some(match (namespace, service) {
                ("default", "web") => ip("10.43.0.5"),
                ("other", "web") => ip("10.43.0.6"),
                ("default", "away") => Name::Alias("db.example.com".into()),
                ("default", "near") => Name::Alias("web.other.svc.cluster.local".into()),
                ("default", "round") => Name::Alias("round.default.svc.cluster.local".into()),
                ("default", "empty") => Name::Addresses(Vec::new()),
                _ => return None,
            })
        }

        fn endpoint(&self, namespace: &str, service: &str, host: &str) -> Option<Vec<IpAddr>> {
            let known = (namespace, service, host) == ("default", "db", "db-0");
            known.then(|| vec!["10.42.0.9".parse().unwrap()])
        }
    }

    /// Answers for one name outside, and remembers what it was asked.
    #[derive(Default)]
    struct Outside(Mutex<Vec<String>>);

    impl Resolver for Outside {
        fn resolve(&self, name: &str) -> Lookup {
            self.0.lock().unwrap().push(name.to_owned());
            let found = (name == "db.example.com").then(|| vec!["192.0.2.9".parse().unwrap()]);
            Box::pin(std::future::ready(found.ok_or(LookupError::NotFound)))
        }
    }

    fn resolvers(searches: &[&str], options: &[&str]) -> (Arc<dyn Resolver>, Arc<Outside>) {
        let outside = Arc::new(Outside::default());
        let all = ClusterResolver { names: Arc::new(Known), others: outside.clone() };
        let list = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        let dns = DnsSpec {
            cluster: Some("cluster.local".into()),
            searches: list(searches),
            options: list(options),
            ..DnsSpec::default()
        };
        (all.for_pod("default", &dns), outside)
    }

    #[tokio::test]
    async fn services_are_found_by_each_of_their_names() {
        let (resolver, _) = resolvers(&["example.com"], &[]);
        for (name, expect) in [
            ("web", Some("10.43.0.5")),
            ("web.default", Some("10.43.0.5")),
            ("web.other", Some("10.43.0.6")),
            ("web.other.svc", Some("10.43.0.6")),
            ("web.other.svc.cluster.local", Some("10.43.0.6")),
            ("web.other.svc.cluster.local.", Some("10.43.0.6")),
            ("web.", None),
            ("db-0.db", Some("10.42.0.9")),
            ("db-0.db.default.svc.cluster.local", Some("10.42.0.9")),
            ("10-42-0-3.default.pod.cluster.local", Some("10.42.0.3")),
            ("away", Some("192.0.2.9")),
            ("near", Some("10.43.0.6")),
            ("round", None),
            ("empty", None),
            ("nobody", None),
            ("nobody.default.svc.cluster.local", None),
            // Through the domain that the pod declares.
            ("db", Some("192.0.2.9")),
            ("db.example.com", Some("192.0.2.9")),
        ] {
            let expect = expect.map(|ip| vec![ip.parse::<IpAddr>().unwrap()]).ok_or(LookupError::NotFound);
            assert_eq!(resolver.resolve(name).await, expect, "{name}");
        }
    }

    #[tokio::test]
    async fn nobody_outside_is_asked_for_the_cluster_s_names() {
        let (resolver, outside) = resolvers(&["example.com"], &[]);
        resolver.resolve("a.b.svc.cluster.local.").await.unwrap_err();
        assert!(outside.0.lock().unwrap().is_empty());
        resolver.resolve("x").await.unwrap_err();
        assert_eq!(*outside.0.lock().unwrap(), ["x.example.com", "x"]);
        let (resolver, outside) = resolvers(&["example.com"], &["ndots:1"]);
        resolver.resolve("x.org").await.unwrap_err();
        assert_eq!(*outside.0.lock().unwrap(), ["x.org", "x.org.example.com"]);
    }

    #[tokio::test]
    async fn a_pod_without_the_cluster_s_dns_asks_as_the_node_does() {
        let outside = Arc::new(Outside::default());
        let all = ClusterResolver { names: Arc::new(Known), others: outside.clone() };
        all.for_pod("default", &DnsSpec::default()).resolve("web").await.unwrap_err();
        assert_eq!(*outside.0.lock().unwrap(), ["web"]);
    }
}
