"""A process's access to its node's store: room is asked for, bytes are written and read in place.

The node decides where everything lies and what may go; this side only maps the arena. A read view pins its object
until the last slice of it dies; the finalizer that notices runs anywhere, so it only appends to `unpinned`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from zmreg.model.errors import (
    GetTimeoutError,
    ObjectLostError,
    ObjectStoreFullError,
    ObjectUnreachableError,
    SpillFullError,
    ZmregError,
)
from zmreg.model.ids import short
from zmreg.model.messages import (
    Allocate,
    Allocated,
    AllocateRefused,
    Message,
    Pin,
    Pinned,
    PinRefused,
    Sealed,
)
from zmreg.model.store_messages import ALREADY_HERE
from zmreg.net.waiting import Waiter
from zmreg.store.arena import Mapping


class Sized(Protocol):
    """Something that knows its size and can write itself into shared memory (wire.payload.Packed)."""

    nbytes: int

    def write_into(self, view: memoryview) -> int:
        """Write; returns the bytes written."""


class PinTicket:
    """A pin that was asked for. When `answered`, the answer is in `place` or `refusal`, and `waiter` is done."""

    __slots__ = ("abandoned", "answered", "object_id", "place", "refusal", "waiter")

    def __init__(self, object_id: bytes) -> None:
        self.object_id = object_id
        self.waiter = Waiter()
        self.answered = False
        self.place: tuple[int, int] | None = None
        self.refusal: PinRefused | None = None
        self.abandoned = False

    def answer(self) -> None:
        """The answer is there. Its flag before its waiter: see `Shelf.wait_any`."""
        self.answered = True
        self.waiter.finish()


class Shelf:
    """The store as one process sees it."""

    def __init__(
        self,
        tell_node: Callable[[Message], None],
        wait: Callable[[Waiter, float | None], bool],
        forget_pins: deque[bytes],
    ) -> None:
        self._tell = tell_node
        self._wait = wait
        self.unpinned = forget_pins
        self._mapping: Mapping | None = None
        self._gone: ZmregError | None = None
        self.note_stored: Callable[[bytes], None] | None = None
        """Worker only: leave a note that outlives the process."""
        self._path = ""
        self._bytes = 0
        self._tickets: dict[bytes, deque[PinTicket]] = {}
        self._rooms: dict[bytes, tuple[Waiter, list[Allocated | AllocateRefused]]] = {}

    def opened(self, path: str, nbytes: int) -> None:
        """The node told where the arena is; it is mapped on first use."""
        self._path, self._bytes = path, nbytes

    def _map(self) -> Mapping:
        if self._mapping is None:
            self._mapping = Mapping.attach(Path(self._path))
        return self._mapping

    # -- writing ----------------------------------------------------------------------------------------------------

    def put(self, object_id: bytes, packed: Sized) -> None:
        """Copies a value into the store. Blocks while the store makes room.

        Raises:
            ObjectStoreFullError: no room in time, or larger than the store; nothing is left behind.
        """
        waiter, answers = Waiter(), list[Allocated | AllocateRefused]()
        self._rooms[object_id] = (waiter, answers)
        if self._gone is not None:  # looked at after the request is known, so that none waits for a node that is gone
            waiter.finish()
        self._tell(Allocate(object_id, packed.nbytes))
        whole = False
        try:
            self._wait(waiter, None)
            if not answers:
                whole = True
                raise self._gone or ObjectStoreFullError(f"the wait for {packed.nbytes} bytes in the store was ended")
            answer = answers[0]
            if isinstance(answer, AllocateRefused):
                whole = True  # nothing to take back
                if answer.reason == ALREADY_HERE:  # an earlier attempt of the same task got that far before it died
                    return
                # The node's word on why nothing can be spilled names the error of its disk.
                kind = SpillFullError if SpillFullError.__name__ in answer.reason else ObjectStoreFullError
                raise kind(answer.reason, packed.nbytes, self._bytes)
            mapping = self._map()
            if not answer.claimed:
                mapping.claim(answer.offset, answer.nbytes)
            view = mapping.writable(answer.offset, answer.nbytes)
            packed.write_into(view)
            view.release()
            if self.note_stored is not None:
                self.note_stored(object_id)
            self._tell(Sealed(object_id, True))
            whole = True
        finally:
            self._rooms.pop(object_id, None)
            if not whole:
                self._tell(Sealed(object_id, False))

    # -- reading ----------------------------------------------------------------------------------------------------

    def ask(self, object_id: bytes, nbytes: int = 0, holder: bytes = b"") -> PinTicket:
        """Ask for a pin without waiting. An object made elsewhere is fetched from its `holder`, or who has a copy."""
        ticket = PinTicket(object_id)
        self.ask_for(ticket, nbytes, holder)
        return ticket

    def ask_for(self, ticket: PinTicket, nbytes: int = 0, holder: bytes = b"") -> None:
        """Ask for a pin with a ticket that is there already."""
        self._tickets.setdefault(ticket.object_id, deque()).append(ticket)
        if self._gone is not None:
            ticket.answer()
        self._tell(Pin(ticket.object_id, nbytes, holder))

    def wait_any(self, tickets: Collection[PinTicket], timeout: float | None) -> bool:
        """Wait until at least one of them is answered; False when the time is up first."""
        waiter = Waiter()
        for ticket in tickets:
            ticket.waiter = waiter
        # An answer that came before the new waiter is seen here; one that comes later finds it.
        return any(ticket.answered for ticket in tickets) or self._wait(waiter, timeout)

    def view(self, ticket: PinTicket, timeout: float | None = None) -> memoryview:
        """The object's bytes, read-only and in place, once the pin is there.

        Raises:
            GetTimeoutError: not in time. ObjectLostError: the node has no such object (any more).
            ObjectStoreFullError: it is on disk, and there was no room in memory for it in time.
            ClusterError: the node is gone.
        """
        try:
            there = ticket.answered or self._wait(ticket.waiter, timeout)
        except BaseException:
            self.abandon(ticket)
            raise
        if not there:
            self.abandon(ticket)
            raise GetTimeoutError(f"object {short(ticket.object_id)} was not readable within {timeout} s")
        if ticket.place is None and self._gone is not None:
            raise self._gone
        if ticket.place is None:
            assert ticket.refusal is not None
            raise self.why_not(ticket.refusal)
        offset, nbytes = ticket.place
        object_id, unpinned = ticket.object_id, self.unpinned
        return self._map().view(offset, nbytes, lambda: unpinned.append(object_id))

    def why_not(self, message: PinRefused) -> ZmregError:
        """The error of a pin that was refused."""
        if message.full:
            return ObjectStoreFullError(message.reason, budget_bytes=self._bytes)
        if message.silent:
            text = f"object {short(message.object_id)} is out of reach: {message.reason}"
            return ObjectUnreachableError(text, object_id=message.object_id.hex())
        text = f"object {short(message.object_id)} is lost: {message.reason}"
        return ObjectLostError(text, object_id=message.object_id.hex())

    def abandon(self, ticket: PinTicket) -> None:
        """Nobody will read by this ticket: give the pin back when, or if, it comes."""
        if ticket.place is not None:
            self.unpinned.append(ticket.object_id)
        ticket.abandoned = True

    # -- what the node says -----------------------------------------------------------------------------------------

    def on_room(self, message: Allocated | AllocateRefused) -> None:
        """An answer to `Allocate`."""
        room = self._rooms.get(message.object_id)
        if room is None:  # the creator was interrupted and has taken it back already
            return
        room[1].append(message)
        room[0].finish()

    def on_pin(self, message: Pinned | PinRefused) -> None:
        """An answer to `Pin`; answers for one object come in the order of the questions."""
        queue = self._tickets.get(message.object_id)
        if not queue:
            return
        ticket = queue.popleft()
        if not queue:
            del self._tickets[message.object_id]
        if isinstance(message, Pinned):
            if ticket.abandoned:
                self.unpinned.append(message.object_id)
            ticket.place = (message.offset, message.nbytes)
        else:
            ticket.refusal = message
        ticket.answer()

    def fail_all(self, error: ZmregError) -> None:
        """The node is gone: whoever waits for it, now or later, gets `error`."""
        self._gone = error
        for waiter, _ in list(self._rooms.values()):
            waiter.finish()
        for queue in list(self._tickets.values()):
            for ticket in list(queue):
                ticket.answer()

    def close(self) -> None:
        """Unmap, unless views are still alive: then the map stays until they die."""
        if self._mapping is not None:
            self._mapping.close()
            self._mapping = None
