"""A generator's items where they are made: run on, packed, sent in batches, parked while enough lie there untaken.

An item is a row of results with a number of its own, and travels among the answers: so all items are there before the
call's own answer. It leaves at once when the one before it has left half a millisecond ago; else 64 collect, or what
there is goes with the next item after that time, or by the I/O thread, as answers do (worker.py).

A parked generator has given its CPU back, as a call does that waits in `get`. It goes on when an item is taken, and
ends when nobody wants more: then its `finally` blocks run.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Final

from zmreg.core.stream_caps import Budget, CappedOutflow
from zmreg.core.streams import ONE_ITEM, Outflow, index_of
from zmreg.model.ids import NODE_BYTES, object_id
from zmreg.model.messages import NodeGone, ProcessDied
from zmreg.model.stream_messages import StreamClosed, StreamCredit
from zmreg.net.waiting import Waiter
from zmreg.services.worker import execute
from zmreg.wire import batches, payload

if TYPE_CHECKING:
    from zmreg.services.worker.intake import Intake
    from zmreg.services.worker.worker import Worker

log = logging.getLogger("zmreg.tasks")

ITEM_ROWS: Final = 64
ITEM_S: Final = 0.0005
# Words that came before their calls began; those of calls that never do are never used up.
_EARLY: Final = 10_000
_CLOSED: Final = -1

_perf = time.perf_counter


class Yielding:
    """The generators that run on one worker. All methods run under its lock, on the thread that pumps."""

    def __init__(self, worker: Intake) -> None:
        self._worker = worker
        self.running: dict[bytes, Yielder] = {}
        self.early: dict[bytes, tuple[int, int]] = {}
        """(items taken, items wanted) of calls that have not begun here (an earlier run had sent them, or somebody
        waits already); _CLOSED taken: nobody wants any."""
        self._budget: Budget | None = None

    def on_credit(self, owner: bytes, message: StreamCredit) -> None:
        """Items were taken."""
        task_id = object_id(owner, message.counter)
        yielder = self.running.get(task_id)
        if yielder is None:
            self._note(task_id, message.taken, message.wanted)
        elif isinstance(yielder.flow, CappedOutflow):
            yielder.flow.want(message.wanted)
            if yielder.flow.credit(message.taken):
                self.room()
            else:
                yielder.wake()
        elif yielder.flow.credit(message.taken):
            yielder.wake()

    def on_closed(self, owner: bytes, message: StreamClosed) -> None:
        """The generator was dropped."""
        task_id = object_id(owner, message.counter)
        yielder = self.running.get(task_id)
        if yielder is None:
            self._note(task_id, _CLOSED, 0)
        else:
            yielder.close()

    def _note(self, task_id: bytes, taken: int, wanted: int) -> None:
        """Each message says one thing, and unsays none: who waits may be told of before the last of what was taken."""
        taken_before, wanted_before = self.early.pop(task_id, (0, 0))
        if len(self.early) >= _EARLY:
            del self.early[next(iter(self.early))]
        is_closed = _CLOSED in (taken, taken_before)
        self.early[task_id] = _CLOSED if is_closed else max(taken, taken_before), max(wanted, wanted_before)

    def capped(self, flow: tuple[int, int, int], cap: int, wanted: int) -> CappedOutflow:
        """One of the actor's generators, which have a bound together. `flow`: as for any."""
        if self._budget is None:
            self._budget = Budget(cap, threading.Lock())
        return CappedOutflow(self._budget, *flow, wanted)

    def room(self) -> None:
        """There is a place for an item: whoever is parked looks whether it gets it."""
        for yielder in list(self.running.values()):
            yielder.wake()

    def on_death(self, message: ProcessDied | NodeGone) -> None:
        """Whoever has called from there takes nothing any more."""
        prefix = message.process if isinstance(message, ProcessDied) else message.node[:NODE_BYTES]
        for task_id, yielder in list(self.running.items()):
            if task_id.startswith(prefix):
                yielder.close()

    def cancelled(self, task_id: bytes) -> None:
        """A parked generator is to see that."""
        yielder = self.running.get(task_id)
        if yielder is not None:
            yielder.wake()


