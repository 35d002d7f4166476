//! `LimitRanger`: the LimitRanges of a namespace fill in what new containers leave out and bound what pods and claims ask
//! for (`k8s.io/kubernetes/plugin/pkg/admission/limitranger`).

mod bounds;

use std::collections::BTreeMap;

use coracle_api::ApiError;
use coracle_api::kind::Subresource;
use coracle_api::quota::qos_class;
use coracle_store::ListRange;
use k8s_openapi::api::core::v1::{Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{Operation, Plugin, Review};
use crate::registry::Stored;

/// Where a pod says what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// See the module.
pub struct LimitRanger;

impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        let is_pod = review.object().as_any().is::<Pod>();
        let is_claim = review.object().as_any().is::<PersistentVolumeClaim>();
        let concerns = match (review.operation, review.subresource) {
            (Operation::Create, None) => is_pod || is_claim,
            // A pod's containers change through this subresource alone.
            (Operation::Update, Some(Subresource::Resize)) => is_pod,
            (Operation::Update, None) => is_claim,
            _ => false,
        };
        let is_going = review.old.is_some_and(|old| old.meta().deletion_timestamp.is_some());
        if !concerns || is_going {
            return Ok(());
        }
        for range in ranges(review)? {
            let items = range.spec.map(|spec| spec.limits).unwrap_or_default();
            if is_pod
                && items.iter().any(fills_in)
                && let Some(pod) = review.object_mut().as_any_mut().downcast_mut::<Pod>()
            {
                fill(pod, &items);
            }
            let faults = bounds::faults(review.object(), review.old, &items);
            match faults.as_slice() {
                [] => {}
                [one] => return Err(review.forbid(one)),
                // As Go prints several errors.
                several => return Err(review.forbid(&format!("[{}]", several.join(", ")))),
            }
        }
        Ok(())
    }
}

/// The LimitRanges of the object's namespace, in the order of their names.
fn ranges(review: &Review<'_>) -> Result<Vec<LimitRange>, ApiError> {
    let served = review.api.registry.of::<LimitRange>();
    let listing = review.api.store.list(&served.collection, &ListRange::namespace(review.namespace));
    let read = |entry| Ok(Stored::of(served.kind, entry)?.typed::<LimitRange>().cloned());
    listing.entries.into_iter().filter_map(|entry| read(entry).transpose()).collect()
}

fn fills_in(item: &LimitRangeItem) -> bool {
    let any = |list: &Option<BTreeMap<String, Quantity>>| list.as_ref().is_some_and(|l| !l.is_empty());
    item.type_ == "Container" && (any(&item.default) || any(&item.default_request))
}

/// Gives containers the defaults that they do not set themselves, and notes them in an annotation.
fn fill(pod: &mut Pod, items: &[LimitRangeItem]) {
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    for item in items.iter().filter(|item| item.type_ == "Container") {
        requests.extend(item.default_request.clone().unwrap_or_default());
        limits.extend(item.default.clone().unwrap_or_default());
    }
    let Some(spec) = &mut pod.spec else { return };
    let mut notes = Vec::new();
    for (sort, containers) in
        [("container", Some(&mut spec.containers)), ("init container", spec.init_containers.as_mut())]
    {
        for container in containers.into_iter().flatten() {
            fill_container(container, sort, &requests, &limits, &mut notes);
        }
    }
    if !notes.is_empty() {
        // The class was found before anything was filled in.
        pod.status.get_or_insert_default().qos_class = Some(qos_class(spec).to_owned());
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(ANNOTATION.to_owned(), format!("LimitRanger plugin set: {}", notes.join("; ")));
    }
}

fn fill_container(
    container: &mut Container,
    sort: &str,
    requests: &BTreeMap<String, Quantity>,
    limits: &BTreeMap<String, Quantity>,
    notes: &mut Vec<String>,
) {
    let resources = container.resources.get_or_insert_default();
    for (side, defaults, list) in
        [("request", requests, &mut resources.requests), ("limit", limits, &mut resources.limits)]
    {
        let have = list.get_or_insert_default();
        let mut filled = Vec::new();
        for (name, quantity) in defaults {
            if !have.contains_key(name) {
                have.insert(name.clone(), quantity.clone());
                filled.push(name.as_str());
            }
        }
        if have.is_empty() {
            *list = None;
        }
        if !filled.is_empty() {
            notes.push(format!("{} {side} for {sort} {}", filled.join(", "), container.name));
        }
    }
}
