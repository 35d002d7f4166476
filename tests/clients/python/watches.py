"""Watches begin where they are told to, lose nothing, tell nothing twice, and end when they should."""

import threading
import time

from kubernetes import client, config, watch


def make(core, name, value="x"):
    body = {"metadata": {"name": name, "labels": {"w": "y"}}, "data": {"value": value}}
    return core.create_namespaced_config_map("default", body)


def collect(core, version, expected, **more):
    """The first so many events after a version, as (type, name, version)."""
    seen, watcher = [], watch.Watch()
    for event in watcher.stream(core.list_namespaced_config_map, "default", label_selector="w=y",
                                resource_version=version, timeout_seconds=20, **more):
        meta = event["object"].metadata
        seen.append((event["type"], meta.name, meta.resource_version))
        if len(seen) == expected:
            watcher.stop()
    assert len(seen) == expected, seen
    return seen


def resumes(core):
    start = core.list_namespaced_config_map("default", label_selector="w=y").metadata.resource_version
    make(core, "a")
    make(core, "b")
    core.patch_namespaced_config_map("a", "default", {"data": {"value": "2"}})
    core.delete_namespaced_config_map("b", "default")
    # Everything that happened since, from wherever it is asked for.
    whole = collect(core, start, 4)
    assert [e[:2] for e in whole] == [("ADDED", "a"), ("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")], whole
    versions = [int(e[2]) for e in whole]
    assert versions == sorted(set(versions)), versions
    for at in range(1, 4):
        assert collect(core, whole[at - 1][2], 4 - at) == whole[at:], at
    # Without a version the watch begins with what is there.
    assert [e[:2] for e in collect(core, None, 1)] == [("ADDED", "a")]
    # A change that takes an object out of the selection is told as its end.
    now = core.list_namespaced_config_map("default").metadata.resource_version
    core.patch_namespaced_config_map("a", "default", {"metadata": {"labels": {"w": None}}})
    assert [e[:2] for e in collect(core, now, 1)] == [("DELETED", "a")]


def follows_a_writer(core):
    start = core.list_namespaced_config_map("default").metadata.resource_version
    count = 200

    def write():
        for i in range(count):
            make(core, f"run-{i}")

    writer = threading.Thread(target=write)
    writer.start()
    # Two at once; each hears everything, in order.
    heard = [None, None]

    def listen(at):
        heard[at] = collect(core, start, count)

    listeners = [threading.Thread(target=listen, args=(at,)) for at in range(2)]
    for thread in listeners:
        thread.start()
    for thread in [writer, *listeners]:
        thread.join()
    assert heard[0] == heard[1] and [e[1] for e in heard[0]] == [f"run-{i}" for i in range(count)]


def ends_in_time(core):
    began = time.monotonic()
    list(watch.Watch().stream(core.list_namespaced_secret, "default", timeout_seconds=2))
    took = time.monotonic() - began
    assert 1.5 < took < 8, took


def bookmarks(core):
    """The end of the initial list is announced."""
    seen = []
    asked = {"label_selector": "w=y", "allow_watch_bookmarks": True, "send_initial_events": True, "timeout_seconds": 20}
    asked["resource_version_match"] = "NotOlderThan"
    for event in watch.Watch().stream(core.list_namespaced_config_map, "default", **asked):
        seen.append(event["type"])
        if event["type"] == "BOOKMARK":
            meta = event["raw_object"]["metadata"]
            assert meta["annotations"] == {"k8s.io/initial-events-end": "true"}, meta
            assert int(meta["resourceVersion"]) > 0, meta
            break
    assert seen == ["ADDED"] * 200 + ["BOOKMARK"], (len(seen), set(seen))


config.load_kube_config()
core = client.CoreV1Api()
resumes(core)
follows_a_writer(core)
ends_in_time(core)
bookmarks(core)
print("all is well")
