"""An actor on its worker: construction, then calls one at a time, on threads, or on an event loop.

Which of the three follows from the class: any `async def` method makes it async (1,000 calls at once by default),
`max_concurrency` > 1 makes it threaded, else calls run one at a time on the main thread, by the worker's own loop.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from zmreg.model.errors import ActorDiedError
from zmreg.model.ids import object_id
from zmreg.model.messages import ActorExiting, Construct, Constructed
from zmreg.services import arrivals, execute
from zmreg.services.execute import ActorExit
from zmreg.services.running import running
from zmreg.wire import batches, payload

if TYPE_CHECKING:
    from zmreg.services.worker import Worker

ASYNC_CONCURRENCY = 1_000
_perf = time.perf_counter


class Host(Protocol):
    """An actor that lives here."""

    instance: Any
    actor_id: bytes
    handle: bytes
    incarnation: int

    def method(self, name: str) -> Callable[..., Any]:
        """The bound method of that name."""

    def exited(self, name: str) -> bytes:
        """The failure of the call in which the actor ended itself."""

    def finish(self) -> None:
        """Before leaving in peace."""

    def takes(self, caller: bytes, rows: list[batches.Row]) -> bool:
        """Whether it runs these by itself; False = the worker's own loop does."""

    def cancel(self, task_id: bytes) -> bool:
        """Cancel a call if that is up to the host."""

    def end_when_idle(self) -> None:
        """Finish what is queued, then let `serve` return."""

    def serve(self) -> None:
        """Run calls on the main thread until the end; returns at once where the worker's loop does it."""


def make_host(worker: Worker, construct: Construct) -> Host | None:
    """Run the constructor and tell the node how it went; None when it raised."""
    name = "actor"
    refs = arrivals.take()
    try:
        cls: Any = payload.unpack_definition(construct.blob)
        name = cls.__qualname__
        deps = batches.unpack_deps(construct.deps)
        row = [0, name, construct.payload, 1, 0, 0, deps]
        args, kwargs = execute.load_arguments(worker, worker.recent, construct.actor_id[:8], row)
        host = _kind(cls, construct)(worker, construct)
        worker.host = host
        host.create(cls, args, kwargs)
    except ActorExit:
        worker.tell_node(ActorExiting(construct.actor_id))
        worker.ending = True
        return None
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001  the user's constructor may raise anything; every caller hears of it
        worker.tell_node(Constructed(construct.actor_id, execute.failure_of(error, f"{name}.__init__", worker)))
        return None
    del refs
    worker.tell_node(Constructed(construct.actor_id, b""))
    return host


def is_async_class(cls: type) -> bool:
    """Any method is `async def`."""
    return any(
        inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member)
        for base in cls.__mro__
        for member in vars(base).values()
    )


def _kind(cls: type, construct: Construct) -> Callable[[Worker, Construct], SyncHost]:
    if is_async_class(cls):
        return AsyncHost
    return ThreadHost if construct.max_concurrency > 1 else SyncHost


