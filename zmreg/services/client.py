"""A process's seat in the cluster: driver and worker alike. It owns the lock, the ends and the routing table.

What it does itself is little: route each message to the part that knows (tasks, sharing, shelf), and put together
values for `get`. Threads: any user thread may call; whoever waits pumps (net/pump.py); everything that changes state
runs under `lock`, which is never held while waiting.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from zmreg.model.errors import ClusterError, ForkedContextError, GetTimeoutError, ZmregError
from zmreg.model.ids import ProcessId
from zmreg.model.messages import (
    CALLS_KIND,
    RESULTS_KIND,
    ActorRefused,
    ActorState,
    Allocated,
    AllocateRefused,
    Answer,
    Ask,
    Borrow,
    BorrowSettled,
    CancelObject,
    FreeObjects,
    GaveBack,
    Goodbye,
    Hello,
    LeaseGranted,
    LeaseRecalled,
    LogLines,
    Message,
    NeedDefinition,
    Definition,
    Pinned,
    PinRefused,
    ProcessDied,
    ReleaseActor,
    Resolve,
    Resolved,
    Unborrow,
    Unpin,
    Unschedulable,
    Welcome,
    WorkersAtCap,
)
from zmreg.net.pump import Interrupts, Pump, Waiter
from zmreg.net.sockets import Ends
from zmreg.services.callbacks import Callbacks
from zmreg.services.calls import Lane, Pool
from zmreg.services.entries import FAILED, FREED, INLINE, PENDING, STORED, Entry, EntryRef, Gathering, Stored
from zmreg.services.sharing import Sharing
from zmreg.services.shelf import PinTicket, Shelf
from zmreg.services.tasks import Tasks
from zmreg.wire import batches, codec, payload
from zmreg.wire.packed import Packed

# While leases are held, somebody must look at the clock to give idle ones back.
_TICK_S = 0.25
# A wait this short is not worth telling the node that the CPU is free.
_BLOCKED_AFTER_S = 0.001

Handler = Callable[[bytes, Any], None]


class Client:
    """One process's seat. `connect()` before anything else, `close()` at the end."""

    def __init__(self, session: Path, me: ProcessId, node: ProcessId, interrupts: Interrupts) -> None:
        self.me: bytes = me
        self.node: bytes = node
        self.session = session
        self.pid = os.getpid()
        self.lock = threading.RLock()
        self.ends = Ends(session, me)
        self.pump = Pump(self.ends, self._dispatch, self._turn, interrupts)
        self.send = self.ends.send
        """Send an encoded batch: (peer, frame) -> whether the connection took it."""
        self.dirty: set[Lane] = set()
        self.welcome: Welcome | None = None
        self.closed: ZmregError | None = None
        self.unpinned: deque[bytes] = deque()
        self.freed: deque[bytes] = deque()
        self.ended_actors: deque[bytes] = deque()
        self.shelf = Shelf(self.tell_node, self.wait, self.unpinned)
        self.sharing = Sharing(me, self.post, payload.pack_failure)
        self.tasks = Tasks(self, self.sharing, self._own_bytes)
        self.on_wait: Callable[[bool], None] | None = None
        """Worker only: called with True when user code blocks for long, with False when it goes on."""
        self.protocol_errors = 0
        self.depth = 0
        """How deep in nested tasks what is submitted here is; a driver is at 0."""
        self.parent: bytes | None = None
        """Id of the task that runs now, on a worker."""
        self.forked = False
        self.auto_restart = False
        """Closed because the user said shutdown(): the next API call starts a new cluster."""
        self.callbacks = Callbacks()
        self.assigned: dict[str, float] = {}
        self.show_log: Callable[[LogLines], None] = lambda message: None
        self._watchers: list[Waiter] = []
        self._refused: dict[bytes, str] = {}
        self._arrived = Waiter()
        self._answers: dict[int, tuple[Waiter, list[Answer]]] = {}
        self._requests = 0
        self._ticked = 0.0
        self._turns = 0
        self.handlers: dict[type, Handler] = self._routes()

    def _routes(self) -> dict[type, Handler]:
        tasks, sharing, shelf = self.tasks, self.sharing, self.shelf
        return {
            Welcome: lambda _, m: self._welcomed(m),
            LeaseGranted: lambda _, m: tasks.on_grant(m),
            LeaseRecalled: lambda _, m: self._recalled(m.worker),
            Unschedulable: lambda _, m: tasks.on_unschedulable(m),
            GaveBack: tasks.on_gave_back,
            NeedDefinition: self._on_need_definition,
            ActorState: lambda _, m: tasks.on_actor_state(m),
            ProcessDied: lambda _, m: self._on_process_died(m),
            Allocated: lambda _, m: shelf.on_room(m),
            AllocateRefused: lambda _, m: shelf.on_room(m),
            Pinned: lambda _, m: shelf.on_pin(m),
            PinRefused: lambda _, m: shelf.on_pin(m),
            Borrow: sharing.on_borrow,
            BorrowSettled: lambda _, m: sharing.on_settled(m),
            Unborrow: sharing.on_unborrow,
            Resolve: sharing.on_resolve,
            Resolved: lambda sender, m: sharing.on_resolved(sender, m, self.node),
            CancelObject: lambda _, m: self.cancel(sharing.entry_for(m.object_id), m.force, m.recursive),
            Answer: lambda _, m: self._on_answer(m),
            ActorRefused: lambda _, m: self._refused.update({m.actor_id: m.reason}),
            LogLines: lambda _, m: self.show_log(m),
            WorkersAtCap: lambda _, m: None,
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
        if not self.pump.wait(self._arrived, timeout) or self.welcome is None:
            raise ClusterError(f"the node did not answer within {timeout} s; its log is in {self.session / 'logs'}")
        return self.welcome

    def _welcomed(self, message: Welcome) -> None:
        self.welcome = message
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
        with self.lock:
            if self.closed is not None:
                return
            if clean:
                self._turn()
                self.tell_node(Goodbye())
            self.closed = error or ClusterError("zmreg.shutdown() was called; call zmreg.init() to start again")
            self.tasks.fail_everything(self.closed)
            self.shelf.fail_all(str(self.closed))
            for waiter, _ in self._answers.values():
                waiter.finish()
        self.pump.stop()
        self.callbacks.close()
        self.ends.close(clean)
        self.shelf.close()

    def node_gone(self, reason: str) -> None:
        """The node process ended: every wait ends with a typed error."""
        with self.lock:
            if self.closed is None:
                self.closed = ClusterError(f"the node process is gone ({reason}); call zmreg.init() to start again")
                self.tasks.fail_everything(self.closed)
                self.shelf.fail_all(str(self.closed))
                for waiter, _ in self._answers.values():
                    waiter.finish()
                failure = payload.pack_failure(self.closed)
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
        """Send every batch that collects. Under the lock."""
        dirty = self.dirty
        while dirty:
            dirty.pop().flush()

    def _turn(self) -> None:
        self._turns += 1
        if self.dirty or self.sharing.dropped or self.unpinned or self.freed or self.ended_actors or self._watchers:
            self._say()
        if self.pump.timed_out or not self._turns & 63:
            now = time.monotonic()
            if now - self._ticked > _TICK_S:
                self._ticked = now
                with self.lock:
                    self.tasks.tick(now)
                    leases = any(pool.lanes for pool in self.tasks.pools.values())
                    self.pump.tick_s = _TICK_S if leases else -1.0

    def _say(self) -> None:
        with self.lock:
            if self.dirty:
                self.flush()
            self.sharing.turn()
            if self.unpinned:
                self.tell_node(Unpin(_take(self.unpinned)))
            if self.freed:
                self.tell_node(FreeObjects(_take(self.freed)))
            while self.ended_actors:
                actor_id = self.ended_actors.popleft()
                self.tasks.drop_actor(actor_id)
                self.tell_node(ReleaseActor(actor_id))
            for waiter in self._watchers:
                waiter.finish()

    # -- receiving --------------------------------------------------------------------------------------------------

    def _dispatch(self, sender: bytes, frame: bytes) -> None:
        kind = frame[3] if len(frame) > batches.HEADER_BYTES else 0
        if kind == RESULTS_KIND:
            rows = batches.decode_rows(frame)
            with self.lock:
                self.tasks.on_results(sender, rows)
        elif kind == CALLS_KIND:
            self.on_calls(sender, batches.decode_rows(frame))
        else:
            try:
                message = codec.decode(frame)
            except ZmregError:
                self.protocol_errors += 1
                return
            handler = self.handlers.get(type(message))
            if handler is None:
                self.protocol_errors += 1
                return
            with self.lock:
                handler(sender, message)

    def on_calls(self, sender: bytes, rows: list[batches.Row]) -> None:
        """Only workers are sent calls; they override this."""
        self.protocol_errors += 1

    def _recalled(self, worker: bytes) -> None:
        lane = self.tasks.lanes.get(worker)
        if lane is not None and isinstance(lane.home, Pool):
            lane.home.recall(worker)

    def _on_need_definition(self, sender: bytes, message: NeedDefinition) -> None:
        template = self.tasks.templates.get(message.digest)
        self.post(sender, Definition(message.digest, template.blob if template is not None else b""))

    def _on_process_died(self, message: ProcessDied) -> None:
        self.ends.forget(message.process)
        heir = self.node if message.adopted else b""
        self.tasks.process_died(message)
        self.sharing.process_died(message.process, message.reason, heir)

    def _own_bytes(self, stored: Stored) -> None:
        stored.outbox = self.freed

    # -- waiting ----------------------------------------------------------------------------------------------------

    def wait(self, waiter: Waiter, timeout: float | None = None) -> bool:
        """Wait for something that comes by message. Not under the lock."""
        return self.pump.wait(waiter, timeout)

    def wait_for(self, entries: Sequence[Entry], need: int, stop_on_failure: bool, timeout: float | None) -> bool:
        """Wait until `need` of the distinct `entries` are there; False when the time is up first."""
        with self.lock:
            self.check()
            self.flush()
            gathering = Gathering(list(entries), need, stop_on_failure)
            if gathering.waiter.done:
                return True
            for entry in entries:
                if entry.state == PENDING and entry.owner != self.me:
                    self.sharing.want(entry)
        if timeout is not None and timeout <= 0:
            self.pump.drain_now()
            self._unlisten(entries, gathering)
            return gathering.waiter.done
        try:
            return self._wait_or_block(gathering.waiter, timeout)
        finally:
            if not gathering.waiter.done:
                self._unlisten(entries, gathering)

    def _unlisten(self, entries: Iterable[Entry], gathering: Gathering) -> None:
        with self.lock:
            for entry in entries:
                entry.unlisten(gathering.heard)

    def _wait_or_block(self, waiter: Waiter, timeout: float | None) -> bool:
        blocked = self.on_wait
        if blocked is None or threading.current_thread() is not threading.main_thread():
            return self.pump.wait(waiter, timeout)
        first = _BLOCKED_AFTER_S if timeout is None else min(timeout, _BLOCKED_AFTER_S)
        if self.pump.wait(waiter, first):
            return True
        if timeout is not None and timeout <= _BLOCKED_AFTER_S:
            return False
        blocked(True)
        try:
            return self.pump.wait(waiter, None if timeout is None else timeout - first)
        finally:
            blocked(False)

    # -- values -----------------------------------------------------------------------------------------------------

    def put(self, value: object) -> Entry:
        """An immutable object with this value, owned by this process.

        Raises SerializationError, ObjectStoreFullError.
        """
        self.check()
        refs: list[Any] = []
        packed = payload.pack(value, refs)
        entry = Entry(self.me, self.tasks.take_numbers(1))
        entry.type_name = type(value).__name__
        if refs:
            entry.contained = tuple(ref._entry for ref in refs)
        self.fill(entry, packed)
        return entry

    def fill(self, entry: Entry, packed: bytes | Packed) -> None:
        """Give an own entry its value: in our heap when small, else in the store."""
        if isinstance(packed, bytes):
            entry.state, entry.value = INLINE, packed
            return
        assert self.welcome is not None
        if packed.nbytes <= self.welcome.inline_limit:
            entry.state, entry.value = INLINE, packed.inline()
            return
        self.shelf.put(entry.object_id, packed)
        entry.value = Stored(entry.object_id, packed.nbytes, (self.node,), self.freed)
        entry.state = STORED

    def get_one(self, entry: Entry, timeout: float | None, copy: bool) -> Any:
        """`get` of a single entry: the short way."""
        if entry.state == PENDING:
            self.settled(entry, timeout)
        if entry.state == INLINE:
            return payload.unpack(entry.value)  # type: ignore[arg-type]
        return self.get((entry,), timeout, copy)[0]

    def get(self, entries: Sequence[Entry], timeout: float | None, copy: bool = False) -> list[Any]:
        """The values, in order. Raises the first failure found, without waiting for slow siblings.

        Raises GetTimeoutError when `timeout` seconds (one deadline for all) are over.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pending = {id(entry): entry for entry in entries if entry.state == PENDING}
        if pending and not any(entry.state >= FAILED for entry in entries):
            distinct = list(pending.values())
            if not self.wait_for(distinct, len(distinct), True, timeout):
                self.check()
                missing = sum(entry.state == PENDING for entry in distinct)
                raise GetTimeoutError(
                    f"{missing} of {len(entries)} objects were not there within {timeout} s; the work goes on",
                    timeout_s=timeout,
                )
            if self.closed is not None and any(entry.state == PENDING for entry in distinct):
                raise self.closed
        for entry in entries:
            if entry.state >= FAILED:
                raise self.error_of(entry)
        tickets: dict[int, PinTicket] = {}
        for entry in entries:
            value = entry.value
            if entry.state == STORED and isinstance(value, Stored) and id(entry) not in tickets:
                tickets[id(entry)] = self.shelf.ask(value.object_id)
        if not tickets:
            return [payload.unpack(entry.value) for entry in entries]  # type: ignore[arg-type]
        return self._read(entries, tickets, deadline, copy)

    def _read(
        self, entries: Sequence[Entry], tickets: dict[int, PinTicket], deadline: float | None, copy: bool
    ) -> list[Any]:
        views: dict[int, memoryview | None] = {}
        last = {id(entry): place for place, entry in enumerate(entries)}
        values = []
        try:
            for place, entry in enumerate(entries):
                ticket = tickets.get(id(entry))
                if ticket is None:
                    values.append(payload.unpack(entry.value))  # type: ignore[arg-type]
                    continue
                if id(entry) not in views:
                    left = None if deadline is None else max(0.0, deadline - time.monotonic())
                    views[id(entry)] = self.shelf.view(ticket, left)
                view = views[id(entry)]
                assert view is not None
                values.append(payload.unpack(view, writable=copy))
                if place == last[id(entry)]:  # values that were copied out need no pin: the store may spill them again
                    views[id(entry)] = view = None
        except BaseException:
            for key, ticket in tickets.items():
                if key not in views:
                    self.shelf.abandon(ticket)
            raise
        return values

    def error_of(self, entry: Entry) -> BaseException:
        """The error to raise for an entry that failed or was freed."""
        entry.seen = True
        if entry.state == FREED or not isinstance(entry.value, bytes):
            from zmreg.model.errors import ObjectLostError

            return ObjectLostError("the object was freed: no handle to it was left", object_id=entry.object_id.hex())
        return payload.unpack_failure(entry.value)

    def cancel(self, entry: Entry, force: bool, recursive: bool) -> None:
        """Cancel the task behind an entry; any holder may."""
        with self.lock:
            self.check()
            if entry.owner == self.me:
                self.tasks.cancel(entry, force, recursive)
            else:
                self.post(entry.owner, CancelObject(entry.object_id, force, recursive))

    def first_settled(self, entries: list[Entry], need: int, timeout: float | None) -> list[Entry]:
        """The entries that are there, earliest first: at least `need` of them unless the time is up."""
        order = [entry for entry in entries if entry.state != PENDING]
        if len(order) >= need:
            return order
        pending = [entry for entry in entries if entry.state == PENDING]
        with self.lock:
            for entry in pending:
                if entry.state == PENDING:
                    entry.listen(order.append)
                else:
                    order.append(entry)
        try:
            self.wait_for(entries, need, False, timeout)
            self.check()
        finally:
            with self.lock:
                for entry in pending:
                    entry.unlisten(order.append)
        return order

    def wait_until(self, there: Callable[[], bool], deadline: float | None) -> None:
        """Pump until `there()`, which some listener of an entry makes true; returns early at the deadline."""
        with self.lock:
            self.flush()
        while not there():
            waiter = Waiter()
            with self.lock:
                self._watchers.append(waiter)
            try:
                if there():
                    return
                left = None if deadline is None else deadline - time.monotonic()
                if (left is not None and left <= 0) or self.closed is not None:
                    return
                self._wait_or_block(waiter, left)
            finally:
                with self.lock:
                    self._watchers.remove(waiter)

    def is_done(self, entry: Entry) -> bool:
        """Whether the entry has left PENDING; receives what has arrived, but never waits."""
        if entry.state == PENDING:
            self.look_at(entry)
            self.pump.drain_now()
        return entry.state != PENDING

    def look_at(self, entry: Entry) -> None:
        """Make sure that news of this entry is on its way: flush, and ask the owner of a borrowed one."""
        if entry.state == PENDING:
            with self.lock:
                self.flush()
                self.sharing.want(entry)

    def settled(self, entry: Entry, timeout: float | None) -> None:
        """Wait until the entry has left PENDING. Raises GetTimeoutError, or what ended the cluster meanwhile."""
        waiter = Waiter()
        with self.lock:
            if self.closed is not None:
                raise self.closed
            if self.dirty:
                self.flush()
            if entry.state != PENDING:
                return
            entry.listen(waiter.finish)
            if entry.owner != self.me:
                self.sharing.want(entry)
        if timeout is not None and timeout <= 0:
            self.pump.drain_now()
        elif self.on_wait is not None:
            self._wait_or_block(waiter, timeout)
        else:
            self.pump.wait(waiter, timeout)
        if entry.state == PENDING:
            with self.lock:
                entry.unlisten(waiter.finish)
                if self.closed is not None:
                    raise self.closed
            raise GetTimeoutError(f"the object was not there within {timeout} s; the work goes on", timeout_s=timeout)

    def arrive(self, object_id: bytes) -> Entry:
        """The entry of a ref that was just unpickled here."""
        with self.lock:
            return self.sharing.entry_for(object_id)

    def when_settled(self, entry: Entry, callback: Callable[[], None]) -> None:
        """Call back when the entry leaves PENDING, on whatever thread pumps: only for what is short and harmless."""
        with self.lock:
            if entry.state == PENDING:
                self.flush()
                entry.listen(lambda _: callback())
                self.sharing.want(entry)
                return
        callback()

    def when_done(self, entry: Entry, callback: Callable[[], object]) -> None:
        """Call back when the entry leaves PENDING, on the thread kept for users' callbacks."""
        self.when_settled(entry, lambda: self.callbacks.put(callback))

    # -- questions --------------------------------------------------------------------------------------------------

    def ask(self, topic: str, key: str = "", timeout: float = 10.0) -> Any:
        """Ask the node about state: plain containers, or None when there is no such thing. ClusterError: no answer."""
        with self.lock:
            self.check()
            self._requests += 1
            request = self._requests
            waiter, answers = self._answers.setdefault(request, (Waiter(), []))
            self.flush()
            self.tell_node(Ask(request, topic, key))
        try:
            self.pump.wait(waiter, timeout)
        finally:
            self._answers.pop(request, None)
        if not answers:
            self.check()
            raise ClusterError(f"the node did not answer a question about {topic!r} within {timeout} s")
        return batches.unpack_plain(answers[0].body) if answers[0].found else None

    def ask_refusal(self, actor_id: bytes) -> str:
        """Why the head refused an actor that was just ordered; empty when it did not."""
        self.ask("ping")
        return self._refused.pop(actor_id, "")

    def _on_answer(self, message: Answer) -> None:
        waiting = self._answers.get(message.request)
        if waiting is not None:
            waiting[1].append(message)
            waiting[0].finish()


def _take(outbox: deque[bytes]) -> tuple[bytes, ...]:
    taken = []
    while outbox and len(taken) < 10_000:
        taken.append(outbox.popleft())
    return tuple(taken)


_current: Client | None = None


def current() -> Client | None:
    """This process's client, if it has one."""
    return _current


def set_current(client: Client | None) -> None:
    """Make `client` this process's seat."""
    global _current
    _current = client


__all__ = ["Client", "EntryRef", "current", "set_current"]
