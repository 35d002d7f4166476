"""What the server has forgotten is 410 Gone, for watches and for pages of a list; a new list goes on from there.

The cluster keeps a second of history only.
"""

import time

from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException

# More than the store lets gather before it forgets.
CHANGES = 1500


def forgets(core, version):
    """Waits until a version is gone; what the server says of it."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            core.list_namespaced_config_map("default", resource_version=version, resource_version_match="Exact")
        except ApiException as error:
            return error
        # Forgetting is due with the next write.
        core.patch_namespaced_config_map("busy", "default", {"data": {"n": str(time.monotonic())}})
        time.sleep(0.1)
    raise AssertionError(f"version {version} was never forgotten")


config.load_kube_config()
core = client.CoreV1Api()
for name in ("busy", "still-1", "still-2"):
    core.create_namespaced_config_map("default", {"metadata": {"name": name}})
first = core.list_namespaced_config_map("default", limit=1)
old = first.metadata.resource_version
for i in range(CHANGES):
    core.patch_namespaced_config_map("busy", "default", {"data": {"n": str(i)}})

error = forgets(core, old)
assert error.status == 410 and '"reason":"Expired"' in error.body.replace(" ", ""), error

try:
    core.list_namespaced_config_map("default", limit=1, _continue=first.metadata._continue)
    raise AssertionError("the page of a forgotten list was answered")
except ApiException as error:
    assert error.status == 410 and "continue parameter is too old" in error.body, error

try:
    from_old = {"resource_version": old, "timeout_seconds": 5}
    for event in watch.Watch().stream(core.list_namespaced_config_map, "default", **from_old):
        raise AssertionError(f"a forgotten history was told: {event['type']}")
    raise AssertionError("the watch ended without a word")
except ApiException as error:
    assert error.status == 410 and "too old resource version" in str(error), error

# As a program does it: list again, and watch from there.
now = core.list_namespaced_config_map("default")
names = [item.metadata.name for item in now.items]
assert {"busy", "still-1", "still-2"} <= set(names), names
core.delete_namespaced_config_map("still-1", "default")
watcher = watch.Watch()
from_now = {"resource_version": now.metadata.resource_version, "timeout_seconds": 20}
for event in watcher.stream(core.list_namespaced_config_map, "default", **from_now):
    assert (event["type"], event["object"].metadata.name) == ("DELETED", "still-1"), event
    watcher.stop()
print("all is well")
