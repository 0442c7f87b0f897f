"""The values of a process's seat: put, get, wait, and what futures are made of. Driver and worker alike."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from zmreg.model.errors import GetTimeoutError, ObjectLostError, ZmregError
from zmreg.model.messages import Prefetch
from zmreg.net.waiting import Waiter
from zmreg.services.seat.entries import FAILED, INLINE, PENDING, STORED, Entry, EntryRef, Gathering, Stored
from zmreg.services.seat.reading import read
from zmreg.services.seat.station import Station
from zmreg.services.worker.environments import PLAIN, Environment
from zmreg.wire import payload
from zmreg.wire.packed import Packed

if TYPE_CHECKING:
    from zmreg.services.seat.bus import Bus
    from zmreg.services.worker.beside import Beside

__tracebackhide__ = methodcaller("errisinstance", ZmregError)  # for pytest: see api/refs.py

# A wait this short is not worth telling the node that the CPU is free.
_BLOCKED_AFTER_S = 0.001

at_leave: list[Callable[[Client], object]] = []
"""Of modules that not every process loads: what they have to say before a seat is left."""


class Client(Station):
    """A seat that deals in values. `connect()` before anything else, `close()` at the end."""

    bus: Bus | None = None
    """Events, when the first is published or subscribed to."""
    environment: Environment = PLAIN
    """What this job runs in, or this worker is in: calls from here are made in the same, or in more."""
    beside: Beside | None = None
    """A worker's: what of its task waits beside the main thread."""
    packages: dict[str, Entry] | None = None
    """Zip files that were packed here, by digest: kept as long as this process."""

    def close(self, error: ZmregError | None, clean: bool = True) -> None:
        """Leave. Before others hear that we have: what was not begun here by then never is."""
        if self.desk is not None:
            self.desk.stop()
        for leaving in at_leave:
            leaving(self)
        super().close(error, clean)

    # -- waiting ----------------------------------------------------------------------------------------------------

    def wait_for(self, entries: Sequence[Entry], need: int, stop_on_failure: bool, timeout: float | None) -> bool:
        """Wait until `need` of the distinct `entries` are there; False when the time is up first."""
        with self.shield():
            return self._wait_for(entries, need, stop_on_failure, timeout)

    def _wait_for(self, entries: Sequence[Entry], need: int, stop_on_failure: bool, timeout: float | None) -> bool:
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
            all_needed = timeout is None and need == len(entries)
            return self._wait_or_block(gathering.waiter, timeout, entries if all_needed else ())
        finally:
            if not gathering.waiter.done:
                self._unlisten(entries, gathering)

    def _unlisten(self, entries: Iterable[Entry], gathering: Gathering) -> None:
        with self.lock:
            for entry in entries:
                entry.unlisten(gathering.heard)

    def _wait_or_block(self, waiter: Waiter, timeout: float | None, needed: Sequence[Entry] = ()) -> bool:
        blocked = self.on_wait
        if blocked is None or threading.get_ident() != self.pump.main:
            return (self.beside or self.pump).wait(waiter, timeout)
        first = _BLOCKED_AFTER_S if timeout is None else min(timeout, _BLOCKED_AFTER_S)
        if self.pump.wait(waiter, first):
            return True
        if timeout is not None and timeout <= _BLOCKED_AFTER_S:
            return False
        self.needed = needed
        blocked(True)
        try:
            return self.wait_blocked(waiter, None if timeout is None else timeout - first)
        finally:
            self.needed = ()
            blocked(False)

    def wait_blocked(self, waiter: Waiter, timeout: float | None) -> bool:
        """Wait for what is not there soon. A worker may do something useful meanwhile."""
        return self.pump.wait(waiter, timeout)

    # -- values -----------------------------------------------------------------------------------------------------

    def put(self, value: object, kind: type[Entry] = Entry) -> Entry:
        """An immutable object with this value, owned by this process; an entry of this kind.

        Raises SerializationError, ObjectStoreFullError.
        """
        self.check()
        refs: list[Any] = []
        packed = payload.pack(value, refs)
        entry = kind(self.me, self.tasks.take_numbers(1))
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
        with self.shield():
            if self.freed or self.unpinned:
                self._say()  # what was dropped makes room, and the node should hear of it first
            self.shelf.put(entry.object_id, packed)
            entry.value = Stored(entry.object_id, packed.nbytes, self.node, self.freed)
            entry.state = STORED

    def get_one(self, entry: Entry, timeout: float | None, copy: bool) -> Any:
        """`get` of a single entry: the short way."""
        if entry.state == PENDING:
            self.settled(entry, timeout)
        if entry.state == INLINE:
            return payload.unpack(entry.value, writable=copy)  # type: ignore[arg-type]
        return self.get((entry,), timeout, copy)[0]

    def get(self, entries: Sequence[Entry], timeout: float | None, copy: bool = False) -> list[Any]:
        """The values, in order. Raises the first failure found, without waiting for slow siblings.

        Raises GetTimeoutError when `timeout` seconds (one deadline for all) are over.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._await_all(entries, timeout)
            for entry in entries:
                if entry.state >= FAILED:
                    for sibling in entries:  # asked for, also if it fails later: the caller was told of one failure
                        sibling.see()
                    raise self.error_of(entry)
            held = [entry.value for entry in entries]
            if None not in held:  # else one was found lost in between, and is just made again
                break
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not any(isinstance(value, Stored) for value in held):
            return [payload.unpack(value, writable=copy) for value in held]  # type: ignore[arg-type]
        return read(self, entries, held, deadline, copy)

    def _await_all(self, entries: Sequence[Entry], timeout: float | None) -> None:
        """Until all are there, or one has failed. Raises GetTimeoutError."""
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

    def error_of(self, entry: Entry) -> BaseException:
        """The error to raise for an entry that failed or was freed."""
        entry.see()
        failure = entry.failure
        if failure is None:
            return ObjectLostError("the object was freed: no handle to it was left", object_id=entry.object_id.hex())
        return payload.unpack_failure(failure)

    def is_sent(self, entry: Entry) -> bool:
        """Whether the task that makes an own entry is with a worker."""
        with self.lock:
            task = entry.task
            return task is not None and task.lane is not None and task.counter in task.lane.outstanding

    def cancel_unsent(self, entry: Entry) -> bool:
        """Cancel the task if no worker has it: True, and it will certainly never run."""
        with self.shield(), self.lock:
            if entry.state != PENDING or self.is_sent(entry):
                return False
            self.tasks.cancel(entry, False, False)
            return True

    def first_settled(self, entries: list[Entry], need: int, timeout: float | None) -> list[Entry]:
        """The entries that are there, earliest first: at least `need` of them unless the time is up."""
        with self.shield():
            return self._first_settled(entries, need, timeout)

    def _first_settled(self, entries: list[Entry], need: int, timeout: float | None) -> list[Entry]:
        order: list[Entry] = []
        pending: list[Entry] = []
        for entry in entries:  # each looked at once: others settle them meanwhile
            (pending if entry.state == PENDING else order).append(entry)
        if len(order) >= need:
            return order
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

    def pump_until(self, waiter: Waiter, deadline: float | None) -> None:
        """Wait for a waiter that some listener of an entry finishes; returns early at the deadline or at the end."""
        with self.shield():
            with self.lock:
                self.flush()
            if self.closed is None:
                self._wait_or_block(waiter, None if deadline is None else max(0.0, deadline - time.monotonic()))

    def fetch_ahead(self, entries: Iterable[Entry]) -> None:
        """Have our node get the bytes that others have, without waiting for them."""
        with self.shield(), self.lock:
            for entry in entries:
                if isinstance(stored := entry.value, Stored) and stored.holder != self.node:
                    self.tell_node(Prefetch(stored.object_id, stored.nbytes, stored.holder))

    def is_done(self, entry: Entry) -> bool:
        """Whether the entry has left PENDING; receives what has arrived, but never waits."""
        if entry.state == PENDING:
            with self.shield():
                self.look_at(entry)
                self.pump.drain_now()
        return entry.state != PENDING

    def look_at(self, entry: Entry) -> None:
        """Make sure that news of this entry is on its way: flush, and ask the owner of a borrowed one."""
        if entry.state == PENDING:
            with self.shield(), self.lock:
                self.flush()
                self.sharing.want(entry)

    def settled(self, entry: Entry, timeout: float | None) -> None:
        """Wait until the entry has left PENDING. Raises GetTimeoutError, or what ended the cluster meanwhile."""
        with self.shield():
            self._settled(entry, timeout)

    def _settled(self, entry: Entry, timeout: float | None) -> None:
        waiter = Waiter()
        with self.lock:
            if self.closed is not None:
                raise self.closed
            self.flush()
            if entry.state != PENDING:
                return
            entry.listen(waiter.finish)
            if entry.owner != self.me:
                self.sharing.want(entry)
        if timeout is not None and timeout <= 0:
            self.pump.drain_now()
        elif self.on_wait is not None:
            self._wait_or_block(waiter, timeout, (entry,) if timeout is None else ())
        else:
            self.pump.wait(waiter, timeout)
        if entry.state == PENDING:
            with self.lock:
                entry.unlisten(waiter.finish)
                if self.closed is not None:
                    raise self.closed
            raise GetTimeoutError(
                f"the object was not there within {timeout} s; the work goes on (zmreg.why(ref) tells about it)",
                timeout_s=timeout,
            )

    def arrive(self, object_id: bytes) -> Entry:
        """The entry of a ref that was just unpickled here."""
        with self.lock:
            return self.sharing.entry_for(object_id)

    def when_settled(self, entry: Entry, callback: Callable[[], None]) -> None:
        """Call back when the entry leaves PENDING, on whatever thread pumps: only for what is short and harmless."""
        with self.shield():
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


_current: Client | None = None
_former: set[bytes] = set()


def is_former(process: bytes) -> bool:
    """Whether this was this process's seat in an earlier session."""
    return process in _former


def current() -> Client | None:
    """This process's client, if it has one."""
    return _current or _of_thread()


def _nobody() -> Client | None:
    return None


_of_thread: Callable[[], Client | None] = _nobody


def seat_by_thread(find: Callable[[], Client | None] | None) -> None:
    """From now on each thread has the seat that `find()` gives there (a cluster within one process); None: no more."""
    global _of_thread
    set_current(None)
    _of_thread = find or _nobody


def share_process(find: Callable[[], Client]) -> None:
    """As `seat_by_thread`, in a process whose seat goes on, and is no longer the only one."""
    global _of_thread, _current
    _of_thread = find
    _current = None


def set_current(client: Client | None) -> None:
    """Make `client` this process's seat."""
    global _current
    if _current is not None:
        _former.add(_current.me)
    _current = client


def _forked() -> None:
    """After a fork, in the child: our threads are gone, locks may be held for ever, the sockets are the parent's."""
    seat = current()
    if seat is not None:
        seat.forked = True
        seat.lock = threading.RLock()
        seat.ends.abandon()


os.register_at_fork(after_in_child=_forked)
__all__ = ["Client", "EntryRef", "Waiter", "current", "set_current"]
