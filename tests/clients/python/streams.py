"""Streams: attaching to what runs, and connections to its ports, by channels over WebSocket."""

import time

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import portforward, stream


def pod(core, name, image, words):
    container = {"name": "c", "image": image, "imagePullPolicy": "IfNotPresent", "args": words}
    spec = {"runtimeClassName": "wasm", "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
    spec["containers"] = [container]
    core.create_namespaced_pod("default", {"metadata": {"name": name}, "spec": spec})
    end = time.monotonic() + 30
    while core.read_namespaced_pod(name, "default").status.phase != "Running":
        assert time.monotonic() < end, f"{name} does not run"
        time.sleep(0.02)


def refused(call, status, words):
    try:
        call()
    except (ApiException, AttributeError) as problem:
        # The client trips over a refused connection, which has no body to show, while it reports it.
        error = problem.__context__ if isinstance(problem, AttributeError) else problem
        assert isinstance(error, ApiException), problem
        assert f"{status}" in f"{error.status} {error.reason}", error
        assert not words or words in f"{error.reason} {error.body}", error
        return
    raise AssertionError(f"{words} was not said")


config.load_kube_config()
core = client.CoreV1Api()
pod(core, "ticks", "misbehave:v1", ["tick"])

attached = stream(
    core.connect_get_namespaced_pod_attach, "ticks", "default", stdout=True, stderr=True, _preload_content=False
)
seen = ""
end = time.monotonic() + 30
while seen.count("\n") < 3 and time.monotonic() < end:
    attached.update(timeout=1)
    seen += attached.read_stdout() if attached.peek_stdout() else ""
attached.close()
numbers = [int(line.removeprefix("tick ")) for line in seen.splitlines()[:3]]
assert len(numbers) == 3 and numbers == list(range(numbers[0], numbers[0] + 3)), seen

refused(
    lambda: stream(core.connect_get_namespaced_pod_exec, "ticks", "default", command=["sh"], stdout=True), 400, ""
)
refused(lambda: core.connect_get_namespaced_pod_exec("ticks", "default", command=["sh"], stdout=True), 400, "Upgrade")

pod(core, "echo", "tcp-echo:v1", ["listen", "7777"])
forward = portforward(core.connect_get_namespaced_pod_portforward, "echo", "default", ports="7777")
socket = forward.socket(7777)
socket.setblocking(True)
socket.sendall(b"hello\n")
back = b""
while not back.endswith(b"hello\n"):
    block = socket.recv(1024)
    assert block, (back, forward.error(7777))
    back += block
forward.close()
print("all is well")
