//! Which lists of the built-in types merge, and by which key: the `patchStrategy` and `patchMergeKey` tags of Kubernetes'
//! own types. Only types that lead to such a field stand here; every other field is replaced if it is a list or a scalar,
//! and merged if it is a map.

/// What a strategic merge does with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// The rule of every other field: maps merge, the rest is replaced.
    Plain,
    /// A list of maps merges by this key of its elements.
    MergeBy(&'static str),
    /// A list of scalars merges as a set.
    MergeSet,
    /// A map is replaced as a whole.
    Replace,
}

/// A field of a type.
#[derive(Debug)]
pub struct Field {
    /// Its name in JSON.
    pub name: &'static str,
    /// What a merge does with it.
    pub strategy: Strategy,
    /// Whether `$retainKeys` is made for its maps.
    pub retain_keys: bool,
    /// Type of the map, or of the list's elements; `None` where nothing below has a rule.
    pub of: Option<&'static Type>,
}

/// A type with rules in it.
#[derive(Debug)]
pub struct Type {
    /// Its name, as in Kubernetes' definitions.
    pub name: &'static str,
    /// The fields that have a rule or lead to one.
    pub fields: &'static [Field],
}

impl Field {
    const fn new(name: &'static str, strategy: Strategy) -> Self {
        Self { name, strategy, retain_keys: false, of: None }
    }
    const fn plain(name: &'static str) -> Self {
        Self::new(name, Strategy::Plain)
    }
    const fn merge(name: &'static str, key: &'static str) -> Self {
        Self::new(name, Strategy::MergeBy(key))
    }
    const fn set(name: &'static str) -> Self {
        Self::new(name, Strategy::MergeSet)
    }
    const fn replaced(name: &'static str) -> Self {
        Self::new(name, Strategy::Replace)
    }
    const fn retaining(self) -> Self {
        Self { retain_keys: true, ..self }
    }
    const fn of(self, of: &'static Type) -> Self {
        Self { of: Some(of), ..self }
    }
}

impl Type {
    /// The rule of a field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|f| f.name == name)
    }
}

/// The type of the objects of an `apiVersion` and a `kind`; one with nothing but metadata if there is no row for it.
#[must_use]
pub fn type_of_named(api_version: &str, kind: &str) -> &'static Type {
    ROOTS.iter().find(|(v, k, _)| *v == api_version && *k == kind).map_or(&METADATA_ONLY, |(_, _, t)| t)
}

/// Every type of the table.
pub fn types() -> impl Iterator<Item = &'static Type> {
    let mut seen: Vec<&'static Type> = Vec::new();
    let mut queue: Vec<&'static Type> = ROOTS.iter().map(|(_, _, t)| *t).collect();
    while let Some(next) = queue.pop() {
        if !seen.iter().any(|t| std::ptr::eq(*t, next)) {
            seen.push(next);
            queue.extend(next.fields.iter().filter_map(|f| f.of));
        }
    }
    seen.into_iter()
}

static METADATA_ONLY: Type = Type { name: "Object", fields: &[Field::plain("metadata").of(&OBJECT_META)] };

static ROOTS: &[(&str, &str, &Type)] = &[
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", &VALIDATING_ADMISSION_POLICY),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", &VALIDATING_WEBHOOK_CONFIGURATION),
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", &MUTATING_WEBHOOK_CONFIGURATION),
    ("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy", &MUTATING_ADMISSION_POLICY),
    ("apps/v1", "StatefulSet", &STATEFUL_SET),
    ("apps/v1", "Deployment", &DEPLOYMENT),
    ("apps/v1", "DaemonSet", &DAEMON_SET),
    ("apps/v1", "ReplicaSet", &REPLICA_SET),
    ("autoscaling/v2", "HorizontalPodAutoscaler", &HORIZONTAL_POD_AUTOSCALER),
    ("batch/v1", "Job", &JOB),
    ("batch/v1", "CronJob", &CRON_JOB),
    ("v1", "PersistentVolumeClaim", &PERSISTENT_VOLUME_CLAIM),
    ("v1", "Pod", &POD),
    ("v1", "PodTemplate", &POD_TEMPLATE),
    ("v1", "ReplicationController", &REPLICATION_CONTROLLER),
    ("v1", "Service", &SERVICE),
    ("v1", "ServiceAccount", &SERVICE_ACCOUNT),
    ("v1", "Node", &NODE),
    ("v1", "Namespace", &NAMESPACE),
    ("flowcontrol.apiserver.k8s.io/v1", "FlowSchema", &FLOW_SCHEMA),
    ("flowcontrol.apiserver.k8s.io/v1", "PriorityLevelConfiguration", &PRIORITY_LEVEL_CONFIGURATION),
    ("networking.k8s.io/v1", "ServiceCIDR", &SERVICE_CIDR),
    ("policy/v1", "PodDisruptionBudget", &POD_DISRUPTION_BUDGET),
    ("resource.k8s.io/v1", "ResourceClaim", &RESOURCE_CLAIM),
    ("resource.k8s.io/v1", "ResourceClaimTemplate", &RESOURCE_CLAIM_TEMPLATE),
    ("storage.k8s.io/v1", "CSINode", &CSI_NODE),
    ("apiregistration.k8s.io/v1", "APIService", &API_SERVICE),
];

