//! Endpoints that take traffic are pods that can: at every commit of a slice, and, in calm times, as long as it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use coracle_store::Store;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::books::{Commit, LAG};
use crate::objects::{all, is_of, is_serving, label, name_of, namespace_of, typed, uid_of};

/// When a pod's readiness last turned, and whether it serves since then.
struct Turn {
    at: Duration,
    serving: bool,
}

/// What is remembered of pods.
#[derive(Default)]
pub(crate) struct Endpoints {
    pods: BTreeMap<String, Turn>,
}

impl Endpoints {
    pub(crate) fn look(&mut self, commit: &Commit<'_>) -> Result<(), String> {
        if is_of::<Pod>(commit.key) {
            let Some(pod) = commit.new.or(commit.old).and_then(|entry| typed::<Pod>(entry)) else { return Ok(()) };
            let serving = commit.new.is_some() && is_serving(&pod);
            let turn = self.pods.entry(uid_of(&pod.metadata).to_owned()).or_insert(Turn { at: commit.now, serving });
            if turn.serving != serving {
                *turn = Turn { at: commit.now, serving };
            }
        }
        if is_of::<EndpointSlice>(commit.key)
            && let Some(slice) = commit.new.and_then(|entry| typed::<EndpointSlice>(entry))
        {
            for uid in ready_in(&slice) {
                self.check_serves(&uid, &slice, commit.now)?;
            }
        }
        Ok(())
    }

    /// What stands in calm times: no endpoint of a pod that has stopped serving, and none missing that serves for long.
    pub(crate) fn standing(&self, store: &dyn Store, now: Duration) -> Result<(), String> {
        let slices = all::<EndpointSlice>(store);
        for slice in &slices {
            for uid in ready_in(slice) {
                self.check_serves(&uid, slice, now)?;
            }
        }
        let shown: BTreeSet<String> = slices.iter().flat_map(|slice| ready_in(slice)).collect();
        let services = all::<Service>(store);
        for pod in all::<Pod>(store) {
            let uid = uid_of(&pod.metadata);
            let steady = self.pods.get(uid).is_some_and(|turn| turn.serving && turn.at + LAG < now);
            let selected = services.iter().any(|service| selects(service, &pod) && is_old(service, now));
            if steady && selected && !shown.contains(uid) {
                return Err(format!("the pod {} serves and is no endpoint", name_of(&pod.metadata)));
            }
        }
        Ok(())
    }

    fn check_serves(&self, uid: &str, slice: &EndpointSlice, now: Duration) -> Result<(), String> {
        let serves = self.pods.get(uid).is_some_and(|turn| turn.serving || now <= turn.at + LAG);
        if serves {
            return Ok(());
        }
        Err(format!("the slice {} sends traffic to the pod {uid}, which does not serve", name_of(&slice.metadata)))
    }
}

/// Whether a Service is there for long enough to have its endpoints.
fn is_old(service: &Service, now: Duration) -> bool {
    let Some(created) = &service.metadata.creation_timestamp else { return false };
    let age = crate::clock::wall(now).duration_since(created.0);
    Duration::try_from(age).is_ok_and(|age| age > LAG)
}

/// Whether a Service sends traffic to a pod.
pub(crate) fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let all_match = |selector: &BTreeMap<String, String>| {
        selector.iter().all(|(key, value)| label(&pod.metadata, key) == Some(value.as_str()))
    };
    namespace_of(&service.metadata) == namespace_of(&pod.metadata)
        && selector.is_some_and(|selector| !selector.is_empty() && all_match(selector))
}

/// The uids of the pods that a slice sends traffic to.
pub(crate) fn ready_in(slice: &EndpointSlice) -> Vec<String> {
    let ready = slice
        .endpoints
        .iter()
        .flatten()
        .filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true));
    ready.filter_map(|endpoint| endpoint.target_ref.as_ref()?.uid.clone()).collect()
}

/// The uids of the pods that a Service sends traffic to.
pub(crate) fn ready_of(store: &dyn Store, namespace: &str, service: &str) -> BTreeSet<String> {
    let slices = all::<EndpointSlice>(store);
    let own = slices.iter().filter(|slice| {
        namespace_of(&slice.metadata) == namespace
            && label(&slice.metadata, "kubernetes.io/service-name") == Some(service)
    });
    own.flat_map(|slice| ready_in(slice)).collect()
}
