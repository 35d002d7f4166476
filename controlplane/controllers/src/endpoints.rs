//! Endpoints: the older list of a Service's addresses (pkg/controller/endpoint).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::backends::{
    BackendPort, Ending, HEADLESS, LISTING_REST, TRIGGER_TIME, address_in, families, hostname, is_headless,
    pods_behind, ports_on, publishes_not_ready, selector_of, services_of_pod, target_reference, trigger_time,
};
use crate::meta::MetaExt;
use crate::object::{Kind, Typed};
use crate::plan::{Action, Note, Plan, Step};
use crate::pods::{is_ready, node_name};
use crate::table::{Context, Controller, Key, Watch, itself, no_keys};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "endpoint-controller",
    watches: &[
        Watch::Objects(Kind::Service, itself),
        Watch::Objects(Kind::Endpoints, itself),
        Watch::Objects(Kind::Pod, services_of_pod),
    ],
    reconcile,
    initial_keys: no_keys,
};

/// Marks the Endpoints that this controller writes, so that the mirror leaves them alone.
pub(crate) const MANAGED_BY: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");
/// Says that addresses were left out.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// The most addresses of one Endpoints object.
const MOST_ADDRESSES: usize = 1000;
/// Marks Endpoints that are a lock of an older leader election.
pub(crate) const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

fn reconcile(context: &mut Context<'_>, key: &Key) -> Plan {
    let mut plan = Plan::none();
    let current = context.cache.one::<Endpoints>(&key.namespace, &key.name);
    let Some(service) = context.cache.one::<Service>(&key.namespace, &key.name) else {
        // Endpoints follow their Service; a leader election's lock never had one.
        if let Some(left) = current.filter(|left| left.annotation(LEADER).is_none() && !left.is_deleting()) {
            plan.push(Action::delete(&left.into_object()));
        }
        return plan;
    };
    if selector_of(&service).is_none() {
        return plan;
    }
    let ending = if publishes_not_ready(&service) { Ending::Include } else { Ending::Exclude };
    let pods = pods_behind(&service, context.cache, ending);
    let (subsets, truncated) = subsets_of(&service, &pods);
    let base = current.as_ref().map(|current| current.as_ref().clone());
    let mut wanted = base.unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: Some(key.name.to_string()),
            namespace: Some(key.namespace.to_string()),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    wanted.subsets = (!subsets.is_empty()).then_some(subsets);
    wanted.metadata.labels = Some(labels_of(&service));
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    match truncated {
        true => drop(annotations.insert(OVER_CAPACITY.into(), "truncated".into())),
        false => drop(annotations.remove(OVER_CAPACITY)),
    }
    let same = current.as_ref().is_some_and(|current| {
        current.subsets == wanted.subsets
            && current.metadata.labels == wanted.metadata.labels
            && current.annotation(OVER_CAPACITY) == wanted.annotation(OVER_CAPACITY)
    });
    if same {
        return plan;
    }
    if let Some(time) = trigger_time(&service, &pods) {
        wanted.metadata.annotations.get_or_insert_default().insert(TRIGGER_TIME.into(), time);
    }
    let (verb, reason) =
        if current.is_some() { ("update", "FailedToUpdateEndpoint") } else { ("create", "FailedToCreateEndpoint") };
    let text = format!("Failed to {verb} endpoint {}: ", key);
    let note = Note::warning(&wanted, reason, text);
    let action = if current.is_some() { Action::Update(wanted.into()) } else { Action::Create(wanted.into()) };
    plan.steps.push(Step { action, on_success: None, on_failure: Some(note) });
    plan.rest_by_size(pods.len(), LISTING_REST);
    plan
}

fn labels_of(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.label_map().clone();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(MANAGED_BY.0.into(), MANAGED_BY.1.into());
    labels
}

/// An address and whether it gets traffic, in the order Kubernetes lists them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    ip: IpAddr,
    pod: usize,
    ready: bool,
}

/// Groups addresses by the ports they serve, so that each subset is a full product of addresses and ports.
fn subsets_of(service: &Service, pods: &[std::sync::Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let family = families(service).remove(0);
    let mut by_port: BTreeMap<Option<BackendPort>, BTreeSet<Place>> = BTreeMap::new();
    let mut places: Vec<Place> = Vec::new();
    for (pod_index, pod) in pods.iter().enumerate() {
        if let Some(ip) = address_in(pod, &family).and_then(|ip| ip.parse().ok()) {
            places.push(Place { ip, pod: pod_index, ready: publishes_not_ready(service) || is_ready(pod) });
        }
    }
    let truncated = places.len() > MOST_ADDRESSES;
    places.sort_by_key(|place| !place.ready);
    places.truncate(MOST_ADDRESSES);
    let portless = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()).is_none_or(Vec::is_empty);
    for place in places {
        if portless {
            by_port.entry(None).or_default().insert(place);
            continue;
        }
        for port in ports_on(service, &pods[place.pod]) {
            by_port.entry(Some(port)).or_default().insert(place.clone());
        }
    }
    let mut by_places: BTreeMap<BTreeSet<Place>, Vec<BackendPort>> = BTreeMap::new();
    for (port, places) in by_port {
        by_places.entry(places).or_default().extend(port);
    }
    let subset = |(places, ports): (BTreeSet<Place>, Vec<BackendPort>)| {
        let (ready, waiting): (Vec<Place>, Vec<Place>) = places.into_iter().partition(|place| place.ready);
        let addresses = |places: Vec<Place>| {
            let list: Vec<EndpointAddress> =
                places.iter().map(|place| address(service, &pods[place.pod], place.ip)).collect();
            (!list.is_empty()).then_some(list)
        };
        let ports: Vec<EndpointPort> = ports.into_iter().map(port_of).collect();
        EndpointSubset {
            addresses: addresses(ready),
            not_ready_addresses: addresses(waiting),
            ports: (!ports.is_empty()).then_some(ports),
        }
    };
    (by_places.into_iter().map(subset).collect(), truncated)
}

