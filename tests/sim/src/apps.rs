//! What users declare, as manifests: apps with a Service and perhaps a budget, a filler that yields to them, families
//! of objects that own each other, and objects that somebody holds.

use rand::{Rng, rngs::SmallRng};
use serde_json::{Value, json};

use crate::stories::HOLD;

/// The namespace of everything that is not about namespaces.
pub(crate) const NAMESPACE: &str = "default";
/// The Deployment that fills what the others leave, and yields to them.
pub(crate) const FILLER: &str = "filler";
/// The PriorityClass of the filler.
pub(crate) const LOW: &str = "low";

/// The images of tasks: after how many seconds they end, and with which code.
pub(crate) const TASK_IMAGES: [(&str, u64, i32); 3] = [("quick:v1", 2, 0), ("slow:v1", 12, 0), ("failing:v1", 4, 3)];
/// The label of a task's pod.
pub(crate) const TASK: &str = "task";

/// A pod of nobody that ends by itself, and is to run once if it ends well.
pub(crate) fn task(name: &str, rng: &mut SmallRng) -> Value {
    let (image, _, code) = TASK_IMAGES[rng.random_range(0..TASK_IMAGES.len())];
    let policy = if code == 0 && rng.random_bool(0.5) { "OnFailure" } else { "Never" };
    task_of(name, image, policy)
}

/// The same with an image and a restart policy.
pub(crate) fn task_of(name: &str, image: &str, policy: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {TASK: name}},
        "spec": {
            "restartPolicy": policy,
            "terminationGracePeriodSeconds": 1,
            "tolerations": short_tolerations(),
            "containers": [{"name": "main", "image": image, "resources": {"requests": {"cpu": "50m"}}}],
        },
    })
}

/// Short, so that pods leave silent nodes within a run.
fn short_tolerations() -> Value {
    let of = |taint: &str| {
        json!({
            "key": format!("node.kubernetes.io/{taint}"), "operator": "Exists",
            "effect": "NoExecute", "tolerationSeconds": 10,
        })
    };
    ["not-ready", "unreachable"].map(of).into()
}

/// A Deployment.
pub(crate) struct App<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) replicas: i32,
    pub(crate) priority_class: Option<&'a str>,
}

impl App<'_> {
    /// Its manifest; what the name does not say is drawn.
    pub(crate) fn deployment(&self, rng: &mut SmallRng) -> Value {
        let unavailable = rng.random_range(0..=1);
        let surge = if unavailable == 0 { rng.random_range(1..=2) } else { rng.random_range(0..=2) };
        let probe = |period: i32| json!({"httpGet": {"path": "/", "port": 80}, "periodSeconds": period});
        let mut container = json!({
            "name": "main", "image": "app:v1", "ports": [{"containerPort": 80}],
            "resources": {"requests": {"cpu": "500m"}},
            "readinessProbe": probe(rng.random_range(2..=4)),
        });
        if rng.random_bool(0.5) {
            container["livenessProbe"] = probe(5);
        }
        if rng.random_bool(0.2) {
            container["startupProbe"] = probe(1);
            container["startupProbe"]["failureThreshold"] = 30.into();
        }
        let mut spec = json!({
            "terminationGracePeriodSeconds": rng.random_range(1..=5),
            "tolerations": short_tolerations(),
            "containers": [container],
        });
        if let Some(class) = self.priority_class {
            spec["priorityClassName"] = class.into();
        }
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "replicas": self.replicas,
                "minReadySeconds": if rng.random_bool(0.3) { 2 } else { 0 },
                "revisionHistoryLimit": 3,
                "selector": {"matchLabels": {"app": self.name}},
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge},
                },
                "template": {"metadata": {"labels": {"app": self.name}}, "spec": spec},
            },
        })
    }

    /// The Service of the same name.
    pub(crate) fn service(&self, rng: &mut SmallRng) -> Value {
        let type_ = if rng.random_bool(0.3) { "NodePort" } else { "ClusterIP" };
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {"type": type_, "selector": {"app": self.name}, "ports": [{"port": 80, "targetPort": 80}]},
        })
    }

    /// A budget of the same name.
    pub(crate) fn budget(&self, rng: &mut SmallRng) -> Value {
        let bound = if rng.random_bool(0.5) {
            json!({"maxUnavailable": 1})
        } else {
            json!({"minAvailable": (self.replicas - 1).max(1)})
        };
        let mut spec = bound;
        spec["selector"] = json!({"matchLabels": {"app": self.name}});
        json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": self.name, "namespace": self.namespace}, "spec": spec,
        })
    }
}

/// Where the objects of a plural are, in a namespace.
pub(crate) fn path(namespace: &str, plural: &str, name: &str) -> String {
    let group = match plural {
        "deployments" | "replicasets" => "apis/apps/v1",
        "poddisruptionbudgets" => "apis/policy/v1",
        "endpointslices" => "apis/discovery.k8s.io/v1",
        _ => "api/v1",
    };
    let slash = if name.is_empty() { "" } else { "/" };
    format!("/{group}/namespaces/{namespace}/{plural}{slash}{name}")
}

/// A ConfigMap.
pub(crate) fn config_map(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}})
}

/// A ConfigMap that somebody holds.
pub(crate) fn held(namespace: &str, name: &str) -> Value {
    let mut object = config_map(namespace, name);
    object["metadata"]["finalizers"] = json!([HOLD]);
    object
}

/// A ConfigMap that goes when its owner goes.
pub(crate) fn owned(namespace: &str, name: &str, owner: (&str, &str)) -> Value {
    let mut object = config_map(namespace, name);
    object["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": owner.0, "uid": owner.1, "blockOwnerDeletion": true,
    }]);
    object
}

/// A namespace.
pub(crate) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// The PriorityClass of the filler.
pub(crate) fn low_priority() -> Value {
    json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
        "metadata": {"name": LOW}, "value": -10, "description": "Yields to everything else.",
    })
}

/// The options of a deletion.
pub(crate) fn deletion(propagation: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation})
}
