"""The dynamic client: it finds out what the server serves and works without types."""

import tempfile

from kubernetes import client, config, dynamic
from kubernetes.client import api_client
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError, ResourceNotFoundError

config.load_kube_config()
with tempfile.TemporaryDirectory() as folder:
    for discoverer in (dynamic.EagerDiscoverer, dynamic.LazyDiscoverer):
        cache = f"{folder}/{discoverer.__name__}"
        d = dynamic.DynamicClient(api_client.ApiClient(), cache_file=cache, discoverer=discoverer)
        nodes = d.resources.get(api_version="v1", kind="Node")
        assert not nodes.namespaced and [n.metadata.name for n in nodes.get().items] == ["box"]
        assert d.resources.get(api_version="apps/v1", kind="Deployment").subresources.keys() >= {"scale", "status"}
        assert d.resources.get(short_names=["cm"], api_version="v1").kind == "ConfigMap"
        try:
            d.resources.get(api_version="v1", kind="Nonsense")
            raise AssertionError("a kind that is none was found")
        except ResourceNotFoundError:
            pass

        maps = d.resources.get(api_version="v1", kind="ConfigMap")
        body = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}}
        body["metadata"] = {"name": "loose", "labels": {"l": "m"}}
        made = maps.create(body=body, namespace="default")
        assert made.data.a == "b" and made.metadata.uid
        try:
            maps.create(body=body, namespace="default")
            raise AssertionError("it was created twice")
        except ConflictError as error:
            assert error.status == 409 and "already exists" in error.summary(), error.summary()
        merge = {"metadata": {"name": "loose"}, "data": {"a": None, "c": "d"}}
        merged = maps.patch(body=merge, namespace="default", content_type="application/merge-patch+json")
        assert merged.data.to_dict() == {"c": "d"}, merged
        patch = [{"op": "replace", "path": "/data/c", "value": "e"}]
        sort = "application/json-patch+json"
        assert maps.patch(name="loose", body=patch, namespace="default", content_type=sort).data.c == "e"
        current = maps.get(name="loose", namespace="default").to_dict()
        current["data"]["f"] = "g"
        assert maps.replace(body=current, namespace="default").data.f == "g"
        assert [i.metadata.name for i in maps.get(namespace="default", label_selector="l=m").items] == ["loose"]
        events = maps.watch(namespace="default", label_selector="l=m", timeout=20)
        first = next(events)
        assert first["type"] == "ADDED" and first["object"].metadata.name == "loose"
        maps.delete(name="loose", namespace="default")
        assert next(events)["type"] == "DELETED"
        events.close()
        try:
            maps.get(name="loose", namespace="default")
            raise AssertionError("it is still there")
        except NotFoundError as error:
            assert 'configmaps "loose" not found' in error.summary(), error.summary()
        # A group of its own, and an object of it.
        roles = d.resources.get(api_version="rbac.authorization.k8s.io/v1", kind="Role")
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"},
                "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}
        assert roles.create(body=role, namespace="default").rules[0].verbs == ["get"]
        roles.delete(name="r", namespace="default")
groups = {group.name for group in client.ApisApi().get_api_versions().groups}
assert {"apps", "batch", "discovery.k8s.io", "coordination.k8s.io"} <= groups, groups
assert client.CoreApi().get_api_versions().versions == ["v1"]
print("all is well")
