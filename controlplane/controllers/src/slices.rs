//! Keeps a set of EndpointSlices at what it should hold, with few writes: endpoints stay in the slice they are in, and
//! free room is filled before a slice is added (k8s.io/endpointslice, reconciler).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use rand::RngCore;

use crate::backends::TRIGGER_TIME;
use crate::meta::{MetaExt, generated_name};
use crate::object::Typed;
use crate::plan::{Action, Plan};
use crate::table::{Change, Key};

/// Names the Service that a slice belongs to.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Names who keeps a slice.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// The Service of a slice that `manager` keeps.
pub(crate) fn service_of(change: Change<'_>, manager: &str) -> Vec<Key> {
    let Some(slice) = change.latest().map(|object| object.meta()) else { return Vec::new() };
    let labels = slice.label_map();
    match labels.get(SERVICE_NAME) {
        Some(service) if labels.get(MANAGED_BY).is_some_and(|kept_by| kept_by == manager) => {
            vec![Key::new(slice.namespace(), service)]
        }
        _ => Vec::new(),
    }
}

/// The labels by which the slices of a service that `manager` keeps are found.
pub(crate) fn own_labels(service: &str, manager: &str) -> BTreeMap<String, String> {
    [(SERVICE_NAME.to_owned(), service.to_owned()), (MANAGED_BY.to_owned(), manager.to_owned())].into()
}

/// What all slices of one owner share.
pub(crate) struct Frame {
    pub(crate) namespace: String,
    /// The Service's name: slices are named after it.
    pub(crate) service: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) owner: OwnerReference,
    pub(crate) most_endpoints: usize,
    pub(crate) trigger_time: Option<String>,
}

/// The slices that serve the same ports over the same family.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Group {
    pub(crate) family: String,
    pub(crate) ports: Vec<Port>,
}

/// A port in an order of its own, as the API's type has none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) port: Option<i32>,
    pub(crate) protocol: String,
    pub(crate) app_protocol: Option<String>,
}

/// The endpoints of each group, by what makes an endpoint the same one: its addresses and its pod.
pub(crate) type Wanted = BTreeMap<Group, BTreeMap<String, Endpoint>>;

/// The identity of an endpoint across updates.
pub(crate) fn identity(endpoint: &Endpoint) -> String {
    let pod = endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref()).unwrap_or_default();
    format!("{}/{pod}", endpoint.addresses.join(","))
}

fn group_of(slice: &EndpointSlice) -> Group {
    let mut ports: Vec<Port> = slice.ports.iter().flatten().map(Port::of).collect();
    ports.sort();
    Group { family: slice.address_type.clone(), ports }
}

impl Port {
    fn of(port: &EndpointPort) -> Self {
        Self {
            name: port.name.clone().unwrap_or_default(),
            port: port.port,
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
            app_protocol: port.app_protocol.clone(),
        }
    }

    fn to_api(&self) -> EndpointPort {
        EndpointPort {
            name: Some(self.name.clone()),
            port: self.port,
            protocol: Some(self.protocol.clone()),
            app_protocol: self.app_protocol.clone(),
        }
    }
}

/// Plans the writes that make `existing` hold what is wanted. Every family of `wanted` keeps at least one slice.
pub(crate) fn plan_slices(
    existing: Vec<Arc<EndpointSlice>>,
    mut wanted: Wanted,
    frame: &Frame,
    rng: &mut dyn RngCore,
    plan: &mut Plan,
) {
    let families: BTreeSet<String> = wanted.keys().map(|group| group.family.clone()).collect();
    wanted.retain(|group, endpoints| !endpoints.is_empty() || group.ports.is_empty());
    let mut by_group: BTreeMap<Group, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in existing.into_iter().filter(|slice| !slice.is_deleting()) {
        by_group.entry(group_of(&slice)).or_default().push(slice);
    }
    for family in families {
        // A family with endpoints needs no placeholder, one without has exactly one: a slice with no ports at all.
        let served = wanted.iter().any(|(group, endpoints)| group.family == family && !endpoints.is_empty());
        let placeholder = Group { family, ports: Vec::new() };
        if !served {
            wanted.insert(placeholder, BTreeMap::new());
        } else if wanted.get(&placeholder).is_some_and(BTreeMap::is_empty) {
            wanted.remove(&placeholder);
        }
    }
    for (group, endpoints) in wanted {
        let slices = by_group.remove(&group).unwrap_or_default();
        fit(&group, endpoints, slices, frame, rng, plan);
    }
    for slice in by_group.into_values().flatten() {
        plan.push(Action::delete(&slice.into_object()));
    }
}

