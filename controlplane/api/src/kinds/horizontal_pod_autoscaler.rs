//! HorizontalPodAutoscaler, `autoscaling/v2`: replicas that follow metrics. It is the version that is stored.

use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus, MetricSpec,
    MetricStatus, MetricTarget, MetricValueStatus, ResourceMetricSource,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::fields::list;
use super::meta::{age_cell, name_cell, spec_and_status};
use crate::kind::{Info, Resource, Subresource};
use crate::quantity::Amount;
use crate::table::{Cell, Column};
use crate::validation::{Errors, Path, path_segment};

/// Of CPU, in per cent, when no metric is named (`DefaultCPUUtilization`).
const CPU_UTILIZATION: i32 = 80;
/// The longest window and the longest period of a policy, in seconds.
const WINDOW_MAX_SECONDS: i32 = 3600;
const PERIOD_MAX_SECONDS: i32 = 1800;
/// The most metrics a row shows.
const SHOWN_METRICS: usize = 2;
const POLICIES: [&str; 3] = ["Disabled", "Max", "Min"];

pub(super) const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text(
        "Reference",
        "scaleTargetRef points to the target resource to scale, and is used to the pods for which metrics should be collected, as well as to actually change the replica count.",
    ),
    Column::text(
        "Targets",
        "metrics contains the specifications for which to use to calculate the desired replica count (the maximum replica count across all metrics will be used).",
    ),
    Column::text(
        "MinPods",
        "minReplicas is the lower limit for the number of replicas to which the autoscaler can scale down.",
    ),
    Column::text(
        "MaxPods",
        "maxReplicas is the upper limit for the number of replicas to which the autoscaler can scale up.",
    ),
    Column::text(
        "Replicas",
        "currentReplicas is current number of replicas of pods managed by this autoscaler, as last seen by the autoscaler.",
    ),
    Column::AGE,
];

impl Resource for HorizontalPodAutoscaler {
    const INFO: Info = Info {
        short_names: &["hpa"],
        categories: &["all"],
        subresources: &[Subresource::Status],
        columns: COLUMNS,
        is_acted_on: false,
        ..Info::namespaced("horizontalpodautoscalers", "horizontalpodautoscaler")
    };

    spec_and_status!();

