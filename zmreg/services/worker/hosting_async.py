"""An async actor on its worker. A module of its own, because asyncio is loaded only where such an actor lives."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar

from zmreg.model.ids import object_id
from zmreg.model.messages import Construct
from zmreg.services.calling.batching import BATCH
from zmreg.services.seat import arrivals
from zmreg.services.seat.running import running
from zmreg.services.worker import execute
from zmreg.services.worker.concurrency import Grouped
from zmreg.services.worker.execute import ActorExit
from zmreg.services.worker.hosting import SyncHost, attempt, called, keep_on, nreturns
from zmreg.services.worker.letting_go import driven, side_by_side
from zmreg.services.worker.yielding import pack_async, stream_async
from zmreg.wire import batches

if TYPE_CHECKING:
    from zmreg.services.worker.worker import Worker

log = logging.getLogger("zmreg.actors")

ASYNC_CONCURRENCY = 1_000
_perf = time.perf_counter


class AsyncHost(SyncHost):
    """Calls are coroutines on one event loop on the main thread; sync methods run there too, and block it."""

    is_async: ClassVar[bool] = True
    alone: ClassVar[bool] = False

    def __init__(self, worker: Worker, construct: Construct) -> None:
        super().__init__(worker, construct)
        if self.concurrency <= 0:
            self.concurrency = ASYNC_CONCURRENCY
        worker.rest = keep_on
        self._loop = worker.looping.loop()
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._unfinished: set[bytes] = set()
        """Beside `_tasks`, also the calls that the loop has not been told of yet."""
        self._over = asyncio.Event()
        self._slots = asyncio.Semaphore(self.concurrency)
        self._exit: SystemExit | None = None
        self._warned = False

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
        self._unfinished.update(object_id(caller, row[0]) for row in rows)
        self._loop.call_soon_threadsafe(self._spawn, caller, rows)
        return True

    def _special(self, name: str, kind: str) -> Callable[..., Any]:
        return side_by_side(self, name) if kind == BATCH else driven(self, self.method(name))

    def slots_of(self, task_id: bytes) -> asyncio.Semaphore:
        """One of these is taken by that call."""
        return self._slots

    def holds(self, task_id: bytes) -> bool:
        """None of them goes on while the loop's thread waits."""
        return task_id in self._unfinished

    def _spawn(self, caller: bytes, rows: list[batches.Row]) -> None:
        if self.worker.moving and self._over.is_set():  # not begun, and so its caller may send it to where we go on
            return
        for row in rows:
            task_id = object_id(caller, row[0])
            task = self._loop.create_task(self._one(caller, row, task_id))
            self._tasks[task_id] = task
            task.add_done_callback(lambda done, row=row, key=task_id: self._ended(done, caller, row, key))  # type: ignore[misc]

    def _ended(self, done: asyncio.Task[None], caller: bytes, row: batches.Row, task_id: bytes) -> None:
        """A call is over. A cancelled one is answered here: it may not even have begun to run."""
        del self._tasks[task_id]
        self._unfinished.discard(task_id)
        if done.cancelled():
            self._reply(caller, row, [execute.CANCELLED_ROW] * max(1, nreturns(row)), 0.0, [])
        elif isinstance(error := done.exception(), (ActorExit, SystemExit)):
            self._exit = error if isinstance(error, SystemExit) else None
            self.worker.moving = False
            self._over.set()

    async def _one(self, caller: bytes, row: batches.Row, task_id: bytes) -> None:
        worker, name = self.worker, called(row)
        async with self._slots:
            start = _perf()
            # Taken before the first await: meanwhile other calls unpickle refs of theirs on this thread.
            arrivals.take()
            refs: list[Any] = []
            token = running.set((task_id, name, attempt(row)))
            try:
                function = self.method(row[1])
                args, kwargs = execute.load_arguments(worker, worker.recent, caller, row)
                refs = arrivals.take()
                result = function(*args, **kwargs)
                if isinstance(result, Awaitable):
                    result = await result
                del args, kwargs
                count = nreturns(row)
                if count < 0:
                    returns = await stream_async(worker, caller, row, result, name)
                elif count != 1 and inspect.isasyncgen(result):
                    returns = await pack_async(worker, caller, row, result, name)
                else:
                    returns = execute.pack_returns(worker, caller, task_id, result, count, name)
                del result
            except (ActorExit, asyncio.CancelledError):
                raise
            except SystemExit as error:  # out of a task it would end the loop, and the end is `serve`'s to make
                self._exit = error
                self._over.set()
                return
            except BaseException as error:  # noqa: BLE001  whatever the user's method raised goes to the caller
                returns = execute.failed_rows(error, name, worker, nreturns(row))
            finally:
                running.reset(token)
            self._reply(caller, row, returns, _perf() - start, refs)

    def _reply(self, caller: bytes, row: batches.Row, returns: execute.Returns, took: float, refs: list[Any]) -> None:
        self.worker.answer(caller, execute.result_row(self.worker, caller, row[0], int(took * 1e6), returns, refs))
        self.worker.pump.request_turn()

    def cancel(self, task_id: bytes) -> bool:
        """Cancel the coroutine of a call, begun or not."""
        self._loop.call_soon_threadsafe(self._cancel, task_id)
        return True

    def _cancel(self, task_id: bytes) -> None:
        task = self._tasks.get(task_id)
        if task is not None:
            task.cancel()

    def blocks(self) -> None:
        """Allowed, but all other calls stand still meanwhile: said once."""
        if not self._warned and self._loop.is_running():
            self._warned = True
            log.warning(
                "%s is an async actor and waits for a value without await: all its calls stand still meanwhile. "
                "Use `await ref` instead of ref.get() or zmreg.get(ref). This is said once.",
                type(self.instance).__name__,
            )

    def end_now(self) -> None:
        """Also from a task of the user's own: nobody awaits what that one raises."""
        self.worker.moving = False
        self._loop.call_soon_threadsafe(self._over.set)

    def end_when_idle(self) -> None:
        """Finish what runs, then end."""

        async def drain() -> None:
            while pending := [task for task in self._tasks.values() if task is not asyncio.current_task()]:
                await asyncio.wait(pending)
            self._over.set()

        self._loop.call_soon_threadsafe(lambda: self._loop.create_task(drain()))

    def serve(self) -> None:
        """Run the loop until the end; coroutines that have none are cancelled. Raises SystemExit when a call did."""
        inbox = self.worker.inbox
        while inbox:
            caller, row = inbox.popleft()
            self._spawn(caller, [row])
        self._loop.run_until_complete(self._over.wait())
        for task in list(self._tasks.values()):
            task.cancel()
        if self._exit is not None:
            raise self._exit
        self.worker.ending = True


class GroupedAsyncHost(AsyncHost):
    """Slots by group. Calls that name no group have `max_concurrency` of them."""

    def __init__(self, worker: Worker, construct: Construct, groups: Grouped) -> None:
        super().__init__(worker, construct)
        self._groups = groups
        self._by_group = {name: asyncio.Semaphore(limit) for name, limit in groups.limits.items()}
        self._by_group[""] = self._slots
        self._slots = asyncio.Semaphore(sys.maxsize)
        self._by_call: dict[bytes, asyncio.Semaphore] = {}

    def slots_of(self, task_id: bytes) -> asyncio.Semaphore:
        """Of the call's group."""
        return self._by_call.get(task_id, self._by_group[""])

    async def _one(self, caller: bytes, row: batches.Row, task_id: bytes) -> None:
        slots = self._by_group.get(self._groups.group_of(row[1]), self._by_group[""])
        async with slots:
            self._by_call[task_id] = slots
            try:
                await super()._one(caller, row, task_id)
            finally:
                del self._by_call[task_id]