class Yielder:
    """One generator that runs. `with` it, so that what is said to it is heard."""

    __slots__ = ("_caller", "_first", "_sent", "_task_id", "_what", "_worker", "flow", "wake")

    def __init__(self, worker: Worker, caller: bytes, row: batches.Row, name: str) -> None:
        """`row` is the call, with what `StreamTask.row` puts behind it."""
        self._worker = worker
        self._caller = caller
        self._task_id: bytes = object_id(caller, row[0])
        self._first = row[0] + 1
        self._what = "an item of " + name
        self._sent = 0.0
        limit, skip, taken, *capped = row[7]
        # A call of our own runs inside the wait of whoever takes its items (helping.py): it must not wait for that one.
        if capped and caller != worker.me:
            self.flow: Outflow = worker.yielding.capped((limit, skip, taken), *capped)
        else:
            self.flow = Outflow(0 if caller == worker.me else limit, skip, taken)
        self.wake: Callable[[], object] = _nothing
        """Have it look again, if it is parked."""

    def __enter__(self) -> Yielder:
        yielding = self._worker.yielding
        with self._worker.lock:
            yielding.running[self._task_id] = self
            taken, wanted = yielding.early.pop(self._task_id, (0, 0))
            self.flow.credit(taken)
            self.flow.closed = taken == _CLOSED
            if isinstance(self.flow, CappedOutflow):
                self.flow.want(wanted)
        return self

    def __exit__(self, *_: object) -> None:
        yielding = self._worker.yielding
        del yielding.running[self._task_id]
        if isinstance(self.flow, CappedOutflow):
            self.flow.end()
            with self._worker.lock:
                yielding.room()

    def close(self) -> None:
        """End it at its next `yield`, or now if it is parked."""
        self.flow.closed = True
        self.wake()

    @property
    def is_cancelled(self) -> bool:
        """The call was cancelled."""
        cancelled = self._worker.cancelled
        return bool(cancelled) and self._task_id in cancelled

    @property
    def must_wait(self) -> bool:
        """Enough items lie there, and somebody may yet take them."""
        return self.flow.parked and not self.is_cancelled

    def give(self, value: Any) -> bool:
        """Send an item, or let it collect. True when it was sent. Raises SerializationError, ObjectStoreFullError."""
        index = self.flow.make()
        if index < 0:
            return False
        worker, caller, number = self._worker, self._caller, self._first + index
        refs: list[Any] = []
        packed = payload.pack(value, refs, what=self._what)
        if type(packed) is bytes and not refs:
            row: batches.Row = [number, 0, packed]
        else:
            item_id = object_id(caller, number)
            row = [number, 0, [execute.row_of(worker, caller, item_id, packed, refs, type(value).__name__)], ()]
        out = worker.out
        out.append((caller, row))
        if len(out) < ITEM_ROWS and _perf() - self._sent < ITEM_S:
            worker.pump.request_turn()
            return False
        worker.answer_now()
        worker.pump.drain_now()
        self._sent = _perf()
        return True

    def park(self) -> None:
        """Wait on this thread until an item is taken, or nobody wants more, or the call is cancelled.

        KeyboardInterrupt: a task is cancelled.
        """
        worker, signals = self._worker, self._worker.signals
        worker.answer_now()
        before = signals.executing
        if worker.host is None:
            signals.executing = self._task_id
        try:
            while True:
                waiter = Waiter()
                self.wake = waiter.finish
                if not self.must_wait:
                    return
                worker.pump_until(waiter, None)
                if worker.closed is not None:
                    raise worker.closed
        finally:
            signals.executing = before
            self.wake = _nothing

    def run_finally(self, values: Iterator[Any]) -> None:
        """Close a generator on this thread. Its code may be interrupted like any of a task."""
        close = getattr(values, "close", None)
        if close is None:
            return
        signals = self._worker.signals
        before = signals.executing
        if self._worker.host is None:
            signals.executing = self._task_id
        try:
            close()
        finally:
            signals.executing = before

    def end(self) -> execute.Returns:
        """The body has ended: what the call gives. Raises RuntimeError for a replay that is shorter."""
        text = self.flow.why_too_short()
        if text:
            raise RuntimeError(text)
        packed = payload.pack(self.flow.made, [], what=self._what)
        assert isinstance(packed, bytes)
        return [[batches.OK_INLINE, packed, len(packed), "int", ()]]


def returns_of(
    worker: Worker, caller: bytes, row: batches.Row, result: Any, name: str, advance: execute.Advance = next
) -> execute.Returns:
    """What a call gives: packed at once, or run on when it streams. Raises as `execute.pack_returns`, and as below."""
    count = row[3] if len(row) > batches.SHORT_ROW else 1
    if count != 1:
        if count < 0:
            return stream_returns(worker, caller, row, result, name, advance)
        if hasattr(result, "__anext__"):
            return _complete(worker, caller, row, pack_async(worker, caller, row, result, name))
    return execute.pack_returns(worker, caller, object_id(caller, row[0]), result, count, name, advance)


