"""What the server refuses arrives as an ApiException that carries a Status."""

import json

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException


def refused(call, code, reason, message, causes=()):
    try:
        answer = call()
    except ApiException as error:
        status = json.loads(error.body)
        assert error.status == code, error
        assert status["kind"] == "Status" and status["apiVersion"] == "v1" and status["status"] == "Failure", status
        assert (status["code"], status["reason"]) == (code, reason), status
        assert message in status["message"], status
        found = {(cause.get("field"), cause.get("reason")) for cause in status.get("details", {}).get("causes", [])}
        assert set(causes) <= found, status
        assert error.headers["Content-Type"].startswith("application/json"), error.headers
        return status
    raise AssertionError(f"not refused: {answer}")


config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()


def create(name, namespace="default", **more):
    return core.create_namespaced_config_map(namespace, {"metadata": {"name": name}}, **more)


def pods(**asked):
    return core.list_namespaced_pod("default", **asked)


status = refused(lambda: core.read_namespaced_pod("none", "default"), 404, "NotFound", 'pods "none" not found')
assert status["details"] == {"name": "none", "kind": "pods"}, status
made = create("x")
refused(lambda: create("x"), 409, "AlreadyExists", 'configmaps "x" already exists')
made.data = {"a": "b"}
replace = lambda name, body: core.replace_namespaced_config_map(name, "default", body)
replace("x", made)
refused(lambda: replace("x", made), 409, "Conflict", "the object has been modified")
refused(lambda: create("x", "nowhere"), 404, "NotFound", 'namespaces "nowhere" not found')
mixed = "the name of the object (x) does not match the name on the URL (y)"
refused(lambda: replace("y", {"metadata": {"name": "x"}}), 400, "BadRequest", mixed)
wrong = 'ConfigMap "Not_A_Name" is invalid: metadata.name: Invalid value'
refused(lambda: create("Not_A_Name"), 422, "Invalid", wrong, [("metadata.name", "FieldValueInvalid")])

container = {"name": "c", "ports": [{"containerPort": 70000}]}
container["resources"] = {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}
pod = {"metadata": {"name": "p"}, "spec": {"restartPolicy": "Sometimes", "containers": [container]}}
refused(lambda: core.create_namespaced_pod("default", pod), 422, "Invalid", 'Pod "p" is invalid: [', [
    ("spec.containers[0].image", "FieldValueRequired"),
    ("spec.containers[0].ports[0].containerPort", "FieldValueInvalid"),
    ("spec.containers[0].resources.requests", "FieldValueInvalid"),
    ("spec.restartPolicy", "FieldValueNotSupported"),
])
template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template, "replicas": 0}
apps.create_namespaced_deployment("default", {"metadata": {"name": "web"}, "spec": spec})
other = {"spec": {"selector": {"matchLabels": {"a": "c"}}}}
immutable = [("spec.selector", "FieldValueInvalid")]
change = lambda: apps.patch_namespaced_deployment("web", "default", other)
refused(change, 422, "Invalid", "field is immutable", immutable)
refused(lambda: pods(label_selector="a=b=c"), 400, "BadRequest", "unable to parse requirement")
unknown = "field label not supported: spec.nonsense"
refused(lambda: pods(field_selector="spec.nonsense=x"), 400, "BadRequest", unknown)
refused(lambda: pods(limit=1, _continue="nonsense"), 400, "BadRequest", "continue key is not valid")
refused(lambda: pods(resource_version="nonsense"), 400, "BadRequest", "nonsense")
odd = {"metadata": {"name": "z"}, "daata": {}}
strict = lambda: core.create_namespaced_config_map("default", odd, field_validation="Strict")
refused(strict, 400, "BadRequest", 'unknown field "daata"')
options = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="nobody"))
delete = lambda: core.delete_namespaced_config_map("x", "default", body=options)
refused(delete, 409, "Conflict", "the UID in the precondition (nobody) does not match the UID in record")

# Who says nothing of himself is nobody.
settings = client.Configuration.get_default_copy()
settings.cert_file = settings.key_file = None
settings.api_key = {}
nobody = client.ApiClient(settings)
forbidden = 'pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" in the namespace'
refused(lambda: client.CoreV1Api(nobody).list_namespaced_pod("default"), 403, "Forbidden", forbidden)
assert client.VersionApi(nobody).get_code().major == "1"
settings.api_key = {"authorization": "Bearer nonsense"}
liar = client.CoreV1Api(client.ApiClient(settings))
refused(lambda: liar.list_namespaced_pod("default"), 401, "Unauthorized", "Unauthorized")
print("all is well")
