//! EndpointSlice: the addresses of a Service's pods, at most 100 to a slice (pkg/controller/endpointslice).

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_api::selector::Selector;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};

use crate::backends::{
    Ending, HEADLESS, LISTING_REST, address_in, families, hostname, is_headless, pods_behind, ports_on,
    publishes_not_ready, selector_of, services_of_pod, target_reference, trigger_time,
};
use crate::cache::Cache;
use crate::meta::{MetaExt, controller_reference};
use crate::object::Kind;
use crate::plan::Plan;
use crate::pods::{is_ready, node_name};
use crate::slices::{Frame, Group, Port, Wanted, identity, own_labels, plan_slices, service_of};
use crate::table::{Change, Context, Controller, Key, Watch, itself, no_keys};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "endpoint-slice-controller",
    watches: &[
        Watch::Objects(Kind::Service, itself),
        Watch::Objects(Kind::EndpointSlice, of_slice),
        Watch::Objects(Kind::Pod, services_of_pod),
        Watch::Objects(Kind::Node, of_node),
    ],
    reconcile,
    initial_keys: no_keys,
};

const MANAGER: &str = "endpointslice-controller.k8s.io";
const ZONE: &str = "topology.kubernetes.io/zone";

fn of_slice(change: Change<'_>, _: &dyn Cache) -> Vec<Key> {
    service_of(change, MANAGER)
}

/// A node's zone is in its pods' endpoints; services are looked at again when it changes.
fn of_node(change: Change<'_>, cache: &dyn Cache) -> Vec<Key> {
    let (Some(old), Some(new)) = (change.old, change.new) else { return Vec::new() };
    if old.meta().label_map().get(ZONE) == new.meta().label_map().get(ZONE) {
        return Vec::new();
    }
    let mut keys = Vec::new();
    for pod in cache.pods_on(new.meta().name()) {
        let object = crate::object::Object::Pod(pod);
        keys.extend(services_of_pod(Change { old: None, new: Some(&object) }, cache));
    }
    keys.sort();
    keys.dedup();
    keys
}

fn reconcile(context: &mut Context<'_>, key: &Key) -> Plan {
    let mut plan = Plan::none();
    let Some(service) = context.cache.one::<Service>(&key.namespace, &key.name) else { return plan };
    let external = service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
    // The slices of a service that is going are the garbage collector's.
    if external || service.is_deleting() || selector_of(&service).is_none() {
        return plan;
    }
    let pods = pods_behind(&service, context.cache, Ending::Include);
    let wanted = wanted(&service, &pods, context.cache);
    let own = own_labels(service.name(), MANAGER);
    let existing = context.cache.matching::<EndpointSlice>(service.namespace(), &Selector::from_map(&own));
    let frame = Frame {
        namespace: service.namespace().to_owned(),
        service: service.name().to_owned(),
        labels: labels_of(&service, own),
        annotations: BTreeMap::new(),
        owner: controller_reference(service.as_ref()),
        most_endpoints: context.config.max_endpoints_per_slice,
        trigger_time: trigger_time(&service, &pods),
    };
    plan_slices(existing, wanted, &frame, context.rng, &mut plan);
    plan.rest_by_size(pods.len(), LISTING_REST);
    plan
}

fn labels_of(service: &Service, own: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut labels = service.label_map().clone();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.extend(own);
    labels
}

fn wanted(service: &Service, pods: &[Arc<Pod>], cache: &dyn Cache) -> Wanted {
    let mut wanted = Wanted::new();
    for family in families(service) {
        // Even without pods the family has its slice.
        wanted.entry(Group { family: family.clone(), ports: Vec::new() }).or_default();
        for pod in pods {
            let Some(address) = address_in(pod, &family) else { continue };
            let mut ports: Vec<Port> = ports_on(service, pod)
                .into_iter()
                .map(|port| Port {
                    name: port.name,
                    port: Some(port.port),
                    protocol: port.protocol,
                    app_protocol: port.app_protocol,
                })
                .collect();
            ports.sort();
            let endpoint = endpoint(service, pod, address, cache);
            wanted.entry(Group { family: family.clone(), ports }).or_default().insert(identity(&endpoint), endpoint);
        }
    }
    wanted
}

