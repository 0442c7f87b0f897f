"""A generator's items where they are taken: each an entry of its own, in order, as rows of results bring them.

A call that streams has one entry as any call has: it is there when the generator has ended, and its value is the number
of items. The items' entries are made when they come; one that somebody waits for is made before (`Stream.peek`). What
counts and what does not, `core.streams.Inflow` decides.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from zmreg.core.streams import ONE_ITEM, SPAN, STREAMING, Inflow, call_of, first_number, number_behind
from zmreg.model.errors import InternalError
from zmreg.model.ids import node_of
from zmreg.model.stream_messages import StreamClosed, StreamCredit
from zmreg.services.calling.calls import Lane, Task, Template
from zmreg.services.seat.entries import FAILED, FREED, INLINE, STORED, Entry, Stored
from zmreg.wire import batches, payload

if TYPE_CHECKING:
    from zmreg.services.calling.tasks import Tasks
    from zmreg.services.seat.client import Client


class StreamEntry(Entry):
    """The end of a stream. Whoever submits takes the stream out of it, once: kept, it would be a circle."""

    __slots__ = ("stream",)

    stream: Stream | None


_MANY = Entry(b"", 0, FREED)
"""Second among the entries of a call that streams, so that it is taken for one with several values, which it is."""


class StreamTask(Task):
    """A call that streams."""

    __slots__ = ("_for_one", "stream")

    stream: Stream
    _for_one: Template | None

    def for_one(self) -> Template:
        """How it is called again for one item."""
        if self._for_one is None:
            own = self.template
            twin = self._for_one = Template(own.name, own.target, own.shape)
            twin.blob, twin.contained, twin.pool = own.blob, own.contained, own.pool
            twin.max_retries, twin.retry_exceptions = own.max_retries, own.retry_exceptions
            twin.nreturns = ONE_ITEM
        return self._for_one

    def row(self) -> batches.Row:
        """With [limit, items not to be sent again, items taken] behind it, and [the actor's bound, items wanted]."""
        stream, cap = self.stream, self.template.cap
        capped = (cap, stream.wanted) if cap else ()
        return [*Task.row(self), [*stream.flow.restart(), *capped]]

    def description(self) -> Task | None:
        """None: whoever wants the items once more calls once more."""
        return None


class Stream:
    """The items of one call. All methods but `take`, `leave` and `is_over` run under the client's lock."""

    __slots__ = ("__weakref__", "awaited", "dropped", "first", "flow", "kept", "ready", "seat", "task")

    def __init__(self, seat: Client, task: StreamTask, limit: int) -> None:
        self.seat = seat
        self.task: StreamTask | None = task
        """None when it has ended."""
        self.first = task.counter + 1
        self.flow = Inflow(limit)
        self.ready: deque[Entry] = deque()
        """Here, and not taken."""
        self.awaited: Entry | None = None
        """The next to come, when somebody waits for it."""
        self.dropped = False
        """Nobody takes items any more; what comes is let go."""
        self.kept = False
        """Somebody wants to know its end, and so it runs to that, dropped or not."""

    # -- taking -----------------------------------------------------------------------------------------------------

    def take(self) -> Entry | None:
        """The next item; None when it is not here."""
        flow = self.flow
        if not flow.limit:
            try:
                return self.ready.popleft()
            except IndexError:
                return None
        if not self.ready:
            return None
        seat = self.seat
        with seat.shield(), seat.lock:
            if not self.ready:
                return None
            if flow.take():
                self._tell()
            elif not flow.over:
                seat.dirty.add(self)
                seat.request_turn()
            return self.ready.popleft()

    def peek(self) -> Entry | None:
        """The entry of the next item, here or not; None when there will be none."""
        if self.ready:
            return self.ready[0]
        if self.awaited is None and not self.flow.over:
            self.awaited = Entry(self.seat.me, self.first + self.flow.received)
            self.awaited.task = self.task
            if self.task is not None and self.task.template.cap:
                self._want(self.task)
        return self.awaited

    @property
    def wanted(self) -> int:
        """Somebody waits for so many items, of all."""
        return self.flow.received + (self.awaited is not None)

    def is_over(self) -> bool:
        """Ended, and all taken."""
        return self.flow.over and not self.ready

    def leave(self) -> None:
        """The handle is gone. For finalizers: takes no lock."""
        self.dropped = True
        self.ready.clear()
        self.seat.dirty.add(self)
        self.seat.request_turn()

    # -- telling the maker ------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Say what is to be said."""
        if self.task is None or self.seat.closed is not None:
            self.awaited = None
        elif self.dropped:
            self._drop(self.task)
        else:
            self._tell()

    def _tell(self) -> None:
        taken = self.flow.tell()
        if taken >= 0 and self.task is not None and self.task.lane is not None:
            self.seat.post(self.task.lane.worker, StreamCredit(self.task.counter, taken, 0))

    def _want(self, task: StreamTask) -> None:
        """Others' items must not keep this one from being made; before it is sent, the call itself says so."""
        lane = task.lane
        if lane is not None and task.counter in lane.outstanding:
            lane.flush()
            self.seat.post(lane.worker, StreamCredit(task.counter, self.flow.taken, self.wanted))

    def _drop(self, task: StreamTask) -> None:
        """Nothing more is wanted of it, unless its end is."""
        self.ready.clear()
        lane, tasks = task.lane, self.seat.tasks
        is_sent = lane is not None and task.counter in lane.outstanding
        if self.kept:
            self.flow.limit = 0
            if lane is not None and is_sent:
                self.seat.post(lane.worker, StreamCredit(task.counter, SPAN, 0))
            return
        task.cancelled = True  # no further attempt
        task.entries[0].see()
        if lane is not None and is_sent:
            lane.flush()
            self.seat.post(lane.worker, StreamClosed(task.counter))
        else:
            tasks.cancel_task(task, False, True, None)

    # -- what comes -------------------------------------------------------------------------------------------------

    def arrive(self, worker: bytes, row: batches.Row) -> None:
        """An item. ValueError: it comes before its turn."""
        if not self.flow.arrive(row[0] - self.first):
            return
        entry, self.awaited = self.awaited, None
        waited_for = entry is not None
        if entry is None:
            entry = Entry(self.seat.me, row[0])
        entry.task = None
        if len(row) == batches.SHORT_ROW:
            entry.state, entry.value = INLINE, row[2]
        else:
            receive(self.seat.tasks, entry, worker, row[2][0])
            if entry.state == STORED and self.task is not None:
                self.seat.tasks.lineage.keep_item(self.task, entry, self.task.for_one())
        if not self.dropped:
            self.ready.append(entry)
        if waited_for:
            entry.settle(entry.state, entry.value)

    def ended(self, done: Entry) -> None:
        """The call is over, well or not: `done` is its entry."""
        self.task = None
        entry, self.awaited = self.awaited, None
        failure = done.value if done.state == FAILED else b""
        if done.state == INLINE:
            text = self.flow.end(payload.unpack(done.value))  # type: ignore[arg-type]
            failure = payload.pack_failure(InternalError(text)) if text and not self.dropped else b""
        if failure:
            last = entry or Entry(self.seat.me, self.first + self.flow.received)
            self.flow.fail()
            last.task, last.seen = None, done.seen
            last.state, last.value = FAILED, failure
            if not self.dropped:
                self.ready.append(last)
        if entry is not None:
            entry.task = None
            entry.settle(FAILED if failure else FREED, failure or None)


class Streams:
    """The calls of one process that stream."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks

    def took(self, lane: Lane, row: batches.Row) -> bool:
        """Whether this row, which answers no call that is under way, is an item of one."""
        task = self._tasks.live.get(call_of(row[0]))
        if type(task) is not StreamTask or task.lane is not lane:
            self._let_go(lane.worker, row)
            return False
        self._tasks.finished -= 1  # a row, but not the last of its call
        try:
            task.stream.arrive(lane.worker, row)
        except ValueError as error:
            lane.answered(task.counter)
            self._tasks.fail(task, InternalError(f"{task.template.name}: {error}"))
        return True

    def _let_go(self, worker: bytes, row: batches.Row) -> None:
        """The item of a call that is over: what it holds is freed."""
        if len(row) > batches.SHORT_ROW and row[0] >= SPAN and row[2]:
            receive(self._tasks, Entry(self._tasks.wires.me, row[0]), worker, row[2][0])


def receive(tasks: Tasks, entry: Entry, worker: bytes, returned: batches.Row) -> None:
    """Fill an entry with what a row brings: a stored value, or one with refs in it. Nobody is told."""
    status, data, nbytes, type_name, contained = returned
    entry.contained = tasks.sharing.receive(contained, worker) if contained else ()
    entry.type_name = type_name
    if status == batches.OK_STORED:
        stored = Stored(entry.object_id, nbytes, node_of(worker), None)
        tasks.stored_outbox_of(stored)
        entry.state, entry.value = STORED, stored
    else:
        entry.state, entry.value = INLINE, data


def new_stream(client: Client, template: Template, data: bytes) -> StreamTask:
    """A call that streams, with the entry of its end; it takes its numbers. Under the lock."""
    tasks = client.tasks
    counter = first_number(tasks.next_number)
    tasks.next_number = number_behind(counter)
    task = StreamTask(counter, template, data, client.depth)
    task._for_one = None
    done = StreamEntry(client.me, counter)
    task.stream = done.stream = Stream(client, task, template.limit)
    done.task = task
    done.listen(task.stream.ended)
    task.entries = (done, _MANY)
    return task


def stream_of(entry: StreamEntry) -> Stream:
    """The stream that this entry, just submitted, is the end of. Once only."""
    stream, entry.stream = entry.stream, None
    assert stream is not None
    return stream


__all__ = ["STREAMING", "Stream", "StreamEntry", "StreamTask", "Streams", "new_stream", "stream_of"]
