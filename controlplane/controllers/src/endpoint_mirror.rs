//! Mirrors Endpoints that users write for Services without a selector into EndpointSlices
//! (pkg/controller/endpointslicemirroring).

use coracle_api::selector::Selector;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};

use crate::backends::{TRIGGER_TIME, selector_of};
use crate::cache::Cache;
use crate::endpoints::{LEADER, MANAGED_BY as WRITTEN_HERE};
use crate::meta::{MetaExt, controller_reference};
use crate::object::{Kind, Typed};
use crate::plan::{Action, Plan};
use crate::slices::{Frame, Group, Port, Wanted, identity, own_labels, plan_slices, service_of};
use crate::table::{Change, Context, Controller, Key, Watch, itself, no_keys};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "endpoint-slice-mirroring-controller",
    watches: &[
        Watch::Objects(Kind::Endpoints, itself),
        Watch::Objects(Kind::Service, itself),
        Watch::Objects(Kind::EndpointSlice, of_slice),
    ],
    reconcile,
    initial_keys: no_keys,
};

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Addresses mirrored of one subset (`--mirroring-max-endpoints-per-subset`).
const MOST_ADDRESSES: usize = 1000;

fn of_slice(change: Change<'_>, _: &dyn Cache) -> Vec<Key> {
    service_of(change, MANAGER)
}

fn reconcile(context: &mut Context<'_>, key: &Key) -> Plan {
    let mut plan = Plan::none();
    let own = own_labels(&key.name, MANAGER);
    let existing = context.cache.matching::<EndpointSlice>(&key.namespace, &Selector::from_map(&own));
    let service =
        context.cache.one::<Service>(&key.namespace, &key.name).filter(|service| selector_of(service).is_none());
    let endpoints =
        context.cache.one::<Endpoints>(&key.namespace, &key.name).filter(|endpoints| is_mirrored(endpoints));
    let (Some(_), Some(endpoints)) = (service, endpoints) else {
        for slice in existing.into_iter().filter(|slice| !slice.is_deleting()) {
            plan.push(Action::delete(&slice.into_object()));
        }
        return plan;
    };
    let mut labels = endpoints.label_map().clone();
    labels.extend(own);
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| name != LAST_APPLIED && name != TRIGGER_TIME);
    let frame = Frame {
        namespace: key.namespace.to_string(),
        service: key.name.to_string(),
        labels,
        annotations,
        owner: controller_reference(endpoints.as_ref()),
        most_endpoints: MOST_ADDRESSES,
        trigger_time: endpoints.annotation(TRIGGER_TIME).map(str::to_owned),
    };
    let mut wanted = Wanted::new();
    for subset in endpoints.subsets.iter().flatten() {
        mirror(subset, &mut wanted);
    }
    plan_slices(existing, wanted, &frame, context.rng, &mut plan);
    plan
}

/// Endpoints that a user wrote, not a controller, and not a leader election.
fn is_mirrored(endpoints: &Endpoints) -> bool {
    let labels = endpoints.label_map();
    !endpoints.is_deleting()
        && labels.get(SKIP).is_none_or(|skip| skip != "true")
        && labels.get(WRITTEN_HERE.0).is_none_or(|manager| manager != WRITTEN_HERE.1)
        && endpoints.annotation(LEADER).is_none()
}

fn mirror(subset: &EndpointSubset, wanted: &mut Wanted) {
    let mut ports: Vec<Port> = subset
        .ports
        .iter()
        .flatten()
        .map(|port| Port {
            name: port.name.clone().unwrap_or_default(),
            port: Some(port.port),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    ports.sort();
    let ready = subset.addresses.iter().flatten().map(|address| (address, true));
    let waiting = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
    for (address, ready) in ready.chain(waiting).take(MOST_ADDRESSES) {
        let family = if address.ip.contains(':') { "IPv6" } else { "IPv4" };
        let endpoint = endpoint(address, ready);
        let group = Group { family: family.into(), ports: ports.clone() };
        wanted.entry(group).or_default().insert(identity(&endpoint), endpoint);
    }
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{EndpointPort, ServiceSpec};

    use super::*;
    use crate::model::{Model, labels, meta};
    use crate::slices::MANAGED_BY;

    fn endpoints() -> Endpoints {
        let address = |ip: &str| EndpointAddress { ip: ip.into(), ..EndpointAddress::default() };
        Endpoints {
            metadata: meta("ns", "db"),
            subsets: Some(vec![EndpointSubset {
                addresses: Some(vec![address("192.0.2.1"), address("2001:db8::1")]),
                not_ready_addresses: Some(vec![address("192.0.2.2")]),
                ports: Some(vec![EndpointPort { port: 5432, ..EndpointPort::default() }]),
            }]),
        }
    }

    fn service() -> Service {
        Service { metadata: meta("ns", "db"), spec: Some(ServiceSpec::default()), status: None }
    }

    #[test]
    fn what_users_write_is_mirrored_by_family() {
        let mut model = Model::new().with(service()).with(endpoints());
        model.settle(&CONTROLLER, "ns", "db");
        let slices = model.all::<EndpointSlice>();
        let mut seen: Vec<(String, usize)> =
            slices.iter().map(|slice| (slice.address_type.clone(), slice.endpoints.iter().flatten().count())).collect();
        seen.sort();
        assert_eq!(seen, [("IPv4".to_owned(), 2), ("IPv6".to_owned(), 1)]);
        assert!(slices.iter().all(|slice| slice.label_map()[MANAGED_BY] == MANAGER));

        model.remove(Kind::Endpoints, "ns", "db");
        model.settle(&CONTROLLER, "ns", "db");
        assert!(model.all::<EndpointSlice>().is_empty());
    }

    #[test]
    fn what_controllers_write_is_not() {
        for (key, value) in [WRITTEN_HERE, (SKIP, "true")] {
            let mut written = endpoints();
            written.metadata.labels = labels(&[(key, value)]);
            let mut model = Model::new().with(service()).with(written);
            model.settle(&CONTROLLER, "ns", "db");
            assert!(model.all::<EndpointSlice>().is_empty());
        }
        let mut selecting = service();
        selecting.spec.as_mut().unwrap().selector = labels(&[("app", "db")]);
        let mut model = Model::new().with(selecting).with(endpoints());
        model.settle(&CONTROLLER, "ns", "db");
        assert!(model.all::<EndpointSlice>().is_empty());
    }
}