fn endpoint(service: &Service, pod: &Pod, address: &str, cache: &dyn Cache) -> Endpoint {
    let serving = is_ready(pod);
    let terminating = pod.is_deleting();
    let node = Some(node_name(pod)).filter(|node| !node.is_empty());
    let zone = node.and_then(|node| cache.one::<Node>("", node)).and_then(|node| node.label_map().get(ZONE).cloned());
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(publishes_not_ready(service) || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod).map(str::to_owned),
        node_name: node.map(str::to_owned),
        zone,
        target_ref: Some(target_reference(pod)),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    use super::*;
    use crate::backends::TRIGGER_TIME;
    use crate::backends::tests::service;
    use crate::model::Model;
    use crate::model::pods::{PodBuilder, pod};
    use crate::slices::{MANAGED_BY, SERVICE_NAME};

    const READY: &str = "2026-01-01T00:30:00Z";

    fn web(index: usize) -> PodBuilder {
        pod(&format!("web-{index:03}")).labels(&[("app", "web")]).on("n").running().ip(&format!(
            "10.0.{}.{}",
            index / 250,
            index % 250
        ))
    }

    fn sizes(model: &Model) -> Vec<usize> {
        let mut sizes: Vec<usize> =
            model.all::<EndpointSlice>().iter().map(|slice| slice.endpoints.iter().flatten().count()).collect();
        sizes.sort_unstable();
        sizes
    }

    #[test]
    fn conditions() {
        let check = |builder: PodBuilder, publish: bool, expect: [bool; 3]| {
            let mut subject = service(IntOrString::Int(8080));
            subject.spec.as_mut().unwrap().publish_not_ready_addresses = Some(publish);
            let mut model = Model::new().with(subject).with(builder.build());
            model.settle(&CONTROLLER, "ns", "web");
            let conditions = model.all::<EndpointSlice>()[0].endpoints.as_ref().unwrap()[0].conditions.clone().unwrap();
            assert_eq!([conditions.ready, conditions.serving, conditions.terminating], expect.map(Some));
        };
        check(web(1).ready_since(READY), false, [true, true, false]);
        check(web(1), false, [false, false, false]);
        check(web(1), true, [true, false, false]);
        check(web(1).ready_since(READY).deleted(READY), false, [false, true, true]);
    }

    #[test]
    fn slices_carry_what_consumers_look_for() {
        let mut model = Model::new().with(service(IntOrString::Int(8080))).with(web(1).ready_since(READY).build());
        model.settle(&CONTROLLER, "ns", "web");
        let slice = model.all::<EndpointSlice>().remove(0);
        assert!(slice.name().starts_with("web-"));
        assert_eq!(slice.label_map()[SERVICE_NAME], "web");
        assert_eq!(slice.label_map()[MANAGED_BY], MANAGER);
        assert_eq!(slice.annotation(TRIGGER_TIME), Some(READY));
        assert_eq!(slice.controller().map(|owner| owner.kind.as_str()), Some("Service"));
        assert_eq!(slice.ports.as_ref().unwrap()[0].port, Some(8080));
        assert_eq!(model.plan(&CONTROLLER, "ns", "web"), Plan::none());
    }

    #[test]
    fn a_service_without_pods_has_an_empty_slice() {
        let mut model = Model::new().with(service(IntOrString::Int(8080)));
        model.settle(&CONTROLLER, "ns", "web");
        assert_eq!(sizes(&model), [0]);
        model.put(web(1).ready_since(READY).build());
        model.settle(&CONTROLLER, "ns", "web");
        assert_eq!(sizes(&model), [1]);
        model.remove(Kind::Pod, "ns", "web-001");
        model.settle(&CONTROLLER, "ns", "web");
        assert_eq!(sizes(&model), [0]);
    }

    #[test]
    fn slices_are_bounded_and_few_are_written() {
        let mut model = Model::new().with(service(IntOrString::Int(8080)));
        for index in 0..250 {
            model.put(web(index).ready_since(READY).build());
        }
        model.settle(&CONTROLLER, "ns", "web");
        assert_eq!(sizes(&model), [50, 100, 100]);
        // One that goes and two that come touch one slice that loses, and one that gains.
        model.remove(Kind::Pod, "ns", "web-003");
        model.put(web(250).ready_since(READY).build());
        model.put(web(251).ready_since(READY).build());
        let plan = model.run(&CONTROLLER, "ns", "web");
        assert!(plan.steps.len() <= 2, "{} writes", plan.steps.len());
        assert_eq!(sizes(&model).iter().sum::<usize>(), 251);
        model.settle(&CONTROLLER, "ns", "web");
        assert!(sizes(&model).iter().all(|size| *size <= 100));
    }

    #[test]
    fn pods_with_other_ports_get_their_own_slice() {
        use k8s_openapi::api::core::v1::{Container, ContainerPort};
        let named = |builder: PodBuilder, port: i32| {
            builder.edit(|pod| {
                let ports = Some(vec![ContainerPort {
                    name: Some("web".into()),
                    container_port: port,
                    ..ContainerPort::default()
                }]);
                pod.spec.as_mut().unwrap().containers =
                    vec![Container { name: "c".into(), ports, ..Container::default() }];
            })
        };
        let mut model = Model::new()
            .with(service(IntOrString::String("web".into())))
            .with(named(web(1), 8080).build())
            .with(named(web(2), 9090).build());
        model.settle(&CONTROLLER, "ns", "web");
        let mut ports: Vec<i32> =
            model.all::<EndpointSlice>().iter().map(|slice| slice.ports.as_ref().unwrap()[0].port.unwrap()).collect();
        ports.sort_unstable();
        assert_eq!(ports, [8080, 9090]);
    }

    #[test]
    fn dual_stack_has_a_slice_for_each_family() {
        let mut dual = service(IntOrString::Int(80));
        dual.spec.as_mut().unwrap().ip_families = Some(vec!["IPv4".into(), "IPv6".into()]);
        let mut model = Model::new().with(dual).with(web(1).build());
        model.settle(&CONTROLLER, "ns", "web");
        let mut families: Vec<String> =
            model.all::<EndpointSlice>().iter().map(|slice| slice.address_type.clone()).collect();
        families.sort();
        assert_eq!(families, ["IPv4", "IPv6"]);
        assert_eq!(sizes(&model), [0, 1]);
    }
}
