//! HorizontalPodAutoscaler, `autoscaling/v1`: the same objects as version 2 shows them to those who know CPU alone. What
//! version 1 has no field for travels in annotations.

use k8s_openapi::api::autoscaling::v1::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus,
};
use k8s_openapi::api::autoscaling::v2;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::horizontal_pod_autoscaler::{COLUMNS, row_of};
use super::meta::spec_and_status;
use crate::kind::{DecodeError, Info, Resource, Storage, Subresource};
use crate::table::Cell;
use crate::validation::{Errors, Path};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

impl Resource for HorizontalPodAutoscaler {
    const INFO: Info = Info {
        short_names: &["hpa"],
        categories: &["all"],
        subresources: &[Subresource::Status],
        columns: COLUMNS,
        storage: Storage::SharedWith { group: "autoscaling", version: "v2", from_stored, to_stored },
        is_acted_on: false,
        ..Info::namespaced("horizontalpodautoscalers", "horizontalpodautoscaler")
    };

    spec_and_status!();

    fn apply_defaults(&mut self) {
        self.spec.min_replicas.get_or_insert(1);
        let annotated = self.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(METRICS));
        if !annotated {
            self.spec.target_cpu_utilization_percentage.get_or_insert(80);
        }
    }

    fn validate(&self, errors: &mut Errors) {
        to_v2(self.clone()).validate(errors);
        if self.spec.target_cpu_utilization_percentage.is_some_and(|n| n < 1) {
            let at = Path::new("spec");
            let n = self.spec.target_cpu_utilization_percentage.unwrap_or_default();
            errors.invalid(&at.child("targetCPUUtilizationPercentage"), n, "must be greater than 0");
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let percent = |n: Option<i32>| n.map_or_else(|| "<unknown>".to_owned(), |n| format!("{n}%"));
        let status = self.status.as_ref();
        let targets = match self.spec.target_cpu_utilization_percentage {
            None => "<none>".to_owned(),
            wanted => {
                let current = status.and_then(|s| s.current_cpu_utilization_percentage);
                format!("cpu: {}/{}", percent(current), percent(wanted))
            }
        };
        let reference = &self.spec.scale_target_ref;
        let current = status.map(|s| s.current_replicas).unwrap_or_default();
        let (min, max) = (self.spec.min_replicas, self.spec.max_replicas);
        row_of(&self.metadata, (&reference.kind, &reference.name), targets, min, max, current, now)
    }
}

fn from_stored(text: &[u8]) -> Result<Vec<u8>, DecodeError> {
    convert(text, from_v2)
}

fn to_stored(text: &[u8]) -> Result<Vec<u8>, DecodeError> {
    convert(text, to_v2)
}

fn convert<A: DeserializeOwned, B: Serialize>(text: &[u8], turn: fn(A) -> B) -> Result<Vec<u8>, DecodeError> {
    let from: A = serde_json::from_slice(text).map_err(|e| DecodeError(e.to_string()))?;
    serde_json::to_vec(&turn(from)).map_err(|e| DecodeError(e.to_string()))
}

/// Takes an annotation's JSON out; what is no such JSON is dropped, as upstream does.
fn take<T: DeserializeOwned>(meta: &mut ObjectMeta, key: &str) -> Option<T> {
    let text = meta.annotations.as_mut()?.remove(key)?;
    serde_json::from_slice(text.as_bytes()).ok()
}

fn put<T: Serialize>(meta: &mut ObjectMeta, key: &str, value: &T) {
    if let Ok(text) = serde_json::to_string(value) {
        meta.annotations.get_or_insert_default().insert(key.to_owned(), text);
    }
}

fn is_cpu_utilization(metric: &v2::MetricSpec) -> Option<i32> {
    metric.resource.as_ref().filter(|r| r.name == "cpu").and_then(|r| r.target.average_utilization)
}

fn cpu_now(metric: &v2::MetricStatus) -> Option<i32> {
    metric.resource.as_ref().filter(|r| r.name == "cpu").and_then(|r| r.current.average_utilization)
}

