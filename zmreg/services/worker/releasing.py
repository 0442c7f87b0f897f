"""Methods that let go of their actor while they wait: `@zmreg.method(release=True)` on a generator.

Each `yield ref` parks the call. The actor goes on with other calls, and the generator is run on, with the ref's value,
when that is there: on the main thread by way of the worker's inbox, or on a thread of its group. The call counts as
running all the time; its caller is answered once, at its end. An async actor needs no parking (hosting_async.py).

A parked call was begun before the call that the worker's board shows, and may outlive that one: going on with it leaves
the board as it is, and its owner knows (services/calling/peers.py, `_count_begun`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from zmreg.services.calling.kinds import RELEASE
from zmreg.services.calling.submit import NOTHING
from zmreg.services.seat import arrivals
from zmreg.services.seat.entries import PENDING, Entry, EntryRef
from zmreg.services.seat.running import running
from zmreg.services.worker import execute
from zmreg.wire import batches

if TYPE_CHECKING:
    from zmreg.services.worker.worker import Worker

RESUME = "\0>"
"""Behind a method's name, in a row that we hand ourselves: go on with that call."""

Steps = Generator[Any, Any, Any]


class Released(Exception):
    """No error: a call waits for these entries, at a yield. `many`: it wants a list of values."""

    last = False
    """It waits until no call waits but those that do the same, and is then made again: the end of the actor."""

    def __init__(self, steps: Steps, entries: list[Entry], many: bool) -> None:
        super().__init__("waits")
        self.steps = steps
        self.entries = entries
        self.many = many


class Parked:
    """A call that waits, or goes on and may wait again."""

    __slots__ = ("cancelled", "left", "refs", "released", "row", "waits")

    def __init__(self, row: batches.Row) -> None:
        self.row = row
        self.released: Released | None = None
        self.refs: list[Any] = []
        """What came into this process with the call's arguments: its own answer tells of what is still held."""
        self.left = 0
        self.waits = False
        self.cancelled = False


