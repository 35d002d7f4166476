//! What the cluster adds to new pods: the `ServiceAccount` plugin (account and token volume), `DefaultTolerationSeconds`,
//! `Priority` and `RuntimeClass`.

use coracle_api::ApiError;
use coracle_store::ListRange;
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath, ObjectFieldSelector, Pod,
    ProjectedVolumeSource, ServiceAccount, ServiceAccountTokenProjection, Toleration, Volume, VolumeMount,
    VolumeProjection,
};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::{Operation, Plugin, Review};
use crate::meta::generated_name;
use crate::registry::Stored;

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// A little over an hour, so that a token renewed hourly never runs out (`WarnOnlyBoundTokenExpirationPeriod`).
const TOKEN_SECONDS: i64 = 3607;
const TOLERATION_SECONDS: i64 = 300;

/// The pod being created, if that is what the review is about.
fn new_pod<'a>(review: &'a mut Review<'_>) -> Option<&'a mut Pod> {
    let wanted = review.operation == Operation::Create && review.subresource.is_none();
    if wanted { review.object_mut().as_any_mut().downcast_mut() } else { None }
}

fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key("kubernetes.io/config.mirror"))
}

/// Gives a pod its account, the account's pull secrets, and a volume with its token.
pub struct ServiceAccounts;

impl Plugin for ServiceAccounts {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        let namespace = review.namespace;
        let Some(pod) = new_pod(review) else { return Ok(()) };
        if is_mirror(pod) {
            return Ok(());
        }
        let spec = pod.spec.get_or_insert_default();
        if spec.service_account_name.as_deref().unwrap_or_default().is_empty() {
            let old_field = spec.service_account.clone().filter(|s| !s.is_empty());
            spec.service_account_name = Some(old_field.unwrap_or_else(|| "default".to_owned()));
        }
        spec.service_account.clone_from(&spec.service_account_name);
        let name = spec.service_account_name.clone().unwrap_or_default();
        let accounts = review.api.registry.of::<ServiceAccount>();
        let account = match review.api.store.get(&accounts.key(namespace, &name)) {
            Some(entry) => Stored::of(accounts.kind, entry)?,
            None => {
                return Err(review.forbid(&format!(
                    "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"
                )));
            }
        };
        let Some(account) = account.typed::<ServiceAccount>() else { return Ok(()) };
        let api = review.api;
        let Some(pod) = new_pod(review) else { return Ok(()) };
        let spec = pod.spec.get_or_insert_default();
        if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
            spec.image_pull_secrets.clone_from(&account.image_pull_secrets);
        }
        let wanted = spec.automount_service_account_token.or(account.automount_service_account_token).unwrap_or(true);
        if wanted {
            let mut dice = api.dice();
            mount_token(pod, &mut dice);
        }
        Ok(())
    }
}

fn mount_token(pod: &mut Pod, dice: &mut impl rand::Rng) {
    let spec = pod.spec.get_or_insert_default();
    let has_mount = |mounts: &Option<Vec<VolumeMount>>| mounts.iter().flatten().any(|m| m.mount_path == TOKEN_PATH);
    let mut name = None;
    let containers = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
    for container in containers.filter(|c| !has_mount(&c.volume_mounts)) {
        let name = name.get_or_insert_with(|| generated_name("kube-api-access-", dice));
        container.volume_mounts.get_or_insert_default().push(VolumeMount {
            name: name.clone(),
            mount_path: TOKEN_PATH.to_owned(),
            read_only: Some(true),
            ..Default::default()
        });
    }
    if let Some(name) = name {
        spec.volumes.get_or_insert_default().push(token_volume(name));
    }
}

fn token_volume(name: String) -> Volume {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            expiration_seconds: Some(TOKEN_SECONDS),
            path: "token".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let ca = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: "kube-root-ca.crt".to_owned(),
            items: Some(vec![KeyToPath { key: "ca.crt".to_owned(), path: "ca.crt".to_owned(), mode: None }]),
            optional: None,
        }),
        ..Default::default()
    };
    let namespace = VolumeProjection {
        downward_api: Some(DownwardAPIProjection {
            items: Some(vec![DownwardAPIVolumeFile {
                path: "namespace".to_owned(),
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".to_owned()),
                    field_path: "metadata.namespace".to_owned(),
                }),
                ..Default::default()
            }]),
        }),
        ..Default::default()
    };
    Volume {
        name,
        projected: Some(ProjectedVolumeSource { default_mode: Some(0o644), sources: Some(vec![token, ca, namespace]) }),
        ..Default::default()
    }
}

/// Lets a pod stay five minutes on a node that is lost, unless it says otherwise.
pub struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        let Some(pod) = new_pod(review) else { return Ok(()) };
        let tolerations = pod.spec.get_or_insert_default().tolerations.get_or_insert_default();
        for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
            let covered = tolerations.iter().any(|t| {
                (t.key.as_deref() == Some(key) || t.key.as_deref().unwrap_or_default().is_empty())
                    && matches!(t.effect.as_deref(), None | Some("" | "NoExecute"))
            });
            if !covered {
                tolerations.push(Toleration {
                    key: Some(key.to_owned()),
                    operator: Some("Exists".to_owned()),
                    effect: Some("NoExecute".to_owned()),
                    toleration_seconds: Some(TOLERATION_SECONDS),
                    value: None,
                });
            }
        }
        Ok(())
    }
}

