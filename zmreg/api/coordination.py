"""Many refs at once: as_completed, map with automatic chunks, a plain progress line."""

from __future__ import annotations

import queue
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from zmreg.api.cluster import get
from zmreg.api.functions import RemoteFunction
from zmreg.api.refs import ObjectRef
from zmreg.model.errors import GetTimeoutError
from zmreg.services.client import Waiter
from zmreg.services.seats import client

T = TypeVar("T")

# A chunk is to last about this long: long enough to hide what a task costs, short enough to balance two workers.
CHUNK_S = 0.02
MAX_CHUNK = 4_096
# How many chunks are under way for each CPU, so that no worker runs dry between answers.
AHEAD_PER_CPU = 4


class as_completed(Generic[T]):  # noqa: N801  a function to its users, as in concurrent.futures
    """Iterate over refs as they finish; `add`/`update` take more while iterating. Also `async for`."""

    def __init__(self, refs: Iterable[ObjectRef[T]] = (), timeout: float | None = None) -> None:
        """GetTimeoutError from the iteration when not all are done `timeout` seconds from now."""
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._timeout = timeout
        self._done: queue.SimpleQueue[ObjectRef[T]] = queue.SimpleQueue()
        self._left = 0
        self._waiter: Waiter | None = None
        self.update(refs)

    def add(self, ref: ObjectRef[T]) -> None:
        """One more."""
        self._left += 1
        client().when_settled(ref._entry, lambda: self._arrived(ref))

    def _arrived(self, ref: ObjectRef[T]) -> None:
        self._done.put(ref)
        waiter = self._waiter
        if waiter is not None:
            waiter.finish()

    def update(self, refs: Iterable[ObjectRef[T]]) -> None:
        """Several more."""
        for ref in refs:
            self.add(ref)

    def __iter__(self) -> Iterator[ObjectRef[T]]:
        return self

    def __next__(self) -> ObjectRef[T]:
        if not self._left:
            raise StopIteration
        self._waiter = waiter = Waiter()
        if self._done.empty():
            client().pump_until(waiter, self._deadline)
        try:
            ref = self._done.get_nowait()
        except queue.Empty:
            raise GetTimeoutError(f"{self._left} refs were not done within {self._timeout} s") from None
        self._left -= 1
        return ref

    def __aiter__(self) -> as_completed[T]:
        return self

    async def __anext__(self) -> ObjectRef[T]:
        import asyncio

        if not self._left:
            raise StopAsyncIteration
        return await asyncio.get_running_loop().run_in_executor(None, self.__next__)


def _run_chunk(function: Callable[..., Any], items: list[tuple[Any, ...]], shared: dict[str, Any]) -> tuple[float, list[Any]]:
    start = time.perf_counter()
    values = [function(*item, **shared) for item in items]
    return time.perf_counter() - start, values


def map(
    function: Callable[..., T] | RemoteFunction[..., T],
    *iterables: Iterable[Any],
    chunk: int | str = "auto",
    timeout: float | None = None,
    **shared: Any,
) -> Iterator[T]:
    """`function` over the iterables, on workers: an iterator of values in order; unequal lengths stop at the shortest.

    Items travel in chunks. "auto" starts with one item and sizes the next chunks by the time one took, aiming at 20 ms
    each. The iterables are read only as far ahead as needed. Keywords go to every call.
    The first error is raised where its chunk's values would stand; GetTimeoutError after `timeout` seconds in all.
    """
    if not iterables:
        raise TypeError("zmreg.map needs at least one iterable")
    if chunk != "auto" and (not isinstance(chunk, int) or chunk < 1):
        raise ValueError(f"chunk={chunk!r}: use 'auto' or a number of items from 1")
    options: dict[str, Any] = {}
    if isinstance(function, RemoteFunction):
        options, function = function._options, function._function
    run = RemoteFunction(_run_chunk, {**options, "name": getattr(function, "__name__", "map"), "num_returns": None})
    return _mapped(run, define_shared(function), zip(*iterables), chunk, timeout, shared)  # noqa: B905


def define_shared(function: Callable[..., Any]) -> Any:
    """The mapped function as something cheap to send with every chunk: a ref when it is not importable."""
    module = sys.modules.get(getattr(function, "__module__", "") or "")
    by_name = module is not None and module.__name__ != "__main__"
    if by_name and getattr(module, getattr(function, "__qualname__", ""), None) is function:
        return function
    return ObjectRef(client().put(function))


def _mapped(
    run: RemoteFunction[..., Any],
    function: Any,
    items: Iterator[tuple[Any, ...]],
    chunk: int | str,
    timeout: float | None,
    shared: dict[str, Any],
) -> Iterator[Any]:
    deadline = None if timeout is None else time.monotonic() + timeout
    size = 1 if chunk == "auto" else int(chunk)
    assert client().welcome is not None
    ahead = max(2, int(client().welcome.num_cpus * AHEAD_PER_CPU))  # type: ignore[union-attr]
    under_way: list[tuple[ObjectRef[Any], int]] = []
    exhausted = False
    while True:
        while not exhausted and len(under_way) < ahead:
            batch = [item for _, item in zip(range(size), items)]  # noqa: B905
            if not batch:
                exhausted = True
                break
            under_way.append((run.remote(function, batch, shared), len(batch)))
            if chunk == "auto" and size == 1 and len(under_way) == 2:
                break  # two single items tell how long one takes
        if not under_way:
            return
        ref, count = under_way.pop(0)
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        took, values = ref.get(left)
        if chunk == "auto":
            each = max(took / count, 1e-7)
            size = min(MAX_CHUNK, max(1, int(CHUNK_S / each)), size * 8)
        yield from values


def progress(refs: Iterable[ObjectRef[T]], every_s: float = 2.0) -> list[T]:
    """Wait for refs with a line on stderr every `every_s` seconds; their values, in order."""
    wanted = list(refs)
    start = last = time.monotonic()
    for count, _ in enumerate(as_completed(wanted), 1):
        now = time.monotonic()
        if now - last >= every_s or count == len(wanted):
            last = now
            rate = count / max(now - start, 1e-9)
            print(f"{count}/{len(wanted)} done, {rate:.1f}/s, {now - start:.1f} s", file=sys.stderr)
    return get(wanted)