def stream_returns(
    worker: Worker, caller: bytes, row: batches.Row, result: Any, name: str, advance: execute.Advance
) -> execute.Returns:
    """Run a generator to its end on this thread, and send what it yields; what the call gives then, in one row.

    Raises what the body raises, TypeError when `result` is no iterator, KeyboardInterrupt when a task was cancelled.
    """
    if row[3] == ONE_ITEM and not hasattr(result, "__anext__"):
        return _one_item(worker, caller, row, result, name, advance)
    if hasattr(result, "__anext__"):
        return _complete(worker, caller, row, stream_async(worker, caller, row, result, name))
    if not hasattr(result, "__next__"):
        raise TypeError(not_iterable(name, result))
    with Yielder(worker, caller, row, name) as out:
        flow = out.flow
        try:
            while True:
                if flow.limit and flow.parked:
                    out.park()
                if flow.closed:
                    break
                if out.is_cancelled:
                    if worker.host is not None:  # nothing interrupts it
                        return [execute.CANCELLED_ROW]
                    if flow.parked:
                        raise KeyboardInterrupt
                try:
                    value = advance(result)
                except StopIteration:
                    break
                out.give(value)
                del value
        finally:
            out.run_finally(result)
        return out.end()


def _one_item(
    worker: Worker, caller: bytes, row: batches.Row, values: Iterator[Any], name: str, advance: execute.Advance
) -> execute.Returns:
    """Run a generator as far as the item that was lost."""
    index = index_of(row[0])
    try:
        for _ in range(index):
            advance(values)
        return [execute.pack_one(worker, caller, object_id(caller, row[0]), advance(values), name)]
    except StopIteration:
        raise RuntimeError(too_short_for(index)) from None


def too_short_for(index: int) -> str:
    """For the error of a lost item that does not come again."""
    return f"run again for item {index}, which was lost, the generator ended before it: it has to yield the same again"


def _complete(
    worker: Worker, caller: bytes, row: batches.Row, run: Coroutine[Any, Any, execute.Returns]
) -> execute.Returns:
    """An async generator that is a task: on the main thread's loop, alone."""
    signals = worker.signals
    before, signals.executing = signals.executing, object_id(caller, row[0])
    try:
        returns: execute.Returns = worker.looping.complete(run)
        return returns
    finally:
        signals.executing = before


async def stream_async(worker: Worker, caller: bytes, row: batches.Row, result: Any, name: str) -> execute.Returns:
    """As `stream_returns`, on a loop. A body that does not await lets others in whenever a batch has left."""
    import asyncio  # late: only for those who use it

    is_async = hasattr(result, "__anext__")
    if row[3] == ONE_ITEM:
        index = index_of(row[0])
        try:
            for _ in range(index + 1):
                value = await result.__anext__() if is_async else next(result)
        except (StopIteration, StopAsyncIteration):
            raise RuntimeError(too_short_for(index)) from None
        return [execute.pack_one(worker, caller, object_id(caller, row[0]), value, name)]
    if not is_async and not hasattr(result, "__next__"):
        raise TypeError(not_iterable(name, result))
    with Yielder(worker, caller, row, name) as out:
        loop, go_on = asyncio.get_running_loop(), asyncio.Event()
        out.wake = lambda: loop.call_soon_threadsafe(go_on.set)
        try:
            while True:
                if out.must_wait:
                    worker.answer_now()
                while out.must_wait:
                    await go_on.wait()
                    go_on.clear()
                if out.flow.closed:
                    break
                try:
                    value = await result.__anext__() if is_async else next(result)
                except (StopIteration, StopAsyncIteration):
                    break
                if out.give(value):
                    await asyncio.sleep(0)
                del value
        finally:
            out.wake = _nothing
            await _close(result)
        return out.end()


async def pack_async(
    worker: Worker, caller: bytes, row: batches.Row, values: AsyncIterator[Any], name: str
) -> execute.Returns:
    """What a call gives whose caller wants a fixed number of an async generator's values, as a plain one's."""
    count = row[3]
    parts = execute.Parts(worker, (caller, object_id(caller, row[0])), count, name)
    try:
        try:
            for _ in range(count):
                parts.give(await anext(values))
        except StopAsyncIteration:
            return parts.failed(parts.too_few())
        except Exception as raised:  # noqa: BLE001  the user's generator raised: the values before it are good
            return parts.failed(raised)
        try:
            if count:
                await anext(values)
                log.warning(execute.TOO_MANY, name, count)
        except StopAsyncIteration:
            pass
        except Exception:
            log.exception(execute.RAISED_BEHIND, name, count)
        return parts.whole()
    finally:
        await _close(values)


async def _close(result: AsyncIterator[Any] | Iterator[Any]) -> None:
    if hasattr(result, "aclose"):
        await result.aclose()
    elif hasattr(result, "close"):
        result.close()


def not_iterable(name: str, result: object) -> str:
    """For the error of a call that should stream."""
    return (
        f"{name} has num_returns='streaming' but returned {type(result).__name__}: write `yield` in it, or return an "
        "iterator"
    )


def _nothing() -> None:
    """Nobody is parked."""
