"""A process's station in the cluster: connection, lock, routing table. What it does with values is in client.py.

It routes each message to the part that knows (tasks, sharing, shelf). Threads: any user thread may call; whoever waits
pumps (net/pump.py); everything that changes state runs under `lock`, which is never held while waiting.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from zmreg.model.errors import ClusterError, ForkedContextError, ProtocolError, ZmregError
from zmreg.model.ids import ProcessId
from zmreg.model.look_messages import Look
from zmreg.model.messages import (
    CALLS_KIND,
    RESULTS_KIND,
    ActorRefused,
    ActorState,
    Allocated,
    AllocateRefused,
    Answer,
    AskRepeatable,
    Borrow,
    BorrowSettled,
    CancelObject,
    Definition,
    FreeObjects,
    GaveBack,
    Goodbye,
    HeadChanged,
    Hello,
    LeaseGranted,
    LeaseRecalled,
    LogLines,
    Lost,
    Message,
    NeedDefinition,
    NodeDrains,
    NodeGone,
    PartReady,
    Pinned,
    PinRefused,
    ProcessDied,
    ReleaseActor,
    Replicated,
    Resolve,
    Resolved,
    TryNodes,
    Unborrow,
    Unpin,
    Unschedulable,
    Welcome,
    WorkersAtCap,
)
from zmreg.net.pump import Pump
from zmreg.net.sockets import Ends
from zmreg.net.waiting import Interrupts, Waiter
from zmreg.services.calling.calls import Collecting
from zmreg.services.calling.endings import check_grace
from zmreg.services.calling.pools import Pool
from zmreg.services.calling.tasks import Tasks
from zmreg.services.node.spoken import Ancestry
from zmreg.services.seat import tidings
from zmreg.services.seat.callbacks import Callbacks
from zmreg.services.seat.copying import Copying
from zmreg.services.seat.entries import FAILED, Entry, Outbox, Stored
from zmreg.services.seat.once import Once
from zmreg.services.seat.questions import Questions
from zmreg.services.seat.recovery import Recovery
from zmreg.services.seat.sharing import Sharing
from zmreg.services.seat.shelf import Shelf
from zmreg.services.seat.ticks import Ticks
from zmreg.services.seat.unread import report
from zmreg.telemetry.past import Past
from zmreg.wire import batches, codec, payload

if TYPE_CHECKING:
    import asyncio

    from zmreg.services.calling.naming import Naming
    from zmreg.services.seat.client import Client
    from zmreg.services.seat.screen import Screen
    from zmreg.services.worker.desk import Desk

# A wait this short is not worth telling the node that the CPU is free.
_BLOCKED_AFTER_S = 0.001

log = logging.getLogger("zmreg.station")

T = TypeVar("T")
Handler = Callable[[bytes, Any], None]


def _take(outbox: deque[T]) -> tuple[T, ...]:
    taken: list[T] = []
    while outbox and len(taken) < 10_000:
        taken.append(outbox.popleft())
    return tuple(taken)


class Station:
    """One process's station. `connect()` before anything else, `close()` at the end."""

    ends_kind: type[Ends] = Ends
    shares_process = False  # it is a thread of a cluster within one process (zmreg.testing)
    house: Client | None = None  # in whose process this one is a guest (services/worker/lodging.py)
    _turns = protocol_errors = internal_errors = 0
    _left = False
    naming: Naming | None = None  # once a named function was called
    desk: Desk | None = None  # once one is served here, outside of any worker

    def __init__(self, session: Path, me: ProcessId, node: ProcessId, interrupts: Interrupts) -> None:
        self.me: bytes = me
        self.node: bytes = node
        self.session = session
        self.pid = os.getpid()
        self.lock = threading.RLock()
        self.ends = self.ends_kind(session, me)
        self.pump = Pump(self.ends, self._dispatch, self._turn, interrupts)
        self.shield = self.pump.shield
        """What user code calls, and must not be left half done: `with seat.shield():`, around the lock."""
        self.send = self.ends.send
        """Send an encoded batch: (peer, frame) -> whether the connection took it."""
        self.dirty: set[Collecting] = set()
        self.welcome: Welcome | None = None
        self.closed: ZmregError | None = None
        self.unpinned = Outbox[bytes](self.pump.request_turn)
        self.freed = Outbox[tuple[bytes, bytes]](self.pump.request_turn)
        self.ended_actors = Outbox[bytes](self.pump.request_turn)
        self.shelf = Shelf(self.tell_node, self.wait, self.unpinned)
        self.past, self.callbacks, self.once = Past(), Callbacks(), Once()
        self.sharing = Sharing(me, node, self.post, payload.pack_failure, Outbox(self.pump.request_turn))
        self.tasks: Tasks = Tasks(self, self.sharing, self._own_bytes)
        self.recovery = Recovery(self)
        self.copying = Copying(self)
        self.on_wait: Callable[[bool], None] | None = None
        """Worker only: called with True when user code blocks for long, with False when it goes on."""
        self.on_await: Callable[[asyncio.AbstractEventLoop, bool], None] | None = None
        """The same when a coroutine awaits a ref in this event loop."""
        self.needed: Sequence[Entry] = ()
        """While it blocks: what it cannot go on without, if there is no timeout."""
        self.depth = 0
        """How deep in nested tasks what is submitted here is; a driver is at 0."""
        self.parent: bytes | None = None
        """Id of the task that runs now, on a worker."""
        self.forked = False
        self.auto_restart = False
        """Closed because the user said shutdown(): the next API call starts a new cluster."""
        self.ancestry = Ancestry()
        self.show_log: Callable[[bytes, LogLines], None] = lambda sender, message: None
        self.screen: Screen | None = None
        """A driver's, unless log_to_driver=False."""
        self.detached: list[Entry] = []
        """Lifelines of detached actors made here: what their constructors got lives as long as this process."""
        self._arrived = Waiter()
        self.questions = Questions(self)
        self.ask = self.questions.ask
        self.ticks: Ticks = Ticks(self.pump, self.lock, self.tasks)
        self.look_soon = self.ticks.soon
        self.handlers: dict[type, Handler] = self._routes()

    def _routes(self) -> dict[type, Handler]:
        tasks, sharing, shelf = self.tasks, self.sharing, self.shelf
        return {
            Welcome: lambda _, m: self._welcomed(m),
            LeaseGranted: lambda _, m: self._on_grant(m),
            LeaseRecalled: lambda _, m: self._recalled(m.worker),
            Unschedulable: lambda _, m: tasks.on_unschedulable(m),
            TryNodes: lambda _, m: tasks.on_try_nodes(m),
            NodeGone: lambda _, m: tidings.node_gone(self, m),
            NodeDrains: lambda _, m: tidings.node_drains(self, m.node),
            GaveBack: tasks.on_gave_back,
            PartReady: tasks.on_part,
            NeedDefinition: self._on_need_definition,
            ActorState: lambda _, m: tasks.on_actor_state(m),
            ProcessDied: lambda _, m: tidings.process_died(self, m),
            Allocated: lambda _, m: shelf.on_room(m),
            AllocateRefused: lambda _, m: shelf.on_room(m),
            Pinned: lambda _, m: shelf.on_pin(m),
            PinRefused: lambda _, m: shelf.on_pin(m),
            Borrow: sharing.on_borrow,
            BorrowSettled: lambda _, m: sharing.on_settled(m),
            Unborrow: sharing.on_unborrow,
            Resolve: sharing.on_resolve,
            Lost: self.recovery.on_lost,
            Replicated: self.copying.on_replicated,
            Resolved: sharing.on_resolved,
            Goodbye: lambda sender, _: sharing.on_goodbye(sender),
            CancelObject: lambda _, m: tasks.cancel_for_another(sharing.entry_for(m.object_id), m),
            Answer: lambda _, m: self.questions.on_answer(m),
            ActorRefused: lambda _, m: self.questions.on_refused(m),
            HeadChanged: lambda _, m: tidings.head_changed(self, m),
            LogLines: lambda sender, m: self.show_log(sender, m),
            AskRepeatable: partial(tidings.asked_whether_repeatable, self),
            WorkersAtCap: lambda _, m: None,
            Look: partial(tidings.asked_how_it_is, self),
        }

    @property
    def namespace(self) -> str:
        """Where actor names of this process are looked up."""
        return self.welcome.namespace if self.welcome is not None else ""

    # -- coming and going -------------------------------------------------------------------------------------------

    def connect(self, role: str, timeout: float) -> Welcome:
        """Say hello to the node and wait for its welcome. ClusterError when it does not come in time."""
        self.pump.start()
        self.tell_node(Hello(role, self.pid))
        arrived = self.pump.wait(self._arrived, timeout)
        if self.closed is not None:
            raise self.closed
        if not arrived or self.welcome is None:
            raise ClusterError(f"the node did not answer within {timeout} s; its log is in {self.session / 'logs'}")
        return self.welcome

    def _welcomed(self, message: Welcome) -> None:
        self.welcome = message
        self.once.over = max(self.once.over, message.inline_limit)
        self.tasks.lineage.limit_arguments(message.arena_bytes)
        self.shelf.opened(message.arena, message.arena_bytes)
        self._arrived.finish()

    def check(self) -> None:
        """Raises ForkedContextError in a forked child, ClusterError (or what ended it) when closed."""
        if self.forked:
            raise ForkedContextError(
                f"this process was forked from {self.pid}, whose cluster it cannot use; call zmreg.init() in the child"
            )
        if self.closed is not None:
            raise self.closed

    def close(self, error: ZmregError | None, clean: bool = True) -> None:
        """Leave: fail what is pending, stop the thread, close the ends. Idempotent."""
        with self.shield():
            with self.lock:
                if self._left:
                    return
                self._left = True
                if self.closed is None:  # else the node is gone, and everybody has been told
                    if clean:
                        self._turn()
                        self.tell_node(Goodbye())
                    why = "zmreg.shutdown() was called; call zmreg.init() to start again"
                    self._end_waits(error or ClusterError(why))
            if self.desk is not None:
                self.desk.close()
            self.pump.stop()
            self.callbacks.close()
            self.ends.close(clean)
            self.shelf.close()

    def node_gone(self, reason: str) -> None:
        """The node process ended: every wait ends with a typed error."""
        with self.lock:
            if self.closed is None:
                self._end_waits(ClusterError(f"the node process is gone ({reason}); call zmreg.init() to start again"))

    def _end_waits(self, error: ZmregError) -> None:
        self.closed = error
        self.tasks.fail_everything(error)
        self.shelf.fail_all(error)
        self.questions.give_up()
        self.copying.give_up()
        self._arrived.finish()
        failure = payload.pack_failure(error)
        for entry in self.sharing.pending_entries():
            entry.settle(FAILED, failure)

    # -- sending ----------------------------------------------------------------------------------------------------

    def post(self, peer: bytes, message: Message) -> bool:
        """Send one message to any process of the cluster."""
        return self.ends.send(peer, codec.encode(message))

    def tell_node(self, message: Message) -> None:
        """Send to our node."""
        self.ends.send(self.node, codec.encode(message))

    def request_turn(self) -> None:
        """Something collects: have it sent soon."""
        self.pump.request_turn()

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def flush(self) -> None:
        """Send every batch that collects; what was submitted was so by now. Under the lock."""
        if self.past.marked < (number := self.tasks.next_number):
            self.past.mark(number, time.monotonic())
        while self.dirty:
            self.dirty.pop().flush()

    def _turn(self) -> None:
        self._turns += 1
        if self.dirty or self.sharing.dropped or self.unpinned or self.freed or self.ended_actors:
            self._say()
        if self.tasks.departing or self.sharing.departed:
            with self.lock:
                self.tasks.settle_departed()
                self.sharing.settle_departed()
        if self.tasks.unread:
            self._report_unread()
        if self.pump.timed_out or not self._turns & self.ticks.skips:
            self.ticks.look()

    def _say(self) -> None:
        with self.lock:
            if self.dirty:
                self.flush()
            self.sharing.turn()
            if self.unpinned:
                self.tell_node(Unpin(_take(self.unpinned)))
            if self.freed:
                self.say_freed()
            while self.ended_actors:
                actor_id = self.ended_actors.popleft()
                self.tasks.drop_actor(actor_id)
                self.tell_node(ReleaseActor(actor_id))

    def say_freed(self) -> None:
        """Our node tells whoever it knows to have copies; the first holder is told by us, as it may not know yet."""
        by_node: dict[bytes, list[bytes]] = {self.node: []}
        for object_id, holder in _take(self.freed):
            by_node[self.node].append(object_id)
            if holder != self.node:
                by_node.setdefault(holder, []).append(object_id)
        for node, object_ids in by_node.items():
            self.post(node, FreeObjects(tuple(object_ids)))

    def _report_unread(self) -> None:
        """On the callbacks' thread: log handlers are users' code."""
        notes = list(self.tasks.unread)
        self.tasks.unread.clear()
        if not self.forked:
            self.callbacks.put(lambda: report(notes))

    def wait(self, waiter: Waiter, timeout: float | None = None) -> bool:
        """Wait for something that comes by message. Not under the lock."""
        return self.pump.wait(waiter, timeout)

    # -- receiving --------------------------------------------------------------------------------------------------

    def _dispatch(self, sender: bytes, frame: bytes) -> None:
        """Route one message. Runs on whatever thread leads, so nothing may escape into a user's `get`."""
        kind = frame[3] if len(frame) > batches.HEADER_BYTES else 0
        try:
            if kind == RESULTS_KIND:
                rows = batches.decode_rows(frame)
                with self.lock:
                    self.tasks.on_results(sender, rows, frame)
            elif kind == CALLS_KIND:
                self.on_calls(sender, batches.decode_rows(frame))
            else:
                self._dispatch_message(sender, codec.decode(frame))
        except ProtocolError:
            self.protocol_errors += 1
        except Exception:
            self.internal_errors += 1
            log.exception("internal error at a message of kind %d from %s; please report it", kind, sender.hex())

    def _dispatch_message(self, sender: bytes, message: Message) -> None:
        handler = self.handlers.get(type(message))
        if handler is None:
            self.protocol_errors += 1
            return
        with self.lock:
            handler(sender, message)

    def on_calls(self, sender: bytes, rows: list[batches.Row]) -> None:
        """Calls of what this process serves. Workers override this."""
        if self.desk is not None:
            return self.desk.takes(sender, rows)
        self.protocol_errors += 1

    def _on_grant(self, message: LeaseGranted) -> None:
        self.ticks.begin()
        self.tasks.on_grant(message)

    def _recalled(self, worker: bytes) -> None:
        lane = self.tasks.lanes.get(worker)
        if lane is not None and isinstance(lane.home, Pool):
            lane.home.recall(worker)

    def _on_need_definition(self, sender: bytes, message: NeedDefinition) -> None:
        self.post(sender, Definition(message.digest, self.tasks.blob_of(message.digest, sender)))

    def _own_bytes(self, stored: Stored) -> None:
        stored.outbox = self.freed

    def cancel(self, entry: Entry, force: bool, recursive: bool, grace_s: float | None = None) -> None:
        """Cancel the task behind an entry; any holder may. ValueError: a bad grace, or an own actor's call by force."""
        check_grace(force, grace_s)
        with self.shield(), self.lock:
            self.check()
            if entry.owner == self.me:
                self.tasks.cancel(entry, force, recursive, grace_s)
            else:
                self.post(entry.owner, CancelObject(entry.object_id, force, recursive, grace_s))