static OBJECT_META: Type =
    Type { name: "ObjectMeta", fields: &[Field::merge("ownerReferences", "uid"), Field::set("finalizers")] };
static VALIDATING_ADMISSION_POLICY_SPEC: Type = Type {
    name: "ValidatingAdmissionPolicySpec",
    fields: &[Field::merge("matchConditions", "name"), Field::merge("variables", "name")],
};
static VALIDATING_ADMISSION_POLICY: Type = Type {
    name: "ValidatingAdmissionPolicy",
    fields: &[Field::plain("metadata").of(&OBJECT_META), Field::plain("spec").of(&VALIDATING_ADMISSION_POLICY_SPEC)],
};
static VALIDATING_WEBHOOK: Type =
    Type { name: "ValidatingWebhook", fields: &[Field::merge("matchConditions", "name")] };
static VALIDATING_WEBHOOK_CONFIGURATION: Type = Type {
    name: "ValidatingWebhookConfiguration",
    fields: &[Field::plain("metadata").of(&OBJECT_META), Field::merge("webhooks", "name").of(&VALIDATING_WEBHOOK)],
};
static MUTATING_WEBHOOK: Type = Type { name: "MutatingWebhook", fields: &[Field::merge("matchConditions", "name")] };
static MUTATING_WEBHOOK_CONFIGURATION: Type = Type {
    name: "MutatingWebhookConfiguration",
    fields: &[Field::plain("metadata").of(&OBJECT_META), Field::merge("webhooks", "name").of(&MUTATING_WEBHOOK)],
};
static MUTATING_ADMISSION_POLICY_SPEC: Type =
    Type { name: "MutatingAdmissionPolicySpec", fields: &[Field::merge("matchConditions", "name")] };
static MUTATING_ADMISSION_POLICY: Type = Type {
    name: "MutatingAdmissionPolicy",
    fields: &[Field::plain("metadata").of(&OBJECT_META), Field::plain("spec").of(&MUTATING_ADMISSION_POLICY_SPEC)],
};
static PERSISTENT_VOLUME_CLAIM_TEMPLATE: Type =
    Type { name: "PersistentVolumeClaimTemplate", fields: &[Field::plain("metadata").of(&OBJECT_META)] };
