//! The narrow subresources of a Pod: what a client may change through each, everything else kept as it is.

use coracle_api::kind::{Object, Subresource};
use k8s_openapi::api::core::v1::Pod;

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
            let lists = [(&mut spec.containers, &asked.containers)];
            for (have, want) in lists {
                for container in have.iter_mut() {
                    if let Some(asked) = want.iter().find(|c| c.name == container.name) {
                        container.resources.clone_from(&asked.resources);
                        container.resize_policy.clone_from(&asked.resize_policy);
                    }
                }
            }
            spec.resources.clone_from(&asked.resources);
        }
        _ => return,
    }
    if let Some(target) = new.as_any_mut().downcast_mut::<Pod>() {
        *target = pod;
    }
}
