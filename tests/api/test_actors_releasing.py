"""Calls that let go of their actor while they wait, and many calls in one message (core-api rows X31, X32, 39)."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import Any

import pytest

import zmreg
from tests.api.objects_help import eventually
from zmreg.model.errors import ActorDiedError, ActorUnavailableError, TaskCancelledError
from zmreg.services.calling.batching import flat, unflat

T = 30
pytestmark = pytest.mark.usefixtures("cluster")


@zmreg.remote(num_cpus=0)
class Gate:
    """Opens when it is told to."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def wait(self, value: Any = None) -> Any:
        await self.event.wait()
        return value

    async def open(self) -> None:
        self.event.set()

    async def fail(self) -> None:
        raise ValueError("no")


class Plain:
    """One call at a time, but for those that let go."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    def note(self, what: Any) -> list[Any]:
        self.log.append(what)
        return list(self.log)

    def pid(self) -> int:
        return os.getpid()

    @zmreg.method(release=True)
    def through(self, boxed: Any, name: str) -> Any:
        self.log.append(f"{name} in")
        try:
            value = yield boxed[0] if len(boxed) == 1 else boxed
        except ValueError as error:
            value = f"caught {error}"
        finally:
            self.log.append(f"{name} out")
        return value, zmreg.get_runtime_context().get_task_name()

    @zmreg.method(release=True)
    def ask(self, other: Any, depth: int) -> Any:
        """Two such actors ask each other in turn: a circle of calls."""
        if depth == 0:
            return 0
        me = zmreg.get_runtime_context().current_actor
        return 1 + (yield other.ask.remote(me, depth - 1))

    @zmreg.method(release=True)
    def wrong(self) -> Any:
        try:
            yield 3
        except TypeError as error:
            return str(error)

    @zmreg.method(release=True)
    def leave(self, boxed: Any) -> Any:
        yield boxed[0]
        zmreg.exit_actor()

    def leave_from_a_thread(self) -> None:
        threading.Thread(target=zmreg.exit_actor).start()
        threading.Event().wait(0.05)


class Async(Plain):
    async def is_async(self) -> bool:
        return True


KINDS = pytest.mark.parametrize(
    "kind",
    [zmreg.remote(num_cpus=0)(Plain), zmreg.remote(num_cpus=0, max_concurrency=2)(Plain),
     zmreg.remote(num_cpus=0, max_concurrency=1)(Async)],
    ids=["plain", "threads", "async"],
)  # fmt: skip


# -- X31 ---------------------------------------------------------------------------------------------------------------


@KINDS
def test_X31_other_calls_run_while_one_waits_and_see_what_it_has_done(kind):
    actor, gate = kind.remote(), Gate.remote()
    first, second = actor.through.remote([gate.wait.remote(1)], "a"), actor.through.remote([gate.wait.remote(2)], "b")
    third = actor.through.remote([gate.wait.remote(3)], "c")
    eventually(lambda: len(actor.note.remote("x").get(timeout=T)) > 3)
    log = actor.note.remote("y").get(timeout=T)
    assert {"a in", "b in", "c in"} <= set(log)
    assert not {"a out", "b out", "c out"} & set(log)
    gate.open.remote()
    values = zmreg.get([first, second, third], timeout=T)
    assert [value for value, _ in values] == [1, 2, 3]
    assert all("through" in name for _, name in values)
    assert {"a out", "b out", "c out"} <= set(actor.note.remote("z").get(timeout=T))


@KINDS
def test_X31_a_list_is_waited_for_together_and_a_failure_is_raised_at_the_yield(kind):
    actor, gate = kind.remote(), Gate.remote()
    gate.open.remote()
    pair = actor.through.remote([gate.wait.remote(1), zmreg.put(2)], "pair")
    assert pair.get(timeout=T)[0] == [1, 2]
    assert "caught" in actor.through.remote([gate.fail.remote()], "bad").get(timeout=T)[0]
    assert "release=True" in actor.wrong.remote().get(timeout=T)


@KINDS
def test_X31_actors_that_ask_each_other_in_turn_do_not_wait_for_ever(kind):
    a, b = kind.remote(), kind.remote()
    assert a.ask.remote(b, 6).get(timeout=T) == 6


@KINDS
def test_X31_a_waiting_call_is_cancelled_at_its_yield(kind):
    actor, gate = kind.remote(), Gate.remote()
    ref = actor.through.remote([gate.wait.remote()], "a")
    eventually(lambda: "a in" in actor.note.remote("x").get(timeout=T))
    zmreg.cancel(ref)
    assert isinstance(ref.exception(timeout=T), TaskCancelledError)
    eventually(lambda: "a out" in actor.note.remote("x").get(timeout=T))


@KINDS
def test_X31_an_actor_without_handles_ends_when_the_waiting_calls_are_over(kind):
    gate, handles = Gate.remote(), [kind.remote()]
    pid = handles[0].pid.remote().get(timeout=T)
    refs = [handles[0].through.remote([gate.wait.remote(n)], "a") for n in range(2)]
    eventually(lambda: handles[0].note.remote("x").get(timeout=T).count("a in") == 2)
    handles.clear()
    gate.open.remote()
    assert [ref.get(timeout=T)[0] for ref in refs] == [0, 1]
    eventually(lambda: not alive(pid))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@KINDS
def test_X31_row39_exit_actor_behind_a_yield(kind):
    actor, gate = kind.remote(), Gate.remote()
    ref = actor.leave.remote([gate.wait.remote()])
    assert actor.note.remote(1).get(timeout=T) == [1]
    gate.open.remote()
    error = ref.exception(timeout=T)
    assert isinstance(error, ActorDiedError)
    assert "exited by itself" in str(error)


def test_X31_C24_close_lets_waiting_calls_end():
    gate, actor = Gate.remote(), zmreg.remote(num_cpus=0)(Plain).remote()
    refs = [actor.through.remote([gate.wait.remote(n)], "a") for n in range(2)]
    assert actor.note.remote(1).get(timeout=T) == ["a in", "a in", 1]
    end = actor.__ray_terminate__.remote()
    assert not zmreg.wait([end, *refs], timeout=0.1)[0]
    gate.open.remote()
    assert isinstance(end.exception(timeout=T), ActorDiedError)
    assert [ref.get(timeout=T)[0] for ref in refs] == [0, 1]


@KINDS
def test_row39_exit_actor_in_a_thread_of_the_users_own(kind):
    actor = kind.remote()
    actor.leave_from_a_thread.remote()
    eventually(lambda: isinstance(actor.pid.remote().exception(timeout=T), ActorDiedError))
    assert "exited by itself" in str(actor.pid.remote().exception(timeout=T))


def test_X31_a_chain_behind_a_waiting_call_waits_outside():
    actor, gate = zmreg.remote(num_cpus=0)(Plain).remote(), Gate.remote()
    slow = actor.through.remote([gate.wait.remote("v")], "a")
    rider = actor.note.remote(slow)
    gate.open.remote()
    assert rider.get(timeout=T)[-1][0] == "v"


def test_X31_refs_that_come_with_a_waiting_call_stay_alive_and_are_given_back():
    actor, gate = zmreg.remote(num_cpus=0)(Plain).remote(), Gate.remote()
    kept = zmreg.put("kept")
    ref = actor.through.remote([gate.wait.remote([kept]), kept], "a")
    for _ in range(5):
        actor.note.remote([zmreg.put("other")]).get(timeout=T)
    gate.open.remote()
    assert ref.get(timeout=T)[0][1] == "kept"


def test_X31_row40_a_crash_leaves_no_doubt_that_a_waiting_call_had_begun(tmp_path):
    actor = zmreg.remote(num_cpus=0, max_restarts=1)(Plain).remote()
    gate = Gate.remote()
    pid = actor.pid.remote().get(timeout=T)
    waiting = actor.through.remote([gate.wait.remote()], "a")
    assert actor.note.remote("later").get(timeout=T) == ["a in", "later"]
    os.kill(pid, signal.SIGKILL)
    assert isinstance(waiting.exception(timeout=T), ActorUnavailableError), "it had begun: not run twice"
    assert actor.note.remote("again").get(timeout=T) == ["again"]


def test_X31_only_generators_and_only_by_the_class():
    with pytest.raises(ValueError, match="no generator"):

        @zmreg.remote
        class Wrong:
            @zmreg.method(release=True)
            def m(self) -> None: ...

    with pytest.raises(ValueError, match="belongs to the method"):
        zmreg.remote(num_cpus=0)(Plain).remote().note.options(release=True)


def test_X31_released_frees_the_place_of_a_coroutine():
    @zmreg.remote(num_cpus=0, max_concurrency=1)
    class Single:
        def __init__(self) -> None:
            self.event = asyncio.Event()
            self.now = self.most = 0

        async def wait(self) -> str:
            return await zmreg.released(self._wait())

        async def both(self) -> list[str]:
            return await asyncio.gather(zmreg.released(self._wait()), zmreg.released(self._wait()))

        async def _wait(self) -> str:
            await self.event.wait()
            return "free"

        async def busy(self) -> int:
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0)
            self.now -= 1
            return self.most

        async def open(self) -> None:
            self.event.set()

    one = Single.remote()
    waits = [one.wait.remote() for _ in range(5)]
    both, doomed = one.both.remote(), one.wait.remote()
    assert one.busy.remote().get(timeout=T) == 1
    zmreg.cancel(doomed)
    assert isinstance(doomed.exception(timeout=T), TaskCancelledError)
    one.open.remote()
    assert zmreg.get(waits, timeout=T) == ["free"] * 5
    assert both.get(timeout=T) == ["free"] * 2
    assert zmreg.get([one.busy.remote() for _ in range(50)], timeout=T)[-1] == 1, "no place was given twice"
    assert asyncio.run(zmreg.released(asyncio.sleep(0, "plain"))) == "plain"


# -- X32 ---------------------------------------------------------------------------------------------------------------


class Sums:
    def __init__(self) -> None:
        self.calls = 0

    def add(self, x: int, y: int = 0, *more: int, z: int = 0) -> int:
        self.calls += 1
        if x < 0:
            raise ValueError(f"negative {x}")
        return x + y + sum(more) + z

    def how_often(self) -> int:
        return self.calls

    @zmreg.method(batch="double_all")
    def double(self, x: Any, plus: int = 0) -> Any:
        return 2 * x + plus

    def double_all(self, calls: list[tuple[Any, int]]) -> list[Any]:
        self.calls += 1
        return [ValueError("odd") if x % 2 else 2 * x + plus for x, plus in calls]

    @zmreg.method(batch="too_few")
    def short(self, x: int) -> int:
        return x

    def too_few(self, calls: list[tuple[int]]) -> list[int]:
        return []

    @zmreg.method(num_returns=2)
    def pair(self) -> tuple[int, int]:
        return 1, 2

    def give(self, n: int) -> Any:
        return threading.Lock() if n == 1 else b"x" * n


class AsyncSums(Sums):
    async def add(self, x: int, y: int = 0, *more: int, z: int = 0) -> int:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().add(x, y, *more, z=z)

    async def double_all(self, calls: list[tuple[Any, int]]) -> list[Any]:  # type: ignore[override]
        return super().double_all(calls)


SUMS = pytest.mark.parametrize(
    "kind",
    [zmreg.remote(num_cpus=0)(Sums), zmreg.remote(num_cpus=0, max_concurrency=2)(Sums),
     zmreg.remote(num_cpus=0, max_concurrency=1)(AsyncSums)],
    ids=["plain", "threads", "async"],
)  # fmt: skip


@SUMS
def test_X32_many_calls_in_one_message_a_ref_for_each(kind):
    sums = kind.remote()
    refs = sums.add.batch((n, n) for n in range(300))
    assert zmreg.get(refs, timeout=T) == [2 * n for n in range(300)]
    assert sums.how_often.remote().get(timeout=T) == 300
    assert sums.add.batch([]) == []
    assert zmreg.get(sums.add.batch([(5,)]), timeout=T) == [5]


@SUMS
def test_X32_an_error_is_of_one_call_and_no_other(kind):
    sums = kind.remote()
    refs = sums.add.batch([(-1,), (1, 2), (-2,), (3, 4)])
    assert [type(ref.exception(timeout=T)) for ref in refs[1::2]] == [type(None)] * 2
    assert zmreg.get(refs[1::2], timeout=T) == [3, 7]
    for ref, text in ((refs[0], "negative -1"), (refs[2], "negative -2")):
        with pytest.raises(ValueError, match=text):
            ref.get(timeout=T)
    good, bad, large = sums.give.batch([(3,), (1,), (300_000,)])
    assert good.get(timeout=T) == b"xxx"
    assert "lock" in str(bad.exception(timeout=T)).lower()
    assert len(large.get(timeout=T)) == 300_000


@SUMS
def test_X32_names_defaults_and_refs_as_in_single_calls(kind):
    sums = kind.remote()
    add = sums.add
    refs = add.batch(
        [add.delay(1), add.delay(1, 2, 3, z=4), (zmreg.put(10), 1), add.delay(zmreg.put(5), z=zmreg.put(6))]
    )
    assert zmreg.get(refs, timeout=T) == [1, 10, 11, 11]
    chained = add.batch([(ref, 100) for ref in refs])
    assert zmreg.get(chained, timeout=T) == [101, 110, 111, 111]


@SUMS
def test_X32_a_method_made_for_it_does_them_at_once(kind):
    sums = kind.remote()
    refs = sums.double.batch([(2,), (3,), sums.double.delay(4, plus=1)])
    assert [refs[0].get(timeout=T), refs[2].get(timeout=T)] == [4, 9]
    with pytest.raises(ValueError, match="odd"):
        refs[1].get(timeout=T)
    assert sums.how_often.remote().get(timeout=T) == 1
    assert sums.double.remote(3).get(timeout=T) == 6, "a single call is not a batch"
    for ref in sums.short.batch([(1,), (2,)]):
        with pytest.raises(ValueError, match="2 calls and returned 0"):
            ref.get(timeout=T)


def test_X32_what_makes_no_sense_is_told_at_the_call():
    sums = zmreg.remote(num_cpus=0)(Sums).remote()
    with pytest.raises(TypeError, match="tuples of arguments"):
        sums.add.batch([1, 2])
    with pytest.raises(TypeError, match="a call of give"):
        sums.add.batch([sums.give.delay(1)])
    with pytest.raises(TypeError, match="add"):
        sums.add.batch([(1,), ()])
    with pytest.raises(ValueError, match="one by one"):
        sums.pair.batch([(), ()])
    with pytest.raises(ValueError, match="no method of the class"):

        @zmreg.remote
        class Wrong:
            @zmreg.method(batch="nowhere")
            def m(self) -> None: ...


def test_X32_a_batch_in_a_group():
    class Where:
        @zmreg.method(concurrency_group="io")
        def name(self) -> str:
            return threading.current_thread().name

    where = zmreg.remote(num_cpus=0, concurrency_groups={"io": 2, "other": 1})(Where).remote()
    assert "-io-" in where.name.batch([(), ()])[0].get(timeout=T)
    moved = where.name.options(concurrency_group="other").batch([(), ()])
    assert "-other-" in moved[1].get(timeout=T)


def test_X32_cancelling_one_cancels_its_message():
    actor, gate = zmreg.remote(num_cpus=0)(Plain).remote(), Gate.remote()
    refs = actor.note.batch([(gate.wait.remote(),), ("b",)])
    zmreg.cancel(refs[0])
    assert all(isinstance(ref.exception(timeout=T), TaskCancelledError) for ref in refs)


def test_X32_shapes_come_back_as_they_were():
    for calls in (
        [((), {}), ((), {})],
        [((1, 2), {}), ((3, 4), {})],
        [((1,), {"a": 2}), ((), {"b": 3, "c": 4}), ((5, 6, 7), {})],
    ):
        shape, number, *values = flat(calls)
        assert list(unflat(shape, number, values)) == calls
