//! The objects that loads create, as ready-made bodies into which only a name is put. They look as what clusters really hold.

use hyper::body::Bytes;
use serde_json::{Value, json};

/// Where the name goes. No other part of a body holds this.
const NAME: &str = "@name@";

/// A body with one name to fill in.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Template {
    /// Of an object whose one name is [`NAME`].
    fn of(object: &Value) -> Self {
        let text = object.to_string();
        let (before, after) = text.split_once(NAME).expect("each object of this file has the name once");
        Self { before: before.into(), after: after.into() }
    }

    pub(crate) fn fill(&self, name: &str) -> Bytes {
        let mut body = Vec::with_capacity(self.before.len() + name.len() + self.after.len());
        body.extend_from_slice(&self.before);
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(&self.after);
        body.into()
    }
}

/// The name of one of many objects.
pub(crate) fn numbered(prefix: &str, number: u64) -> String {
    format!("{prefix}-{number:07}")
}

/// The number of the first object of a prefix that a text names, in JSON without spaces.
pub(crate) fn number_in(line: &[u8], marker: &str) -> Option<usize> {
    let text = str::from_utf8(line).ok()?;
    let from = text.find(marker)? + marker.len();
    let digits = text[from..].split('"').next()?;
    digits.parse().ok()
}

/// What [`number_in`] looks for.
pub(crate) fn marker(prefix: &str) -> String {
    format!("\"name\":\"{prefix}-")
}

/// With so many bytes of data.
pub(crate) fn config_map(data_bytes: usize) -> Template {
    let text: String = "server.port=8080\n".chars().cycle().take(data_bytes).collect();
    Template::of(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": {"application.properties": text},
    }))
}

/// Who is to place a pod.
#[derive(Debug, Clone)]
pub(crate) enum Placement {
    /// Nobody: the pod only weighs on the API.
    None,
    /// The scheduler.
    Scheduled,
    /// Placed already.
    On(String),
}

/// A pod as small applications have it: with what servers add to it some 2.4 kB, of which upstream's figures were taken too.
pub(crate) fn pod(placement: &Placement) -> Template {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": NAME, "labels": {"app": "shop"}},
        "spec": {"containers": [{
            "name": "web", "image": "registry.example.com/shop/frontend:1.27.3",
            "ports": [{"containerPort": 8080}],
            "env": [{"name": "LOG_LEVEL", "value": "info"}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        }]},
    });
    match placement {
        Placement::None => pod["spec"]["schedulerName"] = json!("nobody"),
        Placement::Scheduled => {}
        Placement::On(node) => pod["spec"]["nodeName"] = json!(node),
    }
    Template::of(&pod)
}

/// A merge patch that makes a pod a running one.
pub(crate) fn running_status(number: u64) -> Bytes {
    let address = format!("10.42.{}.{}", number / 250 % 250, number % 250 + 1);
    let at = "2026-01-01T00:00:00Z";
    let status = json!({"status": {
        "phase": "Running", "startTime": at, "podIP": address, "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at}],
    }});
    status.to_string().into()
}

/// A pod of a component that the node knows as `image`.
pub(crate) fn wasm_pod(image: &str) -> Template {
    Template::of(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": NAME, "labels": {"app": "bench"}},
        "spec": wasm_spec(image),
    }))
}

/// A Deployment of that component.
pub(crate) fn wasm_deployment(image: &str, replicas: u32) -> Template {
    Template::of(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": NAME},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "bench"}},
            "template": {"metadata": {"labels": {"app": "bench"}}, "spec": wasm_spec(image)},
        },
    }))
}

fn wasm_spec(image: &str) -> Value {
    json!({
        "runtimeClassName": "wasm", "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": "hello", "image": image, "imagePullPolicy": "IfNotPresent",
            "ports": [{"name": "http", "containerPort": 8080}],
            "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"memory": "64Mi"}},
        }],
    })
}

/// A ready node of a large machine, with a label of its own.
pub(crate) fn node(label: &str, value: &str, number: u64) -> Template {
    let at = "2026-01-01T00:00:00Z";
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": "as the benchmark says",
            "lastHeartbeatTime": at, "lastTransitionTime": at,
        })
    };
    let resources = json!({"cpu": "64", "memory": "263856000Ki", "ephemeral-storage": "500Gi", "pods": "250"});
    Template::of(&json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": NAME, "labels": {
            label: value, "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux",
            "topology.kubernetes.io/region": "bench", "topology.kubernetes.io/zone": format!("bench-{}", number % 3),
        }},
        "spec": {},
        "status": {
            "capacity": resources, "allocatable": resources,
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID"),
                condition("Ready", "True", "KubeletReady"),
            ],
            "addresses": [{"type": "InternalIP", "address": format!("172.16.{}.{}", number / 250, number % 250 + 1)}],
        },
    }))
}

/// The heartbeat of a node, with the same label.
pub(crate) fn lease(label: &str, value: &str, now: jiff::Timestamp) -> Template {
    Template::of(&json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NAME, "labels": {label: value}},
        "spec": {"leaseDurationSeconds": 40, "renewTime": format!("{now:.6}")},
    }))
}

/// A merge patch that renews it.
pub(crate) fn renewal(now: jiff::Timestamp) -> Bytes {
    json!({"spec": {"renewTime": format!("{now:.6}")}}).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_body_takes_a_name() {
        let all = [
            config_map(1024),
            pod(&Placement::None),
            pod(&Placement::Scheduled),
            pod(&Placement::On("n".to_owned())),
            wasm_pod("hello:v1"),
            wasm_deployment("hello:v1", 3),
            node("a", "b", 7),
            lease("a", "b", jiff::Timestamp::UNIX_EPOCH),
        ];
        for template in all {
            let object: Value = serde_json::from_slice(&template.fill("x-1")).unwrap();
            assert_eq!(object["metadata"]["name"], "x-1");
        }
    }

    #[test]
    fn data_have_their_length() {
        let object: Value = serde_json::from_slice(&config_map(1024).fill("x")).unwrap();
        assert_eq!(object["data"]["application.properties"].as_str().unwrap().len(), 1024);
    }

    #[test]
    fn times_are_micro_times() {
        let object: Value = serde_json::from_slice(&renewal(jiff::Timestamp::UNIX_EPOCH)).unwrap();
        assert_eq!(object["spec"]["renewTime"], "1970-01-01T00:00:00.000000Z");
    }

    #[test]
    fn numbers_are_found_again() {
        let body = pod(&Placement::None).fill(&numbered("fan", 42));
        assert_eq!(number_in(&body, &marker("fan")), Some(42));
        assert_eq!(number_in(&body, &marker("other")), None);
        assert_eq!(number_in(b"\xff", &marker("fan")), None);
    }
}