class Releasing:
    """The calls of one actor that have let go of it. `resume` hands a row to whoever runs calls, first or last."""

    def __init__(self, worker: Worker, resume: Callable[[bytes, batches.Row, bool], None]) -> None:
        self._worker = worker
        self._resume = resume
        self._calls: dict[bytes, Parked] = {}
        self._ends_after = False
        self.gone = threading.Event()
        """Set each time a call is over: whoever waits for the last looks then."""

    def __len__(self) -> int:
        return len(self._calls)

    def holds(self, task_id: bytes) -> bool:
        """Whether that call is one of them."""
        return task_id in self._calls

    def starting(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method as it is called: up to its first yield."""

        def start(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            return _step(result, None, None) if type(result) is GeneratorType else result

        start.__qualname__ = getattr(method, "__qualname__", "method")
        return start

    def going_on(self, name: str) -> Callable[[], Any]:
        """What runs the call of this thread on."""

        def go_on() -> Any:
            call = running.get()
            assert call is not None
            return self._go_on(call[0])

        go_on.__qualname__ = name
        return go_on

    def _go_on(self, task_id: bytes) -> Any:
        parked = self._calls[task_id]
        released, parked.released = parked.released, None
        assert released is not None
        arrivals.put_back(parked.refs)
        try:
            if parked.cancelled:
                released.steps.close()
                raise execute.NotBegun
            value, error = None, None
            try:
                values = self._worker.get(released.entries, None)
                value = values if released.many else values[0]
            except Exception as raised:  # noqa: BLE001  what it waited for has failed: thrown where it waits
                error = raised
            result = _step(released.steps, value, error)
        except Released:
            raise
        except BaseException:
            self._over(task_id)
            raise
        self._over(task_id)
        return result

    def _over(self, task_id: bytes) -> None:
        worker = self._worker
        with worker.lock:
            self._calls.pop(task_id, None)
            self.gone.set()
            if self._calls and not self.waits_for_others():
                for key, parked in self._calls.items():
                    if parked.waits:
                        self._schedule(key[:8], parked, first=False)
            if self._ends_after and not self._calls:
                worker.ending = True

    def park(self, caller: bytes, row: batches.Row, task_id: bytes, released: Released) -> execute.Returns | None:
        """The call has yielded. None, or its answer when it was cancelled meanwhile."""
        worker = self._worker
        with worker.shield(), worker.lock:
            if task_id not in worker.cancelled:
                parked = self._calls.get(task_id)
                if parked is None:
                    parked = self._calls[task_id] = Parked(_row_of(row))
                parked.refs = arrivals.take()
                self._await(caller, parked, released)
                return None
            self._over(task_id)
        released.steps.close()
        return [execute.CANCELLED_ROW] * max(1, row[3] if len(row) > batches.SHORT_ROW else 1)

    def _await(self, caller: bytes, parked: Parked, released: Released) -> None:
        worker = self._worker
        if worker.ending:
            worker.ending, self._ends_after = False, True
        parked.released, parked.waits = released, True
        pending = {id(entry): entry for entry in released.entries if entry.state == PENDING}
        parked.left = len(pending)
        for entry in pending.values():
            entry.listen(lambda _: self._there(caller, parked, released))
            worker.sharing.want(entry)
        worker.flush()
        if not pending and not released.last:  # others go first: whoever waits lets them, always
            self._schedule(caller, parked, first=False)

    def _there(self, caller: bytes, parked: Parked, released: Released) -> None:
        if parked.released is released and parked.waits:
            parked.left -= 1
            if not parked.left:
                self._schedule(caller, parked, first=True)

    def _schedule(self, caller: bytes, parked: Parked, first: bool) -> None:
        parked.waits = False
        self._resume(caller, parked.row, first)

    def waits_for_others(self) -> bool:
        """Whether a call has yet to go on before the actor may end in peace."""
        return any(parked.released is None or not parked.released.last for parked in self._calls.values())

    def cancel(self, task_id: bytes) -> bool:
        """A call that waits ends at its yield. False: it is none of them, or runs just now."""
        with self._worker.lock:
            parked = self._calls.get(task_id)
            if parked is None or parked.released is None or parked.released.last:
                return False
            parked.cancelled = True
            if parked.waits:
                self._schedule(task_id[:8], parked, first=True)
            return True

    def puts_off_end(self) -> bool:
        """The actor is to end when it is idle: is it not, because of these? Then it ends behind the last."""
        with self._worker.lock:
            self._ends_after = bool(self._calls)
            return self._ends_after


class LetOthersEnd(Released):
    """The actor is to end, and calls wait that it has begun."""

    last = True

    def __init__(self) -> None:
        super().__init__(_nothing(), [], False)


def _nothing() -> Steps:
    yield from ()


def park(worker: Worker, caller: bytes, row: batches.Row, task_id: bytes, released: Released) -> execute.Returns | None:
    """As `Releasing.park`, of the actor that this worker is."""
    assert worker.host is not None
    return worker.host.releasing.park(caller, row, task_id, released)


def _step(steps: Steps, value: Any, error: Exception | None) -> Any:
    """Run a generator on to its end, and return what it returns; Released at its next yield."""
    while True:
        try:
            wanted = steps.send(value) if error is None else steps.throw(error)
        except StopIteration as end:
            return end.value
        many = isinstance(wanted, (list, tuple))
        refs = wanted if many else [wanted]
        if all(isinstance(each, EntryRef) for each in refs):
            raise Released(steps, [each._entry for each in refs], many)
        value, error = (
            None,
            TypeError(f"a method with release=True yields a ref, or a list of refs, to wait for; not {wanted!r:.80}"),
        )


def _row_of(row: batches.Row) -> batches.Row:
    """The row by which the call goes on, wherever it runs."""
    nreturns, attempt, depth = row[3:6] if len(row) > batches.SHORT_ROW else (1, 0, 0)
    return [row[0], row[1].replace(RELEASE, RESUME), NOTHING, nreturns, attempt, depth, []]
