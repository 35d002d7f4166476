"""Leader election: the package's own over a ConfigMap, and over a Lease. One leads at a time; the next takes over."""

import datetime
import threading
import time

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock


LEASE_SECONDS = 12


class LeaseLock:
    """The lock that programs of today use, in the shape the package wants."""

    def __init__(self, name, namespace, identity):
        self.api = client.CoordinationV1Api()
        self.name, self.namespace, self.identity, self.lease = name, namespace, identity, None

    def spec(self, record):
        now = datetime.datetime.now(datetime.timezone.utc)
        seconds = int(float(record.lease_duration))
        return client.V1LeaseSpec(
            holder_identity=record.holder_identity, renew_time=now, acquire_time=now, lease_duration_seconds=seconds
        )

    def get(self, name, namespace):
        try:
            self.lease = self.api.read_namespaced_lease(name, namespace)
        except ApiException as error:
            return False, error
        spec = self.lease.spec
        seconds, acquired, renewed = spec.lease_duration_seconds, spec.acquire_time, spec.renew_time
        return True, LeaderElectionRecord(spec.holder_identity, str(seconds), str(acquired), str(renewed))

    # The package calls it by these names.
    def create(self, name, namespace, election_record):
        try:
            lease = client.V1Lease(metadata={"name": name}, spec=self.spec(election_record))
            self.api.create_namespaced_lease(namespace, lease)
            return True
        except ApiException as error:
            assert error.status == 409, error
            return False

    def update(self, name, namespace, record):
        try:
            self.lease.spec = self.spec(record)
            self.api.replace_namespaced_lease(name, namespace, self.lease)
            return True
        except ApiException as error:
            assert error.status == 409, error
            return False


def elect(sort, name):
    """Two candidates; the first to lead stops renewing; the second takes over, and never do both lead."""
    leading, lost = {}, threading.Event()
    ends = {who: threading.Event() for who in ("first", "second")}

    class Stoppable(sort):
        """Candidates are stopped by taking their lock away."""

        def update(self, *args):
            return not ends[self.identity].is_set() and super().update(*args)

    def run(who):
        def lead():
            leading[who] = time.monotonic()

        def stopped():
            lost.set()

        settings = electionconfig.Config(
            Stoppable(name, "default", who),
            # Far apart, so that a busy machine takes nobody's lock away, and the first has given up before the second leads.
            lease_duration=LEASE_SECONDS,
            renew_deadline=6,
            retry_period=1,
            onstarted_leading=lead,
            onstopped_leading=stopped,
        )
        leaderelection.LeaderElection(settings).run()

    def wait(condition, what):
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, what
            time.sleep(0.02)

    threading.Thread(target=run, args=("first",), daemon=True).start()
    wait(lambda: "first" in leading, "the first leads")
    threading.Thread(target=run, args=("second",), daemon=True).start()
    # Longer than the lock lasts without being renewed.
    end = time.monotonic() + LEASE_SECONDS + 1
    while time.monotonic() < end:
        assert list(leading) == ["first"], leading
        time.sleep(0.05)
    ends["first"].set()
    wait(lambda: "second" in leading, "the second leads")
    assert lost.is_set(), "the first still believes that it leads"
    ends["second"].set()


config.load_kube_config()
threads = []
failures = []


def guarded(*args):
    try:
        elect(*args)
    except BaseException as error:
        failures.append(repr(error))


for arguments in ((ConfigMapLock, "by-config-map"), (LeaseLock, "by-lease")):
    thread = threading.Thread(target=guarded, args=arguments)
    thread.start()
    threads.append(thread)
for thread in threads:
    thread.join()
assert not failures, failures
assert client.CoordinationV1Api().read_namespaced_lease("by-lease", "default").spec.holder_identity == "second"
print("all is well")
