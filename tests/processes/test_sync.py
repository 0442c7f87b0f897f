"""Locks, semaphores, events, barriers, variables and datasets by name, on two nodes (core-api X10, X11)."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import zmreg
from tests.processes.drivers import Driver, eventually
from zmreg import sync
from zmreg.flows.kit import leases
from zmreg.flows.kit.coordinator import Coordinator
from zmreg.flows.kit.system import system_actor
from zmreg.model.errors import GetTimeoutError, WorkerDiedError
from zmreg.testing.cluster import LocalCluster

T = 30.0
# Dead holders are let go of when they are known to be dead, and not when their lease has run out.
SECONDS = 5.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster([{"num_cpus": 2}, {"num_cpus": 2, "locs": {"far"}}]) as cluster:
        cluster.attach()
        yield cluster


pytestmark = pytest.mark.usefixtures("cluster")


@zmreg.remote(num_cpus=0, locs={"far"})
class Holder:
    """A process on the other node."""

    def __init__(self) -> None:
        self.held: list[Any] = []

    def pid(self) -> int:
        return os.getpid()

    def acquire(self, thing: Any, timeout: float | None = T) -> int:
        if not thing.acquire(timeout):
            return 0
        self.held.append(thing)
        return int(thing.token)

    def release(self) -> None:
        self.held.pop().release()

    def forget(self) -> None:
        self.held.clear()


def test_X10_one_at_a_time_anywhere_and_tokens_grow() -> None:
    @zmreg.remote(num_cpus=0.5)
    def add(name: str) -> tuple[int, int]:
        with sync.Lock(name) as lock:
            found = sync.Variable(name).get(T)
            sync.Variable(name).set(found + 1)
            return found, lock.token

    sync.Variable("sum").set(0)
    places = [add.options(locs=locs) for locs in ((), {"far"})]
    rows = zmreg.get([places[number % 2].remote("sum") for number in range(10)], timeout=T)
    assert sorted(found for found, _ in rows) == list(range(10)) and sync.Variable("sum").get() == 10
    tokens = [token for _, token in sorted(rows)]
    assert tokens == sorted(set(tokens)), "who comes later has the higher token"


def test_X10_timeouts_and_whose_it_is() -> None:
    holder, lock = Holder.remote(), sync.Lock("mine")
    token = zmreg.get(holder.acquire.remote(lock), timeout=T)
    assert lock.locked() and not lock.held
    assert not lock.acquire(timeout=0) and not lock.acquire(timeout=0.05)
    for wrong in (lock.release, lambda: lock.token):
        with pytest.raises(RuntimeError, match="not held by this object"):
            wrong()
    with pytest.raises(ValueError, match="timeout=-1"):
        lock.acquire(timeout=-1)
    zmreg.get(holder.release.remote(), timeout=T)
    with lock as same:
        assert same is lock and lock.held and lock.token > token
    assert not lock.locked() and pickle.loads(pickle.dumps(lock)).acquire(0)


def test_X10_async_and_a_cancelled_wait_leaves_nothing_behind() -> None:
    async def main() -> None:
        async with sync.Lock("async") as lock:
            assert lock.held and not await sync.Lock("async").acquire_async(timeout=0.05)
            waiting = asyncio.create_task(sync.Lock("async").acquire_async())
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        other = sync.Lock("async")
        assert await other.acquire_async(T)
        await other.release_async()

    asyncio.run(main())


def test_X10_several_locks_at_once_or_none() -> None:
    holder, both = Holder.remote(), sync.MultiLock(["left", "right", "left"])
    assert zmreg.get(holder.acquire.remote(sync.Lock("right")), timeout=T)
    assert not both.acquire(0.05)
    with sync.Lock("left"):
        pass
    zmreg.get(holder.release.remote(), timeout=T)
    with both:
        assert not sync.Lock("left").acquire(0) and not sync.Lock("right").acquire(0)
    with pytest.raises(TypeError, match="several names"):
        sync.MultiLock("left")


def test_X10_a_semaphore_is_held_so_many_times() -> None:
    holder, two = Holder.remote(), sync.Semaphore("two", 2)
    assert zmreg.get(holder.acquire.remote(two), timeout=T)
    with two:
        assert two.holders() == 2 and not two.acquire(0)
        with pytest.raises(ValueError, match="allows 2 at a time, and not 3"):
            sync.Semaphore("two", 3).acquire()
    assert two.holders() == 1


def test_X10_what_is_thrown_away_is_given_back() -> None:
    holder = Holder.remote()
    assert zmreg.get(holder.acquire.remote(sync.Lock("lost")), timeout=T)
    assert not sync.Lock("lost").acquire(0.05)
    zmreg.get(holder.forget.remote(), timeout=T)
    assert sync.Lock("lost").acquire(SECONDS)


def test_X10_holder_death_releases_a_killed_worker() -> None:
    holder = Holder.remote()
    assert zmreg.get(holder.acquire.remote(sync.Lock("killed")), timeout=T)
    pid = zmreg.get(holder.pid.remote(), timeout=T)
    zmreg.get(Holder.remote().pid.remote())
    waits = Holder.remote().acquire.remote(sync.Lock("killed"))
    os.kill(pid, signal.SIGKILL)
    assert zmreg.get(waits, timeout=SECONDS)


def test_X10_holder_death_releases_a_killed_program(cluster: LocalCluster) -> None:
    source = f"""
