"""An owner's tasks from submission to their end: inputs, placement, results, retries, cancellation.

The hot part is `start` and `on_results`; the rest runs only when an input is late, a worker dies or a user cancels.
All methods run under the client's lock.
"""

from __future__ import annotations

import logging
import weakref
from collections import deque
from collections.abc import Callable

from zmreg.model.errors import (
    ObjectLostError,
    TaskError,
    UnschedulableError,
    WorkerDiedError,
    ZmregError,
)
from zmreg.model.ids import short
from zmreg.model.messages import (
    ActorState,
    GaveBack,
    LeaseGranted,
    ProcessDied,
    Unschedulable,
    WatchActor,
)
from zmreg.model.specs import Shape
from zmreg.services.calls import (
    CALL_COST_US,
    LEASE_IDLE_S,
    Lane,
    Pool,
    Task,
    Template,
    Wires,
    cancel_sent,
    describe,
    first_unusable,
    pending_inputs,
    riding_lane,
)
from zmreg.services.entries import FAILED, INLINE, PENDING, STORED, Borrowed, Entry, Inherited, Outbox, Stored
from zmreg.services.obituary import cancelled_failure, count_begun, one_more_attempt, worker_died
from zmreg.services.peers import Peer
from zmreg.services.sharing import Sharing
from zmreg.services.unread import Note, Unread
from zmreg.wire import batches, payload

log = logging.getLogger("zmreg.tasks")