    fn apply_defaults(&mut self) {
        let spec = &mut self.spec;
        spec.min_replicas.get_or_insert(1);
        if list(&spec.metrics).is_empty() {
            let target = MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(CPU_UTILIZATION),
                ..Default::default()
            };
            let cpu = ResourceMetricSource { name: "cpu".to_owned(), target };
            let metric = MetricSpec { type_: "Resource".to_owned(), resource: Some(cpu), ..Default::default() };
            spec.metrics = Some(vec![metric]);
        }
        if let Some(behavior) = &mut spec.behavior {
            let up = [("Pods", 4), ("Percent", 100)];
            default_rules(behavior.scale_up.get_or_insert_default(), Some(0), &up);
            default_rules(behavior.scale_down.get_or_insert_default(), None, &[("Percent", 100)]);
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = &self.spec;
        let at = Path::new("spec");
        if spec.min_replicas.is_some_and(|n| n < 1) {
            let n = spec.min_replicas.unwrap_or_default();
            errors.invalid(&at.child("minReplicas"), n, "must be greater than or equal to 1");
        }
        if spec.max_replicas < 1 {
            errors.invalid(&at.child("maxReplicas"), spec.max_replicas, "must be greater than 0");
        }
        if spec.min_replicas.is_some_and(|min| spec.max_replicas < min) {
            let why = "must be greater than or equal to `minReplicas`";
            errors.invalid(&at.child("maxReplicas"), spec.max_replicas, why);
        }
        let target = at.child("scaleTargetRef");
        validate_reference((&spec.scale_target_ref.kind, &spec.scale_target_ref.name), &target, errors);
        for (i, metric) in list(&spec.metrics).iter().enumerate() {
            validate_metric(metric, &at.child("metrics").index(i), errors);
        }
        let at = at.child("behavior");
        for (field, rules) in
            spec.behavior.iter().flat_map(|b| [("scaleUp", &b.scale_up), ("scaleDown", &b.scale_down)])
        {
            if let Some(rules) = rules {
                validate_scaling(rules, &at.child(field), errors);
            }
        }
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut Errors) {
        let empty = HorizontalPodAutoscalerStatus::default();
        let status = self.status.as_ref().unwrap_or(&empty);
        let at = Path::new("status");
        let numbers = [
            ("currentReplicas", status.current_replicas.unwrap_or_default()),
            ("desiredReplicas", status.desired_replicas),
        ];
        for (field, n) in numbers.into_iter().filter(|(_, n)| *n < 0) {
            errors.invalid(&at.child(field), n, "must be greater than or equal to 0");
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let reference = &self.spec.scale_target_ref;
        row_of(
            &self.metadata,
            (&reference.kind, &reference.name),
            targets(self),
            self.spec.min_replicas,
            self.spec.max_replicas,
            self.status.as_ref().and_then(|s| s.current_replicas).unwrap_or_default(),
            now,
        )
    }
}

/// The row of either version.
pub(super) fn row_of(
    meta: &ObjectMeta,
    (kind, name): (&str, &str),
    targets: String,
    min: Option<i32>,
    max: i32,
    current: i32,
    now: jiff::Timestamp,
) -> Vec<Cell> {
    vec![
        name_cell(meta),
        format!("{kind}/{name}").into(),
        targets.into(),
        min.map_or_else(|| "<unset>".to_owned(), |n| n.to_string()).into(),
        max.into(),
        current.into(),
        age_cell(meta, now),
    ]
}

fn default_rules(rules: &mut HPAScalingRules, window: Option<i32>, policies: &[(&str, i32)]) {
    if rules.stabilization_window_seconds.is_none() {
        rules.stabilization_window_seconds = window;
    }
    rules.select_policy.get_or_insert_with(|| "Max".to_owned());
    rules.policies.get_or_insert_with(|| {
        policies
            .iter()
            .map(|(type_, value)| HPAScalingPolicy { type_: (*type_).to_owned(), value: *value, period_seconds: 15 })
            .collect()
    });
}

fn validate_reference((kind, name): (&str, &str), at: &Path<'_>, errors: &mut Errors) {
    for (field, value) in [("kind", kind), ("name", name)] {
        if value.is_empty() {
            errors.required(&at.child(field), "");
        } else {
            errors.invalid_each(&at.child(field), value, path_segment(value));
        }
    }
}

fn validate_metric(metric: &MetricSpec, at: &Path<'_>, errors: &mut Errors) {
    const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
    let sources = [
        ("object", "Object", metric.object.is_some()),
        ("pods", "Pods", metric.pods.is_some()),
        ("resource", "Resource", metric.resource.is_some()),
        ("external", "External", metric.external.is_some()),
        ("containerResource", "ContainerResource", metric.container_resource.is_some()),
    ];
    if metric.type_.is_empty() {
        errors.required(&at.child("type"), "must specify a metric source type");
    } else if !TYPES.contains(&metric.type_.as_str()) {
        errors.not_supported(&at.child("type"), &metric.type_, &TYPES);
    }
    for (field, type_, set) in sources {
        if set && type_ != metric.type_ {
            let why = "must populate the given metric source only";
            errors.forbidden(&at.child(field), why);
        } else if !set && type_ == metric.type_ {
            errors.required(&at.child(field), "must populate information for the given metric source");
        }
    }
    if let Some(m) = &metric.resource {
        validate_named_target((&m.name, "name"), &m.target, &at.child("resource"), errors);
    }
    if let Some(m) = &metric.container_resource {
        let at = at.child("containerResource");
        validate_named_target((&m.name, "name"), &m.target, &at, errors);
        if m.container.is_empty() {
            errors.required(&at.child("container"), "must specify a container name");
        }
    }
    if let Some(m) = &metric.pods {
        validate_named_target((&m.metric.name, "metric"), &m.target, &at.child("pods"), errors);
        if m.target.average_value.is_none() {
            let at = at.child("pods");
            let at = at.child("target");
            errors.required(&at.child("averageValue"), "must specify a positive target averageValue");
        }
    }
    if let Some(m) = &metric.object {
        let at = at.child("object");
        let described = at.child("describedObject");
        validate_reference((&m.described_object.kind, &m.described_object.name), &described, errors);
        validate_named_target((&m.metric.name, "metric"), &m.target, &at, errors);
    }
    if let Some(m) = &metric.external {
        validate_named_target((&m.metric.name, "metric"), &m.target, &at.child("external"), errors);
    }
}

fn validate_named_target((name, field): (&str, &str), target: &MetricTarget, at: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        let why = if field == "name" { "must specify a resource name" } else { "must specify a metric name" };
        errors.required(&at.child(field), why);
    }
    let at = at.child("target");
    match target.type_.as_str() {
        "" => errors.required(&at.child("type"), "must specify a metric target type"),
        "Utilization" | "Value" | "AverageValue" => {}
        other => errors.invalid(&at.child("type"), other, "must be either Utilization, Value, or AverageValue"),
    }
    if let Some(n) = target.average_utilization.filter(|n| *n < 1) {
        errors.invalid(&at.child("averageUtilization"), n, "must be greater than 0");
    }
    for (field, quantity) in [("value", &target.value), ("averageValue", &target.average_value)] {
        if let Some(q) = quantity
            && Amount::of(q).map_or(true, |a| a <= Amount::ZERO)
        {
            errors.invalid(&at.child(field), &q.0, "must be positive");
        }
    }
    let resource = field == "name";
    if resource && target.average_utilization.is_none() && target.average_value.is_none() {
        let why = "must set either a target raw value or a target utilization";
        errors.required(&at.child("averageUtilization"), why);
    }
    if resource && target.average_utilization.is_some() && target.average_value.is_some() {
        let why = "may not set both a target raw value and a target utilization";
        errors.forbidden(&at.child("averageValue"), why);
    }
    if !resource && target.value.is_none() && target.average_value.is_none() {
        errors.required(&at.child("averageValue"), "must set either a target value or averageValue");
    }
}