static EPHEMERAL_VOLUME_SOURCE: Type = Type {
    name: "EphemeralVolumeSource",
    fields: &[Field::plain("volumeClaimTemplate").of(&PERSISTENT_VOLUME_CLAIM_TEMPLATE)],
};
static VOLUME: Type = Type { name: "Volume", fields: &[Field::plain("ephemeral").of(&EPHEMERAL_VOLUME_SOURCE)] };
static CONTAINER: Type = Type {
    name: "Container",
    fields: &[
        Field::merge("ports", "containerPort"),
        Field::merge("env", "name"),
        Field::merge("volumeMounts", "mountPath"),
        Field::merge("volumeDevices", "devicePath"),
    ],
};
static EPHEMERAL_CONTAINER: Type = Type {
    name: "EphemeralContainer",
    fields: &[
        Field::merge("ports", "containerPort"),
        Field::merge("env", "name"),
        Field::merge("volumeMounts", "mountPath"),
        Field::merge("volumeDevices", "devicePath"),
    ],
};
static POD_SPEC: Type = Type {
    name: "PodSpec",
    fields: &[
        Field::merge("volumes", "name").retaining().of(&VOLUME),
        Field::merge("initContainers", "name").of(&CONTAINER),
        Field::merge("containers", "name").of(&CONTAINER),
        Field::merge("ephemeralContainers", "name").of(&EPHEMERAL_CONTAINER),
        Field::merge("imagePullSecrets", "name"),
        Field::merge("hostAliases", "ip"),
        Field::merge("topologySpreadConstraints", "topologyKey"),
        Field::merge("schedulingGates", "name"),
        Field::merge("resourceClaims", "name").retaining(),
    ],
};
static POD_TEMPLATE_SPEC: Type = Type {
    name: "PodTemplateSpec",
    fields: &[Field::plain("metadata").of(&OBJECT_META), Field::plain("spec").of(&POD_SPEC)],
};
static PERSISTENT_VOLUME_CLAIM_STATUS: Type =
    Type { name: "PersistentVolumeClaimStatus", fields: &[Field::merge("conditions", "type")] };
static PERSISTENT_VOLUME_CLAIM: Type = Type {
    name: "PersistentVolumeClaim",
    fields: &[Field::plain("metadata").of(&OBJECT_META), Field::plain("status").of(&PERSISTENT_VOLUME_CLAIM_STATUS)],
};
static STATEFUL_SET_SPEC: Type = Type {
    name: "StatefulSetSpec",
    fields: &[
        Field::plain("template").of(&POD_TEMPLATE_SPEC),
        Field::plain("volumeClaimTemplates").of(&PERSISTENT_VOLUME_CLAIM),
    ],
};
static STATEFUL_SET_STATUS: Type = Type { name: "StatefulSetStatus", fields: &[Field::merge("conditions", "type")] };
static STATEFUL_SET: Type = Type {
    name: "StatefulSet",
    fields: &[
        Field::plain("metadata").of(&OBJECT_META),
        Field::plain("spec").of(&STATEFUL_SET_SPEC),
        Field::plain("status").of(&STATEFUL_SET_STATUS),
    ],
};
static DEPLOYMENT_SPEC: Type = Type {
    name: "DeploymentSpec",
    fields: &[Field::plain("template").of(&POD_TEMPLATE_SPEC), Field::plain("strategy").retaining()],
};
static DEPLOYMENT_STATUS: Type = Type { name: "DeploymentStatus", fields: &[Field::merge("conditions", "type")] };
static DEPLOYMENT: Type = Type {
    name: "Deployment",
    fields: &[
        Field::plain("metadata").of(&OBJECT_META),
        Field::plain("spec").of(&DEPLOYMENT_SPEC),
        Field::plain("status").of(&DEPLOYMENT_STATUS),
    ],
};
static DAEMON_SET_SPEC: Type =
    Type { name: "DaemonSetSpec", fields: &[Field::plain("template").of(&POD_TEMPLATE_SPEC)] };
static DAEMON_SET_STATUS: Type = Type { name: "DaemonSetStatus", fields: &[Field::merge("conditions", "type")] };
static DAEMON_SET: Type = Type {
    name: "DaemonSet",
    fields: &[
        Field::plain("metadata").of(&OBJECT_META),
        Field::plain("spec").of(&DAEMON_SET_SPEC),
        Field::plain("status").of(&DAEMON_SET_STATUS),
    ],
};
static REPLICA_SET_SPEC: Type =
    Type { name: "ReplicaSetSpec", fields: &[Field::plain("template").of(&POD_TEMPLATE_SPEC)] };
static REPLICA_SET_STATUS: Type = Type { name: "ReplicaSetStatus", fields: &[Field::merge("conditions", "type")] };
static REPLICA_SET: Type = Type {
    name: "ReplicaSet",
    fields: &[
        Field::plain("metadata").of(&OBJECT_META),
        Field::plain("spec").of(&REPLICA_SET_SPEC),
        Field::plain("status").of(&REPLICA_SET_STATUS),
    ],
};
static HORIZONTAL_POD_AUTOSCALER_STATUS: Type =
    Type { name: "HorizontalPodAutoscalerStatus", fields: &[Field::merge("conditions", "type")] };
