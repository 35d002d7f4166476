"""The package's informer keeps a copy of what the server has and calls its handlers once for each change."""

import threading
import time

from kubernetes import client, config
from kubernetes.informer import SharedInformer


def wait(condition, what):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


config.load_kube_config()
core = client.CoreV1Api()
for i in range(20):
    core.create_namespaced_config_map("default", {"metadata": {"name": f"before-{i}", "labels": {"i": "y"}}})
informer = SharedInformer(core.list_namespaced_config_map, namespace="default", label_selector="i=y")
heard, lock = [], threading.Lock()


def handler(sort):
    def hear(obj):
        with lock:
            heard.append((sort, obj.metadata.name))
    return hear


for sort in ("ADDED", "MODIFIED", "DELETED"):
    informer.add_event_handler(sort, handler(sort))
informer.start()
wait(lambda: len(informer.cache.list()) == 20, "the first list")
for i in range(20):
    core.create_namespaced_config_map("default", {"metadata": {"name": f"after-{i}", "labels": {"i": "y"}}})
    core.patch_namespaced_config_map(f"before-{i}", "default", {"data": {"changed": "y"}})
    if i % 2:
        core.delete_namespaced_config_map(f"after-{i}", "default")
expect = {
    *[("ADDED", f"{when}-{i}") for when in ("before", "after") for i in range(20)],
    *[("MODIFIED", f"before-{i}") for i in range(20)],
    *[("DELETED", f"after-{i}") for i in range(1, 20, 2)],
}
wait(lambda: len(heard) >= len(expect), "all changes")
assert sorted(heard) == sorted(expect), set(heard) ^ expect
listed = core.list_namespaced_config_map("default", label_selector="i=y").items
there = {o.metadata.name: o.metadata.resource_version for o in listed}
held = {o.metadata.name: o.metadata.resource_version for o in informer.cache.list()}
assert held == there, (held, there)
informer.stop()
print("all is well")