class Tasks:
    """Every task this process owns, the pools and lanes they go by, and the actors it calls."""

    def __init__(self, wires: Wires, sharing: Sharing, free: Callable[[Stored], None]) -> None:
        self.wires = wires
        self.sharing = sharing
        self.stored_outbox_of = free
        self.next_number = 1
        self.submitted = 0
        self.pools: dict[Shape, Pool] = {}
        self.lanes: dict[bytes, Lane] = {}
        self.peers: dict[bytes, Peer] = {}
        self.departing: list[Peer] = []
        self.known: dict[bytes, set[bytes]] = {}
        self.templates: weakref.WeakValueDictionary[bytes, Template] = weakref.WeakValueDictionary()
        """Definitions by digest, while a function object or a queued task needs them: workers may ask again."""
        self.live: dict[int, Task] = {}
        self.unread: Outbox[Note] = Outbox(wires.request_turn)
        """Errors that nobody read, left by finalizers to be reported."""
        self._doomed: deque[tuple[Task, Entry]] = deque()
        self._falling = False
        self.finished = 0
        self.late_answers = 0
        self.dead: dict[bytes, ProcessDied] = {}

    def take_numbers(self, count: int) -> int:
        """The first of `count` fresh object numbers in a row."""
        with self.wires.lock:
            first = self.next_number
            self.next_number = first + count
            return first

    # -- starting ---------------------------------------------------------------------------------------------------

    def pool_for(self, shape: Shape) -> Pool:
        """The pool of a shape, made on first use."""
        pool = self.pools.get(shape)
        if pool is None:
            pool = self.pools[shape] = Pool(self.wires, shape, self.start)
        return pool

    def blob_of(self, digest: bytes, worker: bytes) -> bytes:
        """The definition that a worker lacks; empty when nobody needs it any more."""
        template = self.templates.get(digest)
        lane = self.lanes.get(worker)
        if template is None and lane is not None:  # a twin of the same digest died, and took the table's row along
            sent = (task.template for task in lane.outstanding.values())
            template = next((each for each in sent if each.target == digest), None)
        return template.blob if template is not None else b""

    def peer_for(self, actor_id: bytes, class_name: str, ordered: bool) -> Peer:
        """This process's way to an actor, made on first use; the head is asked where it lives."""
        peer = self.peers.get(actor_id)
        if peer is None:
            peer = self.peers[actor_id] = Peer(self, self.wires.me, actor_id, class_name, ordered)
            self.wires.post(self.wires.node, WatchActor(actor_id))
        return peer

    def start(self, task: Task) -> None:
        """Send, queue or hold a task, by the state of its inputs."""
        home = task.peer
        assert home is not None
        if task.cancelled:  # it was sent, and came back unstarted or for another attempt
            self._end(task)
            self._settle_all(task, cancelled_failure(task, self.wires.me))
            return
        if task.deps is not None:
            bad = first_unusable(task)
            if bad is not None:
                self.fail_by_input(task, bad)
                return
            pending = pending_inputs(task)
            if pending:
                lane = riding_lane(task)
                if lane is not None and isinstance(home, Pool):
                    task.lane = lane
                    if lane.parked or not lane.roomy:
                        lane.parked.append(task)
                    else:
                        lane.push(task)
                    return
                task.waiting = len(pending)
                for entry in pending:
                    entry.listen(lambda done: self._input_there(task, done))
                    self.sharing.want(entry)
                if isinstance(home, Pool):
                    return
        home.place(task)

    def _input_there(self, task: Task, entry: Entry) -> None:
        task.waiting -= 1
        if task.counter not in self.live or task.lane is not None:
            return
        if entry.state != INLINE and entry.state != STORED:
            assert task.peer is not None
            task.peer.withdraw(task)
            self.fail_by_input(task, entry)
            if isinstance(task.peer, Peer):
                task.peer.advance()
        elif task.waiting == 0 and isinstance(task.peer, Pool):
            self.start(task)
        elif isinstance(task.peer, Peer):
            task.peer.advance()

    # -- results ----------------------------------------------------------------------------------------------------

    def on_results(self, worker: bytes, rows: list[batches.Row]) -> None:
        """A batch of answers from a worker."""
        lane = self.lanes.get(worker)
        if lane is None:
            self.late_answers += len(rows)
            return
        outstanding, live = lane.outstanding, self.live
        for row in rows:
            counter = row[0]
            task = outstanding.pop(counter, None)
            if task is None:
                self.late_answers += 1
                continue
            lane.load -= task.est
            task.lane = None
            template, us = task.template, row[1]
            est = template.est_us
            if est is None:
                template.est_us = us + CALL_COST_US
            else:
                template.est_us = est + (us + CALL_COST_US - est) * (0.5 if us > est else 0.25)
            if len(row) == 3:
                del live[counter]
                entry = task.entries[0]
                entry.task = None
                entry.took_us = us
                entry.settle(INLINE, row[2])
            else:
                self._long_result(task, worker, row)
        self.finished += len(rows)
        lane.closed = False
        lane.home.refill(lane)

    def _long_result(self, task: Task, worker: bytes, row: batches.Row) -> None:
        _, us, returns, held = row
        if held:
            self.sharing.worker_holds(held, worker)
        if returns and returns[0][0] == batches.FAILED and self._retries(task, returns[0][1]):
            return
        self._end(task)
        if returns and returns[0][0] in (batches.CANCELLED, batches.FAILED) and self._ended_early(task, returns[0]):
            return
        for entry, (status, data, nbytes, type_name, contained) in zip(task.entries, returns, strict=False):
            entry.took_us, entry.type_name = us, type_name
            entry.contained = self.sharing.receive(contained, worker) if contained else ()
            if status == batches.OK_INLINE:
                entry.settle(INLINE, data)
            elif status == batches.OK_STORED:
                stored = Stored(entry.object_id, nbytes, (self.wires.node,), None)
                self.stored_outbox_of(stored)
                entry.settle(STORED, stored)
            else:
                self._settle_failed(task, entry, data)

    def _ended_early(self, task: Task, row: batches.Row) -> bool:
        """A call that was cancelled, or kept from running by a failed input behind which it rode."""
        if row[0] == batches.CANCELLED:
            self._settle_all(task, cancelled_failure(task, self.wires.me))
            return True
        bad = first_unusable(task)
        if bad is not None:
            self.fail_by_input(task, bad)
        elif not task.entries:
            Unread(describe(task, self.wires.me), row[1], self.unread.append)
        return bad is not None

    def _settle_failed(self, task: Task, entry: Entry, failure: bytes) -> None:
        """Settle one entry with its call's own error, which is reported if nobody ever reads it."""
        if entry.seen is False:
            first = task.entries[0]
            if isinstance(first.seen, Unread) and first.value == failure:
                entry.seen = first.seen
            else:
                entry.seen = Unread(describe(task, self.wires.me), failure, self.unread.append)
        entry.settle(FAILED, failure)
        self._keep_spec(task, entry)

    def _retries(self, task: Task, failure: bytes) -> bool:
        """A user error that the task's options let it try again."""
        template = task.template
        wanted = template.retry_exceptions
        limit = template.max_retries
        if not wanted or task.cancelled or (limit != -1 and task.attempt >= limit):
            return False
        if isinstance(wanted, tuple):
            error = payload.unpack_failure(failure)
            cause = error.cause if isinstance(error, TaskError) else error
            if not isinstance(cause, wanted):
                return False
        task.attempt += 1
        self.start(task)
        return True

    def on_gave_back(self, worker: bytes, message: GaveBack) -> None:
        """A worker did not start these."""
        lane = self.lanes.get(worker)
        if lane is None:
            return
        if isinstance(lane.home, Pool):
            lane.home.gave_back(lane, message.counters, message.blocked)
            if lane.recalled and not lane.outstanding and lane in lane.home.lanes:
                lane.home.give_back(lane)
            return
        for counter in reversed(message.counters):  # an actor's rider lost its input: back to the head of the queue
            task = lane.answered(counter)
            if task is not None and isinstance(lane.home, Peer):
                lane.home.queue.appendleft(task)
        lane.home.refill(lane)

    # -- endings ----------------------------------------------------------------------------------------------------

    def _end(self, task: Task) -> None:
        self.live.pop(task.counter, None)
        for entry in task.entries:
            entry.task = None

    def _settle_all(self, task: Task, failure: bytes | Inherited) -> None:
        for entry in task.entries:
            if entry.state == PENDING:
                entry.settle(FAILED, failure)
                self._keep_spec(task, entry)

    @staticmethod
    def _keep_spec(task: Task, entry: Entry) -> None:
        """What `ref.retry()` submits again. A copy without entries: the task itself would hold them, in a cycle."""
        if isinstance(task.peer, Pool):
            entry.task = spec = Task(task.counter, task.template, task.payload, task.depth)
            spec.peer, spec.deps, spec.pins = task.peer, task.deps, task.pins

    def fail(self, task: Task, error: ZmregError) -> None:
        """The task will give no value."""
        self._end(task)
        failure = payload.pack_failure(error)
        if isinstance(error, (WorkerDiedError, UnschedulableError)):
            for entry in task.entries:
                self._settle_failed(task, entry, failure)
        else:
            self._settle_all(task, failure)

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
        self._end(task)
        name = describe(task, self.wires.me)
        if bad.state != FAILED:
            text = f"an input of {name} was freed before it ran: no handle to it was left"
            self._settle_all(task, payload.pack_failure(ObjectLostError(text, object_id=bad.object_id.hex())))
            return
        for entry in task.entries:
            if entry.seen is False:  # the error goes on: read anywhere down the chain, it has been read
                entry.seen = bad.seen
        note = f"{name} was not run: its input, object {short(bad.object_id)}, could not be computed"
        self._settle_all(task, Inherited(bad, note))

    def cancel(self, entry: Entry, force: bool, recursive: bool) -> None:
        """Cancel the task that makes an own entry; nothing when it is finished. ValueError: force on an actor call."""
        task = entry.task
        if task is None or task.counter not in self.live:
            return
        home, lane = task.peer, task.lane
        if force and isinstance(home, Peer):
            raise ValueError("an actor call cannot be cancelled with force=True; zmreg.kill(actor) ends the actor")
        task.cancelled = True
        if lane is not None and task.counter in lane.outstanding:
            cancel_sent(task, lane, force, recursive)
            return
        if lane is not None and task in lane.parked:
            lane.parked.remove(task)
        elif home is not None:
            home.withdraw(task)
        task.lane = None
        self._end(task)
        self._settle_all(task, cancelled_failure(task, self.wires.me))
        if isinstance(home, Peer):  # it may have stood before others, waiting for an input
            home.advance()

    # -- what the node says -----------------------------------------------------------------------------------------

    def on_grant(self, message: LeaseGranted) -> None:
        """A worker to send to."""
        pool = self.pool_for(Shape(message.resources, message.locs))
        worker = message.worker
        if self.lanes.get(worker) in pool.lanes:  # said twice: what was sent meanwhile must stay known
            return
        lane = Lane(self.wires, worker, pool, self.known.setdefault(worker, set()))
        self.lanes[worker] = lane
        pool.granted(lane)

    def on_unschedulable(self, message: Unschedulable) -> None:
        """Nobody can ever meet this shape."""
        pool = self.pool_for(Shape(message.resources, message.locs))
        queue = list(pool.queue)
        pool.queue.clear()
        pool.told = len(pool.lanes)
        for task in queue:
            self.fail(task, UnschedulableError(f"{describe(task, self.wires.me)} can never run: {message.reason}"))

    def on_actor_state(self, message: ActorState) -> None:
        """The head tells how an actor stands."""
        peer = self.peers.get(message.actor_id)
        if peer is not None:
            peer.on_state(message)

    def settle_departed(self) -> None:
        """Decide on what was sent to actors' workers that are gone. After the last answer that has arrived."""
        departing = self.departing[:]
        self.departing.clear()
        for peer in departing:
            peer.settle()

    def drop_lane(self, worker: bytes) -> None:
        """Answers of that worker are late from now on."""
        self.lanes.pop(worker, None)

    def lane_to_actor(self, worker: bytes, peer: Peer) -> Lane:
        """A new lane to an actor's worker."""
        lane = Lane(self.wires, worker, peer, self.known.setdefault(worker, set()))
        self.lanes[worker] = lane
        return lane

    def process_died(self, message: ProcessDied) -> None:
        """Retry or fail what that worker had. For an actor's worker the head's next word decides (peers.py)."""
        self.known.pop(message.process, None)
        lane = self.lanes.get(message.process)
        if lane is None:
            return
        if isinstance(lane.home, Peer):
            lane.home.process_died(message)
            return
        del self.lanes[message.process]
        assert isinstance(lane.home, Pool)
        tasks = lane.home.lost(lane)
        begun = count_begun(tasks, message.running, self.wires.me)
        for place, task in enumerate(tasks):
            if task.cancelled or (place < begun and not one_more_attempt(task)):
                self.fail(task, worker_died(task, message, self.wires.me))
            else:
                self.start(task)

    # -- the rest ---------------------------------------------------------------------------------------------------

    def tick(self, now: float, idle_s: float = LEASE_IDLE_S) -> None:
        """Give back leases nobody used for `idle_s` seconds."""
        for pool in self.pools.values():
            pool.tick(now, idle_s)

    def fail_everything(self, error: ZmregError) -> None:
        """The cluster is gone: every task ends with `error`."""
        for task in list(self.live.values()):
            self.fail(task, error)

    def drop_actor(self, actor_id: bytes) -> None:
        """Its last strong handle is gone. A peer with calls by weak handles stays, to hear how they end."""
        peer = self.peers.get(actor_id)
        if peer is not None and not peer.backlog():
            del self.peers[actor_id]

    def statistics(self) -> dict[str, int]:
        """Counts for stats()."""
        return {
            "pending": len(self.live),
            "finished": self.finished,
            "late_answers": self.late_answers,
            "leases": sum(len(pool.lanes) for pool in self.pools.values()),
            "queued": sum(len(pool.queue) for pool in self.pools.values()),
        }


__all__ = ["Borrowed", "Tasks", "Template", "short"]
