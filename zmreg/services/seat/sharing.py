"""Refs that cross processes: who lent what to whom, and how a borrower learns the value.

A process receives a ref in arguments, in a result or inside a value. Its owner must know before whoever handed it over
lets go. Three cases, by who the owner is:
- the owner handed it over: it books the loan itself (with the result row's `held`, or when it sends a result);
- it came home to its owner: nothing to book;
- a third process owns it: the receiver says `Borrow` to the owner, the lender holds on until the owner has said
  `BorrowSettled` to it.
What is said to an owner that has left in peace goes to its heir, the node (services/node/adoption.py).
A ref inside task arguments is not booked at all unless the worker still holds it when the call ends.
"""

from __future__ import annotations

from collections.abc import Callable

from zmreg.model.errors import ObjectLostError, OwnerDiedError
from zmreg.model.ids import node_of, owner_of, short
from zmreg.model.messages import Borrow, BorrowSettled, Holds, Lost, Message, Resolve, Resolved, Unborrow
from zmreg.services.seat.entries import FAILED, FREED, INLINE, PENDING, STORED, Borrowed, Entry, Lifeline, Stored
from zmreg.services.seat.handovers import HandOvers

Post = Callable[[bytes, Message], bool]


class Sharing(HandOvers):
    """The borrowing side and the lending side of one process. Everything runs under the client's lock."""

    # -- messages ---------------------------------------------------------------------------------------------------

    def on_borrow(self, borrower: bytes, message: Borrow) -> None:
        """A third process tells that it holds one of ours."""
        entry = self.entry_for(message.object_id)
        if entry.state != FREED:
            self.lend(entry, borrower)
        self._post(message.lender, BorrowSettled(message.object_id, borrower))

    def on_settled(self, message: BorrowSettled) -> None:
        """The owner knows the borrower: our hold may go."""
        # To ourselves only `keep` has lent; what a dead process should have been held for is forgotten.
        if message.borrower != self._me and message.borrower not in self._gone:
            self.custody.settled(message.object_id, message.borrower)

    def on_unborrow(self, borrower: bytes, message: Unborrow) -> None:
        """A borrower has dropped these."""
        for object_id, count in zip(message.object_ids, message.counts, strict=True):
            if self._loans.returned(object_id, borrower, count):
                self._lent.pop(object_id, None)

    def on_resolve(self, borrower: bytes, message: Resolve) -> None:
        """A borrower wants a value of ours: answer now, or as soon as it is there."""
        entry = self.entry_for(message.object_id)
        if entry.state == PENDING:
            entry.listen(lambda done: self._answer(borrower, done))
        else:
            self._answer(borrower, entry)

    def _answer(self, borrower: bytes, entry: Entry) -> None:
        object_id, value = entry.object_id, entry.value
        if entry.state == INLINE and isinstance(value, bytes):
            contained = self.hand_out(entry.contained, borrower)
            answer = Resolved(object_id, "inline", value, len(value), entry.type_name, entry.took_us, contained)
        elif entry.state == STORED and isinstance(value, Stored):
            contained = self.hand_out(entry.contained, borrower)
            nbytes, holder = value.nbytes, value.holder
            answer = Resolved(object_id, "stored", b"", nbytes, entry.type_name, entry.took_us, contained, holder)
        elif (failure := entry.failure) is not None:
            entry.see()  # the borrower has it now
            answer = Resolved(object_id, "failed", failure, 0, "", entry.took_us, ())
        else:
            reason = f"object {short(object_id)} was freed by its owner {entry.owner.hex()}: no handle to it was left"
            answer = Resolved(object_id, "lost", reason.encode(), 0, "", 0, ())
        self._post(borrower, answer)

    def want(self, entry: Entry) -> None:
        """Ask the owner of a borrowed entry for its value, once."""
        if isinstance(entry, Borrowed) and not entry.asked and entry.state == PENDING:
            entry.asked = True
            if entry.owner in self._dead:
                self._lose(entry, self._dead[entry.owner])
            else:
                self._tell_owner(entry.owner, Resolve(entry.object_id))

    def ask_again(self, entry: Borrowed, reason: str, silent: bool) -> None:
        """Its bytes cannot be had, although its owner lives: that one has them made again, or tells how it stands."""
        entry.state, entry.value, entry.asked = PENDING, None, True
        self._tell_owner(entry.owner, Lost(entry.object_id, reason, silent))

    def on_resolved(self, sender: bytes, message: Resolved) -> None:
        """An owner answered."""
        entry = self._borrowed.get(message.object_id)
        if entry is None or entry.state != PENDING:
            self.receive(message.contained, sender)  # taken and dropped at once: the loans must be returned
            return
        entry.contained = self.receive(message.contained, sender)
        if sender != entry.owner and message.contained:
            self._say_held(entry.contained)
        entry.type_name, entry.took_us = message.type_name, message.took_us
        if message.state == "inline":
            entry.settle(INLINE, message.payload)
        elif message.state == "stored":
            entry.settle(STORED, Stored(message.object_id, message.nbytes, message.holder or node_of(sender), None))
        elif message.state == "failed":
            entry.settle(FAILED, message.payload)
        else:
            kind = ObjectLostError if sender == entry.owner else OwnerDiedError
            error = kind(message.payload.decode(), object_id=message.object_id.hex())
            entry.settle(FAILED, self._pack_error(error))

    # -- endings ----------------------------------------------------------------------------------------------------

    def process_died(self, process: bytes, reason: str, heir: bytes) -> None:
        """The node's word. Carried out by `settle_departed`, after what that process itself had said before."""
        self.departed.append((process, reason, heir))

    def settle_departed(self) -> None:
        """Return the loans of processes that crashed, let go what was held for them, fail what they owned.

        One that left in peace has an heir, who is asked instead; its loans end with its own last word (`on_goodbye`).
        """
        while self.departed:
            process, reason, heir = self.departed.pop(0)
            theirs = [entry for entry in list(self._borrowed.values()) if entry.owner == process]
            if heir:
                self._heirs[process] = heir
                if process in self._said_goodbye:
                    self._said_goodbye.discard(process)
                else:
                    self._restate(process, theirs, heir, whole=False)
            else:
                self._dead[process] = reason
                self._heirs.pop(process, None)
                self._said_goodbye.discard(process)
                self._forget(process)
                self.custody.owner_gone(process)
            for entry in theirs:
                if entry.state == PENDING and entry.asked:
                    self._post(heir, Resolve(entry.object_id)) if heir else self._lose(entry, reason)

    def node_left(self, node: bytes, heir: bytes) -> None:
        """A node has ended in peace; what it answered for, `heir` does now, and what it held as such is returned."""
        self._heirs |= {process: heir for process, known in self._heirs.items() if known == node}
        self._forget(node)

    def on_goodbye(self, process: bytes) -> None:
        """A process leaves in peace, and this is the last that we hear from it."""
        self._forget(process)
        if process not in self._heirs:
            self._heirs[process] = node_of(process)
            self._said_goodbye.add(process)
        theirs = [entry for entry in list(self._borrowed.values()) if entry.owner == process]
        self._restate(process, theirs, node_of(process), whole=True)

    def _forget(self, process: bytes) -> None:
        """It holds nothing any more."""
        self._gone.bury(process)
        for object_id in self._loans.process_died(process):
            self._lent.pop(object_id, None)
        self.custody.borrower_gone(process)

    def _restate(self, owner: bytes, theirs: list[Borrowed], heir: bytes, whole: bool) -> None:
        """Tell the heir what is held here of an owner's: its last word from us may have been lost with it.

        Drops not yet told are in it: `theirs` holds what lives, so none of these can die meanwhile.
        """
        rows = [self.dropped.popleft() for _ in range(len(self.dropped))]
        self.dropped.extend(row for row in rows if owner_of(row[0]) != owner)
        held = {entry.object_id: entry.lends for entry in theirs if entry.lends}
        self._post(heir, Holds(owner, tuple(held), tuple(held.values()), whole))

    def _say_held(self, entries: tuple[Entry, ...]) -> None:
        """An heir that hands these over may have heard after that what we held before (`_restate`), as if it were all.

        Until then the value they are in keeps them, and is not given back before this is said.
        """
        by_owner: dict[bytes, dict[bytes, int]] = {}
        for entry in entries:
            if isinstance(entry, Borrowed) and entry.owner in self._heirs:
                by_owner.setdefault(entry.owner, {})[entry.object_id] = entry.lends
        for owner, held in by_owner.items():
            self._post(self._heirs[owner], Holds(owner, tuple(held), tuple(held.values()), False))

    def _lose(self, entry: Entry, reason: str) -> None:
        entry.settle(FAILED, self._pack_error(owner_died(entry, reason)))

    def why_lost(self, entry: Entry) -> OwnerDiedError | None:
        """The bytes of a borrowed entry are not in the store any more: the owner's crash, if that is the cause."""
        reason = self._dead.get(entry.owner)
        return None if reason is None else owner_died(entry, reason)

    def processes_on(self, prefix: bytes) -> set[bytes]:
        """The processes of a node with which we share anything: owners, heirs' owners, borrowers."""
        known = {each.owner for each in self._borrowed.values()} | self._loans.everybody() | set(self._heirs)
        return {process for process in known | self.custody.borrowers() if process.startswith(prefix)}

    def turn(self) -> None:
        """Say which borrowed refs died since the last turn."""
        dropped = self.dropped
        if not dropped:
            return
        by_owner: dict[bytes, list[tuple[bytes, int]]] = {}
        while dropped:
            object_id, lends = dropped.popleft()
            by_owner.setdefault(object_id[:8], []).append((object_id, lends))
        for owner, rows in by_owner.items():
            self._tell_owner(owner, Unborrow(tuple(row[0] for row in rows), tuple(row[1] for row in rows)))

    def pending_entries(self) -> list[Entry]:
        """Borrowed entries without a value yet."""
        return [entry for entry in self._borrowed.values() if entry.state == PENDING]

    def lifelines(self) -> list[Entry]:
        """Of the actors that this process has made and that may still live."""
        return [entry for entry in list(self._shown.values()) if isinstance(entry, Lifeline)]

    def heritage(self) -> list[tuple[Entry, dict[bytes, int]]]:
        """What others need of ours: what they hold, with the loans of each, and what only values among it contain."""
        found: dict[bytes, Entry] = {}
        left = list(self._lent.values())
        while left:
            entry = left.pop()
            if entry.owner == self._me and entry.object_id not in found:
                found[entry.object_id] = entry
                left += entry.contained
        return [(entry, self._loans.owed(object_id)) for object_id, entry in found.items()]

    def statistics(self) -> dict[str, int]:
        """Counts of what crossed."""
        return {
            "lent": len(self._lent),
            "borrowed": len(self._borrowed),
            "held_for_others": len(self.custody),
            "out_of_band": len(self.out_of_band) + self.captured,
        }


def owner_died(entry: Entry, reason: str) -> OwnerDiedError:
    """The error of an object whose owner has crashed."""
    return OwnerDiedError(
        f"object {short(entry.object_id)} is lost: its owner, process {entry.owner.hex()}, is gone ({reason}). "
        "The owner is the process that called .remote() or put(); keep it alive while others use its refs.",
        object_id=entry.object_id.hex(),
    )