static HORIZONTAL_POD_AUTOSCALER: Type = Type {
    name: "HorizontalPodAutoscaler",
    fields: &[Field::plain("metadata").of(&OBJECT_META), Field::plain("status").of(&HORIZONTAL_POD_AUTOSCALER_STATUS)],
};
static JOB_SPEC: Type = Type { name: "JobSpec", fields: &[Field::plain("template").of(&POD_TEMPLATE_SPEC)] };
static JOB_STATUS: Type = Type { name: "JobStatus", fields: &[Field::merge("conditions", "type")] };
static JOB: Type = Type {
    name: "Job",
    fields: &[
        Field::plain("metadata").of(&OBJECT_META),
        Field::plain("spec").of(&JOB_SPEC),
        Field::plain("status").of(&JOB_STATUS),
    ],
};
static JOB_TEMPLATE_SPEC: Type = Type {
    name: "JobTemplateSpec",
    fields: &[Field::plain("metadata").of(&OBJECT_META), Field::plain("spec").of(&JOB_SPEC)],
};
static CRON_JOB_SPEC: Type =
    Type { name: "CronJobSpec", fields: &[Field::plain("jobTemplate").of(&JOB_TEMPLATE_SPEC)] };
static CRON_JOB: Type = Type {
    name: "CronJob",
    fields: &[Field::plain("metadata").of(&OBJECT_META), Field::plain("spec").of(&CRON_JOB_SPEC)],
};
static CONTAINER_STATUS: Type = Type {
    name: "ContainerStatus",
    fields: &[Field::merge("volumeMounts", "mountPath"), Field::merge("allocatedResourcesStatus", "name")],
};
static POD_STATUS: Type = Type {
    name: "PodStatus",
    fields: &[
        Field::merge("conditions", "type"),
        Field::merge("hostIPs", "ip"),
        Field::merge("podIPs", "ip"),
        Field::plain("initContainerStatuses").of(&CONTAINER_STATUS),
        Field::plain("containerStatuses").of(&CONTAINER_STATUS),
        Field::plain("ephemeralContainerStatuses").of(&CONTAINER_STATUS),
        Field::merge("resourceClaimStatuses", "name").retaining(),
    ],
};
static POD: Type = Type {
    name: "Pod",
    fields: &[
        Field::plain("metadata").of(&OBJECT_META),
        Field::plain("spec").of(&POD_SPEC),
        Field::plain("status").of(&POD_STATUS),
    ],
};
static POD_TEMPLATE: Type = Type {
    name: "PodTemplate",
    fields: &[Field::plain("metadata").of(&OBJECT_META), Field::plain("template").of(&POD_TEMPLATE_SPEC)],
};
static REPLICATION_CONTROLLER_SPEC: Type =
    Type { name: "ReplicationControllerSpec", fields: &[Field::plain("template").of(&POD_TEMPLATE_SPEC)] };
static REPLICATION_CONTROLLER_STATUS: Type =
    Type { name: "ReplicationControllerStatus", fields: &[Field::merge("conditions", "type")] };
static REPLICATION_CONTROLLER: Type = Type {
    name: "ReplicationController",
    fields: &[
        Field::plain("metadata").of(&OBJECT_META),
        Field::plain("spec").of(&REPLICATION_CONTROLLER_SPEC),
        Field::plain("status").of(&REPLICATION_CONTROLLER_STATUS),
    ],
};
static SERVICE_SPEC: Type = Type { name: "ServiceSpec", fields: &[Field::merge("ports", "port")] };
static SERVICE_STATUS: Type = Type { name: "ServiceStatus", fields: &[Field::merge("conditions", "type")] };
static SERVICE: Type = Type {
    name: "Service",
    fields: &[
        Field::plain("metadata").of(&OBJECT_META),
        Field::plain("spec").of(&SERVICE_SPEC),
        Field::plain("status").of(&SERVICE_STATUS),
    ],
};
static SERVICE_ACCOUNT: Type = Type {
    name: "ServiceAccount",
    fields: &[Field::plain("metadata").of(&OBJECT_META), Field::merge("secrets", "name")],
};
static NODE_SPEC: Type = Type { name: "NodeSpec", fields: &[Field::set("podCIDRs")] };
static NODE_STATUS: Type =
    Type { name: "NodeStatus", fields: &[Field::merge("conditions", "type"), Field::merge("addresses", "type")] };
