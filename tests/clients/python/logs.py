"""Logs: whole, in part, and as they come."""

import time

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException


def pod(core, name, words):
    container = {"name": "c", "image": "misbehave:v1", "imagePullPolicy": "IfNotPresent", "args": words}
    spec = {"runtimeClassName": "wasm", "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
    spec["containers"] = [container]
    core.create_namespaced_pod("default", {"metadata": {"name": name}, "spec": spec})


def phase(core, name, wanted):
    end = time.monotonic() + 30
    while core.read_namespaced_pod(name, "default").status.phase != wanted:
        assert time.monotonic() < end, f"{name} is not {wanted}"
        time.sleep(0.02)


def log(name, **asked):
    # Undecoded: client 36.0 gives `str(bytes)` for text (kubernetes-client/python#2596).
    return core.read_namespaced_pod_log(name, "default", _preload_content=False, **asked).data.decode()


config.load_kube_config()
core = client.CoreV1Api()
pod(core, "talks", ["print", "5"])
pod(core, "ticks", ["tick"])
phase(core, "talks", "Succeeded")
assert log("talks") == "".join(f"line {i}\n" for i in range(1, 6))
assert log("talks", container="c", tail_lines=1) == "line 5\n"
assert log("talks", limit_bytes=6) == "line 1"
stamped = log("talks", timestamps=True).splitlines()
assert len(stamped) == 5 and all(line.split(" ", 1)[0].endswith("Z") for line in stamped), stamped
try:
    core.read_namespaced_pod_log("talks", "default", container="other")
    raise AssertionError("a container that is none has a log")
except ApiException as error:
    assert error.status == 400 and "container other is not valid for pod talks" in error.body, error

phase(core, "ticks", "Running")
following = core.read_namespaced_pod_log("ticks", "default", follow=True, _preload_content=False)
lines = []
for line in following:
    lines.append(line.decode().rstrip("\n"))
    if len(lines) == 3:
        break
following.close()
assert lines == ["tick 1", "tick 2", "tick 3"], lines
print("all is well")