fn validate_scaling(rules: &HPAScalingRules, at: &Path<'_>, errors: &mut Errors) {
    if let Some(window) = rules.stabilization_window_seconds {
        if window < 0 {
            errors.invalid(&at.child("stabilizationWindowSeconds"), window, "must be greater than or equal to zero");
        }
        if window > WINDOW_MAX_SECONDS {
            let why = format!("must be less than or equal to {WINDOW_MAX_SECONDS}");
            errors.invalid(&at.child("stabilizationWindowSeconds"), window, why);
        }
    }
    if let Some(policy) = rules.select_policy.as_deref().filter(|p| !POLICIES.contains(p)) {
        errors.not_supported(&at.child("selectPolicy"), policy, &POLICIES);
    }
    if list(&rules.policies).is_empty() {
        errors.required(&at.child("policies"), "must specify at least one Policy");
    }
    for (i, policy) in list(&rules.policies).iter().enumerate() {
        let all = at.child("policies");
        let at = all.index(i);
        if !matches!(policy.type_.as_str(), "Pods" | "Percent") {
            errors.not_supported(&at.child("type"), &policy.type_, &["Percent", "Pods"]);
        }
        if policy.value <= 0 {
            errors.invalid(&at.child("value"), policy.value, "must be greater than zero");
        }
        if policy.period_seconds <= 0 {
            errors.invalid(&at.child("periodSeconds"), policy.period_seconds, "must be greater than zero");
        }
        if policy.period_seconds > PERIOD_MAX_SECONDS {
            let why = format!("must be less than or equal to {PERIOD_MAX_SECONDS}");
            errors.invalid(&at.child("periodSeconds"), policy.period_seconds, why);
        }
    }
}