static NODE: Type = Type {
    name: "Node",
    fields: &[
        Field::plain("metadata").of(&OBJECT_META),
        Field::plain("spec").of(&NODE_SPEC),
        Field::plain("status").of(&NODE_STATUS),
    ],
};
static NAMESPACE_STATUS: Type = Type { name: "NamespaceStatus", fields: &[Field::merge("conditions", "type")] };
static NAMESPACE: Type = Type {
    name: "Namespace",
    fields: &[Field::plain("metadata").of(&OBJECT_META), Field::plain("status").of(&NAMESPACE_STATUS)],
};
static FLOW_SCHEMA_STATUS: Type = Type { name: "FlowSchemaStatus", fields: &[Field::merge("conditions", "type")] };
static FLOW_SCHEMA: Type = Type {
    name: "FlowSchema",
    fields: &[Field::plain("metadata").of(&OBJECT_META), Field::plain("status").of(&FLOW_SCHEMA_STATUS)],
};
static PRIORITY_LEVEL_CONFIGURATION_STATUS: Type =
    Type { name: "PriorityLevelConfigurationStatus", fields: &[Field::merge("conditions", "type")] };
static PRIORITY_LEVEL_CONFIGURATION: Type = Type {
    name: "PriorityLevelConfiguration",
    fields: &[
        Field::plain("metadata").of(&OBJECT_META),
        Field::plain("status").of(&PRIORITY_LEVEL_CONFIGURATION_STATUS),
    ],
};
static SERVICE_CIDR_STATUS: Type = Type { name: "ServiceCIDRStatus", fields: &[Field::merge("conditions", "type")] };
static SERVICE_CIDR: Type = Type {
    name: "ServiceCIDR",
    fields: &[Field::plain("metadata").of(&OBJECT_META), Field::plain("status").of(&SERVICE_CIDR_STATUS)],
};
static POD_DISRUPTION_BUDGET_SPEC: Type =
    Type { name: "PodDisruptionBudgetSpec", fields: &[Field::replaced("selector")] };
static POD_DISRUPTION_BUDGET_STATUS: Type =
    Type { name: "PodDisruptionBudgetStatus", fields: &[Field::merge("conditions", "type")] };
static POD_DISRUPTION_BUDGET: Type = Type {
    name: "PodDisruptionBudget",
    fields: &[
        Field::plain("metadata").of(&OBJECT_META),
        Field::plain("spec").of(&POD_DISRUPTION_BUDGET_SPEC),
        Field::plain("status").of(&POD_DISRUPTION_BUDGET_STATUS),
    ],
};
static RESOURCE_CLAIM_STATUS: Type =
    Type { name: "ResourceClaimStatus", fields: &[Field::merge("reservedFor", "uid")] };
static RESOURCE_CLAIM: Type = Type {
    name: "ResourceClaim",
    fields: &[Field::plain("metadata").of(&OBJECT_META), Field::plain("status").of(&RESOURCE_CLAIM_STATUS)],
};
static RESOURCE_CLAIM_TEMPLATE_SPEC: Type =
    Type { name: "ResourceClaimTemplateSpec", fields: &[Field::plain("metadata").of(&OBJECT_META)] };
static RESOURCE_CLAIM_TEMPLATE: Type = Type {
    name: "ResourceClaimTemplate",
    fields: &[Field::plain("metadata").of(&OBJECT_META), Field::plain("spec").of(&RESOURCE_CLAIM_TEMPLATE_SPEC)],
};
static CSI_NODE_SPEC: Type = Type { name: "CSINodeSpec", fields: &[Field::merge("drivers", "name")] };
static CSI_NODE: Type = Type {
    name: "CSINode",
    fields: &[Field::plain("metadata").of(&OBJECT_META), Field::plain("spec").of(&CSI_NODE_SPEC)],
};
static API_SERVICE_STATUS: Type = Type { name: "APIServiceStatus", fields: &[Field::merge("conditions", "type")] };
static API_SERVICE: Type = Type {
    name: "APIService",
    fields: &[Field::plain("metadata").of(&OBJECT_META), Field::plain("status").of(&API_SERVICE_STATUS)],
};
