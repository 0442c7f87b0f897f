"""concurrent.futures' interface. A module of its own, loaded when it is used: their package brings logging with it."""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Final, TypeVar, cast

from zmreg.api import cluster as _cluster
from zmreg.api import options as opts
from zmreg.api.functions import RemoteFunction
from zmreg.api.prepared import InitializerError, Prepared, Setup, run_each
from zmreg.api.refs import ObjectRef
from zmreg.model.arguments import check_count, check_seconds
from zmreg.model.errors import TaskError, WorkerDiedError
from zmreg.services.seat.client import Waiter, current
from zmreg.services.seat.seats import client

T = TypeVar("T")

# Functions whose pickled form is kept; beyond that the oldest is made again when it comes back.
KEEP_FUNCTIONS = 128

Call = Callable[[], ObjectRef[Any]]


class Patient(concurrent.futures.Future[T]):
    """A future that a task may wait for: while it does, its CPU is free for what it waits for."""

    def __init__(self) -> None:
        super().__init__()
        seat = current()
        if seat is not None and seat.beside is not None and seat.closed is None:
            seat.beside.expect(self)

    def result(self, timeout: float | None = None) -> T:
        """As a Future's. In a task, the wait gives its CPU back."""
        return super().result(self._waited(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As a Future's."""
        return super().exception(self._waited(timeout))

    def _waited(self, timeout: float | None) -> float | None:
        """Wait in the way of a worker; what is left of the timeout. A driver has nothing to give back."""
        if timeout is not None:
            check_seconds(timeout, past=True)
            timeout = min(float(timeout), threading.TIMEOUT_MAX)
        seat = current()
        if seat is None or seat.on_wait is None or seat.closed is not None or self.done():
            return timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        waiter = Waiter()
        self.add_done_callback(waiter.finish)
        seat.pump_until(waiter, deadline)
        return None if deadline is None else max(0.0, deadline - time.monotonic())


class CallFuture(Patient[T]):
    """The future of one call. `cancel()` is True only when the call will certainly never run."""

    def __init__(self, executor: Executor, call: Call) -> None:
        super().__init__()
        # All three are dropped as early as possible: who keeps a future must not keep arguments and executor.
        self._executor: Executor | None = executor
        self._call: Call | None = call
        self._ref: ObjectRef[T] | None = None

    def cancel(self) -> bool:
        """Cancel the call if no worker has it yet. One that runs is left alone, as everywhere in concurrent.futures."""
        executor = self._executor
        return self.cancelled() if executor is None or self.done() else executor._withdraw(self)

    def running(self) -> bool:
        """Whether a worker has it."""
        ref = self._ref
        return ref is not None and not self.done() and client().is_sent(ref._entry)

    def _drop(self) -> None:
        self._executor = self._call = self._ref = None


_ANY: Final = -sys.maxsize
"""Below 1 the errors are those of concurrent.futures, word by word."""


class Executor(concurrent.futures.Executor):
    """concurrent.futures on a zmreg cluster: `submit`, `map`, `shutdown`, as a context manager too.

    A future's exception is the very one that was raised, and its `__cause__` a TaskError that says where. When a worker
    dies, its call is tried again like any task, then fails with BrokenProcessPool; the executor goes on.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        mp_context: object = None,
        max_tasks_per_child: int | None = None,
        **options: Any,
    ) -> None:
        """`max_workers` is how many calls this executor has under way at most; None: as the cluster allows.

        `initializer(*initargs)` is called once in each worker process before its first call for this executor; when it
        raises, this call, all others and further ones fail with BrokenProcessPool. `max_tasks_per_child`: calls of one
        function after which a process ends. `mp_context` is for those who pass one, and not used. `options`: of all its
        tasks, as `@zmreg.remote` takes them. TypeError, ValueError.
        """
        del mp_context
        if max_workers is not None and (max_workers := check_count(max_workers, "max_workers", _ANY)) <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            options["max_calls"] = check_count(max_tasks_per_child, "max_tasks_per_child", 1)
        options = opts.with_policy(options)
        opts.check_task_options(options)
        self._limit = max_workers
        self._setup = _setup_of(initializer, tuple(initargs))
        self._options = options
        self._functions: dict[Any, RemoteFunction[..., Any]] = {}
        self._waiting: deque[CallFuture[Any]] = deque()
        self._under_way: set[CallFuture[Any]] = set()
        self._shut = False
        self._broken = ""
        # Reentrant: a done-callback may submit.
        self._guard = threading.RLock()
        _executors.add(self)

    @property
    def _max_workers(self) -> int:
        """What libraries ask an executor for to size their chunks: how many calls run at once."""
        if self._limit is not None:
            return self._limit
        welcome = client().welcome
        return max(1, int(welcome.num_cpus)) if welcome is not None else 1

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        """Call `fn` on a worker. RuntimeError after shutdown; what cannot be sent is the future's exception."""
        with self._guard:
            if self._broken:
                raise broken(self._broken)
            if self._shut or _ended:
                when = "interpreter shutdown" if _ended else "shutdown"
                raise RuntimeError(f"cannot schedule new futures after {when}")
            remote = self._remote(fn)
            future: CallFuture[T] = CallFuture(self, functools.partial(remote.remote, *args, **kwargs))
            self._waiting.append(future)
        self._send()
        return future

    def _remote(self, fn: Callable[..., T]) -> RemoteFunction[..., T]:
        # Only plain functions: a bound method or a partial carries state that may change between two calls.
        if not _is_plain(fn):
            return self._made(fn)
        remote = self._functions.get(fn)
        if remote is None:
            if len(self._functions) >= KEEP_FUNCTIONS:
                del self._functions[next(iter(self._functions))]
            remote = self._functions[fn] = self._made(fn)
        return remote

    def _made(self, fn: Callable[..., T]) -> RemoteFunction[..., T]:
        # One result, as everywhere in concurrent.futures: a generator is none that can be sent, and its future says so.
        options = {**self._options, "num_returns": 1}
        return RemoteFunction(fn if self._setup is None else Prepared(self._setup, fn), options)

    def _send(self) -> None:
        while True:
            with self._guard:
                if not self._waiting or (self._limit is not None and len(self._under_way) >= self._limit):
                    return
                future = self._waiting.popleft()
                self._under_way.add(future)
                try:
                    future._ref = ref = cast(Call, future._call)()
                except Exception as error:  # noqa: BLE001  whatever stops the sending is the outcome of the call
                    self._under_way.discard(future)
                    failed: Exception | None = error
                else:
                    failed = None
                future._call = None
            if failed is None:
                ref.add_done_callback(functools.partial(self._arrived, future))
            elif future.set_running_or_notify_cancel():
                future.set_exception(failed)
                future._drop()

    def _arrived(self, future: CallFuture[Any], ref: ObjectRef[Any]) -> None:
        with self._guard:
            self._under_way.discard(future)
        self._send()
        if not future.set_running_or_notify_cancel():
            future._drop()
            return
        try:
            value = ref.get()
        except BaseException as error:  # noqa: BLE001  whatever the call raised is the future's outcome
            if isinstance(error, InitializerError):
                self._break(str(error.args[0]))
            future.set_exception(as_raised(error))
        else:
            future.set_result(value)
        future._drop()

    def _break(self, why: str) -> None:
        with self._guard:
            self._broken = f"an initializer failed:\n{why}"
            waiting = [*self._waiting]
            self._waiting.clear()
        concurrent.futures._base.LOGGER.critical("Exception in initializer:\n%s", why)  # as pools of processes do
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(broken(self._broken))
            future._drop()

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
            future._drop()
        return True

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Results in order; everything is submitted at once, or `buffersize` calls ahead of what has been taken.

        `chunksize` items travel in one call. TimeoutError when a result is not there `timeout` seconds from now. When
        the iterator is closed or raises, what no worker has is cancelled.
        """
        if (chunksize := check_count(chunksize, "chunksize", _ANY)) < 1:
            raise ValueError("chunksize must be at least 1")
        if buffersize is not None and (not isinstance(buffersize, int) or isinstance(buffersize, bool)):
            raise TypeError("buffersize must be an integer or None")
        check_seconds(timeout, past=True)
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        deadline = None if timeout is None else time.monotonic() + timeout
        items = zip(*iterables)  # noqa: B905  the shortest ends it, as in concurrent.futures
        calls: Iterator[tuple[Any, ...]]
        if chunksize == 1:
            calls = ((fn, *item) for item in items)
        else:
            calls = ((run_each, fn, chunk) for chunk in iter(lambda: list(itertools.islice(items, chunksize)), []))
        futures = deque(self.submit(*call) for call in itertools.islice(calls, buffersize))
        values = self._values(futures, calls, deadline)
        return values if chunksize == 1 else itertools.chain.from_iterable(values)

    def _values(
        self, futures: deque[concurrent.futures.Future[Any]], calls: Iterator[tuple[Any, ...]], deadline: float | None
    ) -> Iterator[Any]:
        try:
            while futures:
                for call in itertools.islice(calls, 1):  # none is left of them unless there is a buffersize
                    futures.append(self.submit(*call))
                # No name keeps a value that the caller has dropped.
                yield _result_or_cancel(futures.popleft(), deadline)
        finally:
            for future in futures:
                future.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; wait for those accepted unless `wait` is False, after cancelling what no worker has.

        Without waiting, the program still does not end before they have, as with any executor.
        """
        with self._guard:
            self._shut = True
            pending = [*self._waiting, *self._under_way]
        if cancel_futures:
            for future in pending:
                future.cancel()
        if wait:
            for future in pending:
                future._waited(None)
            concurrent.futures.wait(pending)

    def kill_workers(self) -> None:
        """Take no more calls, cancel those that wait, and end the processes of those that run."""
        self.shutdown(wait=False, cancel_futures=True)
        with self._guard:
            refs = [future._ref for future in self._under_way]
        for ref in refs:
            if ref is not None:
                ref.cancel(force=True)

    terminate_workers = kill_workers
    """Python 3.14 has both; here workers are the cluster's, and end in one way."""


_executors: weakref.WeakSet[Executor] = weakref.WeakSet()
_ended = False


def executor(max_workers: int | None = None, **options: Any) -> Executor:
    """An `Executor` on this cluster; see there for the arguments."""
    return Executor(max_workers, **options)


def as_raised(error: BaseException) -> BaseException:
    """The exception that the user's code raised, caused by a TaskError that tells where; what is ours, in their words.

    Their interfaces promise the very class that was raised, not a subclass of it.
    """
    if isinstance(error, InitializerError):
        return broken(f"an initializer failed:\n{error.args[0]}")
    if isinstance(error, WorkerDiedError):
        told = broken(str(error))
        told.__cause__ = error
        return told
    if isinstance(error, TaskError) and error.cause is not None:
        raised = error.cause
        raised.__cause__ = TaskError(origin=error.origin)
        return raised
    return error


def broken(message: str) -> BaseException:
    """The standard library's error for a pool that lost what it needs."""
    from concurrent.futures.process import BrokenProcessPool  # late: it brings multiprocessing

    return BrokenProcessPool(message)


def _setup_of(initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> Setup | None:
    """None when workers can run its calls as they are."""
    has_managers = "multiprocessing.managers" in sys.modules
    if initializer is None and not has_managers:
        return None
    authkey = bytes(sys.modules["multiprocessing.process"].current_process().authkey) if has_managers else b""
    return Setup(os.urandom(16).hex() if initializer is not None else "", initializer, initargs, authkey)


def _is_plain(fn: Any) -> bool:
    """Whether a function is the same at its next call, whatever happens meanwhile."""
    if type(fn) is FunctionType:
        return not fn.__closure__
    return type(fn) is BuiltinFunctionType and isinstance(fn.__self__, ModuleType)


def _result_or_cancel(future: concurrent.futures.Future[T], deadline: float | None) -> T:
    try:
        return future.result(None if deadline is None else max(0.0, deadline - time.monotonic()))
    finally:
        future.cancel()
        del future


def _at_exit() -> None:
    """No program ends before its futures have, says concurrent.futures."""
    global _ended
    _ended = True
    if _cluster.is_initialized():
        for each in list(_executors):
            each.shutdown(wait=True)


# Where concurrent.futures itself waits, when the main thread has ended: before any atexit handler ends the cluster.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
