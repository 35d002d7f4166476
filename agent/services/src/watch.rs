//! Follows Services and EndpointSlices and keeps the backend at what they say. Changes that arrive together are carried
//! out together.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt as _};
use tokio_util::sync::CancellationToken;

use crate::ServicesConfig;
use crate::nft::Nft;
use crate::proxy::Proxy;
use crate::table::{Change, Frontend, Table, frontends};

/// After the kernel refused a change, everything is put in place anew this much later.
const RETRY_AFTER: Duration = Duration::from_secs(1);

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
    /// Frontends in the table, by Service.
    placed: HashMap<Name, BTreeSet<Frontend>>,
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

    /// What must change since the last time.
    fn changes(&mut self, node: &str) -> Vec<Change> {
        let mut out = Vec::new();
        // Frontends that one Service gives up may be taken by another at the same time: first all that go.
        let touched: Vec<Name> = self.touched.drain().collect();
        let (gone, present): (Vec<_>, Vec<_>) = touched.into_iter().partition(|k| !self.services.contains_key(k));
        for key in gone.into_iter().chain(present) {
            let none = HashMap::new();
            let slices = self.slices.get(&key).unwrap_or(&none);
            let wants = self.services.get(&key).map(|s| frontends(s, slices.values(), node)).unwrap_or_default();
            let had = self.placed.remove(&key).unwrap_or_default();
            out.extend(self.table.replace(&had, &wants));
            if !wants.is_empty() {
                self.placed.insert(key, wants.into_keys().collect());
            }
        }
        out
    }

    /// The whole table as if nothing were in place.
    fn everything(&self) -> Vec<Change> {
        let fresh = |(f, b): (&Frontend, &Vec<_>)| Change { frontend: *f, before: None, after: Some(b.clone()) };
        self.table.0.iter().map(fresh).collect()
    }
}

enum Step {
    Service(Box<Event<Service>>),
    Slice(Box<Event<EndpointSlice>>),
    Retry,
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
    let mut services = watcher::watcher(Api::<Service>::all(client.clone()), watcher::Config::default()).boxed();
    let mut slices = watcher::watcher(Api::<EndpointSlice>::all(client), watcher::Config::default()).boxed();
    let mut known = Known::default();
    let mut ready = Some(ready);
    let mut failed = false;
    loop {
        let step = tokio::select! {
            () = stop.cancelled() => Step::Stop,
            Some(event) = services.next() => match event {
                Ok(event) => Step::Service(Box::new(event)),
                Err(error) => { tracing::debug!(%error, "the watch of Services starts over"); continue }
            },
            Some(event) = slices.next() => match event {
                Ok(event) => Step::Slice(Box::new(event)),
                Err(error) => { tracing::debug!(%error, "the watch of EndpointSlices starts over"); continue }
            },
            () = tokio::time::sleep(RETRY_AFTER), if failed => Step::Retry,
        };
        match step {
            Step::Stop => break,
            Step::Retry => {}
            Step::Service(event) => known.service(*event),
            Step::Slice(event) => known.slice(*event),
        }
        // Whatever else is there already goes into the same transaction.
        while let Some(Some(Ok(event))) = futures::FutureExt::now_or_never(services.next()) {
            known.service(event);
        }
        while let Some(Some(Ok(event))) = futures::FutureExt::now_or_never(slices.next()) {
            known.slice(event);
        }
        if known.synced != (true, true) {
            continue;
        }
        let mut changes = known.changes(&config.node_name);
        if failed {
            changes = known.everything();
        }
        failed = !carry_out(&mut backend, config, &changes, failed).await;
        if !failed && let Some(ready) = ready.take() {
            ready();
        }
    }
    match backend {
        Backend::Kernel(nft) => nft.close().await,
        Backend::UserSpace(proxy) => proxy.close(),
    }
}

/// Says whether the backend is now at what is wanted.
async fn carry_out(backend: &mut Backend, config: &ServicesConfig, changes: &[Change], anew: bool) -> bool {
    let nft = match backend {
        Backend::UserSpace(proxy) => {
            proxy.apply(changes);
            return true;
        }
        Backend::Kernel(nft) => nft,
    };
    if anew {
        match Nft::open(config).await {
            Ok(fresh) => *nft = fresh,
            Err(error) => {
                tracing::error!(%error, "the service table cannot be made anew");
                return false;
            }
        }
    }
    match nft.apply(changes).await {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(%error, "the service table could not be changed; it is made anew");
            false
        }
    }
}
