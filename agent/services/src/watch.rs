//! Follows Services and EndpointSlices and keeps the backend at what they say. Changes that arrive together are carried
//! out together.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt as _};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::health::HealthServers;
use crate::nft::Nft;
use crate::proxy::Proxy;
use crate::table::{Change, HealthCheck, Owner, OwnerKind, Table, Wants, frontends, health_check};
use crate::{HostPorts, Names, ServicesConfig, host_ports};

/// After the kernel refused a change, everything is put in place anew this much later.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Least time between two transactions: a lone change is carried out at once, a burst costs one of them each time this is
/// over. While a thousand pods start that is the difference between a core and a twentieth of one.
const BURST: Duration = Duration::from_millis(40);

/// What carries changes out.
pub(crate) enum Backend {
    Kernel(Nft),
    UserSpace(Proxy),
}

type Name = (String, String);

/// What the API says.
#[derive(Default)]
struct Known {
    services: HashMap<Name, Service>,
    /// Slices by the Service they belong to, then by their own name.
    slices: HashMap<Name, HashMap<String, EndpointSlice>>,
    /// The Services that have frontends, as owners of them.
    owners: HashMap<Name, Owner>,
    /// The pods' ports that are in the table.
    host_ports: HostPorts,
    health: HashMap<Name, HealthCheck>,
    table: Table,
    touched: HashSet<Name>,
    fresh_services: Option<HashSet<Name>>,
    fresh_slices: Option<HashSet<(Name, String)>>,
    synced: (bool, bool),
}

const SERVICE_LABEL: &str = "kubernetes.io/service-name";

fn name<K: kube::Resource>(object: &K) -> Name {
    (object.namespace().unwrap_or_default(), object.name_any())
}

fn owner(slice: &EndpointSlice) -> Option<Name> {
    let service = slice.labels().get(SERVICE_LABEL)?;
    Some((slice.namespace().unwrap_or_default(), service.clone()))
}

fn owner_of(service: &Service) -> Owner {
    let (namespace, name) = name(service);
    let created = service.metadata.creation_timestamp.as_ref().map(|time| time.0);
    Owner { created, kind: OwnerKind::Service, namespace, name }
}

impl Known {
    fn service(&mut self, event: Event<Service>) {
        match event {
            Event::Init => self.fresh_services = Some(HashSet::new()),
            Event::InitApply(service) | Event::Apply(service) => {
                let key = name(&service);
                if let Some(fresh) = &mut self.fresh_services {
                    fresh.insert(key.clone());
                }
                self.touched.insert(key.clone());
                self.services.insert(key, service);
            }
            Event::Delete(service) => {
                let key = name(&service);
                self.services.remove(&key);
                self.touched.insert(key);
            }
            Event::InitDone => {
                self.synced.0 = true;
                if let Some(fresh) = self.fresh_services.take() {
                    let gone: Vec<Name> = self.services.keys().filter(|k| !fresh.contains(*k)).cloned().collect();
                    for key in gone {
                        self.services.remove(&key);
                        self.touched.insert(key);
                    }
                }
            }
        }
    }

    fn slice(&mut self, event: Event<EndpointSlice>) {
        match event {
            Event::Init => self.fresh_slices = Some(HashSet::new()),
            Event::InitApply(slice) | Event::Apply(slice) => {
                let Some(owner) = owner(&slice) else { return };
                if let Some(fresh) = &mut self.fresh_slices {
                    fresh.insert((owner.clone(), slice.name_any()));
                }
                self.touched.insert(owner.clone());
                self.slices.entry(owner).or_default().insert(slice.name_any(), slice);
            }
            Event::Delete(slice) => {
                let Some(owner) = owner(&slice) else { return };
                self.forget_slice(&owner, &slice.name_any());
            }
            Event::InitDone => {
                self.synced.1 = true;
                if let Some(fresh) = self.fresh_slices.take() {
                    let all = self.slices.iter().flat_map(|(o, s)| s.keys().map(move |n| (o.clone(), n.clone())));
                    let gone: Vec<_> = all.filter(|k| !fresh.contains(k)).collect();
                    for (owner, name) in gone {
                        self.forget_slice(&owner, &name);
                    }
                }
            }
        }
    }

