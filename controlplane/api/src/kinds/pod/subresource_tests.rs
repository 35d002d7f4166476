//! What the subresources of a pod let change: `resize` and `ephemeralcontainers`.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::kind::Subresource;
use crate::kinds::testing::{expect, subresource_faults, with};

fn pod(spec: Value) -> Value {
    let base = json!({
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"containers": [{"name": "c", "image": "i:1", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]},
    });
    with(base, json!({ "spec": spec }))
}

fn container(resources: Value) -> Value {
    with(json!({"name": "c", "image": "i:1"}), json!({ "resources": resources }))
}

#[track_caller]
fn resize(old: Value, new: Value, expected: &[&str]) {
    expect(&subresource_faults::<Pod>(Subresource::Resize, old, new), expected);
}

#[track_caller]
fn resize_container(resources: Value, expected: &[&str]) {
    resize(pod(json!({})), pod(json!({"containers": [container(resources)]})), expected);
}

#[test]
fn cpu_and_memory_of_containers() {
    resize_container(json!({"requests": {"cpu": "2", "memory": "512Mi"}}), &[]);
    resize_container(json!({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "3", "memory": "2Gi"}}), &[]);
    resize_container(
        json!({"requests": {"cpu": "1"}}),
        &["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"],
    );
    resize_container(
        json!({"requests": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi"}}),
        &["spec: Forbidden: only cpu and memory resources are mutable"],
    );
    resize_container(
        json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}),
        &["spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing"],
    );
    resize_container(
        json!({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "1"}}),
        &["spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"],
    );
}

#[test]
fn containers_keep_their_place() {
    let one = |name: &str| json!({"name": name, "image": "i:1"});
    let pods = |names: &[&str]| pod(json!({"containers": names.iter().map(|n| one(n)).collect::<Vec<_>>()}));
    resize(
        pods(&["a"]),
        pods(&["a", "b"]),
        &["spec.containers: Forbidden: containers may not be added or removed on resize"],
    );
    resize(
        pods(&["a", "b"]),
        pods(&["b", "a"]),
        &[
            "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize",
            "spec.containers[1].name: Forbidden: containers may not be renamed or reordered on resize",
        ],
    );
    resize(
        pods(&["a"]),
        with(pods(&["a"]), json!({"spec": {"nodeName": "n"}})),
        &["spec: Forbidden: only cpu and memory resources are mutable"],
    );
}

#[test]
fn init_containers_and_the_pod_itself() {
    let init = |rest: Value| {
        let base = json!({"name": "i", "image": "i:1", "resources": {"requests": {"cpu": "1"}}});
        pod(json!({"initContainers": [with(base, rest)]}))
    };
    let more = json!({"resources": {"requests": {"cpu": "2"}}});
    resize(init(json!({})), init(more.clone()), &[]);
    let restarts = json!({"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]});
    resize(
        init(restarts.clone()),
        init(with(restarts.clone(), more.clone())),
        &[
            "spec.initContainers[0]: Forbidden: non-sidecar init containers with a resize policy of RestartContainer cannot be resized",
        ],
    );
    let sidecar = with(restarts, json!({"restartPolicy": "Always"}));
    resize(init(sidecar.clone()), init(with(sidecar.clone(), more)), &[]);
    resize(
        init(sidecar.clone()),
        init(with(sidecar, json!({"resources": {"requests": {"ephemeral-storage": "1Gi"}}}))),
        &[
            "spec.initContainers[0]: Forbidden: only cpu and memory resources for init or sidecar containers are mutable",
        ],
    );
    let whole = |cpu: Value| pod(json!({"resources": {"requests": {"cpu": cpu, "memory": "2Gi"}}}));
    resize(whole(json!("2")), whole(json!("3")), &[]);
    resize(
        whole(json!("2")),
        pod(json!({"resources": {"requests": {"memory": "2Gi"}}})),
        &[
            "spec.resources.requests[cpu]: Invalid value: \"0\": must be greater than or equal to aggregate container requests of 1",
            "spec.resources.requests: Forbidden: pod-level resource requests cannot be removed",
        ],
    );
    resize(whole(json!("2")), pod(json!({})), &["spec.resources: Forbidden: pod-level resources cannot be removed"]);
}

#[test]
fn pods_that_take_no_such_change() {
    let mirror =
        with(pod(json!({"nodeName": "n"})), json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}));
    resize(mirror.clone(), mirror.clone(), &[": Forbidden: static pods cannot be resized"]);
    expect(
        &subresource_faults::<Pod>(Subresource::EphemeralContainers, mirror.clone(), mirror),
        &[": Forbidden: static pods do not support ephemeral containers"],
    );
    let windows = pod(json!({"os": {"name": "windows"}}));
    resize(windows.clone(), windows, &[": Forbidden: windows pods cannot be resized"]);
}

#[test]
fn ephemeral_containers_are_only_added() {
    let pods = |containers: Value| pod(json!({"ephemeralContainers": containers}));
    let check = |old: Value, new: Value, expected: &[&str]| {
        expect(&subresource_faults::<Pod>(Subresource::EphemeralContainers, pods(old), pods(new)), expected);
    };
    let one = |name: &str, image: &str| json!({"name": name, "image": image});
    check(json!([]), json!([one("a", "i")]), &[]);
    check(json!([one("a", "i")]), json!([one("b", "i"), one("a", "i")]), &[]);
    check(
        json!([one("a", "i"), one("b", "i")]),
        json!([one("a", "j")]),
        &[
            "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"a\" may not be changed\n- image: \"i\"\n+ image: \"j\"\n",
            "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"b\" may not be removed\n",
        ],
    );
    check(
        json!([]),
        json!([{"name": "c", "image": "i", "ports": [{"containerPort": 1}]}]),
        &[
            "spec.ephemeralContainers[0].name: Duplicate value: \"c\"",
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
        ],
    );
}
