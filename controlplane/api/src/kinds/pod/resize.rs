//! What `pods/resize` may change: the amounts of cpu and memory, of the pod as a whole and of its containers, and nothing
//! that would make the pod one of another quality of service (`ValidatePodResize`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};

use super::resources::{is_sidecar, qos_class};
use super::spec::MIRROR_POD;
use crate::kinds::fields::{ResourceList, list, text};
use crate::validation::{Errors, Path};

const RESIZABLE: [&str; 2] = ["cpu", "memory"];
const ONLY_RESIZABLE: &str = "only cpu and memory resources are mutable";

/// Pods that can never be resized, whatever is asked for. Nothing else is said of such a pod.
pub(super) fn refusal(old: &Pod) -> Option<&'static str> {
    if old.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR_POD)) {
        return Some("static pods cannot be resized");
    }
    let os = old.spec.as_ref().and_then(|s| s.os.as_ref());
    os.is_some_and(|os| os.name == "windows").then_some("windows pods cannot be resized")
}

/// Reports what a resize may not change.
pub(super) fn validate(new: &Pod, old: &Pod, errors: &mut Errors) {
    let (Some(spec), Some(old_spec)) = (&new.spec, &old.spec) else { return };
    let before = errors.len();
    let at = Path::new("spec");
    let had = old.status.as_ref().map(|s| text(&s.qos_class)).filter(|class| !class.is_empty());
    if had.unwrap_or_else(|| qos_class(old_spec)) != qos_class(spec) {
        let shown = new.status.as_ref().map(|s| text(&s.qos_class)).unwrap_or_default();
        errors.invalid(&at, shown, "Pod QOS Class may not change as a result of resizing");
    }
    if !node_can_resize(old) {
        errors.forbidden(&at, "Pod running on node without support for resize");
    }
    validate_pod_level(spec, old_spec, &at, errors);
    // Everything below goes by position.
    if !validate_order(spec, old_spec, &at, errors) {
        return;
    }
    for (field, new, old) in lists(spec, old_spec) {
        for (i, (new, old)) in new.iter().zip(old).enumerate() {
            let at = at.child(field);
            let at = at.index(i);
            validate_nothing_removed(
                new.resources.as_ref(),
                old.resources.as_ref(),
                "",
                &at.child("resources"),
                errors,
            );
        }
    }
    for (i, (new, old)) in list(&spec.init_containers).iter().zip(list(&old_spec.init_containers)).enumerate() {
        validate_init_container(new, old, &at.child("initContainers").index(i), errors);
    }
    for (new, old) in spec.containers.iter().zip(&old_spec.containers) {
        if with_resizable_of(new, old) != *old {
            errors.forbidden(&at, ONLY_RESIZABLE);
        }
    }
    if errors.len() == before && !only_resized(spec, old_spec) {
        errors.forbidden(&at, ONLY_RESIZABLE);
    }
}

type Containers<'a> = (&'static str, &'a [Container], &'a [Container]);

fn lists<'a>(new: &'a PodSpec, old: &'a PodSpec) -> [Containers<'a>; 2] {
    [
        ("initContainers", list(&new.init_containers), list(&old.init_containers)),
        ("containers", &new.containers, &old.containers),
    ]
}

/// A node that can resize says of each container that runs what it was given. A pod of which nothing runs says nothing of
/// its node.
fn node_can_resize(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().map(|s| list(&s.container_statuses)).unwrap_or_default();
    let running = statuses.iter().find(|c| c.state.as_ref().is_some_and(|s| s.running.is_some()));
    running.is_none_or(|c| c.resources.is_some())
}

fn validate_pod_level(new: &PodSpec, old: &PodSpec, at: &Path<'_>, errors: &mut Errors) {
    let own = at.child("resources");
    match (&new.resources, &old.resources) {
        (None, None) => {}
        (None, Some(_)) => errors.forbidden(&own, "pod-level resources cannot be removed"),
        (Some(resources), had) => {
            validate_nothing_removed(Some(resources), had.as_ref(), "pod-level ", &own, errors);
            if put_back(Some(resources), had.as_ref()) != *had {
                errors.forbidden(at, "only cpu and memory resources are mutable at pod-level");
            }
        }
    }
}

/// Says whether the containers are the same ones in the same order.
fn validate_order(new: &PodSpec, old: &PodSpec, at: &Path<'_>, errors: &mut Errors) -> bool {
    let before = errors.len();
    for (field, new, old) in lists(new, old) {
        let at = at.child(field);
        if new.len() != old.len() {
            errors.forbidden(&at, format!("{field} may not be added or removed on resize"));
            continue;
        }
        for (i, _) in new.iter().zip(old).enumerate().filter(|(_, (new, old))| new.name != old.name) {
            let why = format!("{field} may not be renamed or reordered on resize");
            errors.forbidden(&at.index(i).child("name"), why);
        }
    }
    errors.len() == before
}

fn validate_nothing_removed(
    new: Option<&ResourceRequirements>,
    old: Option<&ResourceRequirements>,
    whose: &str,
    at: &Path<'_>,
    errors: &mut Errors,
) {
    let Some(old) = old else { return };
    for (field, new, old) in [
        ("requests", new.and_then(|n| n.requests.as_ref()), &old.requests),
        ("limits", new.and_then(|n| n.limits.as_ref()), &old.limits),
    ] {
        let removed = |name: &String| new.is_none_or(|new| !new.contains_key(name));
        if old.iter().flatten().any(|(name, _)| removed(name)) {
            errors.forbidden(&at.child(field), format!("{whose}resource {field} cannot be removed"));
        }
    }
}

fn validate_init_container(new: &Container, old: &Container, at: &Path<'_>, errors: &mut Errors) {
    if new == old {
        return;
    }
    if with_resizable_of(new, old) != *old {
        errors.forbidden(at, "only cpu and memory resources for init or sidecar containers are mutable");
    }
    let restarts = list(&new.resize_policy).iter().any(|p| p.restart_policy == "RestartContainer");
    if restarts && !is_sidecar(new) {
        let why = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
        errors.forbidden(at, why);
    }
}

fn only_resized(new: &PodSpec, old: &PodSpec) -> bool {
    let mut munged = new.clone();
    munged.containers.clone_from(&old.containers);
    munged.init_containers.clone_from(&old.init_containers);
    munged.resources.clone_from(&old.resources);
    munged == *old
}

/// The new container with the old one's cpu and memory.
fn with_resizable_of(new: &Container, old: &Container) -> Container {
    let mut munged = new.clone();
    munged.resources = put_back(new.resources.as_ref(), old.resources.as_ref());
    munged
}

fn put_back(new: Option<&ResourceRequirements>, old: Option<&ResourceRequirements>) -> Option<ResourceRequirements> {
    let mut munged = new.cloned().unwrap_or_default();
    let none = ResourceRequirements::default();
    let had = old.unwrap_or(&none);
    restore(&mut munged.requests, had.requests.as_ref());
    restore(&mut munged.limits, had.limits.as_ref());
    // No resources and empty ones are the same.
    if old.is_none() && munged == none { None } else { Some(munged) }
}

fn restore(new: &mut Option<ResourceList>, old: Option<&ResourceList>) {
    let mut munged = new.take().unwrap_or_default();
    for name in RESIZABLE {
        match old.and_then(|old| old.get(name)) {
            Some(amount) => drop(munged.insert(name.to_owned(), amount.clone())),
            None => drop(munged.remove(name)),
        }
    }
    let both_empty = munged.is_empty() && old.is_none_or(BTreeMap::is_empty);
    *new = if both_empty { old.cloned() } else { Some(munged) };
}
