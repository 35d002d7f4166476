//! The pods behind a Service, as Endpoints and EndpointSlices both see them: which pods, which of their ports, since when.

use std::sync::Arc;
use std::time::Duration;

use coracle_api::selector::Selector;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::cache::Cache;
use crate::meta::MetaExt;
use crate::object::{Kind, Object};
use crate::pods::{condition, is_terminal};
use crate::table::{Change, Key};

/// When the change that an object reflects happened; clients measure propagation by it.
pub(crate) const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Marks what belongs to a Service without a virtual IP.
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";

/// Rest per pod between two lists of a large service's addresses (upstream's `--endpoint-updates-batch-period`, by size).
pub(crate) const LISTING_REST: Duration = Duration::from_micros(250);

/// The services of a pod's namespace that select it, before or after the change.
pub(crate) fn services_of_pod(change: Change<'_>, cache: &dyn Cache) -> Vec<Key> {
    let (Some(Object::Pod(old)), Some(Object::Pod(new))) = (change.old, change.new) else {
        return change.latest().map(|pod| selecting(pod, cache)).unwrap_or_default();
    };
    if !matters(old, new) {
        return Vec::new();
    }
    let mut keys: Vec<Key> = change.states().flat_map(|pod| selecting(pod, cache)).collect();
    keys.sort();
    keys.dedup();
    keys
}

/// Whether a change of a pod can be seen in endpoints; most status updates can't.
fn matters(old: &Pod, new: &Pod) -> bool {
    let ips = |pod: &Pod| pod.status.as_ref().map(|status| (status.pod_ip.clone(), status.pod_ips.clone()));
    let ready = |pod: &Pod| condition(pod, "Ready").map(|condition| condition.status.clone());
    old.metadata.labels != new.metadata.labels
        || old.is_deleting() != new.is_deleting()
        || crate::pods::phase(old) != crate::pods::phase(new)
        || crate::pods::node_name(old) != crate::pods::node_name(new)
        || ready(old) != ready(new)
        || ips(old) != ips(new)
}

fn selecting(pod: &Object, cache: &dyn Cache) -> Vec<Key> {
    let labels = pod.meta().label_map();
    let selects = |service: &Service| selector_of(service).is_some_and(|selector| selector.matches(labels));
    let services = cache.all::<Service>(Some(pod.meta().namespace()));
    services.iter().filter(|service| selects(service)).map(|service| Key::of_typed(service.as_ref())).collect()
}

/// The selector of a Service that has one.
pub(crate) fn selector_of(service: &Service) -> Option<Selector> {
    let map = service.spec.as_ref()?.selector.as_ref().filter(|map| !map.is_empty())?;
    Some(Selector::from_map(map))
}

/// Which of the pods behind a service to take.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Also pods that were asked to go and still run.
    Include,
    /// Only those that stay.
    Exclude,
}

/// The pods that a service's endpoints come from: they have an address and have not ended.
pub(crate) fn pods_behind(service: &Service, cache: &dyn Cache, ending: Ending) -> Vec<Arc<Pod>> {
    let Some(selector) = selector_of(service) else { return Vec::new() };
    let mut pods = cache.matching::<Pod>(service.namespace(), &selector);
    pods.retain(|pod| {
        let has_address =
            pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).is_some_and(|ip| !ip.is_empty());
        has_address && !is_terminal(pod) && (ending == Ending::Include || !pod.is_deleting())
    });
    pods.sort_by(|a, b| a.name().cmp(b.name()));
    pods
}

/// A port of a service as one pod serves it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BackendPort {
    pub(crate) name: String,
    pub(crate) port: i32,
    pub(crate) protocol: String,
    pub(crate) app_protocol: Option<String>,
}

/// The ports of a service on a pod; a port whose name no container has is left out.
pub(crate) fn ports_on(service: &Service, pod: &Pod) -> Vec<BackendPort> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
    ports
        .filter_map(|port| {
            Some(BackendPort {
                name: port.name.clone().unwrap_or_default(),
                port: target_port(port, pod)?,
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let spec = pod.spec.as_ref()?;
    let sidecars =
        spec.init_containers.iter().flatten().filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let named = |container: &Container| {
        let ports = container.ports.iter().flatten();
        let mut found = ports.filter(|candidate| candidate.name.as_deref() == Some(name));
        found
            .find(|candidate| candidate.protocol.as_deref().unwrap_or("TCP") == protocol)
            .map(|candidate| candidate.container_port)
    };
    spec.containers.iter().chain(sidecars).find_map(named)
}

/// The pod's address in a family, `IPv4` or `IPv6`.
pub(crate) fn address_in<'a>(pod: &'a Pod, family: &str) -> Option<&'a str> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).chain(status.pod_ip.as_deref());
    let wants_v6 = family == "IPv6";
    all.into_iter().find(|ip| ip.contains(':') == wants_v6)
}

/// The address families of a service.
pub(crate) fn families(service: &Service) -> Vec<String> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    if families.is_empty() { vec!["IPv4".into()] } else { families }
}

