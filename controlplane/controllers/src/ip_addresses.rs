//! Addresses of Services, looked after: an `IPAddress` that somebody deleted is made again, so that its address is given to no
//! other Service, and one that stands for nothing is removed (pkg/registry/core/service/ipallocator/controller,
//! `RepairIPAddress`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{IPAddress, IPAddressSpec, ParentReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::cache::Cache;
use crate::meta::MetaExt;
use crate::object::{Kind, Object, Typed};
use crate::plan::{Action, Note, Plan, Preconditions, Step, Target};
use crate::table::{Change, Context, Controller, Key, Watch, itself, no_keys};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "ipallocator-repair-controller",
    watches: &[Watch::Objects(Kind::Service, itself), Watch::Objects(Kind::IPAddress, of_address)],
    reconcile,
    initial_keys: no_keys,
};

const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");
/// How old an address is before it is held against the Service it names (`gracePeriod`).
const GRACE: Duration = Duration::from_secs(60);

/// The address itself, and the Service it stands for.
fn of_address(change: Change<'_>, _: &dyn Cache) -> Vec<Key> {
    let parents = change.states().filter_map(|state| match state {
        Object::IPAddress(address) => Some(parent(address)),
        _ => None,
    });
    let mut keys: Vec<Key> = parents.chain(change.new.map(Key::of)).collect();
    keys.sort();
    keys.dedup();
    keys
}

fn parent(address: &IPAddress) -> Key {
    let parent = &address.spec.parent_ref;
    Key::new(parent.namespace.as_deref().unwrap_or_default(), &parent.name)
}

fn reconcile(context: &mut Context<'_>, key: &Key) -> Plan {
    if key.namespace.is_empty() { address(context, key) } else { service(context, key) }
}

fn addresses(service: &Service) -> impl Iterator<Item = IpAddr> {
    let texts = service.spec.iter().flat_map(|spec| spec.cluster_ips.iter().flatten());
    texts.filter_map(|text| text.parse().ok())
}

fn service(context: &Context<'_>, key: &Key) -> Plan {
    let mut plan = Plan::none();
    let Some(service) = context.cache.one::<Service>(&key.namespace, &key.name) else { return plan };
    for ip in addresses(&service) {
        let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        match context.cache.one::<IPAddress>("", &ip.to_string()) {
            None => {
                let message = format!("Cluster IP [{family}]: {ip} is not allocated; repairing");
                plan.steps.push(Step {
                    action: Action::Create(claim(&service, ip, family).into()),
                    on_success: Some(Note::warning(service.as_ref(), "ClusterIPNotAllocated", message)),
                    on_failure: None,
                });
            }
            Some(found) if parent(&found) == *key => {}
            Some(found) => match context.cache.one::<Service>(&parent(&found).namespace, &parent(&found).name) {
                Some(other) if addresses(&other).any(|held| held == ip) => {
                    let message =
                        format!("Cluster IP [{family}]: {ip} was assigned to multiple services; please recreate");
                    plan.push(Action::Tell(Note::warning(service.as_ref(), "ClusterIPAlreadyAllocated", message)));
                }
                // What it names does not change: it is made again once it is gone.
                _ => plan.push(remove(&found)),
            },
        }
    }
    plan
}

fn address(context: &Context<'_>, key: &Key) -> Plan {
    let mut plan = Plan::none();
    let Some(found) = context.cache.one::<IPAddress>("", &key.name) else { return plan };
    // Somebody else's are theirs to look after.
    let ours =
        found.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY.0)).is_some_and(|by| by == MANAGED_BY.1);
    let of = parent(&found);
    let held = context
        .cache
        .one::<Service>(&of.namespace, &of.name)
        .is_some_and(|service| addresses(&service).any(|ip| found.name() == ip.to_string()));
    if !ours || held {
        return plan;
    }
    let made = found.metadata.creation_timestamp.as_ref().map_or(context.now, |made| made.0);
    let due = made.checked_add(GRACE).unwrap_or(context.now);
    if due > context.now {
        plan.requeue_at(context.now, due);
    } else {
        plan.push(remove(&found));
    }
    plan
}

