"""ObjectRefGenerator: the items of a generator that runs elsewhere, as refs, while it runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from zmreg.api.refs import ObjectRef, age_of, interrupted, notified
from zmreg.services.calling.streaming import STREAMING, Stream, StreamEntry, stream_of
from zmreg.services.seat.entries import FREED, PENDING, Entry
from zmreg.services.seat.ticks import old

if TYPE_CHECKING:
    from zmreg.services.calling.calls import Template

T = TypeVar("T")


class ObjectRefGenerator(Generic[T]):
    """What a generator function's `.remote()` gives: iterate over it, `for` or `async for`, and get a ref an item.

    An error of the generator is the last ref: its `get` raises it, and then the iteration is over. Dropping this ends
    the generator at its next `yield`, by GeneratorExit, and frees what was not taken; `completed()` lets it run on.
    """

    __slots__ = ("__weakref__", "_done", "_stream")

    _stream: Stream

    def __init__(self, done: StreamEntry) -> None:
        """`done`: the one entry of the call, just submitted."""
        self._done: ObjectRef[int] = ObjectRef(done)
        self._stream = stream_of(done)

    # -- taking -----------------------------------------------------------------------------------------------------

    def __iter__(self) -> ObjectRefGenerator[T]:
        return self

    def __next__(self) -> ObjectRef[T]:
        stream = self._stream
        while (entry := stream.take()) is None:
            due = self._entry
            if due.state == FREED:
                raise StopIteration
            try:
                stream.seat.settled(due, None)
            except KeyboardInterrupt:
                interrupted((due,))
                raise
        return ObjectRef(entry)

    def __aiter__(self) -> ObjectRefGenerator[T]:
        return self

    async def __anext__(self) -> ObjectRef[T]:
        stream = self._stream
        while (entry := stream.take()) is None:
            due = self._entry
            if due.state == FREED:
                raise StopAsyncIteration
            if due.state == PENDING:
                await notified(lambda wake, due=due: stream.seat.when_settled(due, wake))  # type: ignore[misc]
        return ObjectRef(entry)

    @property
    def _entry(self) -> Entry:
        """The entry of the next item; when there will be none, one that is FREED."""
        stream = self._stream
        with stream.seat.shield(), stream.seat.lock:
            return stream.peek() or Entry(stream.seat.me, stream.first + stream.flow.received, FREED)

    # -- looking ----------------------------------------------------------------------------------------------------

    def next_ready(self) -> bool:
        """Whether `next` would return, or raise StopIteration, without waiting. Never waits."""
        return self._stream.seat.is_done(self._entry)

    def is_finished(self) -> bool:
        """Whether the generator has ended and all its items are taken: `next` raises StopIteration. Never waits."""
        return self.next_ready() and self._stream.is_over()

    def completed(self) -> ObjectRef[int]:
        """A ref that is there when the generator has ended: the number of its items, or the error that ended it.

        Whoever has asked for it lets the generator run to its end, also when this handle is dropped.
        """
        self._stream.kept = True
        return self._done

    def cancel(self, force: bool = False, recursive: bool = True, grace: float | None = None) -> None:
        """See `zmreg.cancel`. The last ref raises TaskCancelledError then."""
        self._done.cancel(force, recursive, grace)

    # -- what it is not ---------------------------------------------------------------------------------------------

    def send(self, value: Any) -> NoReturn:
        """TypeError: it runs elsewhere, and ahead."""
        raise TypeError("nothing can be sent into a generator that runs elsewhere; use an actor, and call its methods")

    def throw(self, *error: Any) -> NoReturn:
        """TypeError: it runs elsewhere, and ahead."""
        raise TypeError("nothing can be thrown into a generator that runs elsewhere; zmreg.cancel(it) interrupts it")

    def close(self) -> NoReturn:
        """TypeError: dropping it does this."""
        raise TypeError("drop the generator (del) and it ends at its next yield; zmreg.cancel(it) interrupts it")

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an ObjectRefGenerator cannot be sent or saved: its items come to the process that made the call. Send the "
            "refs that it gives, list(generator), or make the call where the items are wanted"
        )

    def __del__(self) -> None:
        stream = getattr(self, "_stream", None)
        if stream is not None:  # an interrupt may have ended __init__
            stream.leave()

    def __repr__(self) -> str:
        stream = self._stream
        state = "ended" if stream.flow.over else "running"
        age = old(age_of(self._done._entry))
        aged = f" | {age} old" if age else ""
        return f"<ObjectRefGenerator {self._done.hex()[-8:]} [{state} | {len(stream.ready)} items ready{aged}]>"

    def _repr_html_(self) -> str:
        from zmreg.api.look import of_generator  # late: for notebooks alone

        return of_generator(self)


# -- options ----------------------------------------------------------------------------------------------------------

BACKPRESSURE = "_generator_backpressure_num_objects"
ACTOR_BACKPRESSURE = "_actor_generator_backpressure_num_objects"


def streams(function: Callable[..., Any], options: Mapping[str, Any]) -> bool:
    """Whether calls with these options give an ObjectRefGenerator: by default those of generator functions do.

    Methods with `release` are written with `yield` for another reason.
    """
    wanted = options.get("num_returns")
    return wanted == "streaming" or (wanted is None and is_generator(function) and not options.get("release"))


def is_generator(function: Callable[..., Any]) -> bool:
    """It is written with `yield`, async or not."""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def note_returns(template: Template, options: Mapping[str, Any], streaming: bool) -> None:
    """Write into the template how many values a call gives, and how many may lie there untaken."""
    if streaming:
        template.nreturns = STREAMING
        template.limit = max(0, options.get(BACKPRESSURE) or 0)
        if (cap := options.get(ACTOR_BACKPRESSURE) or 0) > 0:
            template.cap, template.limit = cap, min(template.limit or cap, cap)
    else:
        wanted = options.get("num_returns")
        template.nreturns = 1 if wanted is None else wanted


def check_returns(options: Mapping[str, Any]) -> None:
    """TypeError or ValueError for a `num_returns` or a back-pressure that makes no sense."""
    wanted = options.get("num_returns")
    if wanted is not None and wanted != "streaming":
        if not isinstance(wanted, int) or isinstance(wanted, bool):
            old = ", Ray's old name for it" if wanted == "dynamic" else ""
            raise TypeError(f"num_returns must be an int or 'streaming', not {wanted!r}{old}")
        if wanted < 0:
            raise ValueError(f"num_returns={wanted} is out of range; the least is 0")
    for name in (BACKPRESSURE, ACTOR_BACKPRESSURE):
        limit = options.get(name)
        if limit is None:
            continue
        if not isinstance(limit, int) or isinstance(limit, bool):
            raise TypeError(f"{name} must be an int, not {limit!r}")
        if limit == 0 or limit < -1:
            raise ValueError(f"{name}={limit}: items that may lie there untaken, from 1; -1 for any number")
