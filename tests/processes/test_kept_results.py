"""Going away and coming back: row X27 of the specs, with C40. Programs end, or are killed, before anybody has asked."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import zmreg
from tests.processes.clusters import until
from tests.processes.drivers import Driver
from zmreg.api.actors import kill
from zmreg.flows.kit import kept
from zmreg.flows.kit.keeper_actor import find_keeper
from zmreg.model.errors import GetTimeoutError, ObjectLostError
from zmreg.testing.cluster import LocalCluster, TestNode

BOUND_S = 60.0
MB = 1_000_000

AWAY = """
zmreg.init(address={address!r}, log_to_driver=False)

def helper(number):
    return number * 2

@zmreg.remote
def child(number):
    return helper(number)

@zmreg.remote(max_retries=3)
def slow(number, gate, started, extra=0):
    open(started, "a").close()
    while not os.path.exists(gate):
        time.sleep(0.02)
    return zmreg.get([child.remote(each) for each in range(number)]) + [extra]

def fails(path):
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) < 2:
        raise LookupError("not yet")
    return os.path.getsize(path)

data = zmreg.put(bytearray(3_000_000))
zmreg.submit_detached(slow, 4, {gate!r}, {started!r}, extra=zmreg.put(7), name="slow")
zmreg.submit_detached(len, data, name="length")
zmreg.submit_detached(fails, {fails!r}, name="fails")
zmreg.submit_detached(bytearray, 2_000_000, name="large")
zmreg.keep(data, "kept")
say("submitted")
time.sleep(600)
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[TestNode]]:
    """The head, at which the test has its seat, and a node with two CPUs."""
    with LocalCluster(nodes=[{"num_cpus": 1}, {"num_cpus": 2}]) as cluster:
        cluster.attach()
        yield cluster.nodes


def test_X27_what_a_killed_program_has_submitted_goes_on_and_another_one_has_its_results(
    nodes: list[TestNode], tmp_path: Path
) -> None:
    gate, started, fails = (str(tmp_path / name) for name in ("gate", "started", "fails"))
    source = AWAY.format(address=nodes[0].address, gate=gate, started=started, fails=fails)
    with Driver(source) as away:
        away.after("submitted")
        until(lambda: os.path.exists(started), "the slow one has not begun")
        away.process.send_signal(signal.SIGKILL)
        away.process.wait()
    slow = zmreg.KeptResult("slow")
    assert not slow.done()
    with pytest.raises(GetTimeoutError):
        slow.get(timeout=0.2)
    assert {row["name"]: row["state"] for row in zmreg.list_results()}["slow"] == "running"
    Path(gate).touch()
    assert zmreg.get_result("slow", timeout=BOUND_S) == [0, 2, 4, 6, 7], "its nested calls, too, and what it was given"
    assert zmreg.get_result("length", timeout=BOUND_S) == 3_000_000
    assert len(zmreg.get_result("large", timeout=BOUND_S)) == 2_000_000
    assert len(zmreg.get_result("kept", timeout=BOUND_S)) == 3_000_000
    with pytest.raises(LookupError, match="not yet"):
        zmreg.get_result("fails", timeout=BOUND_S)
    failed = zmreg.KeptResult("fails")
    failed.retry()
    assert failed.get(timeout=BOUND_S) == 2
    assert slow.done() and zmreg.get_result("slow") == [0, 2, 4, 6, 7], "it is there until it is forgotten"
    states = {row["name"]: (row["state"], row["function"]) for row in zmreg.list_results()}
    assert states.keys() == {"slow", "length", "large", "kept", "fails"} and states["slow"][1] == "slow"
    ref = zmreg.KeptResult("large").ref()
    for name in states:
        zmreg.forget_result(name)
    assert zmreg.list_results() == []
    assert len(ref.get(timeout=BOUND_S)) == 2_000_000, "whoever holds a ref has it"
    with pytest.raises(KeyError, match="there is none any more: somebody has had it forgotten"):
        zmreg.get_result("large")
    with pytest.raises(KeyError, match="to forget"):
        zmreg.forget_result("large")


@zmreg.remote
def slow_sum(a: int, b: int) -> int:
    return a + b


def test_X27_a_name_is_taken_once_and_a_keeper_that_dies_hears_of_all_again(nodes: list[TestNode]) -> None:
    first = zmreg.submit_detached(abs, -3, name="three")
    assert first.get(timeout=BOUND_S) == 3 and repr(first) == "<KeptResult three>"
    with pytest.raises(ValueError, match="there is a result 'three'"):
        zmreg.submit_detached(abs, -4, name="three")
    kill(find_keeper(), no_restart=False)
    assert zmreg.get_result("three", timeout=BOUND_S) == 3
    assert zmreg.submit_detached(abs, -4, name="three", replace=True).get(timeout=BOUND_S) == 4
    with pytest.raises(TypeError):
        zmreg.submit_detached(slow_sum, 1, 2, nonsense=3, name="wrong").get(timeout=BOUND_S)
    with pytest.raises(KeyError, match="there is none; there are: .*three"):
        zmreg.get_result("never")
    zmreg.forget_result("three")


def test_X27_C40_results_go_by_age_and_by_bytes_the_oldest_first(nodes: list[TestNode]) -> None:
    zmreg.limit_results(5 * MB)
    zmreg.keep(1, "brief", ttl=0.01)
    for number in range(3):
        zmreg.submit_detached(bytearray, 2 * MB, name=f"large {number}").get(timeout=BOUND_S)
    until(lambda: [row["name"] for row in zmreg.list_results()] == ["large 1", "large 2"], "they are all still there")
    with pytest.raises(KeyError, match="younger results needed its"):
        zmreg.get_result("large 0")
    with pytest.raises(KeyError, match=r"kept for the 0.01 s"):
        zmreg.get_result("brief")
    with pytest.raises(ValueError, match="max_bytes=0"):
        zmreg.limit_results(0)
    with pytest.raises(ValueError, match="ttl=0"):
        zmreg.keep(1, "x", ttl=0)
    for name in ("large 1", "large 2"):
        zmreg.forget_result(name)


def test_X27_cancelled_and_forgotten_calls_end(nodes: list[TestNode], tmp_path: Path) -> None:
    started = tmp_path / "started"

    @zmreg.remote(max_retries=0)
    def waits() -> None:
        import threading

        started.touch()
        threading.Event().wait()

    call = zmreg.submit_detached(waits, name="waits")
    until(started.exists, "it has not begun")
    call.cancel()
    with pytest.raises(zmreg.errors.TaskCancelledError):
        call.get(timeout=BOUND_S)
    assert call.done()
    call.forget()


def test_X27_a_result_whose_keeper_died_is_lost_and_its_name_is_free(nodes: list[TestNode]) -> None:
    call = zmreg.keep("here", "lost")
    kill(kept._make_host())
    with pytest.raises(ObjectLostError, match="'lost' is lost: the process that kept it has died"):
        call.get(timeout=BOUND_S)
    assert zmreg.keep("again", "lost", replace=True).get(timeout=BOUND_S) == "again"
    zmreg.forget_result("lost")


def test_X27_a_cluster_that_ends_with_the_program_keeps_nothing() -> None:
    source = """
zmreg.init(num_cpus=1, address="local")
say(typed(lambda: zmreg.submit_detached(abs, -1, name="one")), typed(lambda: zmreg.keep(1, "one")))
"""
    with Driver(source) as alone:
        assert alone.after("ClusterError") == "ClusterError"