fn address(service: &Service, pod: &Pod, ip: IpAddr) -> EndpointAddress {
    EndpointAddress {
        ip: ip.to_string(),
        node_name: Some(node_name(pod).to_owned()).filter(|node| !node.is_empty()),
        hostname: hostname(service, pod).map(str::to_owned),
        target_ref: Some(target_reference(pod)),
    }
}

fn port_of(port: BackendPort) -> EndpointPort {
    EndpointPort {
        name: (!port.name.is_empty()).then_some(port.name),
        port: port.port,
        protocol: Some(port.protocol),
        app_protocol: port.app_protocol,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    use super::*;
    use crate::backends::tests::service;
    use crate::model::Model;
    use crate::model::pods::{PodBuilder, pod};

    fn web(name: &str, ip: &str) -> PodBuilder {
        pod(name).labels(&[("app", "web")]).on("n").running().ip(ip)
    }

    const READY: &str = "2026-01-01T00:30:00Z";

    /// `ready | not ready` addresses of each subset, and its ports.
    fn check(service: Service, pods: Vec<PodBuilder>, expect: &[&str]) {
        let mut model = Model::new().with(service);
        for builder in pods {
            model.put(builder.build());
        }
        model.settle(&CONTROLLER, "ns", "web");
        let endpoints = model.one::<Endpoints>("ns", "web");
        let list = |addresses: &Option<Vec<EndpointAddress>>| {
            addresses.iter().flatten().map(|address| address.ip.clone()).collect::<Vec<_>>().join(" ")
        };
        let seen: Vec<String> = endpoints
            .subsets
            .iter()
            .flatten()
            .map(|subset| {
                let ports: Vec<String> = subset.ports.iter().flatten().map(|port| port.port.to_string()).collect();
                format!("{} | {} : {}", list(&subset.addresses), list(&subset.not_ready_addresses), ports.join(" "))
            })
            .collect();
        assert_eq!(seen, expect);
    }

    #[test]
    fn readiness_decides_the_list() {
        let http = || service(IntOrString::Int(8080));
        check(http(), vec![], &[]);
        check(
            http(),
            vec![
                web("b", "10.0.0.10").ready_since(READY),
                web("a", "10.0.0.9").ready_since(READY),
                web("c", "10.0.0.3"),
            ],
            &["10.0.0.9 10.0.0.10 | 10.0.0.3 : 8080"],
        );
        check(http(), vec![web("a", "10.0.0.1").phase("Failed"), web("b", "10.0.0.2").deleted(READY)], &[]);
        check(http(), vec![pod("no-ip").labels(&[("app", "web")])], &[]);
        let mut publishing = http();
        publishing.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
        check(publishing, vec![web("a", "10.0.0.1")], &["10.0.0.1 |  : 8080"]);
        let mut portless = http();
        portless.spec.as_mut().unwrap().ports = None;
        portless.spec.as_mut().unwrap().cluster_ip = Some("None".into());
        check(portless, vec![web("a", "10.0.0.1").ready_since(READY)], &["10.0.0.1 |  : "]);
    }

    #[test]
    fn nothing_is_written_twice_and_leftovers_go() {
        let mut model =
            Model::new().with(service(IntOrString::Int(1))).with(web("a", "10.0.0.1").ready_since(READY).build());
        model.settle(&CONTROLLER, "ns", "web");
        let endpoints = model.one::<Endpoints>("ns", "web");
        assert_eq!(endpoints.annotation(TRIGGER_TIME), Some(READY));
        assert_eq!(endpoints.label_map()[MANAGED_BY.0], MANAGED_BY.1);
        assert_eq!(model.plan(&CONTROLLER, "ns", "web"), Plan::none());
        model.remove(Kind::Service, "ns", "web");
        model.settle(&CONTROLLER, "ns", "web");
        assert!(model.all::<Endpoints>().is_empty());
    }

    #[test]
    fn endpoints_of_services_without_selector_belong_to_the_user() {
        let mut manual = service(IntOrString::Int(1));
        manual.spec.as_mut().unwrap().selector = None;
        let mut model = Model::new().with(manual);
        assert_eq!(model.plan(&CONTROLLER, "ns", "web"), Plan::none());
    }
}
