"""Calls that carry something, on by steps: what is around them is there in each step, and nowhere between."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from zmreg.services.calling.carrying import marked, unmarked
from zmreg.services.worker import carrying
from zmreg.services.worker.carrying import METHOD, Carrying
from zmreg.services.worker.execute import ActorExit
from zmreg.wire import payload

inside: ContextVar[str] = ContextVar("inside", default="outside")
kept: ContextVar[int] = ContextVar("kept", default=0)


class Notes:
    """A hook, and what it gives: sets `inside`, and writes down what it is left with."""

    def __init__(self) -> None:
        self.left: list[object] = []

    def around(self, kind: str, name: str, function: Callable[..., Any], carried: str) -> Any:
        assert kind == METHOD
        self._carried = carried
        return self

    def __enter__(self) -> None:
        self._token = inside.set(self._carried)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        inside.reset(self._token)  # in the same context, or this raises
        self.left.append(error)


@pytest.fixture
def notes() -> Notes:
    return Notes()


def call(notes: Notes, function: Callable[..., Any], *args: Any) -> Any:
    found = Carrying(function, METHOD, notes)("name", "call", *args)
    assert inside.get() == "outside"
    return found


def test_row_75_a_plain_call_keeps_what_it_sets_itself(notes: Notes) -> None:
    def sets() -> str:
        kept.set(7)
        return inside.get()

    assert call(notes, sets) == "call" and notes.left == [None] and kept.get() == 7
    assert Carrying(sets, METHOD, None)("name", "call") == "outside"


def test_row_75_what_the_manager_has_set_and_left_is_not_there_for_the_next_call() -> None:
    class Careless(Notes):
        def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
            self.left.append(error)

    def sets(error: Exception | None = None) -> str:
        kept.set(kept.get() + 1)
        if error is not None:
            raise error
        return inside.get()

    before = kept.get()
    assert call(Careless(), sets) == "call"  # which looks whether it is outside again
    with pytest.raises(KeyError):
        call(Careless(), sets, KeyError("no"))
    assert inside.get() == "outside" and kept.get() == before + 2


def test_row_75_a_hook_is_there_as_long_as_what_has_it() -> None:
    _, hook = payload.pack_definition(Notes())
    _, function = payload.pack_definition(abs)
    one, other = carrying.function_of(function, hook), carrying.function_of(function, hook)
    assert one._hook is other._hook and hook in carrying._hooks, "it is set up once"
    del one, other
    gc.collect()
    assert hook not in carrying._hooks, "a worker does not collect all that there ever were"


def test_row_75_an_error_is_told_and_the_end_of_an_actor_is_none(notes: Notes) -> None:
    for error, told in ((KeyError("no"), KeyError), (KeyboardInterrupt(), KeyboardInterrupt), (ActorExit(), None)):

        def fails(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)):
            call(notes, fails)
        assert (told is None and notes.left[-1] is None) or notes.left[-1] is error


def test_row_75_a_generator_has_it_in_each_step(notes: Notes) -> None:
    def items() -> Any:
        try:
            while True:
                try:
                    sent = yield inside.get()
                    if sent == "end":
                        return inside.get()
                except KeyError:
                    yield "caught " + inside.get()
        finally:
            seen.append(inside.get())

    seen: list[str] = []
    steps = call(notes, items)
    assert [next(steps), inside.get(), steps.send(1), inside.get()] == ["call", "outside"] * 2
    assert steps.throw(KeyError("x")) == "caught call" and notes.left == []
    next(steps)
    with pytest.raises(StopIteration) as end:
        steps.send("end")
    assert end.value.value == "call" and notes.left == [None] and seen == ["call"]
    for ends, left in ((lambda steps: steps.close(), None), (lambda steps: steps.throw(OSError("y")), OSError)):
        steps = call(notes, items)
        next(steps)
        if left is None:
            ends(steps)
        else:
            with pytest.raises(left):
                ends(steps)
        assert seen[-1] == "call" and type(notes.left[-1]) is (left or type(None)) and inside.get() == "outside"


def test_row_75_one_that_is_dropped_before_it_begins_is_left_too(notes: Notes) -> None:
    def items() -> Any:
        yield 1

    async def later() -> Any:
        yield 1

    for function in (items, later):
        call(notes, function)
    call(notes, items).close()
    assert notes.left == [None, None, None]


def test_row_75_coroutines_side_by_side_have_each_their_own() -> None:
    async def meets() -> list[str]:
        seen = [inside.get()]
        meeting.append(1)
        while len(meeting) < 2:
            await asyncio.sleep(0)
        return [*seen, inside.get(), *await asyncio.gather(sees(), asyncio.to_thread(inside.get))]

    async def sees() -> str:
        await asyncio.sleep(0)
        return inside.get()

    async def items() -> Any:
        for _ in range(2):
            await asyncio.sleep(0)
            yield inside.get()

    async def main() -> None:
        all_notes = [Notes(), Notes()]
        calls = [Carrying(meets, METHOD, each)("name", str(n)) for n, each in enumerate(all_notes)]
        assert await asyncio.gather(*calls) == [["0"] * 4, ["1"] * 4]
        assert [each.left for each in all_notes] == [[None], [None]]
        notes = all_notes[0]
        found = call(notes, items)
        assert [(item, inside.get()) async for item in found] == [("call", "outside")] * 2
        waits = asyncio.ensure_future(call(notes, asyncio.Event().wait))
        await asyncio.sleep(0)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        assert isinstance(notes.left[-1], asyncio.CancelledError)
        found = call(notes, items)
        assert await anext(found) == "call"
        await found.aclose()
        assert notes.left[-1] is None and len(notes.left) == 4

    meeting: list[int] = []
    asyncio.run(main())


def test_row_75_a_mark_stands_directly_behind_the_name() -> None:
    for target in ("add", "add\0~", "add\0*\0@group", "mean\0001.2"):
        assert unmarked(marked(target)) == target and marked(target).startswith(target.partition("\0")[0] + "\0^")
