"""Coroutines of an async actor that let go of their slot: by `zmreg.released`, by `release=True`, and in batches."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from types import GeneratorType
from typing import TYPE_CHECKING, Any, TypeVar

from zmreg.services.calling.batching import Arguments, Shape, outcomes_of, tuples, unflat
from zmreg.services.calling.kinds import options_of
from zmreg.services.seat.running import running
from zmreg.services.worker.execute import Outcomes

if TYPE_CHECKING:
    from zmreg.services.worker.hosting_async import AsyncHost

T = TypeVar("T")


class _Held:
    """A slot that is held, and how many waits have let go of it: the first frees it, the last takes one again."""

    __slots__ = ("slots", "waits")

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self.slots = slots
        self.waits = 0


_own: contextvars.ContextVar[_Held | None] = contextvars.ContextVar("zmreg_slot", default=None)
"""Of one call of a batch; any other call's is known by its task."""
_waiting: dict[bytes, _Held] = {}
_debts: set[asyncio.Task[Any]] = set()


async def released(host: AsyncHost, awaitable: Awaitable[T]) -> T:
    """Await something while other calls of the actor may take this one's slot."""
    call = running.get()
    if call is None:  # a coroutine of the user's own, which holds none
        return await awaitable
    held = _own.get()
    if held is None:
        held = _waiting.get(call[0]) or _waiting.setdefault(call[0], _Held(host.slots_of(call[0])))
    held.waits += 1
    if held.waits == 1:
        held.slots.release()
    try:
        return await awaitable
    finally:
        held.waits -= 1
        if not held.waits:
            _waiting.pop(call[0], None)
            await _take_again(held.slots)


async def _take_again(slots: asyncio.Semaphore) -> None:
    """A cancelled call does not wait for a slot. It will give one back all the same: one is taken for it, then."""
    try:
        await slots.acquire()
    except asyncio.CancelledError:
        debt = asyncio.ensure_future(slots.acquire())
        _debts.add(debt)
        debt.add_done_callback(_debts.discard)
        raise


def driven(host: AsyncHost, method: Callable[..., Any]) -> Callable[..., Any]:
    """A generator method with release=True: each yield is an await, without the slot."""

    async def drive(*args: Any, **kwargs: Any) -> Any:
        steps = method(*args, **kwargs)
        if type(steps) is not GeneratorType:
            return await steps if isinstance(steps, Awaitable) else steps
        value, error = None, None
        try:
            while True:
                try:
                    wanted = steps.send(value) if error is None else steps.throw(error)
                except StopIteration as end:
                    return end.value
                value, error = None, None
                try:
                    value = await released(host, _awaitable(wanted))
                except Exception as raised:  # noqa: BLE001  what it waited for has failed: thrown where it waits
                    error = raised
        finally:
            steps.close()

    drive.__qualname__ = getattr(method, "__qualname__", "method")
    return drive


def _awaitable(wanted: Any) -> Awaitable[Any]:
    if isinstance(wanted, (list, tuple)) and all(isinstance(each, Awaitable) for each in wanted):
        return _all_of(wanted)
    if not isinstance(wanted, Awaitable):
        raise TypeError(f"a method with release=True yields what can be awaited, or a list of it; not {wanted!r:.80}")
    return wanted


async def _all_of(wanted: Sequence[Awaitable[Any]]) -> list[Any]:
    return list(await asyncio.gather(*wanted))


def side_by_side(host: AsyncHost, name: str) -> Callable[..., Any]:
    """A batch: a coroutine for each call, each in a slot of its own; or all by the method that was made for it."""
    method = host.method(name)
    many = options_of(method).get("batch")

    async def run(shape: Shape, number: int, *values: Any) -> Outcomes:
        if many is not None:
            given = getattr(host.instance, many)(tuples(method, shape, number, values))
            return outcomes_of(many, number, await given if isinstance(given, Awaitable) else given)
        call = running.get()
        assert call is not None
        slots = host.slots_of(call[0])
        ones = [_one(slots, method, arguments) for arguments in unflat(shape, number, values)]
        return Outcomes(await released(host, _all_of(ones)))

    run.__qualname__ = getattr(method, "__qualname__", "method")
    return run


async def _one(slots: asyncio.Semaphore, method: Callable[..., Any], arguments: Arguments) -> tuple[bool, Any]:
    args, kwargs = arguments
    async with slots:
        _own.set(_Held(slots))
        try:
            value = method(*args, **kwargs)
            return True, await value if isinstance(value, Awaitable) else value
        except Exception as error:  # noqa: BLE001  this call's error, and no other's
            return False, error
