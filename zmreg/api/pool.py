"""multiprocessing.Pool's interface on a cluster. Loaded when it is used: multiprocessing is large."""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from zmreg.api.coordination import define_shared
from zmreg.api.executor import Executor, Patient
from zmreg.api.prepared import run_each, run_each_on
from zmreg.model.arguments import check_count, check_seconds

T = TypeVar("T")

# Chunks that `imap` has under way for each process, so that none runs dry; the iterable is read no further ahead.
AHEAD = 4
# map's default chunks: so many for each process, as multiprocessing makes them.
CHUNKS = 4

_RUN, _CLOSED, _TERMINATED = "RUN", "CLOSE", "TERMINATE"


class AsyncResult(Generic[T]):
    """What `apply_async` and the like return."""

    def __init__(
        self, callback: Callable[[T], object] | None, error_callback: Callable[[BaseException], object] | None
    ) -> None:
        self._callback = callback
        self._error_callback = error_callback
        self._outcome: Patient[T] = Patient()

    def get(self, timeout: float | None = None) -> T:
        """The value, or what the call raised. multiprocessing.TimeoutError after `timeout` seconds."""
        self.wait(timeout)
        if not self._outcome.done():
            raise _timeout()
        return self._outcome.result()

    def wait(self, timeout: float | None = None) -> None:
        """Until it is there, or `timeout` seconds are over."""
        left = self._outcome._waited(timeout)
        concurrent.futures.wait([self._outcome], left)

    def ready(self) -> bool:
        """Whether it is there."""
        return self._outcome.done()

    def successful(self) -> bool:
        """Whether it is there and nothing was raised. ValueError when it is not there yet."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._outcome.exception() is None

    def _settle(self, value: Any, error: BaseException | None) -> None:
        """The callback has run when `get` returns."""
        try:
            if error is not None:
                if self._error_callback is not None:
                    self._error_callback(error)
            elif self._callback is not None:
                self._callback(value)
        finally:
            if error is not None:
                self._outcome.set_exception(error)
            else:
                self._outcome.set_result(value)


class MapResult(AsyncResult[list[T]]):
    """Of many chunks: settled when all of them have ended, with the first error seen if there was one."""

    def __init__(self, chunks: int, callback: Any, error_callback: Any) -> None:
        super().__init__(callback, error_callback)
        self._left = chunks
        self._chunks: list[list[T]] = [[]] * chunks
        self._error: BaseException | None = None
        self._guard = threading.Lock()
        if not chunks:
            self._settle([], None)

    def _arrived(self, number: int, future: concurrent.futures.Future[list[T]]) -> None:
        error = _error_of(future)
        with self._guard:
            self._left -= 1
            if error is None:
                self._chunks[number] = future.result()
            elif self._error is None:
                self._error = error
            last = self._left == 0
        if last:
            self._settle([] if self._error else list(itertools.chain.from_iterable(self._chunks)), self._error)
            self._chunks = []


class IMapIterator(Generic[T]):
    """What `imap` returns: chunks are sent as others end, also while nobody takes values."""

    def __init__(self, pool: Pool, calls: Iterator[tuple[Any, ...]], ordered: bool) -> None:
        self._pool = pool
        self._calls = calls
        self._ordered = ordered
        self._slots: deque[Patient[list[T]]] = deque()
        self._unfilled: deque[Patient[list[T]]] = deque()
        self._under_way = 0
        self._exhausted = False
        self._items: Iterator[T] = iter(())
        self._ended: Patient[None] = Patient()
        self._guard = threading.RLock()
        self._window = AHEAD * pool._processes
        self._more()

    def _more(self) -> None:
        with self._guard:
            while not self._exhausted and self._under_way < self._window:
                slot: Patient[list[T]] = Patient()
                try:
                    call = next(self._calls, None)
                    future = None if call is None else self._pool._executor.submit(*call)
                except Exception as error:  # noqa: BLE001  the iterable's own, or the pool was terminated
                    self._exhausted = True
                    self._slots.append(slot)
                    slot.set_exception(error)
                    break
                if future is None:
                    self._exhausted = True
                    break
                self._under_way += 1
                self._slots.append(slot)
                self._unfilled.append(slot)
                future.add_done_callback(functools.partial(self._arrived, slot))
            if self._exhausted and not self._under_way and not self._ended.done():
                self._ended.set_result(None)

    def _arrived(self, slot: Patient[list[T]], future: concurrent.futures.Future[list[T]]) -> None:
        with self._guard:
            self._under_way -= 1
            if self._ordered:
                self._unfilled.remove(slot)
            else:
                slot = self._unfilled.popleft()
        error = _error_of(future)
        if error is not None:
            slot.set_exception(error)
        else:
            slot.set_result(future.result())
        self._more()

    def __iter__(self) -> Iterator[T]:
        return self

    def next(self, timeout: float | None = None) -> T:
        """The next value. multiprocessing.TimeoutError after `timeout` seconds, StopIteration at the end."""
        if timeout is not None:
            check_seconds(timeout, past=True)
        while True:
            for item in self._items:
                return item
            with self._guard:
                if not self._slots:
                    raise StopIteration
                slot = self._slots[0]
            try:
                slot.exception(timeout)
            except TimeoutError:
                raise _timeout() from None
            with self._guard:
                self._slots.popleft()
            self._items = iter(slot.result())

    def __next__(self) -> T:
        return self.next()


class Pool:
    """multiprocessing.Pool, whose processes are the cluster's workers: `map`, `apply`, `imap` and the rest of it.

    Workers are shared with the rest of the program: `processes` is how many calls run at once, and
    `initializer(*initargs)` runs once in each process that serves this pool, which may be more.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: object = None,
        **options: Any,
    ) -> None:
        """`processes`: None is as many as the cluster has CPUs. `context` is for those who pass one, and not used.

        `options`: of all its tasks, as `@zmreg.remote` takes them. TypeError, ValueError.
        """
        if processes is not None and (processes := check_count(processes, "processes", -sys.maxsize)) < 1:
            raise ValueError("Number of processes must be at least 1")
        if maxtasksperchild is not None:
            if not isinstance(maxtasksperchild, int) or isinstance(maxtasksperchild, bool) or maxtasksperchild <= 0:
                raise ValueError("maxtasksperchild must be a positive int or None")
            options["max_calls"] = maxtasksperchild
        self._executor = Executor(processes, initializer, tuple(initargs), **options)
        self._state = _RUN
        self._jobs: set[Patient[Any]] = set()

    @property
    def _processes(self) -> int:
        return self._executor._max_workers

    # -- one call ---------------------------------------------------------------------------------------------------

    def apply(self, func: Callable[..., T], args: Iterable[Any] = (), kwds: dict[str, Any] | None = None) -> T:
        """`func(*args, **kwds)` on a worker; waits for it."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., T],
        args: Iterable[Any] = (),
        kwds: dict[str, Any] | None = None,
        callback: Callable[[T], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult[T]:
        """The same, without waiting."""
        self._check_running()
        result: AsyncResult[T] = AsyncResult(callback, error_callback)
        future = self._executor.submit(func, *args, **(kwds or {}))
        self._note(result._outcome)

        def arrived(done: concurrent.futures.Future[T]) -> None:
            error = _error_of(done)
            result._settle(None if error is not None else done.result(), error)

        future.add_done_callback(arrived)
        return result

    # -- many -------------------------------------------------------------------------------------------------------

    def map(self, func: Callable[[Any], T], iterable: Iterable[Any], chunksize: int | None = None) -> list[T]:
        """`func` of each item, as a list; waits for all."""
        return self.map_async(func, iterable, chunksize).get()

    def starmap(
        self, func: Callable[..., T], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[T]:
        """As `map`, and each item is the arguments of a call."""
        return self.starmap_async(func, iterable, chunksize).get()

    def map_async(
        self,
        func: Callable[[Any], T],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[T]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult[list[T]]:
        """`map` without waiting."""
        return self._map((run_each_on, func), iterable, chunksize, callback, error_callback)

    def starmap_async(
        self,
        func: Callable[..., T],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[T]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult[list[T]]:
        """`starmap` without waiting."""
        return self._map((run_each, func), iterable, chunksize, callback, error_callback)

    def _map(self, call: tuple[Any, Any], iterable: Iterable[Any], chunksize: Any, *callbacks: Any) -> AsyncResult[Any]:
        self._check_running()
        items = list(iterable)
        if chunksize is not None:
            chunksize = check_count(chunksize, "chunksize", 1)
        else:
            chunksize = max(1, -(-len(items) // (CHUNKS * self._processes)))
        run, func = call
        shared = define_shared(func) if items else func
        result: MapResult[Any] = MapResult(-(-len(items) // chunksize), *callbacks)
        self._note(result._outcome)
        for number, start in enumerate(range(0, len(items), chunksize)):
            future = self._executor.submit(run, shared, items[start : start + chunksize])
            future.add_done_callback(functools.partial(result._arrived, number))
        return result

    def imap(self, func: Callable[[Any], T], iterable: Iterable[Any], chunksize: int = 1) -> IMapIterator[T]:
        """An iterator of values in order, with `.next(timeout)`; the iterable is read as workers need it."""
        return self._imap(func, iterable, chunksize, True)

    def imap_unordered(self, func: Callable[[Any], T], iterable: Iterable[Any], chunksize: int = 1) -> IMapIterator[T]:
        """The same, and what ends first comes first."""
        return self._imap(func, iterable, chunksize, False)

    def _imap(
        self, func: Callable[[Any], T], iterable: Iterable[Any], chunksize: int, ordered: bool
    ) -> IMapIterator[T]:
        self._check_running()
        chunksize = check_count(chunksize, "chunksize", 1)
        items, shared = iter(iterable), define_shared(func)
        chunks = iter(lambda: list(itertools.islice(items, chunksize)), [])
        result: IMapIterator[T] = IMapIterator(self, ((run_each_on, shared, chunk) for chunk in chunks), ordered)
        self._note(result._ended)
        return result

    # -- its end ----------------------------------------------------------------------------------------------------

    def _note(self, job: Patient[Any]) -> None:
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    def _check_running(self) -> None:
        if self._state != _RUN:
            raise ValueError("Pool not running")

    def close(self) -> None:
        """No more calls; those accepted go on."""
        if self._state == _RUN:
            self._state = _CLOSED

    def terminate(self) -> None:
        """No more calls; those that wait are cancelled, and the processes of those that run are ended."""
        self._state = _TERMINATED
        self._executor.kill_workers()

    def join(self) -> None:
        """Wait until all calls have ended. ValueError before `close` or `terminate`."""
        if self._state == _RUN:
            raise ValueError("Pool is still running")
        for job in list(self._jobs):
            job._waited(None)
            concurrent.futures.wait([job])
        self._executor.shutdown(wait=True)

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("pool objects cannot be passed between processes or pickled")

    def __repr__(self) -> str:
        return f"<zmreg.Pool state={self._state}>"


def _timeout() -> Exception:
    from multiprocessing import TimeoutError as Late  # late: it brings sockets and selectors along

    return Late()


def _error_of(future: concurrent.futures.Future[Any]) -> BaseException | None:
    """What a future that is done failed with; a cancelled one too."""
    if future.cancelled():
        return concurrent.futures.CancelledError("the pool was terminated before the call began")
    return future.exception()
