"""Pods, Deployments and ConfigMaps through their typed interfaces: made, read, patched, replaced, scaled, deleted."""

import time

from kubernetes import client, config

SOON_SECONDS = 30


def eventually(check, what):
    end = time.monotonic() + SOON_SECONDS
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < end, f"not within {SOON_SECONDS} s: {what}"
        time.sleep(0.02)


def config_maps(core):
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="one", labels={"a": "b"}), data={"k": "v"})
    made = core.create_namespaced_config_map("default", body)
    assert made.metadata.uid and made.metadata.resource_version and made.metadata.creation_timestamp.tzinfo
    assert core.read_namespaced_config_map("one", "default").data == {"k": "v"}

    patched = core.patch_namespaced_config_map("one", "default", {"data": {"k": None, "new": "x"}})
    assert patched.data == {"new": "x"}, patched.data
    assert int(patched.metadata.resource_version) > int(made.metadata.resource_version)
    # A list is a JSON patch.
    patched = core.patch_namespaced_config_map("one", "default", [{"op": "add", "path": "/data/more", "value": "y"}])
    assert patched.data == {"new": "x", "more": "y"}, patched.data
    patched.binary_data = {"bytes": "AAEC"}
    assert core.replace_namespaced_config_map("one", "default", patched).binary_data == {"bytes": "AAEC"}

    for i in range(25):
        page = client.V1ConfigMap(metadata={"name": f"page-{i:02}", "labels": {"page": "y"}})
        core.create_namespaced_config_map("default", page)
    names, token, pages = [], None, 0
    while True:
        page = core.list_namespaced_config_map("default", label_selector="page=y", limit=10, _continue=token)
        names += [item.metadata.name for item in page.items]
        pages, token = pages + 1, page.metadata._continue
        if not token:
            break
    assert names == [f"page-{i:02}" for i in range(25)] and pages == 3, (names, pages)
    everywhere = core.list_config_map_for_all_namespaces(label_selector="page in (y),a notin (b)")
    assert len(everywhere.items) == 25
    core.delete_collection_namespaced_config_map("default", label_selector="page")
    left = [item.metadata.name for item in core.list_namespaced_config_map("default").items]
    assert "one" in left and not [name for name in left if name.startswith("page")], left


def pods(core):
    container = client.V1Container(
        name="c", image="misbehave:v1", image_pull_policy="IfNotPresent", args=["sleep"],
        resources=client.V1ResourceRequirements(requests={"cpu": "10m", "memory": "8Mi"}),
    )
    spec = client.V1PodSpec(runtime_class_name="wasm", termination_grace_period_seconds=1, containers=[container])
    body = client.V1Pod(metadata=client.V1ObjectMeta(generate_name="sleeper-", labels={"app": "sleeper"}), spec=spec)
    name = core.create_namespaced_pod("default", body).metadata.name
    assert name.startswith("sleeper-") and len(name) == len("sleeper-") + 5, name
    read = lambda: core.read_namespaced_pod(name, "default")
    pod = eventually(lambda: (pod := read()).status.phase == "Running" and pod, "the pod runs")
    assert pod.status.pod_ip and pod.spec.node_name == "box" and pod.status.qos_class == "Burstable", pod.status
    assert pod.status.container_statuses[0].state.running.started_at.tzinfo
    on_node = core.list_pod_for_all_namespaces(field_selector="spec.nodeName=box,status.phase=Running")
    assert [p.metadata.name for p in on_node.items] == [name]
    core.patch_namespaced_pod(name, "default", {"metadata": {"annotations": {"note": "x"}}})
    assert read().metadata.annotations == {"note": "x"}
    about = f"involvedObject.name={name},reason=Started"
    events = eventually(lambda: core.list_namespaced_event("default", field_selector=about).items, "the pod's Event")
    assert events[0].involved_object.uid == pod.metadata.uid and events[0].source.component == "kubelet", events[0]
    going = core.delete_namespaced_pod(name, "default", grace_period_seconds=1)
    assert going.metadata.deletion_timestamp and going.metadata.deletion_grace_period_seconds == 1
    eventually(lambda: not core.list_namespaced_pod("default", label_selector="app=sleeper").items, "the pod is gone")


def deployments(core, apps):
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"runtimeClassName": "wasm", "terminationGracePeriodSeconds": 1,
                 "containers": [{"name": "c", "image": "hello:v1", "ports": [{"containerPort": 8080}]}]},
    }
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    body = {"metadata": {"name": "web"}, "spec": spec}
    made = apps.create_namespaced_deployment("default", body)
    assert made.spec.strategy.rolling_update.max_surge == "25%" and made.metadata.generation == 1
    status = lambda: apps.read_namespaced_deployment_status("web", "default").status
    eventually(lambda: status().available_replicas == 2, "two are available")
    scale = apps.read_namespaced_deployment_scale("web", "default")
    assert scale.spec.replicas == 2 and scale.status.selector == "app=web", scale
    apps.patch_namespaced_deployment_scale("web", "default", {"spec": {"replicas": 3}})
    eventually(lambda: status().ready_replicas == 3, "three are ready")
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "hello:v2"}]}}}}
    patched = apps.patch_namespaced_deployment("web", "default", patch)
    # The container of that name keeps what the patch does not say.
    assert patched.spec.template.spec.containers[0].ports[0].container_port == 8080
    assert patched.metadata.generation == 3, patched.metadata
    new = lambda s: s.updated_replicas == 3 and s.replicas == 3 and s.observed_generation == 3
    eventually(lambda: new(status()), "all are new")
    sets = apps.list_namespaced_replica_set("default", label_selector="app=web").items
    assert sorted(s.spec.replicas for s in sets) == [0, 3], sets
    assert {s.metadata.owner_references[0].name for s in sets} == {"web"}
    service = client.V1Service(metadata={"name": "web"}, spec=client.V1ServiceSpec(
        selector={"app": "web"}, ports=[client.V1ServicePort(port=80, target_port=8080)]))
    assert core.create_namespaced_service("default", service).spec.cluster_ip.startswith("10.43.")
    discovery = client.DiscoveryV1Api()
    of_web = {"namespace": "default", "label_selector": "kubernetes.io/service-name=web"}
    slices = lambda: discovery.list_namespaced_endpoint_slice(**of_web).items
    ready = lambda: [e for s in slices() for e in s.endpoints or [] if e.conditions.ready]
    eventually(lambda: len(ready()) == 3, "three endpoints")
    answer = apps.delete_namespaced_deployment("web", "default", propagation_policy="Foreground")
    assert answer.status in ("Success", None) or answer.metadata
    eventually(lambda: not core.list_namespaced_pod("default", label_selector="app=web").items, "the pods are gone")
    eventually(lambda: not ready(), "no endpoint is left")


config.load_kube_config()
config_maps(client.CoreV1Api())
pods(client.CoreV1Api())
deployments(client.CoreV1Api(), client.AppsV1Api())
assert client.VersionApi().get_code().minor.startswith("36"), client.VersionApi().get_code()
print("all is well")