/// `cpu: 10%/80%`, one text for each metric, two at most.
fn targets(autoscaler: &HorizontalPodAutoscaler) -> String {
    let specs = list(&autoscaler.spec.metrics);
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let statuses = autoscaler.status.as_ref().map(|s| list(&s.current_metrics)).unwrap_or_default();
    let shown: Vec<String> =
        specs.iter().enumerate().take(SHOWN_METRICS).map(|(i, spec)| target(spec, statuses.get(i))).collect();
    let shown = shown.join(", ");
    match specs.len().saturating_sub(SHOWN_METRICS) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

fn target(spec: &MetricSpec, status: Option<&MetricStatus>) -> String {
    let status = |pick: fn(&MetricStatus) -> Option<&MetricValueStatus>| status.and_then(pick);
    let by_resource =
        |name: &str, target: &MetricTarget, current: Option<&MetricValueStatus>| match &target.average_value {
            Some(wanted) => format!("{name}: {}/{}", amount(current.and_then(|c| c.average_value.as_ref())), wanted.0),
            None => {
                let now = current.and_then(|c| c.average_utilization);
                let now = now.map_or_else(|| "<unknown>".to_owned(), |n| format!("{n}%"));
                let wanted = target.average_utilization.map_or_else(|| "<auto>".to_owned(), |n| format!("{n}%"));
                format!("{name}: {now}/{wanted}")
            }
        };
    let by_value = |target: &MetricTarget, current: Option<&MetricValueStatus>| match &target.average_value {
        Some(wanted) => format!("{}/{} (avg)", amount(current.and_then(|c| c.average_value.as_ref())), wanted.0),
        None => {
            let wanted = target.value.as_ref().map_or("<auto>", |q| q.0.as_str());
            format!("{}/{wanted}", amount(current.and_then(|c| c.value.as_ref())))
        }
    };
    match (&spec.resource, &spec.container_resource, &spec.pods, &spec.object, &spec.external) {
        (Some(m), ..) => by_resource(&m.name, &m.target, status(|s| s.resource.as_ref().map(|r| &r.current))),
        (_, Some(m), ..) => {
            by_resource(&m.name, &m.target, status(|s| s.container_resource.as_ref().map(|r| &r.current)))
        }
        (_, _, Some(m), ..) => {
            let current = status(|s| s.pods.as_ref().map(|r| &r.current));
            let wanted = m.target.average_value.as_ref().map_or("<unknown>", |q| q.0.as_str());
            format!("{}/{wanted}", amount(current.and_then(|c| c.average_value.as_ref())))
        }
        (_, _, _, Some(m), _) => by_value(&m.target, status(|s| s.object.as_ref().map(|r| &r.current))),
        (_, _, _, _, Some(m)) => by_value(&m.target, status(|s| s.external.as_ref().map(|r| &r.current))),
        _ => "<unknown type>".to_owned(),
    }
}

fn amount(quantity: Option<&Quantity>) -> &str {
    quantity.map_or("<unknown>", |q| q.0.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, expect, faults, row, status_faults, with};

    fn autoscaler(spec: Value) -> Value {
        let spec = with(json!({"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 3}), spec);
        json!({"metadata": {"name": "h", "namespace": "n", "creationTimestamp": "2024-05-01T11:55:00Z"}, "spec": spec})
    }

    #[test]
    fn defaults() {
        let made: HorizontalPodAutoscaler = created(autoscaler(json!({"behavior": {}})));
        assert_eq!(
            serde_json::to_value(&made.spec).unwrap(),
            json!({
                "scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 1, "maxReplicas": 3,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}],
                "behavior": {
                    "scaleUp": {
                        "selectPolicy": "Max", "stabilizationWindowSeconds": 0,
                        "policies": [
                            {"type": "Pods", "value": 4, "periodSeconds": 15},
                            {"type": "Percent", "value": 100, "periodSeconds": 15},
                        ],
                    },
                    "scaleDown": {"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
                },
            })
        );
    }

    #[test]
    fn autoscalers() {
        let check =
            |spec: Value, expected: &[&str]| expect(&faults::<HorizontalPodAutoscaler>(autoscaler(spec)), expected);
        check(json!({"minReplicas": 3}), &[]);
        check(
            json!({"scaleTargetRef": {"kind": "", "name": "a/b"}, "minReplicas": 0, "maxReplicas": -1}),
            &[
                "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
                "spec.maxReplicas: Invalid value: -1: must be greater than 0",
                "spec.maxReplicas: Invalid value: -1: must be greater than or equal to `minReplicas`",
                "spec.scaleTargetRef.kind: Required value",
                "spec.scaleTargetRef.name: Invalid value: \"a/b\": may not contain '/'",
            ],
        );
        let rules = json!({
            "stabilizationWindowSeconds": 3601, "selectPolicy": "Some",
            "policies": [{"type": "Nodes", "value": 0, "periodSeconds": 1801}, {"type": "Pods", "value": 1, "periodSeconds": 0}],
        });
        check(
            json!({"behavior": {"scaleUp": rules, "scaleDown": {"policies": [], "stabilizationWindowSeconds": -1}}}),
            &[
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
                "spec.behavior.scaleUp.selectPolicy: Unsupported value: \"Some\": supported values: \"Disabled\", \"Max\", \"Min\"",
                "spec.behavior.scaleUp.policies[0].type: Unsupported value: \"Nodes\": supported values: \"Percent\", \"Pods\"",
                "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
                "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
                "spec.behavior.scaleUp.policies[1].periodSeconds: Invalid value: 0: must be greater than zero",
                "spec.behavior.scaleDown.stabilizationWindowSeconds: Invalid value: -1: must be greater than or equal to zero",
                "spec.behavior.scaleDown.policies: Required value: must specify at least one Policy",
            ],
        );
    }

    #[test]
    fn metrics() {
        let check = |metric: Value, expected: &[&str]| {
            expect(&faults::<HorizontalPodAutoscaler>(autoscaler(json!({ "metrics": [metric] }))), expected);
        };
        check(json!({"type": ""}), &["spec.metrics[0].type: Required value: must specify a metric source type"]);
        check(
            json!({"type": "Weather"}),
            &[
                "spec.metrics[0].type: Unsupported value: \"Weather\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
            ],
        );
        let cpu = |target: Value| json!({"name": "cpu", "target": target});
        check(
            json!({"type": "Pods", "resource": cpu(json!({"type": "Utilization", "averageUtilization": 1}))}),
            &[
                "spec.metrics[0].pods: Required value: must populate information for the given metric source",
                "spec.metrics[0].resource: Forbidden: must populate the given metric source only",
            ],
        );
        check(
            json!({"type": "Resource", "resource": cpu(json!({"type": "Utilization", "averageUtilization": 0, "averageValue": "0"}))}),
            &[
                "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
                "spec.metrics[0].resource.target.averageValue: Invalid value: \"0\": must be positive",
                "spec.metrics[0].resource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization",
            ],
        );
        check(
            json!({"type": "Resource", "resource": {"name": "", "target": {"type": ""}}}),
            &[
                "spec.metrics[0].resource.name: Required value: must specify a resource name",
                "spec.metrics[0].resource.target.type: Required value: must specify a metric target type",
                "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
            ],
        );
    }

    #[test]
    fn status_and_rows() {
        expect(
            &status_faults::<HorizontalPodAutoscaler>(
                autoscaler(json!({})),
                json!({"currentReplicas": -1, "desiredReplicas": -1}),
            ),
            &[
                "status.currentReplicas: Invalid value: -1: must be greater than or equal to 0",
                "status.desiredReplicas: Invalid value: -1: must be greater than or equal to 0",
            ],
        );
        let line = |spec: Value, status: Value| {
            row::<HorizontalPodAutoscaler>(with(autoscaler(spec), json!({ "status": status })))
        };
        let fresh = json!({"desiredReplicas": 0});
        assert_eq!(line(json!({}), fresh.clone()), "h|Deployment/d|<none>|<unset>|3|0|5m");
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}});
        assert_eq!(
            line(json!({"minReplicas": 2, "metrics": [cpu.clone()]}), fresh),
            "h|Deployment/d|cpu: <unknown>/80%|2|3|0|5m"
        );
        let current = json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 10}}});
        let pods = json!({"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "5"}}});
        assert_eq!(
            line(
                json!({"metrics": [cpu, pods.clone(), pods]}),
                json!({"desiredReplicas": 2, "currentReplicas": 2, "currentMetrics": [current]})
            ),
            "h|Deployment/d|cpu: 10%/80%, <unknown>/5 + 1 more...|<unset>|3|2|5m"
        );
    }
}
