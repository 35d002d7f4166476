"""`kubernetes.utils.create_from_yaml`: the examples and files of several objects."""

import os
import tempfile
import time

from kubernetes import client, config, utils

config.load_kube_config()
api = client.ApiClient()
core, apps = client.CoreV1Api(), client.AppsV1Api()
for example in ("hello", "worker"):
    folder = os.path.join(os.environ["CHECKOUT"], "examples", example)
    # One by one: `create_from_directory` reads every file, also those that are no YAML.
    files = sorted(name for name in os.listdir(folder) if name.endswith(".yaml"))
    assert files, example
    for name in files:
        assert utils.create_from_yaml(api, os.path.join(folder, name)), name
end = time.monotonic() + 30
for name, replicas in (("hello", 2), ("worker", 1)):
    while apps.read_namespaced_deployment(name, "default").status.available_replicas != replicas:
        assert time.monotonic() < end, name
        time.sleep(0.02)
assert core.read_namespaced_service("hello", "default").spec.ports[0].node_port == 30080

several = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: shop}}
- {apiVersion: v1, kind: Secret, metadata: {name: b, namespace: shop}, stringData: {k: v}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: shop}
spec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: c, image: "misbehave:v1"}]}}}
"""
with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
    file.write(several)
    file.flush()
    utils.create_from_yaml(api, file.name)
    assert core.read_namespaced_secret("b", "shop").data == {"k": "dg=="}
    assert client.RbacAuthorizationV1Api().read_cluster_role("reader").rules[0].verbs == ["get"]
    assert client.BatchV1Api().read_namespaced_job("once", "shop").spec.suspend
    # The second time everything is there already, and each is told.
    try:
        utils.create_from_yaml(api, file.name)
        raise AssertionError("it was created twice")
    except utils.FailToCreateError as error:
        assert len(error.api_exceptions) == 5 and {e.status for e in error.api_exceptions} == {409}, error
print("all is well")
