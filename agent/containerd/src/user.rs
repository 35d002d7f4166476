//! `runAsNonRoot` (`verifyRunAsNonRoot` of the kubelet): whether the user that a container runs as is known not to be root.

use coracle_agent_core::workload::ContainerSpec;

use crate::cri::v1::{Image, PodSandboxConfig};

/// Why the container may not run, in the kubelet's words.
pub(crate) fn refused(spec: &ContainerSpec, sandbox: &PodSandboxConfig, image: Option<&Image>) -> Option<String> {
    if !spec.security.must_not_be_root {
        return None;
    }
    let metadata = sandbox.metadata.clone().unwrap_or_default();
    let pod = format!("\"{}_{}({})\"", metadata.name, metadata.namespace, metadata.uid);
    let whom = format!("(pod: {pod}, container: {})", spec.key.name);
    if let Some(user) = spec.security.user {
        return (user == 0).then(|| format!("container's runAsUser breaks non-root policy {whom}"));
    }
    let image = image?;
    match (&image.uid, image.username.as_str()) {
        (Some(uid), _) if uid.value == 0 => {
            Some(format!("container has runAsNonRoot and image will run as root {whom}"))
        }
        (Some(_), _) => None,
        (None, "") => Some(format!("container has runAsNonRoot and image will run as root {whom}")),
        (None, name) => Some(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {whom}"
        )),
    }
}