fn claim(service: &Service, ip: IpAddr, family: &str) -> IPAddress {
    let labels = [(FAMILY, family), MANAGED_BY].map(|(key, value)| (key.to_owned(), value.to_owned()));
    IPAddress {
        metadata: ObjectMeta { name: Some(ip.to_string()), labels: Some(labels.into()), ..ObjectMeta::default() },
        spec: IPAddressSpec {
            parent_ref: ParentReference {
                group: Some(String::new()),
                resource: "services".to_owned(),
                namespace: Some(service.namespace().to_owned()),
                name: service.name().to_owned(),
            },
        },
    }
}

fn remove(address: &Arc<IPAddress>) -> Action {
    Action::Delete {
        target: Target::of(&address.clone().into_object()),
        preconditions: Preconditions { uid: Some(address.uid().to_owned()), resource_version: None },
        propagation: None,
        grace_period_seconds: None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ServiceSpec;

    use super::*;
    use crate::model::{Model, START, meta, time};

    fn service(name: &str, ip: &str) -> Service {
        let spec = ServiceSpec { cluster_ips: Some(vec![ip.to_owned()]), ..ServiceSpec::default() };
        Service { metadata: meta("ns", name), spec: Some(spec), status: None }
    }

    fn names(model: &Model) -> Vec<String> {
        model.all::<IPAddress>().iter().map(|found| format!("{} {}", found.name(), parent(found))).collect()
    }

    #[test]
    fn a_deleted_address_comes_back() {
        let mut model = Model::new().with(service("web", "10.43.0.9")).with(service("headless", "None"));
        let plan = model.run(&CONTROLLER, "ns", "web");
        assert_eq!(names(&model), ["10.43.0.9 ns/web"]);
        assert_eq!(plan.steps[0].on_success.as_ref().unwrap().reason, "ClusterIPNotAllocated");
        assert!(!model.run(&CONTROLLER, "ns", "web").writes());
        assert!(!model.run(&CONTROLLER, "ns", "headless").writes());
        let gone = model.one::<IPAddress>("", "10.43.0.9").into_object();
        let keys = of_address(Change { old: Some(&gone), new: None }, &model);
        assert_eq!(keys, [Key::new("ns", "web")], "its Service is looked at");
    }

    #[test]
    fn an_address_of_nobody_goes_after_a_while() {
        let mut lost = claim(&service("gone", "10.43.0.9"), "10.43.0.9".parse().unwrap(), "IPv4");
        lost.metadata.creation_timestamp = Some(time(START));
        let mut own = lost.clone();
        own.metadata.name = Some("10.43.0.10".into());
        own.metadata.labels = None;
        let mut model = Model::new().with(lost).with(own);
        let plan = model.run(&CONTROLLER, "", "10.43.0.9");
        assert_eq!((plan.writes(), plan.requeue_after), (false, Some(GRACE)));
        model.advance(60);
        for name in ["10.43.0.9", "10.43.0.10"] {
            model.run(&CONTROLLER, "", name);
        }
        assert_eq!(names(&model), ["10.43.0.10 ns/gone"], "others look after theirs");
    }

    #[test]
    fn two_services_with_one_address_are_told() {
        let one = service("a", "10.43.0.9");
        let held = claim(&one, "10.43.0.9".parse().unwrap(), "IPv4");
        let mut model = Model::new().with(one).with(service("b", "10.43.0.9")).with(held);
        let plan = model.run(&CONTROLLER, "ns", "b");
        assert!(matches!(&plan.steps[0].action, Action::Tell(note) if note.reason == "ClusterIPAlreadyAllocated"));
        model.remove(Kind::Service, "ns", "a");
        model.run(&CONTROLLER, "ns", "b");
        model.run(&CONTROLLER, "ns", "b");
        assert_eq!(names(&model), ["10.43.0.9 ns/b"]);
    }
}
