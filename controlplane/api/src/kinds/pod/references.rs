//! What a pod refers to by name in its own namespace: the objects that whoever runs the pod has to read.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, LocalObjectReference, Pod, PodSpec, Volume};

use super::super::fields::list;

/// An object that a pod refers to, by its kind and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PodReference {
    /// A `Secret`.
    Secret(String),
    /// A `ConfigMap`.
    ConfigMap(String),
    /// A `PersistentVolumeClaim`.
    Claim(String),
    /// A `ServiceAccount`.
    Account(String),
    /// A `ResourceClaim`.
    Devices(String),
}

/// All of it, each once, in order: what Kubernetes' `VisitPodSecretNames`, `VisitPodConfigmapNames` and the graph of its node
/// authorizer find.
#[must_use]
pub fn pod_references(pod: &Pod) -> Vec<PodReference> {
    let mut found = Vec::new();
    if let Some(spec) = &pod.spec {
        of_spec(spec, &mut found);
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let own = list(&spec.volumes).iter().filter(|volume| volume.ephemeral.is_some());
        found.extend(own.map(|volume| PodReference::Claim(format!("{name}-{}", volume.name))));
    }
    let statuses = pod.status.iter().flat_map(|status| list(&status.resource_claim_statuses));
    let made = statuses.filter_map(|claim| claim.resource_claim_name.clone());
    found.extend(made.map(PodReference::Devices));
    found.sort_unstable();
    found.dedup();
    found
}

fn of_spec(spec: &PodSpec, found: &mut Vec<PodReference>) {
    found.extend(spec.service_account_name.iter().filter(|name| !name.is_empty()).cloned().map(PodReference::Account));
    let named = list(&spec.image_pull_secrets).iter().map(|secret| secret.name.clone());
    found.extend(named.map(PodReference::Secret));
    let containers = spec.containers.iter().chain(list(&spec.init_containers));
    for container in containers {
        of_environment(list(&container.env), list(&container.env_from), found);
    }
    for container in list(&spec.ephemeral_containers) {
        of_environment(list(&container.env), list(&container.env_from), found);
    }
    list(&spec.volumes).iter().for_each(|volume| of_volume(volume, found));
    let claims = list(&spec.resource_claims).iter().filter_map(|claim| claim.resource_claim_name.clone());
    found.extend(claims.map(PodReference::Devices));
}

fn of_environment(one_by_one: &[EnvVar], all_of: &[EnvFromSource], found: &mut Vec<PodReference>) {
    for source in one_by_one.iter().filter_map(|variable| variable.value_from.as_ref()) {
        found.extend(source.secret_key_ref.iter().map(|key| PodReference::Secret(key.name.clone())));
        found.extend(source.config_map_key_ref.iter().map(|key| PodReference::ConfigMap(key.name.clone())));
    }
    for source in all_of {
        found.extend(source.secret_ref.iter().map(|from| PodReference::Secret(from.name.clone())));
        found.extend(source.config_map_ref.iter().map(|from| PodReference::ConfigMap(from.name.clone())));
    }
}

fn of_volume(volume: &Volume, found: &mut Vec<PodReference>) {
    let mut secret = |name: Option<&String>| found.extend(name.cloned().map(PodReference::Secret));
    secret(volume.secret.as_ref().and_then(|source| source.secret_name.as_ref()));
    secret(volume.azure_file.as_ref().map(|source| &source.secret_name));
    for reference in credentials(volume).into_iter().flatten() {
        secret(Some(&reference.name));
    }
    for source in volume.projected.iter().flat_map(|projected| list(&projected.sources)) {
        found.extend(source.secret.iter().map(|from| PodReference::Secret(from.name.clone())));
        found.extend(source.config_map.iter().map(|from| PodReference::ConfigMap(from.name.clone())));
    }
    found.extend(volume.config_map.iter().map(|source| PodReference::ConfigMap(source.name.clone())));
    let claim = volume.persistent_volume_claim.iter().map(|source| PodReference::Claim(source.claim_name.clone()));
    found.extend(claim);
}

/// The Secrets with which kinds of storage are opened.
fn credentials(volume: &Volume) -> [Option<&LocalObjectReference>; 8] {
    [
        volume.cephfs.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.cinder.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.flex_volume.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.rbd.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.scale_io.as_ref().map(|source| &source.secret_ref),
        volume.iscsi.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.storageos.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.csi.as_ref().and_then(|source| source.node_publish_secret_ref.as_ref()),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_named_is_found_once() {
        let key = |name: &str| json!({"name": name, "key": "k"});
        let pod = json!({
            "metadata": {"name": "p"},
            "spec": {
                "serviceAccountName": "a",
                "imagePullSecrets": [{"name": "pull"}],
                "containers": [{"name": "c", "env": [
                    {"name": "A", "valueFrom": {"secretKeyRef": key("env")}},
                    {"name": "B", "valueFrom": {"configMapKeyRef": key("env")}},
                    {"name": "C", "value": "plain"},
                ]}],
                "initContainers": [{"name": "i", "envFrom": [
                    {"secretRef": {"name": "from"}}, {"configMapRef": {"name": "from"}}, {"secretRef": {"name": "env"}},
                ]}],
                "ephemeralContainers": [{"name": "e", "envFrom": [{"secretRef": {"name": "late"}}]}],
                "volumes": [
                    {"name": "s", "secret": {"secretName": "volume"}},
                    {"name": "m", "configMap": {"name": "volume"}},
                    {"name": "p", "projected": {"sources": [
                        {"secret": {"name": "part"}}, {"configMap": {"name": "part"}},
                    ]}},
                    {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
                    {"name": "own", "ephemeral": {}},
                    {"name": "csi", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "csi"}}},
                ],
                "resourceClaims": [{"name": "gpu", "resourceClaimName": "gpu"}],
            },
            "status": {"resourceClaimStatuses": [{"name": "x", "resourceClaimName": "made"}]},
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let secrets = ["csi", "env", "from", "late", "part", "pull", "volume"];
        let mut expected: Vec<PodReference> = secrets.map(|name| PodReference::Secret(name.to_owned())).into();
        expected.extend(["env", "from", "part", "volume"].map(|name| PodReference::ConfigMap(name.to_owned())));
        expected.extend(["data", "p-own"].map(|name| PodReference::Claim(name.to_owned())));
        expected.push(PodReference::Account("a".to_owned()));
        expected.extend(["gpu", "made"].map(|name| PodReference::Devices(name.to_owned())));
        assert_eq!(pod_references(&pod), expected);
        assert_eq!(pod_references(&Pod::default()), []);
    }
}