class SyncHost:
    """One call at a time, by the worker's own loop."""

    def __init__(self, worker: Worker, construct: Construct) -> None:
        self.worker = worker
        self.actor_id = construct.actor_id
        self.incarnation = construct.incarnation
        self.handle = construct.handle
        self.concurrency = construct.max_concurrency
        self.instance: Any = None

    def facts(self) -> Any:
        """What a handle to this actor is made of."""
        return payload.unpack(self.handle)

    def create(self, cls: type, args: Any, kwargs: dict[str, Any]) -> None:
        """Construct the instance; `__post_create__` follows where the class has one."""
        self.instance = cls(*args, **kwargs)
        hook = getattr(self.instance, "__post_create__", None)
        if hook is not None:
            self._complete(hook())

    def _complete(self, result: Any) -> None:
        if inspect.isawaitable(result):
            self.worker.run_async(result)

    def method(self, name: str) -> Callable[..., Any]:
        """The bound method of that name; the special ones of every actor included."""
        if name == "__zmreg_ready__":
            return lambda: True
        if name == "__zmreg_terminate__":
            return self._terminate
        if name == "__zmreg_call__":
            return lambda function, *args, **kwargs: function(self.instance, *args, **kwargs)
        bound: Callable[..., Any] = getattr(self.instance, name)
        receive = getattr(self.instance, "__on_receive__", None)
        if receive is None:
            return bound
        return lambda *args, **kwargs: receive(name, args, kwargs)

    def _terminate(self) -> None:
        raise ActorExit

    def takes(self, caller: bytes, rows: list[batches.Row]) -> bool:
        """Never: the worker's loop runs them."""
        return False

    def cancel(self, task_id: bytes) -> bool:
        """Up to the worker."""
        return False

    def end_when_idle(self) -> None:
        """The worker's loop ends by itself."""

    def serve(self) -> None:
        """The worker's loop serves."""

    def finish(self) -> None:
        """Before leaving in peace: `__pre_destroy__`, and word to the node that this is no crash."""
        hook = getattr(self.instance, "__pre_destroy__", None)
        if hook is not None:
            self._complete(hook())
        self.worker.answer_now()
        self.worker.tell_node(ActorExiting(self.actor_id))

    def exited(self, name: str) -> bytes:
        """The failure of the call in which the actor ended itself."""
        return payload.pack_failure(ActorDiedError(f"the actor ended itself in {name}()"))

    # -- shared by the concurrent kinds -------------------------------------------------------------------------------

    def run_here(self, caller: bytes, row: batches.Row) -> bool:
        """Run one call on this thread and answer it; True when the actor ended itself in it."""
        arrivals.take()
        worker = self.worker
        task_id = object_id(caller, row[0])
        start = _perf()
        over = False
        try:
            if task_id in worker.cancelled:
                returns = [execute.CANCELLED_ROW]
            else:
                function = self.method(row[1])
                args, kwargs = execute.load_arguments(worker, worker.recent, caller, row)
                token = running.set((task_id, row[1]))
                try:
                    result = function(*args, **kwargs)
                finally:
                    running.reset(token)
                del args, kwargs
                returns = execute.pack_returns(worker, caller, task_id, result, nreturns(row), row[1])
                del result
        except ActorExit:
            over = True
            returns = [execute.failed_row(self.exited(row[1]))] * max(1, nreturns(row))
        except BaseException as error:  # noqa: BLE001  whatever the user's method raised goes to the caller
            failure = execute.failure_of(error, row[1], worker)
            returns = [execute.failed_row(failure)] * max(1, nreturns(row))
        worker.cancelled.discard(task_id)
        worker.answer(caller, execute.result_row(worker, caller, row[0], int((_perf() - start) * 1e6), returns))
        worker.answer_now()
        return over


def nreturns(row: batches.Row) -> int:
    """How many values the caller expects."""
    count: int = row[3] if len(row) > 3 else 1
    return count


