"""concurrent.futures' interface. A module of its own, loaded when it is used: their package brings logging with it."""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType
from typing import Any, TypeVar

from zmreg.api.functions import RemoteFunction
from zmreg.api.refs import ObjectRef
from zmreg.services.seats import client

T = TypeVar("T")

# Functions whose pickled form is kept; beyond that the oldest is made again when it comes back.
KEEP_FUNCTIONS = 128

Call = Callable[[], ObjectRef[Any]]


class CallFuture(concurrent.futures.Future[T]):
    """The future of one call. `cancel()` is True only when the call will certainly never run."""

    def __init__(self, executor: Executor, call: Call) -> None:
        super().__init__()
        self._executor = executor
        self._call = call
        self._ref: ObjectRef[T] | None = None

    def cancel(self) -> bool:
        """Cancel the call if no worker has it yet. One that runs is left alone, as everywhere in concurrent.futures."""
        return self._executor._withdraw(self) if not self.done() else self.cancelled()

    def running(self) -> bool:
        """Whether a worker has it."""
        ref = self._ref
        return ref is not None and not self.done() and client().is_sent(ref._entry)


class Executor(concurrent.futures.Executor):
    """concurrent.futures on a zmreg cluster: `submit`, `map`, `shutdown`, as a context manager too."""

    def __init__(self, max_workers: int | None = None) -> None:
        """`max_workers` is how many calls this executor has under way at most; None: as the cluster allows."""
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        self._limit = max_workers
        self._functions: dict[Any, RemoteFunction[..., Any]] = {}
        self._waiting: deque[CallFuture[Any]] = deque()
        self._under_way: set[CallFuture[Any]] = set()
        self._shut = False
        # Reentrant: a done-callback may submit.
        self._guard = threading.RLock()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        """Call `fn` on a worker. RuntimeError after shutdown; what cannot be sent is the future's exception."""
        with self._guard:
            if self._shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            remote = self._remote(fn)
            future: CallFuture[T] = CallFuture(self, functools.partial(remote.remote, *args, **kwargs))
            self._waiting.append(future)
        self._send()
        return future

    def _remote(self, fn: Callable[..., T]) -> RemoteFunction[..., T]:
        # Only plain functions: a bound method or a partial carries state that may change between two calls.
        if type(fn) is not FunctionType or fn.__closure__:
            return RemoteFunction(fn, {})
        remote = self._functions.get(fn)
        if remote is None:
            if len(self._functions) >= KEEP_FUNCTIONS:
                del self._functions[next(iter(self._functions))]
            remote = self._functions[fn] = RemoteFunction(fn, {})
        return remote

    def _send(self) -> None:
        while True:
            with self._guard:
                if not self._waiting or (self._limit is not None and len(self._under_way) >= self._limit):
                    return
                future = self._waiting.popleft()
                self._under_way.add(future)
                try:
                    future._ref = ref = future._call()
                except Exception as error:  # noqa: BLE001  whatever stops the sending is the outcome of the call
                    self._under_way.discard(future)
                    failed: Exception | None = error
                else:
                    failed = None
            if failed is None:
                ref.add_done_callback(functools.partial(self._arrived, future))
            elif future.set_running_or_notify_cancel():
                future.set_exception(failed)

    def _arrived(self, future: CallFuture[Any], ref: ObjectRef[Any]) -> None:
        with self._guard:
            self._under_way.discard(future)
        self._send()
        if not future.set_running_or_notify_cancel():
            return
        try:
            value = ref.get()
        except BaseException as error:  # noqa: BLE001  whatever the call raised is the future's outcome
            future.set_exception(error)
        else:
            future.set_result(value)

    def _withdraw(self, future: CallFuture[Any]) -> bool:
        with self._guard:
            if future in self._waiting:
                self._waiting.remove(future)
                sent = False
            else:
                ref = future._ref
                sent = ref is None or not client().cancel_unsent(ref._entry)
        if sent or not concurrent.futures.Future.cancel(future):
            return False
        if future._ref is None:
            future.set_running_or_notify_cancel()
        return True

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """Results in order; everything is submitted at once. `chunksize` items travel in one call."""
        if chunksize < 1:
            raise ValueError("chunksize must be at least 1")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        items = zip(*iterables)  # noqa: B905  the shortest ends it, as in concurrent.futures
        chunks = iter(lambda: list(itertools.islice(items, chunksize)), [])
        return itertools.chain.from_iterable(super().map(functools.partial(_run, fn), chunks, timeout=timeout))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; wait for those accepted unless `wait` is False, after cancelling what no worker has."""
        with self._guard:
            self._shut = True
            pending = [*self._waiting, *self._under_way]
        if cancel_futures:
            for future in pending:
                future.cancel()
        if wait:
            concurrent.futures.wait(pending)


def _run(fn: Callable[..., T], chunk: list[tuple[Any, ...]]) -> list[T]:
    return [fn(*item) for item in chunk]
