//! What keeping `managedFields` costs a write, in microseconds of one core. Prints a JSON line per case:
//! `cargo run --profile fast -p coracle-api --example managed_bench [ROUNDS [CASE]]`.

use std::hint::black_box;
use std::time::Instant;

use coracle_api::kind::{Kind, Subresource};
use coracle_api::kinds::find_by_kind;
use coracle_api::managed::{self, Change, Given, Outcome, Writer};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde::Serialize;
use serde_json::{Value, json};

const ROUNDS: u32 = 20_000;

fn main() {
    let kind = |name| find_by_kind("v1", name).expect("a built-in kind");
    let (made, running, later) =
        (text(&pod("Pending", "False", 1)), pod("Pending", "False", 1), pod("Running", "True", 2));
    report("encode a pod", made.len(), || black_box(serde_json::to_vec(&running)).map_or(0, |t| t.len()));
    let create = Case { kind: kind("Pod"), old: None, new: made.clone(), managed: None, part: None };
    report("create a pod", made.len(), || create.run());
    let by_controller = create.outcome("kube-controller-manager");
    let status = Case {
        kind: kind("Pod"),
        old: Some(made),
        new: text(&later),
        managed: by_controller,
        part: Some(Subresource::Status),
    };
    report("first status of a pod", status.new.len(), || status.run());
    let again = Case {
        kind: kind("Pod"),
        old: Some(status.new.clone()),
        new: text(&pod("Running", "False", 3)),
        managed: status.outcome("kubelet"),
        part: Some(Subresource::Status),
    };
    report("next status of a pod", again.new.len(), || again.run());
    let map = ConfigMap {
        data: Some([("k".to_owned(), "x".repeat(1024))].into()),
        ..serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "default"}})).expect("a map")
    };
    let map = Case { kind: kind("ConfigMap"), old: None, new: text(&map), managed: None, part: None };
    report("create a map of 1 KiB", map.new.len(), || map.run());
}

struct Case {
    kind: &'static Kind,
    old: Option<Vec<u8>>,
    new: Vec<u8>,
    managed: Option<Vec<u8>>,
    part: Option<Subresource>,
}

impl Case {
    fn outcome(&self, manager: &str) -> Option<Vec<u8>> {
        let change = Change {
            kind: self.kind,
            old: self.old.as_deref(),
            new: &self.new,
            managed: self.managed.as_deref(),
            given: Given::Nothing,
        };
        let now = Timestamp::UNIX_EPOCH;
        match managed::update(change, Writer { manager, subresource: self.part, now }) {
            Outcome::New(text) => text,
            Outcome::Same => self.managed.clone(),
        }
    }

    fn run(&self) -> usize {
        black_box(self.outcome("kubelet")).map_or(0, |text| text.len())
    }
}

fn report(case: &str, object_bytes: usize, mut run: impl FnMut() -> usize) {
    if std::env::args().nth(2).is_some_and(|wanted| wanted != case) {
        return;
    }
    let mut best = f64::MAX;
    let mut bytes = 0;
    let rounds = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    for _ in 0..5 {
        let begun = Instant::now();
        for _ in 0..rounds {
            bytes = run();
        }
        best = best.min(begun.elapsed().as_secs_f64() * 1e6 / f64::from(rounds));
    }
    let micros = (best * 100.0).round() / 100.0;
    println!(
        "{}",
        json!({"bench": "managed", "case": case, "object_bytes": object_bytes, "bytes": bytes, "micros": micros})
    );
}

fn text(object: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(object).expect("API types are JSON")
}

/// A pod as a Deployment makes it, with the defaults.
fn pod(phase: &str, ready: &str, second: u8) -> Pod {
    let time = format!("2026-01-01T00:00:0{second}Z");
    let condition = |name: &str, status: &str| json!({"type": name, "status": status, "lastTransitionTime": time});
    let object: Value = json!({
        "metadata": {
            "name": "web-6d4cf56db6-abcde", "generateName": "web-6d4cf56db6-", "namespace": "default", "uid": "0a9d2b9e-779e",
            "labels": {"app": "web", "pod-template-hash": "6d4cf56db6"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-6d4cf56db6", "uid": "1b", "controller": true, "blockOwnerDeletion": true}],
        },
        "spec": {
            "containers": [{
                "name": "web", "image": "registry.example.com/web:1.2.3", "imagePullPolicy": "IfNotPresent",
                "env": [{"name": "MODE", "value": "fast"}, {"name": "LEVEL", "value": "info"}],
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "10m", "memory": "32Mi"}},
                "readinessProbe": {
                    "httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"},
                    "periodSeconds": 10, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3,
                },
                "volumeMounts": [{"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}],
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            }],
            "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always", "schedulerName": "default-scheduler",
            "securityContext": {}, "serviceAccountName": "default", "serviceAccount": "default", "terminationGracePeriodSeconds": 30,
            "volumes": [{"name": "kube-api-access-x", "emptyDir": {}}],
        },
        "status": {
            "phase": phase, "hostIP": "10.0.0.1", "podIP": "10.42.0.7", "podIPs": [{"ip": "10.42.0.7"}], "startTime": time,
            "conditions": [
                condition("PodScheduled", "True"), condition("Initialized", "True"), condition("ContainersReady", ready),
                condition("Ready", ready),
            ],
            "containerStatuses": [{
                "name": "web", "image": "registry.example.com/web:1.2.3", "imageID": "sha256:0", "ready": ready == "True",
                "restartCount": 0, "state": {"running": {"startedAt": time}},
            }],
        },
    });
    serde_json::from_value(object).expect("a pod")
}
