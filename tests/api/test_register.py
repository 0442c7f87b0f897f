"""Putting functions under a name in one process: the forms of `register`, `serve(block=False)`, and what is refused.

Rows R1, R21, R26, R35, R36 of requests.md.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import zmreg
from tests.processes.clusters import until
from zmreg import errors
from zmreg.services.seat.client import current

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.near]


@pytest.fixture(autouse=True)
def withdrawn() -> Iterator[None]:
    yield
    for each in zmreg.functions():
        if each.name not in ("echo", "echos"):
            zmreg.withdraw(each.name)


def plus(a: int, b: int = 1) -> int:
    """One more."""
    return a + b


@zmreg.remote(name="tripled", locs={"thirds"}, version="1.2.0")
def triple(x: int) -> int:
    return 3 * x


def test_R21_all_ways_to_register() -> None:
    assert zmreg.register("one", plus) is plus

    @zmreg.register("two", version="2.0")
    def decorated(x: int) -> int:
        return 2 * x

    @zmreg.register
    def three() -> int:
        return 3

    assert decorated(4) == 8  # still a function
    assert zmreg.register(triple) is triple
    zmreg.register("also", triple)
    assert [zmreg.call("one", 1), zmreg.call("two", 2), zmreg.call("three"), zmreg.call("also", 5)] == [2, 4, 3, 15]
    assert zmreg.call("tripled", 5, locs={"thirds"}, version=">=1.2,<2") == 15
    assert [each.name for each in zmreg.functions()] == ["also", "echo", "echos", "one", "three", "tripled", "two"]
    assert zmreg.describe("one").signature == "(a: int, b: int = 1) -> int"
    assert triple.options(locs=()).remote(2).get() == 6  # what `.remote` does is as before


def test_R21_what_cannot_be_registered_is_told() -> None:
    with pytest.raises(TypeError, match="has no name"):
        zmreg.register(lambda x: x)
    with pytest.raises(TypeError, match="something to call"):
        zmreg.register("f", 3)  # type: ignore[arg-type, call-overload]
    with pytest.raises(TypeError, match="name first"):
        zmreg.register(plus, "f")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="set of names"):
        zmreg.register("f", plus, locs="m1")
    with pytest.raises(ValueError, match="cannot name"):
        zmreg.register("", plus)
    with pytest.raises(ValueError, match="version"):
        zmreg.register("f", plus, version="new")
    with pytest.raises(ValueError, match="version"):
        zmreg.remote(version="new")(plus)
    assert [each.name for each in zmreg.functions()] == ["echo", "echos"]


def test_R21_twice_is_refused_and_the_first_goes_on_unless_replaced() -> None:
    zmreg.register("f", lambda: 1, version="1.0")
    with pytest.raises(ValueError, match="replace=True"):
        zmreg.register("f", lambda: 2, version="1")  # the same, written otherwise
    assert zmreg.call("f") == 1
    zmreg.register("f", lambda: 2, version="1.0.0", replace=True)
    assert zmreg.call("f") == 2
    zmreg.register("f", lambda: 3, version="1.1")
    assert [zmreg.call("f"), zmreg.call("f", version="==1.0")] == [3, 2]
    zmreg.withdraw("f", "1.1.0")
    assert zmreg.call("f") == 2
    zmreg.withdraw("f")
    with pytest.raises(errors.FunctionNotFoundError):
        zmreg.call("f", queue_until=0)


def test_R19_a_registered_echo_goes_before_the_built_in_one() -> None:
    zmreg.register("echo", lambda x: ("ours", x))
    assert zmreg.call("echo", 1) == ("ours", 1)
    zmreg.withdraw("echo")
    assert zmreg.call("echo", 1) == 1


def test_R21_serve_registers_mappings_functions_and_remote_ones() -> None:
    zmreg.serve({"a": plus, "b": triple}, block=False, locs={"here"})
    zmreg.serve([plus, triple], block=False)
    zmreg.serve(test_R21_serve_registers_mappings_functions_and_remote_ones, block=False)
    assert zmreg.call("a", 1, locs={"here"}) == zmreg.call("plus", 1) == 2
    assert zmreg.call("b", 1, locs={"here", "thirds"}) == zmreg.call("tripled", 1) == 3
    assert "here" not in zmreg.describe("plus").locs


def test_R26_what_waits_for_a_thread_is_dropped_when_its_time_is_up() -> None:
    begun, gate, ran = threading.Semaphore(0), threading.Event(), []

    def wait() -> None:
        begun.release()
        gate.wait(30)

    zmreg.register("wait", wait)
    zmreg.register("note", ran.append)
    busy = [threading.Thread(target=zmreg.call, args=("wait",)) for _ in range(64)]
    for thread in busy:
        thread.start()
    for _ in busy:
        assert begun.acquire(timeout=30)
    with pytest.raises(TimeoutError, match="note"):
        zmreg.call("note", 1, timeout=0.1)
    until(lambda: current().desk.cancelled, "no word of it came")
    gate.set()
    for thread in busy:
        thread.join()
    zmreg.call("note", 2)
    assert ran == [2]


def test_R26_a_call_on_a_thread_can_ask_whether_it_was_cancelled() -> None:
    seen = threading.Event()

    def patient() -> None:
        while not zmreg.cancelled():
            threading.Event().wait(0.01)
        seen.set()

    zmreg.register("patient", patient)
    with pytest.raises(TimeoutError):
        zmreg.call("patient", timeout=0.2)
    assert seen.wait(30)


def test_R1_refs_arrive_as_values_and_failed_ones_fail_the_call() -> None:
    @zmreg.remote
    def broken() -> Any:
        raise ValueError("by hand")

    zmreg.register("f", lambda x, y=0: (x, y))
    assert zmreg.call("f", zmreg.put([1]), y=zmreg.put({"k": 2})) == ([1], {"k": 2})
    with pytest.raises(ValueError, match="by hand"):
        zmreg.call("f", broken.remote())
    with pytest.raises(errors.SerializationError):
        zmreg.call("f", threading.Lock())


def test_R12_a_name_that_is_registered_a_little_later_is_called() -> None:
    timer = threading.Timer(0.3, lambda: zmreg.register("late", lambda: "here"))
    timer.start()
    assert zmreg.call("late") == "here"
    timer.join()