fn from_v2(stored: v2::HorizontalPodAutoscaler) -> HorizontalPodAutoscaler {
    let mut metadata = stored.metadata;
    let mut metrics = stored.spec.metrics.unwrap_or_default();
    let cpu = metrics.iter().position(|m| is_cpu_utilization(m).is_some());
    let target = cpu.and_then(|i| is_cpu_utilization(&metrics.remove(i)));
    if !metrics.is_empty() {
        put(&mut metadata, METRICS, &metrics);
    }
    if let Some(behavior) = &stored.spec.behavior {
        put(&mut metadata, BEHAVIOR, behavior);
    }
    let status = stored.status.map(|s| {
        let current = s.current_metrics.unwrap_or_default();
        if !current.is_empty() {
            put(&mut metadata, CURRENT_METRICS, &current);
        }
        let conditions = s.conditions.unwrap_or_default();
        if !conditions.is_empty() {
            put(&mut metadata, CONDITIONS, &conditions);
        }
        HorizontalPodAutoscalerStatus {
            current_cpu_utilization_percentage: current.iter().find_map(cpu_now),
            current_replicas: s.current_replicas.unwrap_or_default(),
            desired_replicas: s.desired_replicas,
            last_scale_time: s.last_scale_time,
            observed_generation: s.observed_generation,
        }
    });
    let reference = stored.spec.scale_target_ref;
    HorizontalPodAutoscaler {
        metadata,
        spec: HorizontalPodAutoscalerSpec {
            max_replicas: stored.spec.max_replicas,
            min_replicas: stored.spec.min_replicas,
            scale_target_ref: CrossVersionObjectReference {
                api_version: reference.api_version,
                kind: reference.kind,
                name: reference.name,
            },
            target_cpu_utilization_percentage: target,
        },
        status,
    }
}

fn to_v2(shown: HorizontalPodAutoscaler) -> v2::HorizontalPodAutoscaler {
    let mut metadata = shown.metadata;
    let mut metrics: Vec<v2::MetricSpec> = take(&mut metadata, METRICS).unwrap_or_default();
    if let Some(percent) = shown.spec.target_cpu_utilization_percentage {
        let target = v2::MetricTarget {
            type_: "Utilization".to_owned(),
            average_utilization: Some(percent),
            ..Default::default()
        };
        let cpu = v2::ResourceMetricSource { name: "cpu".to_owned(), target };
        let metric = v2::MetricSpec { type_: "Resource".to_owned(), resource: Some(cpu), ..Default::default() };
        metrics.insert(0, metric);
    }
    let behavior = take(&mut metadata, BEHAVIOR);
    let current_metrics = take(&mut metadata, CURRENT_METRICS);
    let conditions = take(&mut metadata, CONDITIONS);
    if metadata.annotations.as_ref().is_some_and(|a| a.is_empty()) {
        metadata.annotations = None;
    }
    let status = shown.status.map(|s| v2::HorizontalPodAutoscalerStatus {
        conditions,
        current_metrics: current_metrics.or_else(|| s.current_cpu_utilization_percentage.map(|n| vec![cpu_status(n)])),
        current_replicas: Some(s.current_replicas),
        desired_replicas: s.desired_replicas,
        last_scale_time: s.last_scale_time,
        observed_generation: s.observed_generation,
    });
    let reference = shown.spec.scale_target_ref;
    v2::HorizontalPodAutoscaler {
        metadata,
        spec: v2::HorizontalPodAutoscalerSpec {
            behavior,
            max_replicas: shown.spec.max_replicas,
            metrics: if metrics.is_empty() { None } else { Some(metrics) },
            min_replicas: shown.spec.min_replicas,
            scale_target_ref: v2::CrossVersionObjectReference {
                api_version: reference.api_version,
                kind: reference.kind,
                name: reference.name,
            },
        },
        status,
    }
}

fn cpu_status(percent: i32) -> v2::MetricStatus {
    let current = v2::MetricValueStatus { average_utilization: Some(percent), ..Default::default() };
    let cpu = v2::ResourceMetricStatus { name: "cpu".to_owned(), current };
    v2::MetricStatus { type_: "Resource".to_owned(), resource: Some(cpu), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_version_one_cannot_say_survives_the_way_there_and_back() {
        let stored = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
            "spec": {"maxReplicas": 3, "minReplicas": 1, "scaleTargetRef": {"kind": "Deployment", "name": "d"},
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}},
                "metrics": [
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}},
                    {"type": "Pods", "pods": {"metric": {"name": "qps"}, "target": {"type": "AverageValue", "averageValue": "10"}}}]},
            "status": {"currentReplicas": 2, "desiredReplicas": 2,
                "conditions": [{"type": "AbleToScale", "status": "True"}]}});
        let shown = from_stored(stored.to_string().as_bytes()).unwrap();
        let text: Value = serde_json::from_slice(&shown).unwrap();
        assert_eq!(text["apiVersion"], "autoscaling/v1");
        assert_eq!(text["spec"]["targetCPUUtilizationPercentage"], 60);
        assert!(text["metadata"]["annotations"][METRICS].as_str().unwrap().contains("qps"));
        let back: Value = serde_json::from_slice(&to_stored(&shown).unwrap()).unwrap();
        assert_eq!(back, stored);
    }
}
