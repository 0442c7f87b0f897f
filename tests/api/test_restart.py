"""X16: one call to a clean cluster. X15: wait until it is complete."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import zmreg
from zmreg.model.errors import ActorDiedError, GetTimeoutError, TaskCancelledError
from zmreg.testing import LocalCluster


@zmreg.remote(max_retries=5)
def pid(number: int = 0) -> int:
    return os.getpid()


@zmreg.remote(max_retries=5)
def sleeper(path: str) -> None:
    with open(path, "a") as file:
        file.write("begun\n")
    time.sleep(600)


@zmreg.remote(max_retries=5)
def follow(_: object) -> int:
    return 1


@zmreg.remote(max_restarts=-1, max_task_retries=-1)
class Keeper:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        self.count += 1
        return self.count

    def where(self) -> tuple[int, str]:
        return os.getpid(), zmreg.get_runtime_context().get_node_id()

    def sleep(self) -> None:
        time.sleep(600)


@pytest.fixture
def own() -> Iterator[Any]:
    yield zmreg.init(num_cpus=2)
    zmreg.shutdown()


def workers() -> set[int]:
    from zmreg.services.seat.seats import client

    return {row["Pid"] for row in client().ask("workers") if row["Ready"]}


def gone(number: int) -> bool:
    return not os.path.exists(f"/proc/{number}")


def await_begun(path: Any, count: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if path.exists() and path.read_text().count("begun") >= count:
            return
        zmreg.wait([zmreg.put(0)])
    pytest.fail("the tasks have not begun")


def test_x16_what_is_under_way_is_cancelled_with_the_reason(own: Any, tmp_path: Any) -> None:
    log = tmp_path / "log"
    running = [sleeper.remote(str(log)) for _ in range(2)]
    queued = [pid.remote(number) for number in range(20)]
    behind = follow.remote(running[0])
    await_begun(log, 2)
    zmreg.restart()
    for ref in (*running, *queued, behind):
        with pytest.raises(TaskCancelledError, match="the cluster was restarted"):
            ref.get(timeout=5)
    assert zmreg.get([pid.remote() for _ in range(4)], timeout=20)
    assert log.read_text() == "begun\n" * 2, "nothing was tried again"


def test_x16_every_worker_is_another_process(own: Any) -> None:
    before = set(zmreg.get([pid.remote() for _ in range(8)])) | workers()
    zmreg.restart()
    assert all(gone(number) for number in before)
    after = set(zmreg.get([pid.remote() for _ in range(8)], timeout=20))
    assert after and not after & before


def test_x16_every_actor_ends_the_detached_too_and_names_are_free(own: Any) -> None:
    named = Keeper.options(name="keeper", lifetime="detached").remote()
    plain = Keeper.remote()
    assert zmreg.get([named.add.remote(), plain.add.remote()]) == [1, 1]
    calls = [plain.sleep.remote(), plain.add.remote()]
    zmreg.restart()
    for call in calls:
        with pytest.raises(TaskCancelledError, match="the cluster was restarted"):
            call.get(timeout=5)
    for actor in (named, plain):
        with pytest.raises(ActorDiedError):
            zmreg.get(actor.add.remote(), timeout=5)
    with pytest.raises(ValueError):
        zmreg.get_actor("keeper")
    again = Keeper.options(name="keeper").remote()
    assert zmreg.get(again.add.remote(), timeout=20) == 1


def test_x16_values_that_are_there_stay(own: Any) -> None:
    small, large = zmreg.put([1]), zmreg.put(b"x" * 1_000_000)
    done = pid.remote()
    assert done.get()
    zmreg.restart()
    assert small.get() == [1]
    assert len(large.get()) == 1_000_000
    assert done.get()


def test_x16_who_waits_in_another_thread_is_told(own: Any, tmp_path: Any) -> None:
    heard: list[BaseException] = []
    ref = sleeper.remote(str(tmp_path / "log"))

    def wait() -> None:
        try:
            ref.get()
        except TaskCancelledError as error:
            heard.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    await_begun(tmp_path / "log", 1)
    zmreg.restart()
    thread.join(10)
    assert [type(error) for error in heard] == [TaskCancelledError]


def test_x16_an_actor_that_waits_for_its_inputs_never_lives(own: Any, tmp_path: Any) -> None:
    @zmreg.remote
    class Late:
        def __init__(self, value: object) -> None:
            (tmp_path / "lived").touch()

        def ask(self) -> int:
            return 1

    late = Late.remote(sleeper.remote(str(tmp_path / "log")))
    call = late.ask.remote()
    await_begun(tmp_path / "log", 1)
    zmreg.restart()
    with pytest.raises(TaskCancelledError):
        call.get(timeout=5)
    with pytest.raises((ActorDiedError, TaskCancelledError)):
        late.ask.remote().get(timeout=5)
    assert not (tmp_path / "lived").exists()


def test_x16_again_and_again(own: Any) -> None:
    for _ in range(4):
        refs = [pid.remote() for _ in range(50)]
        zmreg.restart()
        assert all(ref.done() for ref in refs)
    assert zmreg.get(pid.remote(), timeout=20)


def test_x16_what_was_stored_too_late_is_freed(own: Any) -> None:
    large = zmreg.remote(lambda number: bytes(200_000))
    zmreg.get(large.remote(0))
    for _ in range(3):
        refs = [large.remote(number) for number in range(100)]
        zmreg.wait(refs, num_returns=2)
        zmreg.restart()
        assert any(ref.failed() for ref in refs)
        del refs
    deadline = time.monotonic() + 10
    while (left := zmreg.stats()["store"]["sealed"]) and time.monotonic() < deadline:
        zmreg.get(pid.remote())
    assert not left


def test_x16_not_from_a_task(own: Any) -> None:
    with pytest.raises(RuntimeError, match="only in a driver"):
        zmreg.get(zmreg.remote(zmreg.restart).remote())


def test_x16_on_all_nodes_and_x15_wait_for_them() -> None:
    with LocalCluster(nodes=[{"num_cpus": 0}, {"num_cpus": 1}, {"num_cpus": 1}]) as cluster:
        cluster.attach(cluster.nodes[1].node_id)
        zmreg.wait_for_nodes(3, timeout=10)
        with pytest.raises(GetTimeoutError, match="3 of 4 nodes"):
            zmreg.wait_for_nodes(4, timeout=0.05)
        there = [zmreg.NodeAffinitySchedulingStrategy(node.node_id) for node in cluster.nodes[1:]]
        keepers = [Keeper.options(scheduling_strategy=each).remote() for each in there * 2]
        before = zmreg.get([keeper.where.remote() for keeper in keepers], timeout=20)
        assert len({node for _, node in before}) == 2
        zmreg.restart()
        assert all(gone(number) for number, _ in before)
        after = zmreg.get([pid.options(scheduling_strategy="SPREAD").remote() for _ in range(6)], timeout=20)
        assert not set(after) & {number for number, _ in before}


def test_x15_waits_for_a_node_that_joins_later() -> None:
    with LocalCluster(nodes=[{"num_cpus": 1}]) as cluster:
        cluster.attach()
        thread = threading.Thread(target=cluster.add_node)
        thread.start()
        zmreg.wait_for_nodes(2, timeout=30)
        thread.join(30)
        assert sum(node["Alive"] for node in zmreg.nodes()) == 2


def test_x15_a_count_is_at_least_one(own: Any) -> None:
    zmreg.wait_for_nodes(1)
    with pytest.raises(ValueError, match="count=0"):
        zmreg.wait_for_nodes(0)