    fn forget_slice(&mut self, owner: &Name, name: &str) {
        if let Some(slices) = self.slices.get_mut(owner) {
            slices.remove(name);
            if slices.is_empty() {
                self.slices.remove(owner);
            }
        }
        self.touched.insert(owner.clone());
    }

    /// What must change since the last time; the names follow.
    fn changes(&mut self, node: &str, names: &Names) -> Vec<Change> {
        let mut out = Vec::new();
        // Frontends that one Service gives up may be taken by another at the same time: first all that go.
        let touched: Vec<Name> = self.touched.drain().collect();
        let (gone, present): (Vec<_>, Vec<_>) = touched.into_iter().partition(|k| !self.services.contains_key(k));
        for key in gone.into_iter().chain(present) {
            let none = HashMap::new();
            let slices = self.slices.get(&key).unwrap_or(&none);
            let service = self.services.get(&key);
            names.set(&key, service, slices.values());
            match service.and_then(|service| health_check(service, slices.values(), node)) {
                Some(check) => drop(self.health.insert(key.clone(), check)),
                None => drop(self.health.remove(&key)),
            }
            let wants = service.map(|s| frontends(s, slices.values(), node)).unwrap_or_default();
            let owner = service.map(owner_of);
            let had = self.owners.remove(&key);
            // A Service that was made anew under its name is another owner.
            if let Some(had) = had.filter(|had| owner.as_ref() != Some(had)) {
                out.extend(self.table.replace(&had, Wants::new()));
            }
            if let Some(owner) = owner {
                out.extend(self.table.replace(&owner, wants));
                self.owners.insert(key, owner);
            }
        }
        out
    }

    /// What must change for the ports of this node's pods.
    fn host_ports(&mut self, latest: &HostPorts) -> Vec<Change> {
        let had = std::mem::replace(&mut self.host_ports, latest.clone());
        let gone = had.keys().filter(|pod| !latest.contains_key(*pod)).map(|pod| (pod, Wants::new()));
        let changed = latest.iter().filter(|(pod, ports)| had.get(*pod) != Some(ports));
        let all = gone.chain(changed.map(|(pod, ports)| (pod, host_ports::wants(ports))));
        all.flat_map(|(pod, wants)| self.table.replace(&host_ports::owner(pod), wants)).collect()
    }

    /// What load balancers may ask for, by port.
    fn health_checks(&self) -> BTreeMap<u16, HealthCheck> {
        self.health.values().map(|check| (check.port, check.clone())).collect()
    }

    /// The whole table as if nothing were in place.
    fn everything(&self) -> Vec<Change> {
        let all = self.table.targets();
        all.map(|(frontend, target)| Change { frontend: *frontend, before: None, after: Some(target.clone()) })
            .collect()
    }
}

enum Step {
    Service(Box<Event<Service>>),
    Slice(Box<Event<EndpointSlice>>),
    /// Pods have other ports on the node.
    HostPorts,
    /// Something is to be carried out, and the time for it has come.
    Due,
    Stop,
}

/// The loop.
pub(crate) async fn run(
    client: kube::Client,
    config: &ServicesConfig,
    mut backend: Backend,
    stop: CancellationToken,
    ready: impl FnOnce(),
) {
    let watched = |error: &watcher::Error| tracing::debug!(%error, "a watch of Services starts over");
    let services = watcher::watcher(Api::<Service>::all(client.clone()), watcher::Config::default()).default_backoff();
    let slices = watcher::watcher(Api::<EndpointSlice>::all(client), watcher::Config::default()).default_backoff();
    let (mut services, mut slices) = (services.boxed(), slices.boxed());
    let (mut known, mut health, mut ready) = (Known::default(), HealthServers::default(), Some(ready));
    let mut pace = Pace::default();
    let mut ports = config.host_ports.clone();
    // What is there at the start is to be carried out too.
    ports.mark_changed();
    let mut ports_changed = false;
    loop {
        let step = tokio::select! {
            biased;
            () = stop.cancelled() => Step::Stop,
            () = pace.due() => Step::Due,
            Ok(()) = ports.changed() => Step::HostPorts,
            Some(event) = services.next() => match event {
                Ok(event) => Step::Service(Box::new(event)),
                Err(error) => { watched(&error); continue }
            },
            Some(event) = slices.next() => match event {
                Ok(event) => Step::Slice(Box::new(event)),
                Err(error) => { watched(&error); continue }
            },
        };
        match step {
            Step::Stop => break,
            Step::Service(event) => known.service(*event),
            Step::Slice(event) => known.slice(*event),
            Step::HostPorts => ports_changed = true,
            Step::Due => {
                let mut changes = known.changes(&config.node_name, &config.names);
                changes.extend(known.host_ports(&ports.borrow()));
                ports_changed = false;
                let changes = if pace.failed { known.everything() } else { changes };
                health.set(&known.health_checks());
                let done = carry_out(&mut backend, &changes, pace.failed).await;
                pace.carried_out(done, Instant::now());
                if done && let Some(ready) = ready.take() {
                    ready();
                }
                continue;
            }
        }
        let touched = ports_changed || !known.touched.is_empty();
        if known.synced == (true, true) && (touched || ready.is_some()) {
            pace.wanted(Instant::now());
        }
    }
    match backend {
        Backend::Kernel(nft) => nft.close().await,
        Backend::UserSpace(proxy) => proxy.close(),
    }
}