zmreg.init(address={cluster.nodes[1].address!r})
lock = zmreg.sync.Lock("program")
lock.acquire()
say("held", lock.token)
signal.pause()
"""
    with Driver(source) as program:
        token = int(program.after("held").split()[-1])
        assert not sync.Lock("program").acquire(0.05)
        program.process.kill()
        lock = sync.Lock("program")
        assert lock.acquire(SECONDS) and lock.token > token


def test_X10_holder_death_releases_what_a_dead_node_held(cluster: LocalCluster) -> None:
    node = cluster.add_node(num_cpus=1, locs={"doomed"})
    zmreg.wait_for_nodes(3, T)
    holder = Holder.options(locs={"doomed"}).remote()
    assert zmreg.get(holder.acquire.remote(sync.Lock("node")), timeout=T)
    cluster.kill_node(node.node_id)
    assert sync.Lock("node").acquire(SECONDS)


def test_X10_events_let_all_go() -> None:
    @zmreg.remote(num_cpus=0.5)
    def waits(event: sync.Event) -> bool:
        return event.wait(T)

    event = sync.Event("go")
    assert not event.wait(0) and not event.wait(0.05)
    waiting = [waits.options(locs=locs).remote(event) for locs in ((), {"far"})]
    event.set()
    assert zmreg.get(waiting, timeout=T) == [True, True]
    assert event.is_set() and event.wait(0) and asyncio.run(event.wait_async())
    event.clear()
    assert not event.is_set()


def test_X10_a_barrier_lets_go_when_all_are_there_and_the_dead_do_not_count() -> None:
    @zmreg.remote(num_cpus=0.5, max_retries=0)
    def meets(barrier: sync.Barrier, dies: bool = False) -> int:
        if dies:
            import threading

            threading.Thread(target=barrier.wait, daemon=True).start()
            sync.Event("die").wait(T)
            os._exit(1)
        return barrier.wait(T)

    barrier = sync.Barrier("meeting", 3)
    dead = meets.remote(barrier, True)
    sync.Event("die").set()
    assert isinstance(dead.exception(T), WorkerDiedError)
    with pytest.raises(GetTimeoutError):
        barrier.wait(0.05)
    for _ in range(2):
        refs = [meets.options(locs=locs).remote(barrier) for locs in ((), {"far"})]
        assert sorted([barrier.wait(T), *zmreg.get(refs, timeout=T)]) == [0, 1, 2]


def test_X10_a_variable_is_waited_for_and_outlives_who_has_set_it() -> None:
    variable = sync.Variable("later")
    with pytest.raises(GetTimeoutError, match="'later'"):
        variable.get(0.05)

    @zmreg.remote
    def waits(variable: sync.Variable) -> Any:
        return variable.get(T)

    waiting = waits.remote(variable)
    variable.set({"a": 1})
    assert waiting.get(T) == {"a": 1} == asyncio.run(variable.get_async())
    variable.set(zmreg.put(2))
    assert variable.get() == 2
    variable.delete()
    with pytest.raises(GetTimeoutError):
        variable.get(0)


def test_X11_a_dataset_outlives_the_program_that_has_published_it(cluster: LocalCluster) -> None:
    source = f"""
zmreg.init(address={cluster.nodes[1].address!r})
zmreg.publish_dataset("words", zmreg.put(["a"] * 100_000))
say("published")
os.kill(os.getpid(), signal.SIGKILL)
"""
    with Driver(source) as program:
        program.after("published")
        program.process.wait(T)
    assert zmreg.list_datasets() == ["words"]
    assert zmreg.get_dataset("words").get(T) == ["a"] * 100_000
    with pytest.raises(ValueError, match="there is a dataset 'words'"):
        zmreg.publish_dataset("words", 1)
    zmreg.publish_dataset("words", 1, replace=True)
    assert zmreg.get_dataset("words").get(T) == 1
    zmreg.unpublish_dataset("words")
    with pytest.raises(KeyError, match="there is no dataset 'words'"):
        zmreg.get_dataset("words")


@pytest.fixture
def own() -> Iterator[None]:
    """A cluster of its own, in the place of the shared one: what comes here is to be last in the file."""
    zmreg.shutdown()
    with zmreg.init(address="local", num_cpus=1):
        yield


@pytest.mark.near
@pytest.mark.usefixtures("own")
def test_X10_a_dead_coordinator_comes_back_and_holders_hold_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.1)
    coordinator = system_actor(Coordinator, "coordinator", 2.0)
    lock, other = sync.Lock("held on"), sync.Lock("held on")
    lock.acquire()
    with ThreadPoolExecutor() as pool:
        waits = pool.submit(other.acquire, T)
        eventually(lambda: zmreg.get(coordinator.wanted.remote("lock:held on")), T, "nobody waits")
        os.kill(zmreg.get(coordinator.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)
        held = coordinator.held.options(max_task_retries=-1)
        eventually(lambda: zmreg.get(held.remote("lock:held on")) == 1, T, "who holds it has not said so")
        assert not waits.done() and not sync.Lock("held on").acquire(0) and lock.held
        lock.release()
        assert waits.result(T) and other.token > 0


@pytest.mark.near
@pytest.mark.usefixtures("own")
def test_X10_who_was_not_heard_of_has_lost_it_and_is_told() -> None:
    system_actor(Coordinator, "coordinator", 0.2)  # renewed after 3 s: too late
    lock, other = sync.Lock("late"), sync.Lock("late")
    lock.acquire()
    assert other.acquire(T) and other.token > lock.token
    with pytest.raises(sync.LeaseLostError, match="was not held to the end"):
        lock.release()
