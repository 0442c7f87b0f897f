"""What follows when the bytes of an object cannot be had: its owner has them made again, or says why it cannot.

Three notice it: who reads it here (`missed`), a worker whose call takes it (`input_lost`), another process that borrows
it (`on_lost`). The first was told by our own node, which has asked every holder and has told us of deaths before. What
others report, our node looks into first: their news may be older than ours, and a task must not be run again, let alone
on a node that is just dying, because somebody was slow. All methods run under the client's lock.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from zmreg.model.errors import ObjectLostError, ObjectUnreachableError, StaleRefError, ZmregError
from zmreg.model.messages import Lost, Resolve, Revive
from zmreg.services.calling.calls import Task, describe
from zmreg.services.calling.peers import Peer
from zmreg.services.seat.entries import FAILED, Borrowed, Entry, Stored
from zmreg.services.seat.lineage import RebuildRefusedError
from zmreg.services.seat.shelf import PinTicket
from zmreg.services.seat.sites import made_at
from zmreg.wire import batches, payload

if TYPE_CHECKING:
    from zmreg.services.seat.station import Station

# So often in a row somebody is told that an object is there after all; then he has his error.
_CONTRADICTIONS: Final = 3
# Calls whose inputs were reported without cause, of which that is remembered.
_REPORTS_KEPT: Final = 10_000

Then = Callable[[bool], None]
"""Told whether the object is there as it was."""


class _Look(PinTicket):
    """A pin that nobody waits for."""

    __slots__ = ("_then",)

    def __init__(self, object_id: bytes, then: Callable[[PinTicket], None]) -> None:
        super().__init__(object_id)
        self._then = then

    def answer(self) -> None:
        """It is there, or it is not."""
        super().answer()
        self._then(self)


class Recovery:
    """One process's answer to losses."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._tasks = station.tasks
        self._sharing = station.sharing
        self._looks: dict[bytes, list[Then]] = {}
        """Objects that our node looks for, and what comes then."""
        self._contradicted: weakref.WeakKeyDictionary[Entry, int] = weakref.WeakKeyDictionary()
        self._reports: dict[int, int] = {}
        station.tasks.on_input_lost = self.input_lost
        station.tasks.lineage.on_revived = self._revived

    def _revived(self, object_ids: tuple[bytes, ...]) -> None:
        """Our node has them on its list of what is to go; the word that put them there is said before."""
        if self._station.freed:
            self._station.say_freed()
        self._station.tell_node(Revive(object_ids))

    # -- who notices ------------------------------------------------------------------------------------------------

    def missed(self, entry: Entry, stored: Stored, error: ObjectLostError) -> None:
        """The bytes behind `stored`, the entry's value, cannot be read here.

        Then the entry is PENDING, or FAILED for good, or has another value by now. Raises ObjectLostError: it stays as
        it is, but cannot be had.
        """
        if entry.value is not stored:
            return
        if not isinstance(entry, Borrowed) and entry.owner != self._station.me:
            text = f"object {entry.object_id.hex()[-8:]} belongs to a session that is over, and went with it"
            entry.settle(FAILED, payload.pack_failure(StaleRefError(f"{text}; make its value again in this one")))
            return
        if self._next_copy(stored):
            return
        if isinstance(entry, Borrowed):
            self._complain(entry, error)
        else:
            self._rebuild(entry, error)

    def on_lost(self, borrower: bytes, message: Lost) -> None:
        """A borrower cannot read what is ours."""
        entry = self._sharing.entry_for(message.object_id)
        self._look(entry, lambda _: self._sharing.on_resolve(borrower, Resolve(message.object_id)))

    def input_lost(self, task: Task, row: batches.Row) -> None:
        """A call has come back unbegun: its worker cannot read an input. It is sent once more when that is there."""
        object_id, why = row[1], row[3]
        reported = next((each for each in task.inputs() if each.object_id == object_id), None)
        if reported is None:
            self._give_up(task, object_id, why)
            return
        # What was on the same node is lost as well, in all likelihood: not one after the other.
        gone = self._tasks.gone_nodes
        suspects = {id(each): each for each in task.inputs() if getattr(each.value, "holder", b"") in gone}
        suspects[id(reported)] = reported
        left = len(suspects)
        fine = True

        def then(there: bool) -> None:
            nonlocal left, fine
            left -= 1
            fine = fine and there
            if not left:
                self._again(task, object_id, why, fine)

        for each in suspects.values():
            if isinstance(each, Borrowed) and isinstance(stored := each.value, Stored):
                self._attempt(partial(self.missed, each, stored, ObjectLostError(why)), each)
                then(False)
            else:
                self._look(each, then)

    def _again(self, task: Task, object_id: bytes, why: str, fine: bool) -> None:
        if task.counter not in self._tasks.live or task.lane is not None:
            return
        if fine:
            times = self._reports[task.counter] = self._reports.get(task.counter, 0) + 1
            if times > _CONTRADICTIONS:
                self._give_up(task, object_id, why)
                return
            if len(self._reports) > _REPORTS_KEPT:
                self._reports.clear()
        if isinstance(task.peer, Peer) and not task.cancelled:  # it was sent before all that wait there
            task.peer.place_first(task)
        else:
            self._tasks.start(task)

    def _give_up(self, task: Task, object_id: bytes, why: str) -> None:
        self._reports.pop(task.counter, None)
        what = describe(task, self._station.me)
        text = f"{what} was not run: its worker cannot have an input that others can have: {why}"
        self._tasks.fail(task, ObjectUnreachableError(text, object_id=object_id.hex()))

    # -- is it so? --------------------------------------------------------------------------------------------------

    def _look(self, entry: Entry, then: Then) -> None:
        """Have our node get it, if it can; make it again if not. `then` follows when we know."""
        stored = entry.value
        if not isinstance(stored, Stored) or isinstance(entry, Borrowed):
            then(isinstance(stored, Stored))
            return
        object_id = entry.object_id
        waiting = self._looks.setdefault(object_id, [])
        waiting.append(then)
        if len(waiting) == 1:
            look = _Look(object_id, lambda ticket: self._seen(entry, stored, ticket))
            self._station.shelf.ask_for(look, stored.nbytes, stored.holder)

    def _seen(self, entry: Entry, stored: Stored, ticket: PinTicket) -> None:
        shelf = self._station.shelf
        waiting = self._looks.pop(ticket.object_id, [])
        if ticket.place is not None:
            shelf.abandon(ticket)
        elif ticket.refusal is None:  # our node is gone
            return
        elif isinstance(error := shelf.why_not(ticket.refusal), ObjectLostError):
            self._attempt(partial(self.missed, entry, stored, error), entry)
        for then in waiting:
            then(entry.value is stored)

    def _attempt(self, act: Callable[[], None], entry: Entry) -> None:
        """Nobody here can be told of the error but by the entry."""
        try:
            act()
        except ZmregError as error:
            entry.settle(FAILED, payload.pack_failure(error))

    # -- what can be done -------------------------------------------------------------------------------------------

    def _next_copy(self, stored: Stored) -> bool:
        """The first node is gone, and there are others that were asked to keep a copy."""
        if stored.holder in self._tasks.gone_nodes and stored.copies:
            stored.holder, *rest = stored.copies
            stored.copies = tuple(rest)
            return True
        return False

    def _complain(self, entry: Borrowed, error: ObjectLostError) -> None:
        if (died := self._sharing.why_lost(entry)) is not None:
            raise died
        times = self._contradicted.get(entry, 0) + 1
        if times > _CONTRADICTIONS:
            raise ObjectUnreachableError(f"{error}; its owner says that it is there", object_id=entry.object_id.hex())
        self._contradicted[entry] = times
        self._sharing.ask_again(entry, str(error), isinstance(error, ObjectUnreachableError))

    def _rebuild(self, entry: Entry, error: ObjectLostError) -> None:
        object_id = entry.object_id
        try:
            self._tasks.lineage.rebuild(entry)
        except RebuildRefusedError as refused:
            stored = entry.value
            assert isinstance(stored, Stored)
            text = f"{error}. {stored.nbytes} bytes were first at node {stored.holder.hex()[:8]}; {refused}"
            text += made_at(object_id)
            if isinstance(error, ObjectUnreachableError):  # who has it may yet be heard of
                raise ObjectUnreachableError(text, object_id=object_id.hex()) from None
            entry.settle(FAILED, payload.pack_failure(ObjectLostError(text, object_id=object_id.hex())))