/// When the next transaction may begin.
#[derive(Debug, Default)]
struct Pace {
    at: Option<Instant>,
    last: Option<Instant>,
    /// The last one was refused: the next makes everything anew.
    failed: bool,
}

impl Pace {
    /// There is something to carry out.
    fn wanted(&mut self, now: Instant) {
        let earliest = self.last.map_or(now, |last| (last + BURST).max(now));
        self.at.get_or_insert(earliest);
    }

    fn carried_out(&mut self, done: bool, now: Instant) {
        (self.last, self.failed) = (Some(now), !done);
        self.at = self.failed.then(|| now + RETRY_AFTER);
    }

    /// Returns when it is time; never while nothing is wanted.
    async fn due(&self) {
        match self.at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// Says whether the backend is now at what is wanted.
async fn carry_out(backend: &mut Backend, changes: &[Change], anew: bool) -> bool {
    let nft = match backend {
        Backend::UserSpace(proxy) => {
            proxy.apply(changes);
            return true;
        }
        Backend::Kernel(nft) => nft,
    };
    if anew && let Err(error) = nft.make_anew().await {
        tracing::error!(%error, "the service table cannot be made anew");
        return false;
    }
    match nft.apply(changes).await {
        Ok(()) => {
            nft.drop_stale_flows(changes).await;
            true
        }
        Err(error) => {
            tracing::error!(%error, "the service table could not be changed; it is made anew");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_ports_come_and_go_with_them() {
        let port = |port| crate::HostPort {
            host_ip: "0.0.0.0".parse().unwrap(),
            port,
            protocol: crate::Protocol::Tcp,
            backend: "10.42.0.7:8080".parse().unwrap(),
        };
        let of = |ports: &[u16]| -> HostPorts {
            let pod = ("ns".to_owned(), "p".to_owned());
            if ports.is_empty() { HostPorts::new() } else { [(pod, ports.iter().map(|p| port(*p)).collect())].into() }
        };
        let mut known = Known::default();
        let mut check = |ports: &[u16], expect: usize| {
            assert_eq!(known.host_ports(&of(ports)).len(), expect, "{ports:?}");
            assert_eq!(known.everything().len(), ports.len());
        };
        check(&[80, 81], 2);
        check(&[80, 81], 0);
        check(&[80], 1);
        check(&[], 1);
    }

    #[test]
    fn a_lone_change_is_carried_out_at_once_and_a_burst_as_one() {
        let mut pace = Pace::default();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(pace.at, None);
        pace.wanted(at(0));
        assert_eq!(pace.at, Some(at(0)));
        pace.carried_out(true, at(5));
        assert_eq!(pace.at, None);
        for millis in 6..20 {
            pace.wanted(at(millis));
            assert_eq!(pace.at, Some(at(5) + BURST));
        }
        pace.carried_out(false, at(50));
        assert_eq!(pace.at, Some(at(50) + RETRY_AFTER), "what was refused is tried again by itself");
        pace.carried_out(true, at(1100));
        pace.wanted(at(9000));
        assert_eq!(pace.at, Some(at(9000)));
    }
}