/// Whether the service has no virtual IP.
pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// Whether pods that are not ready get traffic too.
pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

/// The pod's host name within the service, if it asked for one there.
pub(crate) fn hostname<'a>(service: &Service, pod: &'a Pod) -> Option<&'a str> {
    let spec = pod.spec.as_ref()?;
    let here = spec.subdomain.as_deref() == Some(service.name()) && pod.namespace() == service.namespace();
    spec.hostname.as_deref().filter(|hostname| here && !hostname.is_empty())
}

/// The reference from an endpoint to its pod.
pub(crate) fn target_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some(Kind::Pod.resource().kind.into_owned()),
        namespace: Some(pod.namespace().to_owned()),
        name: Some(pod.name().to_owned()),
        uid: Some(pod.uid().to_owned()),
        ..ObjectReference::default()
    }
}

/// The latest change that the endpoints of these pods reflect.
pub(crate) fn trigger_time(service: &Service, pods: &[Arc<Pod>]) -> Option<String> {
    let created: Option<Timestamp> = service.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let ready = pods.iter().filter_map(|pod| condition(pod, "Ready")?.last_transition_time.as_ref().map(|time| time.0));
    ready.chain(created).max().map(|time| time.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use k8s_openapi::api::core::v1::{ContainerPort, ServiceSpec};

    use super::*;
    use crate::model::pods::pod;
    use crate::model::{labels, meta};

    pub(crate) fn service(target: IntOrString) -> Service {
        let port =
            ServicePort { name: Some("http".into()), port: 80, target_port: Some(target), ..ServicePort::default() };
        Service {
            metadata: meta("ns", "web"),
            spec: Some(ServiceSpec {
                selector: labels(&[("app", "web")]),
                ports: Some(vec![port]),
                ..ServiceSpec::default()
            }),
            status: None,
        }
    }

    #[test]
    fn target_ports() {
        let named = ContainerPort { name: Some("web".into()), container_port: 8080, ..ContainerPort::default() };
        let container = Container { name: "c".into(), ports: Some(vec![named]), ..Container::default() };
        let with_port = pod("p").edit(|pod| pod.spec.as_mut().unwrap().containers = vec![container.clone()]).build();
        let sidecar = Container { restart_policy: Some("Always".into()), ..container };
        let in_sidecar = pod("p").edit(|pod| pod.spec.as_mut().unwrap().init_containers = Some(vec![sidecar])).build();
        let check = |target: IntOrString, pod: &Pod, expect: &[i32]| {
            let ports: Vec<i32> = ports_on(&service(target), pod).iter().map(|port| port.port).collect();
            assert_eq!(ports, expect);
        };
        check(IntOrString::Int(9090), &with_port, &[9090]);
        check(IntOrString::Int(0), &with_port, &[80]);
        check(IntOrString::String("web".into()), &with_port, &[8080]);
        check(IntOrString::String("web".into()), &in_sidecar, &[8080]);
        check(IntOrString::String("other".into()), &with_port, &[]);
    }

    #[test]
    fn addresses_by_family() {
        let dual = pod("p").ip("10.0.0.1").edit(|pod| {
            let v6 = k8s_openapi::api::core::v1::PodIP { ip: "fd00::1".into() };
            pod.status.as_mut().unwrap().pod_ips.as_mut().unwrap().push(v6);
        });
        let dual = dual.build();
        assert_eq!(address_in(&dual, "IPv4"), Some("10.0.0.1"));
        assert_eq!(address_in(&dual, "IPv6"), Some("fd00::1"));
        assert_eq!(address_in(&pod("p").build(), "IPv4"), None);
    }

    #[test]
    fn only_large_services_rest() {
        for (count, expect) in [(1, None), (100, None), (400, Some(Duration::from_millis(100)))] {
            let mut model = crate::model::Model::new().with(service(IntOrString::Int(80)));
            for index in 0..count {
                let ip = format!("10.0.{}.{}", index / 250, index % 250);
                model.put(pod(&format!("p-{index}")).labels(&[("app", "web")]).on("n").running().ip(&ip).build());
            }
            for controller in [crate::endpoints::CONTROLLER, crate::endpoint_slice::CONTROLLER] {
                assert_eq!(model.run(&controller, "ns", "web").rest, expect, "{} of {count}", controller.name);
                assert_eq!(model.run(&controller, "ns", "web"), crate::plan::Plan::none());
            }
        }
    }

    #[test]
    fn only_changes_that_show_matter() {
        let before = pod("p").ip("10.0.0.1").running().build();
        assert!(!matters(&before, &pod("p").ip("10.0.0.1").running().restarts(3).build()));
        assert!(matters(&before, &pod("p").ip("10.0.0.2").running().build()));
        assert!(matters(&before, &pod("p").ip("10.0.0.1").running().ready_since("2026-01-01T00:00:00Z").build()));
        assert!(matters(&before, &pod("p").ip("10.0.0.1").running().deleted("2026-01-01T00:00:00Z").build()));
    }
}
