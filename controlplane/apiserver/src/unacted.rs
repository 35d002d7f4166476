//! Kinds that are stored and that nothing acts on yet. Whoever writes one is told: a policy that is believed in and does
//! nothing is worse than one that is refused.

use coracle_api::kind::Kind;

/// What nothing acts on. A row goes when its controller, its admission or its data path comes.
const UNACTED: &[(&str, &[&str])] = &[
    ("", &["PersistentVolume", "PersistentVolumeClaim"]),
    (
        "admissionregistration.k8s.io",
        &[
            "MutatingAdmissionPolicy",
            "MutatingAdmissionPolicyBinding",
            "MutatingWebhookConfiguration",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
            "ValidatingWebhookConfiguration",
        ],
    ),
    ("apiextensions.k8s.io", &["CustomResourceDefinition"]),
    ("apiregistration.k8s.io", &["APIService"]),
    ("apps", &["DaemonSet", "StatefulSet"]),
    ("autoscaling", &["HorizontalPodAutoscaler"]),
    ("batch", &["CronJob", "Job"]),
    ("certificates.k8s.io", &["CertificateSigningRequest"]),
    ("flowcontrol.apiserver.k8s.io", &["FlowSchema", "PriorityLevelConfiguration"]),
    ("networking.k8s.io", &["Ingress", "IngressClass", "NetworkPolicy"]),
    ("rbac.authorization.k8s.io", &["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"]),
    ("resource.k8s.io", &["DeviceClass", "ResourceClaim", "ResourceClaimTemplate", "ResourceSlice"]),
    ("storage.k8s.io", &["CSIDriver", "CSINode", "CSIStorageCapacity", "StorageClass", "VolumeAttachment"]),
];

/// What to tell whoever makes an object of the kind; nothing if the kind works.
pub(crate) fn warning(kind: &Kind) -> Option<String> {
    let kinds = UNACTED.iter().find(|(group, _)| *group == kind.group)?.1;
    let text = format!("{} is stored, but nothing acts on it in this version of Coracle", kind.kind);
    kinds.contains(&kind.kind).then_some(text)
}

#[cfg(test)]
mod tests {
    use coracle_api::kinds::KINDS;

    use super::*;

    #[test]
    fn every_row_is_a_kind() {
        for (group, kinds) in UNACTED {
            for kind in *kinds {
                assert!(KINDS.iter().any(|row| row.group == *group && row.kind == *kind), "{group} {kind}");
            }
        }
        let told = KINDS.iter().filter_map(warning).count();
        assert!(told >= UNACTED.iter().map(|(_, kinds)| kinds.len()).sum());
    }

    #[test]
    fn kinds_that_work_are_not_warned_of() {
        for kind in
            KINDS.iter().filter(|kind| kind.kind == "Pod" || kind.kind == "Deployment" || kind.kind == "Service")
        {
            assert_eq!(warning(kind), None);
        }
    }
}
