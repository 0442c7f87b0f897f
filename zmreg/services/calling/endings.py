"""How an owner's tasks end: values, errors, errors handed down to those who waited for a value.

Off the hot path, except that plain single results are settled by `Tasks.on_results` itself. All methods run under the
client's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic

from zmreg.model.arguments import check_seconds
from zmreg.model.errors import ObjectLostError, OutOfMemoryError, UnschedulableError, WorkerDiedError, ZmregError
from zmreg.model.ids import node_of, short
from zmreg.model.messages import CancelCall, CancelObject, KillOverdue, PartReady
from zmreg.services.calling.calls import Lane, Task, Wires, describe, first_unusable
from zmreg.services.calling.obituary import cancelled_failure
from zmreg.services.calling.peers import Peer
from zmreg.services.seat.entries import (
    FAILED,
    INLINE,
    PENDING,
    STORED,
    Entry,
    Inherited,
    Outbox,
    Stored,
    Unrun,
    Verdict,
)
from zmreg.services.seat.sharing import Sharing
from zmreg.services.seat.unread import Note, Unread
from zmreg.telemetry import past
from zmreg.telemetry.past import End, clipped
from zmreg.wire import batches, payload


class Endings:
    """The living tasks of this process, and how each of them is over."""

    def __init__(self, wires: Wires, sharing: Sharing, free: Callable[[Stored], None]) -> None:
        """`free(stored)` makes those bytes ours to free."""
        self.wires = wires
        self.past = wires.past
        self.sharing = sharing
        self.stored_outbox_of = free
        self.live: dict[int, Task] = {}
        self.failed = self.cancelled = 0
        """Tasks that have ended so."""
        self.lanes: dict[bytes, Lane] = {}
        self.unread: Outbox[Note] = Outbox(wires.request_turn)
        """Errors that nobody read, left by finalizers to be reported."""
        self._doomed: deque[tuple[Task, Entry]] = deque()
        self._falling = False

    def end(self, task: Task) -> None:
        """Nothing more comes for it."""
        self.live.pop(task.counter, None)
        for entry in task.entries:
            entry.task = None

    def tell(self, task: Task, text: str) -> None:
        """Remember what has happened to this attempt of a call, which may not be the last."""
        self.past.tell(task.counter, text, monotonic(), task.attempt)

    def remember(self, task: Task, state: str, error: str) -> None:
        """A call is over, and no answer of a worker's says how."""
        name, worker = task.template.name, task.lane.worker if task.lane is not None else b""
        returns = len(task.entries)
        self.past.end(End(task.counter, monotonic(), name, worker, state, task.attempt, returns, clipped(error)))

    def lives(self, task: Task) -> bool:
        """Whether something of it is still to come."""
        return self.live.get(task.counter) is task

    def settle_all(self, task: Task, failure: bytes | Inherited) -> None:
        """Settle what is still pending of its entries with an error that need not be reported."""
        for entry in task.entries:
            if entry.state == PENDING:
                entry.settle(FAILED, failure)
                entry.task = task.description()

    def fail(self, task: Task, error: ZmregError, unrun: bool = False) -> None:
        """The task will give no value. `unrun`: it was not begun, for certain."""
        self.end(task)
        self.failed += 1
        self.remember(task, past.FAILED, f"{type(error).__name__}: {error}")
        failure = (Unrun if unrun else Verdict)(payload.pack_failure(error))
        if isinstance(error, (WorkerDiedError, OutOfMemoryError, UnschedulableError)):
            for entry in task.entries:
                if entry.state == PENDING:
                    self.settle_failed(task, entry, failure)
        else:
            self.settle_all(task, failure)

    def fail_by_input(self, task: Task, bad: Entry) -> None:
        """An input failed: so does the task, by the same error, without having run; and so on down the chain."""
        self._doomed.append((task, bad))
        if self._falling:  # a call of this further up works them off: chains are longer than the stack is deep
            return
        self._falling = True
        try:
            while self._doomed:
                self._inherit(*self._doomed.popleft())
        finally:
            self._falling = False

    def _inherit(self, task: Task, bad: Entry) -> None:
        self.end(task)
        self.failed += 1
        name = describe(task, self.wires.me)
        if bad.state != FAILED:
            text = f"an input of {name} was freed before it ran: no handle to it was left"
            self.remember(task, past.FAILED, text)
            self.settle_all(task, payload.pack_failure(ObjectLostError(text, object_id=bad.object_id.hex())))
            return
        for entry in task.entries:
            if entry.seen is False:  # the error goes on: read anywhere down the chain, it has been read
                entry.seen = bad.seen
        note = f"{name} was not run: its input, object {short(bad.object_id)}, could not be computed"
        self.remember(task, past.FAILED, note)
        self.settle_all(task, Inherited(bad, note))

    def settle_part(self, worker: bytes, message: PartReady) -> bool:
        """One of several values is there before the call ends. What a replay makes again is one more copy: False."""
        contained = self.sharing.receive(message.contained, worker)
        lane = self.lanes.get(worker)
        task = lane.outstanding.get(message.counter) if lane is not None else None
        if task is None or not message.index < len(task.entries):
            return False
        entry = task.entries[message.index]
        if entry.state != PENDING:
            stored, there = entry.value, node_of(worker)
            # Its first place is lost, perhaps, and nobody has missed it yet.
            if message.stored and isinstance(stored, Stored) and there not in (stored.holder, *stored.copies):
                stored.copies = (*stored.copies, there)
            return False
        entry.contained, entry.type_name = contained, message.type_name
        self.settle_good(entry, message.stored, message.payload, message.nbytes, worker)
        return True

    def settle_good(self, entry: Entry, is_stored: bool, data: bytes, nbytes: int, worker: bytes) -> None:
        """Settle one entry with a value: `data`, or `nbytes` in the store of the worker's node."""
        if not is_stored:
            entry.settle(INLINE, data)
            return
        stored = Stored(entry.object_id, nbytes, node_of(worker), None)
        self.stored_outbox_of(stored)
        entry.settle(STORED, stored)

    def ended_early(self, task: Task, row: batches.Row) -> bool:
        """A call that was cancelled, refused, or kept from running by a failed input behind which it rode."""
        if row[0] == batches.REFUSED:
            self.failed += 1
            self.settle_all(task, Unrun(row[1]))
            return True
        if row[0] == batches.CANCELLED:
            self.cancelled += 1
            self.settle_all(task, cancelled_failure(task, self.wires.me, row[1].decode()))
            return True
        bad = first_unusable(task)
        if bad is not None:
            self.fail_by_input(task, bad)
        elif not task.entries:
            Unread(describe(task, self.wires.me), row[1], self.unread.append)
        return bad is not None

    def cancel(self, entry: Entry, force: bool, recursive: bool, grace_s: float | None = None) -> None:
        """Cancel the task that makes an own entry; nothing when it is finished. ValueError as `cancel_task`."""
        task = entry.task
        if task is not None and task.counter in self.live:
            self.cancel_task(task, force, recursive, grace_s)

    def cancel_task(self, task: Task, force: bool, recursive: bool, grace_s: float | None) -> None:
        """Cancel a living task.

        ValueError: an actor's call, by force or with a grace at whose end its process would be killed.
        """
        home, lane = task.peer, task.lane
        if isinstance(home, Peer) and (force or grace_s is not None):
            how = "force=True" if force else f"grace={grace_s:g}"
            raise ValueError(f"an actor call cannot be cancelled with {how}; zmreg.kill(actor) ends the actor")
        task.cancelled = True
        if force:
            for entry in task.entries:
                entry.see()  # whoever has its process ended knows what becomes of it
        if grace_s is not None:
            task.grace_s = grace_s
        if lane is not None and task.counter in lane.outstanding:
            cancel_sent(task, lane, force, recursive, grace_s)
            return
        if lane is not None and task in lane.parked:
            lane.parked.remove(task)
        elif home is not None:
            home.withdraw(task)
        task.lane = None
        self.end(task)
        self.cancelled += 1
        self.remember(task, past.CANCELLED, "")
        self.settle_all(task, cancelled_failure(task, self.wires.me))
        if isinstance(home, Peer):  # it may have stood before others, waiting for an input
            home.advance()

    def cancel_all(self, grace_s: float | None) -> int:
        """Cancel every living task; how many. The newest first: what a worker has not begun it drops before it is
        interrupted. An actor's calls are told, without the grace."""
        tasks = list(reversed(self.live.values()))
        for task in tasks:
            if self.lives(task):  # the one before it may have been its input
                self.cancel_task(task, False, True, None if isinstance(task.peer, Peer) else grace_s)
        return len(tasks)

    def cancel_for_another(self, entry: Entry, message: CancelObject) -> None:
        """Whoever holds a ref cannot know that an actor makes it, whose process stays: that call is told, no more."""
        if entry.task is not None and isinstance(entry.task.peer, Peer):
            self.cancel(entry, False, message.recursive)
        else:
            self.cancel(entry, message.force, message.recursive, message.grace_s)

    def settle_failed(self, task: Task, entry: Entry, failure: bytes) -> None:
        """Settle one entry with its call's own error, which is reported if nobody ever reads it."""
        if entry.seen is False:
            first = task.entries[0]
            if isinstance(first.seen, Unread) and first.value == failure:
                entry.seen = first.seen
            else:
                entry.seen = Unread(describe(task, self.wires.me), failure, self.unread.append)
        entry.settle(FAILED, failure)
        entry.task = task.description()


def check_grace(force: bool, grace_s: float | None) -> None:
    """Raises ValueError."""
    if grace_s is None:
        return
    check_seconds(grace_s, "grace")
    if grace_s == float("inf"):
        raise ValueError(f"grace={grace_s}: seconds are needed, from 0; None never kills")
    if force:
        raise ValueError("force=True kills at once and grace waits first: give one of them")


def cancel_sent(task: Task, lane: Lane, force: bool, recursive: bool, grace_s: float | None = None) -> None:
    """Ask the worker to drop or interrupt a task that was sent, and its node to kill it when `grace_s` is over."""
    lane.flush()
    lane.wires.post(lane.worker, CancelCall(task.counter, force, recursive, grace_s))
    if grace_s is not None:
        lane.wires.post(node_of(lane.worker), KillOverdue(lane.worker, task.counter, grace_s))
