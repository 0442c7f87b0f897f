"""Calls that wait for each other in a circle end with an error that names it (section 4 of core-api)."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest

import zmreg
from tests.api.objects_help import eventually
from zmreg.model.errors import DeadlockError

pytestmark = pytest.mark.usefixtures("cluster")
T = 30


@zmreg.remote
class Node:
    """A sync actor that can be told to wait for others."""

    def __init__(self) -> None:
        self.next: Any = None
        self.log: list[str] = []

    def link(self, other: list[Any]) -> None:
        self.next = other[0]

    def value(self) -> str:
        self.log.append("value")
        return "value"

    def seen(self) -> list[str]:
        return self.log

    def around(self, hops: int) -> Any:
        if hops == 0:
            return "end"
        return self.next.around.remote(hops - 1).get()

    def careful(self) -> str:
        try:
            return self.next.value.remote().get()
        except DeadlockError as error:
            return " ".join(error.path)


def ring(size: int) -> list[Any]:
    nodes = [Node.remote() for _ in range(size)]
    zmreg.get([node.link.remote([nodes[n - size + 1]]) for n, node in enumerate(nodes)], timeout=T)
    return nodes


def test_section4_a_sync_actor_that_waits_for_itself_gets_an_error():
    (node,) = ring(1)
    with pytest.raises(DeadlockError, match=r"Node waits for Node\.around\(\)"):
        node.around.remote(1).get(timeout=T)
    assert node.value.remote().get(timeout=T) == "value"


def test_section4_the_withdrawn_call_never_runs_and_the_actor_goes_on():
    (node,) = ring(1)
    assert node.careful.remote().get(timeout=T) == "Node.value"
    assert node.seen.remote().get(timeout=T) == []
    assert node.value.remote().get(timeout=T) == "value"


@pytest.mark.parametrize("size", [2, 3, 5])
def test_section4_actors_that_wait_for_each_other_get_an_error(size):
    nodes = ring(size)
    assert nodes[0].around.remote(size - 1).get(timeout=T) == "end"  # once around without closing the circle
    with pytest.raises(DeadlockError) as caught:
        nodes[0].around.remote(size).get(timeout=T)
    assert len(caught.value.path) == size
    assert [node.value.remote().get(timeout=T) for node in nodes] == ["value"] * size


def test_section4_two_chains_that_meet_head_on():
    left, right = ring(2)
    first, second = left.around.remote(1), right.around.remote(1)
    outcomes = [ref.exception(timeout=T) for ref in (first, second)]
    assert all(error is None or isinstance(error, DeadlockError) for error in outcomes)
    assert zmreg.get([left.value.remote(), right.value.remote()], timeout=T) == ["value", "value"]


def test_section4_a_circle_through_a_task():
    (node,) = ring(1)

    @zmreg.remote
    def back(handle: Any) -> str:
        return handle.value.remote().get()

    @zmreg.remote
    class Asks:
        def run(self) -> str:
            me = zmreg.get_runtime_context().current_actor
            return back.remote(me).get()

        def value(self) -> str:
            return "never"

    with pytest.raises(DeadlockError, match="a task waits"):
        Asks.remote().run.remote().get(timeout=T)
    assert back.remote(node).get(timeout=T) == "value"


def test_section4_a_circle_that_closes_after_the_question_was_asked():
    """A task that waits asks once. The actor has heard it while it waited for something else, and then waits for it."""

    @zmreg.remote
    class Gate:
        def __init__(self) -> None:
            self.opened = asyncio.Event()

        async def wait(self) -> None:
            await self.opened.wait()

        async def open(self) -> None:
            self.opened.set()

    @zmreg.remote
    def back(handle: Any, began: str) -> str:
        ref = handle.value.remote()
        Path(began).touch()
        return ref.get()

    @zmreg.remote
    class Asks:
        def run(self, gate: Any, began: str) -> str:
            ref = back.remote(zmreg.get_runtime_context().current_actor, began)
            gate.wait.remote().get()
            return ref.get()

        def value(self) -> str:
            return "never"

    gate = Gate.remote()
    with tempfile.TemporaryDirectory() as directory:
        began = Path(directory) / "began"
        ref = Asks.remote().run.remote(gate, str(began))
        eventually(lambda: began.exists() and zmreg.available_resources().get("CPU") == 2)  # the task waits as well
        gate.open.remote()
        with pytest.raises(DeadlockError):
            ref.get(timeout=T)


def test_section4_a_circle_through_the_input_of_a_task():
    @zmreg.remote
    def double(x: int) -> int:
        return 2 * x

    @zmreg.remote
    class Asks:
        def run(self) -> int:
            me = zmreg.get_runtime_context().current_actor
            return double.remote(double.remote(me.number.remote())).get()

        def number(self) -> int:
            return 1

    asks = Asks.remote()
    with pytest.raises(DeadlockError):
        asks.run.remote().get(timeout=T)
    assert asks.number.remote().get(timeout=T) == 1


def test_section4_an_async_actor_that_blocks_on_itself():
    @zmreg.remote
    class Blocks:
        async def run(self) -> int:
            return zmreg.get_runtime_context().current_actor.one.remote().get()

        async def well(self) -> int:
            return await zmreg.get_runtime_context().current_actor.one.remote()

        async def one(self) -> int:
            return 1

    blocks = Blocks.remote()
    with pytest.raises(DeadlockError):
        blocks.run.remote().get(timeout=T)
    assert blocks.well.remote().get(timeout=T) == 1


def test_section4_waits_that_do_end_are_left_alone():
    @zmreg.remote
    class Patient:
        def with_timeout(self) -> str:
            mine = zmreg.get_runtime_context().current_actor.later.remote()
            try:
                mine.get(timeout=0.2)
            except zmreg.errors.GetTimeoutError:
                return "gave up"
            return "got it"

        def first_of_two(self) -> int:
            mine = zmreg.get_runtime_context().current_actor.later.remote()
            ready, _ = zmreg.wait([mine, slow.remote()], num_returns=1)
            return len(ready)

        def later(self) -> None: ...

    @zmreg.remote
    def slow() -> None:
        import time

        time.sleep(0.1)

    patient = Patient.remote()
    assert patient.with_timeout.remote().get(timeout=T) == "gave up"
    assert patient.first_of_two.remote().get(timeout=T) == 1


def test_section4_a_busy_crowd_of_blocking_actors_raises_no_false_alarm():
    crowd = [Node.options(num_cpus=0).remote() for _ in range(4)]
    zmreg.get([a.link.remote([b]) for a, b in zip(crowd, crowd[1:], strict=False)], timeout=T)
    refs = [crowd[n % 3].around.remote(3 - n % 3) for n in range(150)]
    assert zmreg.get(refs, timeout=T) == ["end"] * 150


def test_section4_a_call_that_could_be_sent_only_later_is_looked_at_too():
    @zmreg.remote
    class Late:
        def ask(self, other: list[Any]) -> int:
            return other[0].back.remote([zmreg.get_runtime_context().current_actor]).get()

        def number(self) -> int:
            return 1

    @zmreg.remote
    class Slow:
        def __init__(self, _go: Any) -> None: ...

        def back(self, other: list[Any]) -> int:
            return other[0].number.remote().get()

    @zmreg.remote
    def go() -> None:
        import time

        time.sleep(0.2)

    late = Late.remote()
    with pytest.raises(DeadlockError):
        late.ask.remote([Slow.remote(go.remote())]).get(timeout=T)
    assert late.number.remote().get(timeout=T) == 1
