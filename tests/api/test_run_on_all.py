"""Something on every worker at once (core-api X14), in a cluster of two nodes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

import zmreg
from tests.processes.drivers import eventually
from zmreg.model.errors import ClusterError, GetTimeoutError, SerializationError, TaskError, WorkerDiedError
from zmreg.testing.cluster import LocalCluster

T = 30.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster([{"num_cpus": 1}, {"num_cpus": 1, "locs": {"far"}}]) as cluster:
        cluster.attach()
        yield cluster


pytestmark = pytest.mark.usefixtures("cluster")


@zmreg.remote
def busy(name: str) -> int:
    zmreg.sync.Event(name + str(os.getpid())).set()
    zmreg.sync.Event(name).wait(T)
    return os.getpid()


def pid_of(_add: int = 0) -> int:
    return os.getpid() + _add


def test_X14_it_runs_now_on_every_worker_beside_what_it_does(cluster: LocalCluster) -> None:
    there = [zmreg.NodeAffinitySchedulingStrategy(node.node_id) for node in cluster.nodes]
    running = [busy.options(scheduling_strategy=each).remote("X14") for each in there]
    found: dict[str, int] = {}

    def both_run() -> bool:
        found.update(zmreg.run_on_all(pid_of, timeout=T))
        return sum(zmreg.sync.Event("X14" + str(pid)).is_set() for pid in found.values()) == 2

    eventually(both_run, T, "the tasks do not run")
    far = zmreg.run_on_all(pid_of, _add=1, nodes=[cluster.nodes[1].node_id])
    assert far and far.items() <= {worker: pid + 1 for worker, pid in found.items()}.items()
    zmreg.sync.Event("X14").set()
    assert set(zmreg.get(running, timeout=T)) <= set(found.values())


def test_X14_coroutines_and_errors_of_each() -> None:
    async def later() -> int:
        return 5

    def fails() -> None:
        raise KeyError("here")

    zmreg.get(busy_never.remote(), timeout=T)
    assert set(zmreg.run_on_all(later).values()) == {5}
    with pytest.raises(KeyError, match="here") as caught:
        zmreg.run_on_all(fails)
    assert isinstance(caught.value, TaskError) and "zmreg.run_on_all" in caught.value.__notes__[-1]
    assert all(isinstance(each, KeyError) for each in zmreg.run_on_all(fails, return_exceptions=True).values())
    locks = zmreg.run_on_all(a_lock, return_exceptions=True)
    assert {type(each) for each in locks.values()} == {SerializationError}


@zmreg.remote
def busy_never() -> None:
    return None


def a_lock() -> Any:
    import threading

    return threading.Lock()


def test_X14_who_is_late_and_who_dies() -> None:
    zmreg.get(busy_never.remote(), timeout=T)
    late = zmreg.run_on_all(zmreg.sync.Event("never").wait, 5.0, timeout=0.05, return_exceptions=True)
    assert late and {type(each) for each in late.values()} == {GetTimeoutError}
    zmreg.sync.Event("never").set()

    @zmreg.remote(num_cpus=0)
    class Victim:
        def pid(self) -> int:
            return os.getpid()

    victim = Victim.remote()
    pid = zmreg.get(victim.pid.remote(), timeout=T)

    def dies() -> int:
        if os.getpid() == pid:
            os._exit(1)
        return 1

    results = list(zmreg.run_on_all(dies, return_exceptions=True, timeout=T).values())
    assert sorted(type(each).__name__ for each in results if each != 1) == [WorkerDiedError.__name__]
    with pytest.raises(ClusterError, match="no living node ffff"):
        zmreg.run_on_all(pid_of, nodes="ffff")


def test_X14_from_a_worker_too() -> None:
    @zmreg.remote
    def inside() -> bool:
        return os.getpid() in zmreg.run_on_all(os.getpid, timeout=T).values()

    assert zmreg.get(inside.remote(), timeout=T)
