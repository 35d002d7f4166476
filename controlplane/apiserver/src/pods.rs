//! The narrow subresources of a Pod: what a client may change through each, everything else kept as it is.

use coracle_api::kind::{Object, Subresource};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

/// Leaves in `new` only what `subresource` may change, and takes the rest from `old`.
pub(crate) fn keep_rest(subresource: Subresource, new: &mut dyn Object, old: &dyn Object) {
    let (Some(wanted), Some(present)) = (new.as_any().downcast_ref::<Pod>(), old.as_any().downcast_ref::<Pod>()) else {
        return;
    };
    let mut pod = present.clone();
    pod.metadata.resource_version.clone_from(&wanted.metadata.resource_version);
    pod.metadata.uid.clone_from(&wanted.metadata.uid);
    let (Some(spec), Some(asked)) = (pod.spec.as_mut(), wanted.spec.as_ref()) else { return };
    match subresource {
        Subresource::EphemeralContainers => spec.ephemeral_containers.clone_from(&asked.ephemeral_containers),
        Subresource::Resize => {
            let inits = |spec: &PodSpec| spec.init_containers.as_ref().map_or(0, Vec::len);
            // Containers that came or went stay as the client has them, for validation to name.
            if spec.containers.len() != asked.containers.len() || inits(spec) != inits(asked) {
                return;
            }
            take_resources(&mut spec.containers, &asked.containers);
            if let (Some(have), Some(want)) = (&mut spec.init_containers, &asked.init_containers) {
                take_resources(have, want);
            }
            spec.resources.clone_from(&asked.resources);
        }
        _ => return,
    }
    if let Some(target) = new.as_any_mut().downcast_mut::<Pod>() {
        *target = pod;
    }
}

/// Takes over what a resize is about. Containers under other names are taken as they are, for validation to name.
fn take_resources(have: &mut Vec<Container>, want: &[Container]) {
    if have.iter().zip(want).any(|(have, want)| have.name != want.name) {
        *have = want.to_vec();
        return;
    }
    for (have, want) in have.iter_mut().zip(want) {
        have.resources.clone_from(&want.resources);
        have.resize_policy.clone_from(&want.resize_policy);
    }
}
