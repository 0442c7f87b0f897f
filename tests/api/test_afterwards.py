"""What is known of calls, under way and afterwards: rows X26, X6 and 74 of the specs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import zmreg
from zmreg.services.calling import history
from zmreg.services.seat.client import current
from zmreg.telemetry.facts import Facts
from zmreg.testing.cluster import LocalCluster, TestNode

BOUND_S = 30.0


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[TestNode]]:
    """The head, at which the test has its seat, then one with two CPUs: whatever runs is on another node."""
    with LocalCluster(nodes=[{"num_cpus": 0}, {"num_cpus": 2}]) as cluster:
        cluster.attach()
        yield cluster.nodes


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + BOUND_S
    while not (found := condition()):
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.01)
    return found


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[str]:
    """Calls that wait for this file end with the test at the latest."""
    yield str(tmp_path / "go")
    (tmp_path / "go").touch()


@zmreg.remote
def add(x: int, y: int) -> int:
    return x + y


@zmreg.remote(num_returns=2)
def pair() -> tuple[int, int]:
    return 1, 2


@zmreg.remote
def waits_for(path: str, *inputs: Any) -> str:
    """Ends when the file is there."""
    Path(path + ".begun").touch()
    while not Path(path).exists():
        time.sleep(0.01)
    return path


@zmreg.remote(max_retries=1, retry_exceptions=True)
def fails_twice() -> None:
    raise ValueError("no\nway")


@zmreg.remote
def waits_within(path: str) -> str:
    inner: str = waits_for.remote(path).get()
    return inner


@zmreg.remote
class Counter:
    def wait(self, path: str) -> str:
        while not Path(path).exists():
            time.sleep(0.01)
        return path

    def double(self, x: int) -> int:
        return 2 * x


def test_X26_each_result_tells_of_its_call(nodes: list[TestNode]):
    before = time.time()
    ref = add.remote(1, 2)
    assert ref.get(timeout=BOUND_S) == 3
    info = zmreg.call_info(ref)
    assert info is not None
    assert (info.name, info.state, info.attempts, info.error) == ("add", "done", 1, "")
    assert info.node_id == nodes[1].node_id and info.worker_id.startswith(info.node_id[:8])
    assert info.task_id == ref.hex() and info.owner_id == ref.meta.owner
    assert info.submitted is not None and info.started is not None and info.completed is not None
    assert before - 0.05 <= info.submitted <= info.started <= info.completed <= time.time() + 0.05
    assert info.run_s is not None and info.wait_s is not None
    assert info.wait_s + info.run_s == pytest.approx(info.completed - info.submitted, abs=1e-3)


def test_X26_a_call_that_fails_tells_of_its_attempts_and_its_error(nodes: list[TestNode]):
    ref = fails_twice.remote()
    with pytest.raises(ValueError, match="no"):
        ref.get(timeout=BOUND_S)
    info = zmreg.call_info(ref)
    assert info is not None and (info.state, info.attempts) == ("failed", 2)
    assert "no way" in info.error and "\n" not in info.error
    texts = [text for _, text in zmreg.story(ref)]
    assert [text.split(" ")[0] for text in texts] == ["fails_twice", "attempt", "attempt", "begun", "failed:"]
    assert "attempt 1: ValueError" in texts[1] and "attempt 2: sent to" in texts[2]
    times = [at for at, _ in zmreg.story(ref)]
    assert times == sorted(times)


def test_X26_of_methods_of_several_values_of_none_and_of_what_was_put(nodes: list[TestNode], gate: str):
    actor = Counter.remote()
    doubled = actor.double.remote(4)
    assert doubled.get(timeout=BOUND_S) == 8
    assert (info := zmreg.call_info(doubled)) is not None and info.name == "Counter.double"
    first, second = add.options(num_returns=2).remote((1,), (2,))
    assert zmreg.get([first, second], timeout=BOUND_S) == [1, 2]
    infos = [zmreg.call_info(first), zmreg.call_info(second)]
    assert infos[0] is not None and infos[1] is not None and infos[0].task_id == infos[1].task_id == first.hex()
    assert zmreg.call_info(zmreg.put(1)) is None and zmreg.story(zmreg.put(1)) == []
    never = waits_for.options(num_cpus=2).remote(gate, add.options(resources={"none": 1}).remote(1, 1))
    zmreg.cancel(never)
    assert never.cancelled()
    assert (info := zmreg.call_info(never)) is not None
    assert (info.state, info.worker_id, info.started, info.run_s) == ("cancelled", "", None, None)


def test_X26_another_process_call_is_asked_of_its_owner(nodes: list[TestNode]):
    (inner,) = lends.remote().get(timeout=BOUND_S)
    assert inner.get(timeout=BOUND_S) == 7
    info = zmreg.call_info(inner)
    assert info is not None and (info.name, info.state) == ("add", "done")
    assert info.owner_id == inner.meta.owner != zmreg.put(1).meta.owner


@zmreg.remote
def lends() -> list[Any]:
    ref = add.remote(3, 4)
    ref.get()
    return [ref]


def test_X6_why_follows_the_chain_to_the_call_that_runs(nodes: list[TestNode], gate: str):
    outer = waits_within.remote(gate)
    last = add.remote(outer, "!")
    until(Path(gate + ".begun").exists)
    text = until(lambda: told if "waits for 1 objects" in (told := zmreg.why(last)) else "")
    lines = [line for line in text.split("so far:")[0].splitlines() if not line.startswith(" ")]
    assert [line.split(" ")[0] for line in lines] == ["add", "waits_within", "waits_for"], text
    assert "test_afterwards.py" in text and "in waits_for" not in lines[0]
    assert nodes[1].node_id in text
    stack = zmreg.call_stack(outer)
    assert [function for _, _, function in stack][:1] == ["waits_within"]
    assert [outer.hex()] in zmreg.processing().values()
    Path(gate).touch()
    assert last.get(timeout=BOUND_S) == gate + "!"
    assert "is done" in zmreg.why(last) and zmreg.call_stack(last) == []
    assert not any(outer.hex() in calls for calls in zmreg.processing().values())


def test_X6_why_says_what_is_needed_and_what_there_is(nodes: list[TestNode], gate: str):
    holds = waits_for.options(num_cpus=2).remote(gate)
    until(Path(gate + ".begun").exists)
    waits = add.options(num_cpus=2).remote(1, 1)
    # What another node has free is known from what it said last, some tenths of a second ago.
    text = until(lambda: told if "has no room now: free 0 of 2 CPU" in (told := zmreg.why(waits)) else "")
    assert "has not begun: it needs 2 CPU, for which" in text, text
    assert "never: free 0 of 0 CPU" in text, "the head has none"
    state = zmreg.call_info(waits)
    assert state is not None and state.state == "queued" and state.completed is None
    Path(gate).touch()
    assert zmreg.get([holds, waits], timeout=BOUND_S)[1] == 2


def test_X6_why_of_a_method_behind_others(nodes: list[TestNode], gate: str):
    actor = Counter.remote()
    assert actor.double.remote(1).get(timeout=BOUND_S) == 2
    first, second, third = actor.wait.remote(gate), actor.double.remote(1), actor.double.remote(2)
    text = until(lambda: told if "is queued there" in (told := zmreg.why(third)) else "")
    assert "behind 2 other calls" in text and "Counter.wait" in text, text
    assert "test_afterwards.py" in text, "the one that runs is shown with its place"
    Path(gate).touch()
    assert zmreg.get([first, second, third], timeout=BOUND_S) == [gate, 2, 4]


def test_row74_the_timeline_has_the_calls_of_all_processes(nodes: list[TestNode], tmp_path: Path):
    refs = [lends.remote() for _ in range(3)]
    zmreg.get(refs, timeout=BOUND_S)
    events = zmreg.timeline()
    assert events is not None
    shown = [event for event in events if event["ph"] == "X"]
    tasks = {event["args"]["task"]: event for event in shown}
    assert all(ref.hex() in tasks and tasks[ref.hex()]["name"] == "lends" for ref in refs)
    owners = {event["args"]["owner"] for event in shown if event["name"] == "add"}
    assert len(owners) >= 2, "of calls that workers have made, too"
    assert all(event["ts"] >= 0 and event["dur"] >= 1 for event in shown)
    assert zmreg.timeline(tmp_path / "t.json") is None
    document = json.loads((tmp_path / "t.json").read_text())
    assert {event["args"]["task"] for event in document["traceEvents"] if event["ph"] == "X"} >= set(tasks)
    failing = fails_twice.options(name="fails_here").remote()
    assert failing.exception(timeout=BOUND_S) is not None
    rows = {row["Name"]: row for row in zmreg.summary()}
    assert rows["lends"]["Calls"] >= 3
    assert sum(row["Failed"] for row in rows.values()) >= 1 and sum(row["Retries"] for row in rows.values()) >= 1


def test_X26_a_worker_that_dies_is_in_the_story(nodes: list[TestNode], gate: str):
    ref = dies_once.remote(gate)
    assert ref.get(timeout=BOUND_S) == "well"
    info = zmreg.call_info(ref)
    assert info is not None and (info.state, info.attempts) == ("done", 2)
    assert any("attempt 1: worker" in text and "died" in text for _, text in zmreg.story(ref))


@zmreg.remote
def dies_once(path: str) -> str:
    import os

    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), 9)
    return "well"


def test_X26_values_are_not_kept_by_what_is_remembered_of_their_calls(nodes: list[TestNode]):
    from zmreg.services.seat.client import current

    for _ in range(200):
        echo.remote(bytes(60_000)).get(timeout=BOUND_S)
    seat = current()
    assert seat is not None
    assert seat.past._bytes < 3 << 20
    assert sum(len(each.rows) for each in seat.past.batches() if isinstance(each.rows, bytes)) < 3 << 20


@zmreg.remote
def echo(x: bytes) -> bytes:
    return x


def test_X26_what_has_ended_is_looked_up_outside_of_the_lock(nodes: list[TestNode], monkeypatch: pytest.MonkeyPatch):
    """Also the whole of it, which takes long: calls and answers go on meanwhile."""
    refs = pair.remote()
    zmreg.get(refs, timeout=BOUND_S)
    seat = current()
    assert seat is not None
    free: list[bool] = []

    def looks(*args: Any) -> Any:
        def tries() -> None:
            free.append(seat.lock.acquire(timeout=BOUND_S))
            seat.lock.release()

        thread = threading.Thread(target=tries)
        thread.start()
        thread.join(2.0)
        free.append(not thread.is_alive())
        return Facts(*args)

    monkeypatch.setattr(history, "Facts", looks)
    infos = [zmreg.call_info(ref) for ref in refs]
    assert [each is not None and each.state for each in infos] == ["done", "done"]
    assert free == [True, True], "made sense of once, for the second value, and the lock was free"


def test_row_74_what_the_command_lists_a_program_lists_too(nodes, gate):
    @zmreg.remote
    class Counter:
        def hit(self) -> int:
            return 1

    counter = Counter.options(name="listed").remote()
    assert counter.hit.remote().get(BOUND_S) == 1
    ref = waits_for.options(name="lingers").remote(gate)
    until(Path(gate + ".begun").exists)
    [row] = [row for row in zmreg.listing("actors") if row["Name"] == "listed"]
    assert (row["State"], row["ClassName"], row["NodeID"]) == ("ALIVE", "Counter", nodes[1].node_id)
    [task] = [row for row in zmreg.listing("tasks") if row["Name"] == "lingers"]
    assert (task["State"], task["NodeID"]) == ("RUNNING", nodes[1].node_id)
    assert row["WorkerID"] in [each["WorkerID"] for each in zmreg.listing("workers")]
    assert len(zmreg.listing("nodes")) == 2 and len(zmreg.listing("nodes", limit=1)) == 1
    big = zmreg.put(bytes(300_000))
    assert zmreg.listing("objects")[0]["Bytes"] >= 300_000
    with pytest.raises(ValueError, match="there are actors, nodes, objects, tasks, workers"):
        zmreg.listing("things")
    Path(gate).touch()
    assert ref.get(BOUND_S) and big.done()
    zmreg.kill(counter)
