"""Many refs at once: as_completed, map with automatic chunks, a plain progress line."""

from __future__ import annotations

import builtins
import itertools
import queue
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import methodcaller
from typing import Any, Generic, Literal, TypeVar, overload

from zmreg.api.cluster import get
from zmreg.api.functions import RemoteFunction
from zmreg.api.refs import ObjectRef, interrupted, notified, refs_of
from zmreg.model.arguments import check_count, check_seconds
from zmreg.model.errors import GetTimeoutError, ZmregError
from zmreg.services.seat.client import Waiter
from zmreg.services.seat.seats import client, unpack_failure
from zmreg.services.worker.execute import failure_of

__tracebackhide__ = methodcaller("errisinstance", ZmregError)  # as in api/refs.py

T = TypeVar("T")

# A chunk is to last about this long: long enough to hide what a task costs, short enough to balance two workers.
CHUNK_S = 0.02
MAX_CHUNK = 4_096
# How many chunks are under way for each CPU, so that no worker runs dry between answers.
AHEAD_PER_CPU = 4


class as_completed(Generic[T]):
    """Iterate over refs as they finish; `add`/`update` take more while iterating. Also `async for`.

    GetTimeoutError from the iteration when not all are done `timeout` seconds from now. `with_results`: over pairs of a
    ref and its value; the error of one that has failed is raised, and the iteration may go on.
    """

    @overload
    def __new__(
        cls, refs: Iterable[ObjectRef[T]] = ..., timeout: float | None = ..., with_results: Literal[False] = ...
    ) -> as_completed[T]: ...
    @overload
    def __new__(
        cls, refs: Iterable[ObjectRef[T]] = ..., timeout: float | None = ..., *, with_results: Literal[True]
    ) -> _WithResults[T]: ...
    def __new__(
        cls, refs: Iterable[ObjectRef[T]] = (), timeout: float | None = None, with_results: bool = False
    ) -> as_completed[T]:
        """All that there is to making one: a class of its own goes over pairs."""
        self = super().__new__(_WithResults if with_results else cls)
        self._begin(refs, timeout)
        return self

    def _begin(self, refs: Iterable[ObjectRef[T]], timeout: float | None) -> None:
        check_seconds(timeout, past=True)
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._timeout = timeout
        self._done: queue.SimpleQueue[ObjectRef[T]] = queue.SimpleQueue()
        self._left = 0
        self._wake: Callable[[], None] = _nothing
        self.update(refs)

    def add(self, ref: ObjectRef[T]) -> None:
        """One more."""
        if not isinstance(ref, ObjectRef):
            raise TypeError(f"zmreg.as_completed takes refs, not {type(ref).__name__}: {ref!r:.80}")
        self._left += 1
        client().when_settled(ref._entry, lambda: self._arrived(ref))

    def _arrived(self, ref: ObjectRef[T]) -> None:
        self._done.put(ref)
        self._wake()

    def _listen(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        if not self._done.empty():
            wake()

    def update(self, refs: Iterable[ObjectRef[T]]) -> None:
        """Several more."""
        if not isinstance(refs, Iterable):
            raise TypeError(f"zmreg.as_completed takes refs, not {type(refs).__name__}: {refs!r:.80}")
        for ref in refs:
            self.add(ref)

    def __iter__(self) -> Iterator[ObjectRef[T]]:
        return self

    def __next__(self) -> ObjectRef[T]:
        if not self._left:
            raise StopIteration
        if self._done.empty():
            waiter = Waiter()
            self._listen(waiter.finish)
            client().pump_until(waiter, self._deadline)
        return self._next()

    def _next(self) -> ObjectRef[T]:
        try:
            ref = self._done.get_nowait()
        except queue.Empty:
            client().check()
            raise GetTimeoutError(f"{self._left} refs were not done within {self._timeout} s") from None
        self._left -= 1
        return ref

    def __aiter__(self) -> as_completed[T]:
        return self

    async def __anext__(self) -> ObjectRef[T]:
        if not self._left:
            raise StopAsyncIteration
        if self._done.empty():
            await notified(self._listen, None if self._deadline is None else self._deadline - time.monotonic())
        return self._next()


class _WithResults(as_completed[T]):
    """As `as_completed`, over pairs of a ref and its value."""

    def __iter__(self) -> Iterator[tuple[ObjectRef[T], T]]:  # type: ignore[override]
        return self

    def __next__(self) -> tuple[ObjectRef[T], T]:  # type: ignore[override]
        ref = super().__next__()
        return ref, ref.get()

    def __aiter__(self) -> _WithResults[T]:
        return self

    async def __anext__(self) -> tuple[ObjectRef[T], T]:  # type: ignore[override]
        ref = await super().__anext__()
        return ref, await ref


def _nothing() -> None:
    return None


class _Input:
    """Stands in an item for a ref: its value comes as an argument of its own, as it would for `.remote(ref)`."""

    __slots__ = ("place",)

    def __init__(self, place: int) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return _Input, (self.place,)


def _run_chunk(
    function: Callable[..., Any], items: list[tuple[Any, ...]], shared: dict[str, Any], whole: bool, *inputs: Any
) -> tuple[float, list[Any], bytes]:
    """(seconds, values, failure). An error that is not the first item's ends the values; `whole` raises any."""
    if inputs:
        items = [tuple(inputs[arg.place] if type(arg) is _Input else arg for arg in item) for item in items]
    if shared:
        shared = {name: value.get() if isinstance(value, ObjectRef) else value for name, value in shared.items()}
    start = time.perf_counter()
    values: list[Any] = []
    try:
        for item in items:
            values.append(function(*item, **shared))
    except Exception as error:
        if whole or not values:
            raise
        return time.perf_counter() - start, values, failure_of(error, getattr(function, "__name__", "map"), client())
    return time.perf_counter() - start, values, b""


def map(
    function: Callable[..., T] | RemoteFunction[..., T],
    *iterables: Iterable[Any],
    chunk: int | str = "auto",
    timeout: float | None = None,
    **shared: Any,
) -> Iterator[T]:
    """`function` over the iterables, on workers: an iterator of values in order; unequal lengths stop at the shortest.

    Items travel in chunks. "auto" starts with one item and sizes the next chunks by the time one took, aiming at 20 ms
    each. The iterables are read only as far ahead as needed. Keywords go to every call, and are sent once. Refs among
    the arguments arrive as their values. The first error is raised where its value would stand, and what was sent
    ahead is cancelled, as when the iterator is closed. GetTimeoutError after `timeout` seconds in all.
    """
    if not iterables:
        raise TypeError("zmreg.map needs at least one iterable")
    if isinstance(chunk, str) and chunk != "auto":
        raise ValueError(f"chunk={chunk!r}: use 'auto' or a number of items from 1")
    size = 0 if isinstance(chunk, str) else check_count(chunk, "chunk", 1)
    check_seconds(timeout, past=True)
    if not isinstance(function, RemoteFunction) and not callable(function):
        raise TypeError(f"function={function!r:.80}: zmreg.map calls it, so give a function")
    options: dict[str, Any] = {}
    if isinstance(function, RemoteFunction):
        options, function = function._options, function._function
    run = RemoteFunction(_run_chunk, {**options, "name": getattr(function, "__name__", "map"), "num_returns": None})
    items = zip(*iterables)  # noqa: B905  the shortest ends it
    deadline = None if timeout is None else time.monotonic() + timeout
    whole = bool(options.get("retry_exceptions"))
    common: Any = ObjectRef(client().put(shared)) if shared else shared
    chunks = _Chunks(run, (define_shared(function), common, whole), items, size)
    return chunks.values(deadline, timeout)


def define_shared(function: Callable[..., Any]) -> Any:
    """The mapped function as something cheap to send with every chunk: a ref when it is not importable."""
    module = sys.modules.get(getattr(function, "__module__", "") or "")
    by_name = module is not None and module.__name__ != "__main__"
    if by_name and getattr(module, getattr(function, "__qualname__", ""), None) is function:
        return function
    return ObjectRef(client().put(function))


class _Chunks:
    """The chunks of one map: read from its items, sent ahead, taken in order."""

    def __init__(
        self, run: RemoteFunction[..., Any], fixed: tuple[Any, Any, bool], items: Iterator[tuple[Any, ...]], size: int
    ) -> None:
        """`fixed` = (function, shared keywords, whole); `size` 0 finds the size by itself."""
        self._run = run
        self._function, self._shared, self._whole = fixed
        self._items = items
        self._auto = size == 0
        self._size = size or 1
        welcome = client().welcome
        self._ahead = max(2, int((welcome.num_cpus if welcome is not None else 1) * AHEAD_PER_CPU))
        self._under_way: deque[tuple[ObjectRef[Any], int]] = deque()
        self._exhausted = False

    def values(self, deadline: float | None, timeout: float | None) -> Iterator[Any]:
        """All values, in order; reads ahead and sends."""
        try:
            self._send_ahead()
            while self._under_way:
                ref, count = self._under_way[0]
                took, values, failure = ref.get(None if deadline is None else max(0.0, deadline - time.monotonic()))
                self._under_way.popleft()
                if self._auto:
                    each = max(took / count, 1e-7)
                    self._size = min(MAX_CHUNK, max(1, int(CHUNK_S / each)), self._size * 8)
                self._send_ahead()
                yield from values
                if failure:
                    raise unpack_failure(failure)
        except GetTimeoutError as error:
            if error.timeout_s is None or deadline is None or time.monotonic() < deadline:
                raise
            raise GetTimeoutError(f"the values of the map were not there within {timeout} s", timeout) from None
        finally:
            for ref, _ in self._under_way:
                ref._entry.see()  # an error there is nobody's any more: one was raised, or nobody wants the rest
                ref.cancel()

    def _send_ahead(self) -> None:
        while not self._exhausted and len(self._under_way) < self._ahead:
            batch = [item for _, item in zip(range(self._size), self._items)]  # noqa: B905
            if not batch:
                self._exhausted = True
                return
            self._send(batch)
            if self._auto and self._size == 1 and len(self._under_way) == 2:
                return  # two single items tell how long one takes

    def _send(self, batch: list[tuple[Any, ...]]) -> None:
        inputs: list[Any] = []
        if ObjectRef in set(builtins.map(type, itertools.chain.from_iterable(batch))):
            batch = [tuple(_input(arg, inputs) for arg in item) for item in batch]
        ref = self._run.remote(self._function, batch, self._shared, self._whole, *inputs)
        self._under_way.append((ref, len(batch)))


def _input(arg: Any, inputs: list[Any]) -> Any:
    if not isinstance(arg, ObjectRef):
        return arg
    inputs.append(arg)
    return _Input(len(inputs) - 1)


def progress(refs: Iterable[ObjectRef[T]], every_s: float = 2.0) -> list[T]:
    """Wait for refs and show how many are there; their values, in order.

    With tqdm installed it is a bar, else a line on stderr every `every_s` seconds; at the end it says how long the
    calls ran, and how many times as fast as one after the other. Raises, at the end, what `get` does.
    """
    wanted = refs_of(refs, "zmreg.progress")
    check_seconds(every_s, "every_s", needed=True)
    try:
        _show_progress(wanted, every_s)
    except KeyboardInterrupt:
        interrupted([ref._entry for ref in wanted])
        raise
    return get(wanted)


def _show_progress(wanted: list[ObjectRef[T]], every_s: float) -> None:
    if (bar := _bar(len(wanted))) is not None:
        with bar:
            for _ in as_completed(wanted):
                bar.update(1)
            if figures := speed_up(wanted):
                bar.set_postfix_str(figures)
        return
    start = last = time.monotonic()
    for count, _ in enumerate(as_completed(wanted), 1):
        now = time.monotonic()
        if now - last >= every_s or count == len(wanted):
            last = now
            rate = count / max(now - start, 1e-9)
            figures = speed_up(wanted) if count == len(wanted) else ""
            line = f"{count}/{len(wanted)} done, {rate:.1f}/s, {now - start:.1f} s"
            print(f"{line}; {figures}" if figures else line, file=sys.stderr)


def speed_up(refs: Sequence[ObjectRef[Any]]) -> str:
    """How long the calls behind values ran, and how much less the wait was; nothing unless all are ours, and known."""
    from zmreg.services.calling.history import facts_of  # late: for those who watch

    seat = client()
    with seat.lock:
        past = seat.past.copy()
    latest = facts_of(past).latest
    facts = {fact.counter: fact for ref in refs
             if ref._entry.owner == seat.me and (fact := latest.get(ref._entry.counter)) is not None
             and fact.worker and fact.submitted is not None}  # fmt: skip
    if not facts or len(facts) < len({ref._entry.object_id for ref in refs}):
        return ""
    ran_s = sum(fact.run_us for fact in facts.values()) * 1e-6
    begun = min(fact.submitted for fact in facts.values() if fact.submitted is not None)
    took_s = max(fact.answered for fact in facts.values()) - begun
    times = ran_s / max(took_s, 1e-9)
    return f"they ran {ran_s:.1f} s, {times:.1f} times as fast as one after the other"


def _bar(total: int) -> Any:
    """A bar of tqdm, in a notebook one of its widgets; None where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells of widgets that are not installed; the plain bar does as well
            from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(total=total, file=None if "IPython" in sys.modules else sys.stderr, unit="call")