class ThreadHost(SyncHost):
    """Up to `max_concurrency` calls at once, on threads that live as long as the actor (thread-locals stay)."""

    def __init__(self, worker: Worker, construct: Construct) -> None:
        super().__init__(worker, construct)
        self._calls: queue.SimpleQueue[tuple[bytes, batches.Row] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._guard = threading.Lock()
        self._over = threading.Event()

    def takes(self, caller: bytes, rows: list[batches.Row]) -> bool:
        """Hand each call to a thread; one more thread while all are busy and the limit allows."""
        if self.instance is None:
            return False
        for row in rows:
            with self._guard:
                if self._idle <= self._calls.qsize() and len(self._threads) < self.concurrency:
                    thread = threading.Thread(target=self._work, daemon=True, name=f"zmreg-call-{len(self._threads)}")
                    self._threads.append(thread)
                    thread.start()
            self._calls.put((caller, row))
        return True

    def _work(self) -> None:
        while True:
            with self._guard:
                self._idle += 1
            item = self._calls.get()
            with self._guard:
                self._idle -= 1
            if item is None:
                return
            if self.run_here(*item):
                self._over.set()

    def end_when_idle(self) -> None:
        """Threads end behind what is queued."""
        self._over.set()

    def serve(self) -> None:
        """Wait for the end; then let the threads finish."""
        inbox = self.worker.inbox
        while inbox:
            caller, row = inbox.popleft()
            self.takes(caller, [row])
        self._over.wait()
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        self.worker.ending = True


class AsyncHost(SyncHost):
    """Calls are coroutines on one event loop on the main thread; sync methods run there too, and block it."""

    def __init__(self, worker: Worker, construct: Construct) -> None:
        super().__init__(worker, construct)
        if self.concurrency <= 1:
            self.concurrency = ASYNC_CONCURRENCY
        self._loop = worker.event_loop()
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._over = asyncio.Event()
        self._slots = asyncio.Semaphore(self.concurrency)

    def create(self, cls: type, args: Any, kwargs: dict[str, Any]) -> None:
        """Construct on the loop, so that the constructor may use it."""

        async def construct() -> None:
            self.instance = cls(*args, **kwargs)
            hook = getattr(self.instance, "__post_create__", None)
            if hook is not None:
                result = hook()
                if inspect.isawaitable(result):
                    await result

        self._loop.run_until_complete(construct())

    def takes(self, caller: bytes, rows: list[batches.Row]) -> bool:
        """Hand the calls to the loop."""
        if self.instance is None:
            return False
        self._loop.call_soon_threadsafe(self._spawn, caller, rows)
        return True

    def _spawn(self, caller: bytes, rows: list[batches.Row]) -> None:
        for row in rows:
            task_id = object_id(caller, row[0])
            task = self._loop.create_task(self._one(caller, row, task_id))
            self._tasks[task_id] = task
            task.add_done_callback(lambda _, key=task_id: self._tasks.pop(key, None))  # type: ignore[misc]

    async def _one(self, caller: bytes, row: batches.Row, task_id: bytes) -> None:
        worker = self.worker
        async with self._slots:
            start = _perf()
            arrivals.take()
            try:
                function = self.method(row[1])
                args, kwargs = execute.load_arguments(worker, worker.recent, caller, row)
                token = running.set((task_id, row[1]))
                try:
                    result = function(*args, **kwargs)
                    if isinstance(result, Awaitable):
                        result = await result
                finally:
                    running.reset(token)
                del args, kwargs
                returns = execute.pack_returns(worker, caller, task_id, result, nreturns(row), row[1])
                del result
            except ActorExit:
                returns = [execute.failed_row(self.exited(row[1]))] * max(1, nreturns(row))
                self._over.set()
            except asyncio.CancelledError:
                returns = [execute.CANCELLED_ROW] * max(1, nreturns(row))
            except BaseException as error:  # noqa: BLE001  whatever the user's method raised goes to the caller
                failure = execute.failure_of(error, row[1], worker)
                returns = [execute.failed_row(failure)] * max(1, nreturns(row))
            worker.answer(caller, execute.result_row(worker, caller, row[0], int((_perf() - start) * 1e6), returns))
            worker.pump.request_turn()

    def cancel(self, task_id: bytes) -> bool:
        """Cancel the coroutine of a call."""
        self._loop.call_soon_threadsafe(self._cancel, task_id)
        return True

    def _cancel(self, task_id: bytes) -> None:
        task = self._tasks.get(task_id)
        if task is not None:
            task.cancel()

    def end_when_idle(self) -> None:
        """Finish what runs, then end."""

        async def drain() -> None:
            pending = [task for task in self._tasks.values() if task is not asyncio.current_task()]
            if pending:
                await asyncio.wait(pending)
            self._over.set()

        self._loop.call_soon_threadsafe(lambda: self._loop.create_task(drain()))

    def serve(self) -> None:
        """Run the loop until the end."""
        inbox = self.worker.inbox
        while inbox:
            caller, row = inbox.popleft()
            self._spawn(caller, [row])
        self._loop.run_until_complete(self._over.wait())
        for task in list(self._tasks.values()):
            task.cancel()
        self.worker.ending = True