/// One group: its endpoints into its slices.
fn fit(
    group: &Group,
    mut endpoints: BTreeMap<String, Endpoint>,
    slices: Vec<Arc<EndpointSlice>>,
    frame: &Frame,
    rng: &mut dyn RngCore,
    plan: &mut Plan,
) {
    let mut kept: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    for slice in slices {
        let stay = slice.endpoints.iter().flatten().filter_map(|endpoint| endpoints.remove(&identity(endpoint)));
        let stay = stay.take(frame.most_endpoints).collect();
        kept.push((slice, stay));
    }
    let mut rest: Vec<Endpoint> = endpoints.into_values().collect();
    // The fullest first, and those that are written anyway before those that could stay as they are.
    kept.sort_by_key(|(slice, stay)| (slice.endpoints.as_ref() == Some(stay), usize::MAX - stay.len()));
    for (_, stay) in &mut kept {
        let room = frame.most_endpoints.saturating_sub(stay.len()).min(rest.len());
        stay.extend(rest.drain(..room));
    }
    let any_kept = kept.iter().any(|(_, stay)| !stay.is_empty());
    let mut placeholder_needed = !any_kept && rest.is_empty();
    for (slice, stay) in kept {
        if stay.is_empty() && !std::mem::take(&mut placeholder_needed) {
            plan.push(Action::delete(&slice.into_object()));
        } else {
            update(&slice, stay, frame, plan);
        }
    }
    let mut rest = rest.into_iter().peekable();
    while placeholder_needed || rest.peek().is_some() {
        placeholder_needed = false;
        let endpoints: Vec<Endpoint> = rest.by_ref().take(frame.most_endpoints).collect();
        plan.push(Action::Create(new_slice(group, endpoints, frame, rng).into()));
    }
}

fn update(slice: &Arc<EndpointSlice>, endpoints: Vec<Endpoint>, frame: &Frame, plan: &mut Plan) {
    let mut wanted = slice.as_ref().clone();
    wanted.endpoints = Some(endpoints);
    wanted.metadata.labels = Some(frame.labels.clone());
    wanted.metadata.owner_references = Some(vec![frame.owner.clone()]);
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    annotations.retain(|key, _| key == TRIGGER_TIME);
    annotations.extend(frame.annotations.clone());
    if wanted.metadata.annotations.as_ref().is_some_and(BTreeMap::is_empty) && slice.metadata.annotations.is_none() {
        wanted.metadata.annotations = None;
    }
    if wanted == **slice || (wanted.endpoints.as_ref().is_some_and(Vec::is_empty) && same_but_for_empty(&wanted, slice))
    {
        return;
    }
    if let Some(time) = &frame.trigger_time {
        wanted.metadata.annotations.get_or_insert_default().insert(TRIGGER_TIME.into(), time.clone());
    }
    plan.push(Action::Update(wanted.into()));
}

/// An empty list of endpoints and none at all are the same slice.
fn same_but_for_empty(wanted: &EndpointSlice, seen: &EndpointSlice) -> bool {
    seen.endpoints.as_ref().is_none_or(Vec::is_empty)
        && EndpointSlice { endpoints: seen.endpoints.clone(), ..wanted.clone() } == *seen
}

fn new_slice(group: &Group, endpoints: Vec<Endpoint>, frame: &Frame, rng: &mut dyn RngCore) -> EndpointSlice {
    let base = format!("{}-", frame.service);
    let mut annotations = frame.annotations.clone();
    if let Some(time) = &frame.trigger_time {
        annotations.insert(TRIGGER_TIME.into(), time.clone());
    }
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(generated_name(&base, rng)),
            generate_name: Some(base),
            namespace: Some(frame.namespace.clone()),
            labels: Some(frame.labels.clone()),
            annotations: (!annotations.is_empty()).then_some(annotations),
            owner_references: Some(vec![frame.owner.clone()]),
            ..ObjectMeta::default()
        },
        address_type: group.family.clone(),
        ports: Some(group.ports.iter().map(Port::to_api).collect()),
        endpoints: Some(endpoints),
    }
}