/// The classes that every cluster has.
const SYSTEM_CLASSES: [&str; 2] = ["system-node-critical", "system-cluster-critical"];

/// Turns a pod's `priorityClassName` into its priority, and looks after the classes themselves.
pub struct Priority;

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        if review.served.kind.kind == "PriorityClass" {
            return check_class(review);
        }
        let Some(pod) = new_pod(review) else { return Ok(()) };
        let wanted = pod.spec.as_ref().and_then(|s| s.priority_class_name.clone()).unwrap_or_default();
        let given = pod.spec.as_ref().and_then(|s| s.priority);
        let class = find_class(review, &wanted)?;
        if class.is_none() && !wanted.is_empty() {
            return Err(review.forbid(&format!("no PriorityClass with name {wanted} was found")));
        }
        let value = class.as_ref().map_or(0, |c| c.value.unwrap_or(0));
        if given.is_some_and(|g| g != value) {
            return Err(review.forbid(&format!(
                "the integer value of priority ({}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name",
                given.unwrap_or_default()
            )));
        }
        let Some(pod) = new_pod(review) else { return Ok(()) };
        let spec = pod.spec.get_or_insert_default();
        spec.priority = Some(value);
        let policy = class.as_ref().and_then(|c| c.preemption_policy.clone());
        spec.preemption_policy = Some(policy.unwrap_or_else(|| "PreemptLowerPriority".to_owned()));
        if let Some(class) = class {
            spec.priority_class_name = class.metadata.name;
        }
        Ok(())
    }
}

/// Only one class is the default of all, and the system's own stay.
fn check_class(review: &mut Review<'_>) -> Result<(), ApiError> {
    if review.operation == Operation::Delete {
        return match SYSTEM_CLASSES.contains(&review.name) {
            true => Err(review.forbid("this is a system priority class and cannot be deleted")),
            false => Ok(()),
        };
    }
    let class: Option<&mut PriorityClass> = review.object_mut().as_any_mut().downcast_mut();
    if class.is_none_or(|class| class.global_default != Some(true)) {
        return Ok(());
    }
    match find_class(review, "")?.and_then(|class| class.metadata.name) {
        Some(other) if review.operation == Operation::Create || other != review.name => {
            let why = format!("PriorityClass {other} is already marked as default. Only one default can exist");
            Err(review.forbid(&why))
        }
        _ => Ok(()),
    }
}

/// The class of a name; without a name the global default, the lowest if there are several.
fn find_class(review: &Review<'_>, name: &str) -> Result<Option<PriorityClass>, ApiError> {
    let served = review.api.registry.of::<PriorityClass>();
    if !name.is_empty() {
        let Some(entry) = review.api.store.get(&served.key("", name)) else { return Ok(None) };
        return Ok(Stored::of(served.kind, entry)?.typed::<PriorityClass>().cloned());
    }
    let mut best: Option<PriorityClass> = None;
    for entry in review.api.store.list(&served.collection, &ListRange::all()).entries {
        let stored = Stored::of(served.kind, entry)?;
        if let Some(class) = stored.typed::<PriorityClass>()
            && class.global_default == Some(true)
            && best.as_ref().is_none_or(|b| class.value < b.value)
        {
            best = Some(class.clone());
        }
    }
    Ok(best)
}

/// Adds what a pod's runtime class demands: overhead, node selector, tolerations.
pub struct RuntimeClasses;

impl Plugin for RuntimeClasses {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        let Some(pod) = new_pod(review) else { return Ok(()) };
        let Some(name) = pod.spec.as_ref().and_then(|s| s.runtime_class_name.clone()).filter(|n| !n.is_empty()) else {
            return Ok(());
        };
        let served = review.api.registry.of::<RuntimeClass>();
        let Some(entry) = review.api.store.get(&served.key("", &name)) else {
            return Err(review.forbid(&format!("pod rejected: RuntimeClass \"{name}\" not found")));
        };
        let stored = Stored::of(served.kind, entry)?;
        let Some(class) = stored.typed::<RuntimeClass>() else { return Ok(()) };
        let conflict = format!("pod rejected: Pod's node selector conflicts with RuntimeClass {name:?}");
        let Some(pod) = new_pod(review) else { return Ok(()) };
        let spec = pod.spec.get_or_insert_default();
        if let Some(overhead) = class.overhead.as_ref().and_then(|o| o.pod_fixed.clone()) {
            spec.overhead = Some(overhead);
        }
        let Some(scheduling) = &class.scheduling else { return Ok(()) };
        let selector = spec.node_selector.get_or_insert_default();
        for (key, value) in scheduling.node_selector.iter().flatten() {
            if selector.get(key).is_some_and(|have| have != value) {
                return Err(review.forbid(&conflict));
            }
            selector.insert(key.clone(), value.clone());
        }
        if selector.is_empty() {
            spec.node_selector = None;
        }
        let tolerations = spec.tolerations.get_or_insert_default();
        for toleration in scheduling.tolerations.iter().flatten() {
            if !tolerations.contains(toleration) {
                tolerations.push(toleration.clone());
            }
        }
        Ok(())
    }
}
