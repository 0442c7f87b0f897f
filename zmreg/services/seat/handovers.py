"""Refs that change hands: which entry a ref is, and who has to know of each hand-over (rules in sharing.py)."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable

from zmreg.core.graves import Graves
from zmreg.core.loans import Loans
from zmreg.model.ids import counter_of, node_of, owner_of
from zmreg.model.messages import Borrow, Message
from zmreg.services.seat.custody import Custody
from zmreg.services.seat.entries import FREED, Borrowed, Entry

Post = Callable[[bytes, Message], bool]


class HandOvers:
    """The borrowing side and the lending side of one process. Everything runs under the client's lock."""

    def __init__(
        self, me: bytes, node: bytes, post: Post, pack_error: Callable[[BaseException], bytes],
        dropped: deque[tuple[bytes, int]],
    ) -> None:  # fmt: skip
        """`dropped` receives (object id, hand-overs) of borrowed entries that die here."""
        self._me = me
        self._node = node
        self._post = post
        self._pack_error = pack_error
        self._shown: weakref.WeakValueDictionary[int, Entry] = weakref.WeakValueDictionary()
        self._lent: dict[bytes, Entry] = {}
        self._loans = Loans()
        self._borrowed: weakref.WeakValueDictionary[bytes, Borrowed] = weakref.WeakValueDictionary()
        self.custody = Custody()
        self._gone = Graves()
        self._dead: dict[bytes, str] = {}
        self._heirs: dict[bytes, bytes] = {}
        self._said_goodbye: set[bytes] = set()
        self.departed: list[tuple[bytes, str, bytes]] = []
        """Processes of whose end the node has told, not yet settled: (id, reason, heir)."""
        self.captured = 0
        """Refs found in closures and globals of functions sent so far."""
        self.dropped = dropped
        self.out_of_band: deque[Entry] = deque()
        """Refs the user pickled by hand: held for the life of the process, counted in statistics."""

    # -- finding entries --------------------------------------------------------------------------------------------

    def show(self, entry: Entry) -> None:
        """An own entry is about to be pickled: from now on it can be found by its number."""
        if entry.owner == self._me:
            self._shown[entry.counter] = entry

    def knows(self, entry: Entry) -> bool:
        """Whether this very entry is of this seat: a process may have several (services/worker/lodging.py)."""
        return entry.owner == self._me or self._borrowed.get(entry.object_id) is entry

    def entry_for(self, object_id: bytes) -> Entry:
        """The entry of a ref that arrived here; a new `Borrowed` the first time."""
        if owner_of(object_id) == self._me:
            own = self._shown.get(counter_of(object_id))
            if own is None:  # its last handle died between the pickling and now: gone for good
                own = Entry(self._me, counter_of(object_id), FREED, None)
            return own
        entry = self._borrowed.get(object_id)
        if entry is None:
            entry = self._borrowed[object_id] = Borrowed(object_id, self.dropped)
        return entry

    # -- hand-overs -------------------------------------------------------------------------------------------------

    def lend(self, entry: Entry, borrower: bytes) -> None:
        """Book a loan of an own entry, which lives at least until it is returned."""
        if borrower in self._gone:  # its word was overtaken by that of its death
            return
        object_id = entry.object_id
        self._shown[entry.counter] = entry
        if self._loans.lend(object_id, borrower):
            self._lent[object_id] = entry

    def hold_for(self, entry: Entry, borrower: bytes) -> None:
        """Keep a borrowed entry until its owner knows `borrower` (or that process is gone)."""
        if borrower not in self._gone:
            self.custody.hold(entry, borrower)

    def hand_out(self, entries: Iterable[Entry], receiver: bytes) -> tuple[bytes, ...]:
        """Refs inside a value that goes to `receiver` for good. Returns their ids."""
        ids = []
        for entry in entries:
            ids.append(entry.object_id)
            if entry.owner == self._me:
                self.lend(entry, receiver)
            elif entry.owner != receiver:
                self.hold_for(entry, receiver)
        return tuple(ids)

    def receive(self, object_ids: Iterable[bytes], lender: bytes) -> tuple[Entry, ...]:
        """The entries of refs inside a value that `lender` gave for good; booked with their owners."""
        return tuple(self._take(object_id, lender) for object_id in object_ids)

    def _take(self, object_id: bytes, lender: bytes) -> Entry:
        entry = self.entry_for(object_id)
        if isinstance(entry, Borrowed):
            entry.lends += 1
            self._tell_owner(entry.owner, Borrow(object_id, lender), unless=lender)
        return entry

    def still_held(self, entries: Iterable[Entry | None], caller: bytes) -> tuple[bytes, ...]:
        """After a call of `caller`: which of the refs that came with it are kept here. Books them."""
        held = []
        for entry in entries:
            if isinstance(entry, Borrowed):
                entry.lends += 1
                held.append(entry.object_id)
                self._tell_owner(entry.owner, Borrow(entry.object_id, caller), unless=caller)
        return tuple(held)

    def keep(self, entries: Iterable[Entry | None]) -> None:
        """Of the refs that came with an actor's class and constructor: tell the owners of those that are held here.

        Their pins at the actor's creator cover the time until then, and nobody there waits for a word from us.
        """
        for entry in entries:
            if isinstance(entry, Borrowed):
                entry.lends += 1
                self._tell_owner(entry.owner, Borrow(entry.object_id, self._me))

    def worker_holds(self, object_ids: Iterable[bytes], worker: bytes) -> None:
        """The other side of `still_held`: a result row says the worker keeps these."""
        for object_id in object_ids:
            entry = self.entry_for(object_id)
            if entry.owner == self._me:
                if entry.state != FREED:
                    self.lend(entry, worker)
            elif entry.owner != worker:
                self.hold_for(entry, worker)

    def _tell_owner(self, owner: bytes, message: Message, unless: bytes = b"") -> None:
        """Say it to the owner, or to its heir; nothing when that one is `unless`, who knows it already."""
        to = self._heirs.get(owner, owner)
        if to == unless or to in self._dead:
            return
        if not self._post(to, message) and to == owner:
            # Its door is shut, perhaps since before we came, so that nobody has told us: the node knows what it left.
            heir = self._heirs[owner] = node_of(owner)
            if heir != unless:
                self._post(heir, message)
