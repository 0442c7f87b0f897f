"""The node's table of local objects: who makes, reads and frees each of them, and where its bytes are.

A pure machine: inputs are method calls, each returns the effects the node has to perform, in that order. No clock, no
I/O, no memory touched. The lifecycle is `records.MOVES`; which object leaves to make room is decided by `Room`.

Promises:
- `allocate` is answered once, by Granted or Refused; `pin` once, by Pinned or Missing. No answer goes to a dead
  process, nor to a creator that took its request back with `abort`.
- A block that somebody writes, reads or copies is never moved, reused or evicted.
- The budget holds at every moment. Over it, creators wait in order; restores of objects that somebody wants to read
  come before them, because readers who get on give memory back.
- Who holds memory may overtake a request that nothing in flight can serve: else that one would wait for him in vain.
- Inputs that come twice or late are counted (`statistics().ignored`) and change nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Container
from typing import Final

from zmreg.model.store_messages import ALREADY_HERE
from zmreg.store.records import (
    OFFERED,
    READABLE,
    DropSpilled,
    Freed,
    Granted,
    Holding,
    Missing,
    Move,
    Pinned,
    Refused,
    StartRestore,
    StartSpill,
    State,
    StoreEffect,
    StoreStatistics,
)
from zmreg.store.room import Room
from zmreg.store.shelves import Shelves

__all__ = [
    "ALREADY_HERE",
    "SPILL_RETRY_S",
    "DropSpilled",
    "Freed",
    "Granted",
    "Missing",
    "ObjectTable",
    "Pinned",
    "Refused",
    "StartRestore",
    "StartSpill",
    "StoreEffect",
    "StoreStatistics",
]

# A full disk is tried again after 5 s, or as soon as one of our own files there is deleted.
SPILL_RETRY_S: Final = 5.0
_TOP_HOLDERS: Final = 5
# How the reason of a Missing begins when the only bytes here were a file that cannot be read back.
SPOILT: Final = "it could not be restored from disk"


class ObjectTable:
    """See the module. Processes and objects are named by bytes; sizes are bytes, times are seconds of any clock."""

    def __init__(
        self,
        budget_bytes: int,
        capacity_bytes: int | None = None,
        *,
        evict_secondaries: bool = True,
        spill: bool = True,
        cache_bytes: int = 0,
    ) -> None:
        """`capacity_bytes`: size of the arena, by default the budget. `spill=False`: there is no disk to spill to.

        `cache_bytes`: what secondary copies that nobody reads may take; 0: as much as there is room for.
        """
        self._room = Room(budget_bytes, capacity_bytes or budget_bytes, evict_secondaries)
        self._room.cache_bytes = cache_bytes
        self._room.can_spill = spill
        self._shelves = Shelves(self._room)
        self._entries = self._shelves.entries
        self._spill_error = "" if spill else "spilling is switched off"  # why nothing is spilled; "" while it is
        self._spill_rests_until = 0.0 if spill else float("inf")
        self._now = 0.0
        self._spilled_bytes = self._restored_bytes = self._ignored = 0

    def __repr__(self) -> str:
        stats = self.statistics()
        space = f"{_size(stats.used_bytes)}/{_size(stats.budget_bytes)}"
        return f"<ObjectTable [{space} | {stats.sealed} objects, {stats.spilled} spilled, {stats.waiting} waiting]>"

    # --- creators ---

    def allocate(
        self, process: bytes, object_id: bytes, nbytes: int, now: float, secondary: bool = False
    ) -> list[StoreEffect]:
        """`process` wants to write a new object; it may have to wait. `secondary`: another node has the primary."""
        self._wake_spilling(now)
        entry = self._entries.get(object_id)
        if entry is not None:
            self._allocate_again(entry, process, nbytes)
        elif nbytes < 0 or not self._room.could_hold(nbytes):
            self._shelves.tell(Refused(process, object_id, _too_large(object_id, nbytes, self._room.budget_bytes)))
        else:
            if secondary:
                self._shelves.trim_cache(nbytes)
            self._shelves.add(Holding(object_id, nbytes, process, secondary, since=now))
        return self._shelves.settled()

    def allocate_timed_out(self, process: bytes, object_id: bytes) -> list[StoreEffect]:
        """The creator has waited long enough: Refused, with the top holders in the text."""
        entry = self._entries.get(object_id)
        if entry is None or entry.state is not State.WAITING or entry.creator != process:
            return self._ignore()
        self._shelves.tell(
            Refused(process, object_id, _no_room(entry, self.top(_TOP_HOLDERS), self._room, self._spill_error))
        )
        self._shelves.end(entry, "its creator found no room for it")
        return self._shelves.settled()

    def claimed(self, object_id: bytes) -> list[StoreEffect]:
        """Memory was put behind the object's pages (by its creator, or by the node before a restore)."""
        entry = self._entries.get(object_id)
        if entry is None or entry.offset < 0:
            return self._ignore()
        self._room.allocator.mark_claimed(entry.offset, entry.nbytes)
        return []

    def seal(self, process: bytes, object_id: bytes) -> list[StoreEffect]:
        """The creator has written all bytes. Ask `contains` before announcing: it may have been freed meanwhile."""
        entry = self._entries.get(object_id)
        if entry is None or not entry.writing or entry.creator != process:
            return self._ignore()
        self._shelves.stop_writing(entry)
        if entry.state is State.WRITING:
            self._shelves.move(entry, Move.SEAL)
            self._shelves.answer_readers(entry)
        self._shelves.settle(entry)
        return self._shelves.settled()

    def abort(self, process: bytes, object_id: bytes) -> list[StoreEffect]:
        """The creator gives up, waiting or writing; it gets no answer any more and touches the bytes no more."""
        entry = self._entries.get(object_id)
        if entry is None or entry.creator != process or not (entry.writing or entry.state is State.WAITING):
            return self._ignore()
        self._shelves.give_up(entry, "its creator gave up writing it")
        return self._shelves.settled()

    # --- readers ---

    def pin(self, process: bytes, object_id: bytes) -> list[StoreEffect]:
        """`process` wants to read: now, or when the object is sealed or restored. Each call is one pin to give back.

        A reader that waits no longer when Pinned arrives has to `unpin` then.
        """
        entry = self._entries.get(object_id)
        if entry is None or entry.state is State.DOOMED:
            reason = "it is not in this store" if entry is None else "it was freed"
            return [Missing(process, object_id, reason)]
        entry.readers.append(process)
        if entry.state in READABLE:
            self._shelves.answer_readers(entry)
            self._shelves.settle(entry)
        elif entry.state is State.SPILLED:
            self._shelves.want(entry)
        return self._shelves.settled()

    def pin_timed_out(self, process: bytes, object_id: bytes) -> list[StoreEffect]:
        """One waiting reader has waited long enough: Missing."""
        entry = self._entries.get(object_id)
        if entry is None or process not in entry.readers:
            return self._ignore()
        entry.readers.remove(process)
        reason = (
            _no_room(entry, self.top(_TOP_HOLDERS), self._room, self._spill_error)
            if entry.state is State.QUEUED
            else f"it is still {entry.state.value}"
        )
        self._shelves.tell(Missing(process, object_id, reason))
        self._shelves.drop_want(entry)
        return self._shelves.settled()

    def waits_for_room(self, process: bytes, object_id: bytes) -> bool:
        """Whether `process` waits to read an object that is on disk and finds no memory to come back to."""
        entry = self._entries.get(object_id)
        return entry is not None and entry.state is State.QUEUED and process in entry.readers

    def unpin(self, process: bytes, object_id: bytes, count: int = 1) -> list[StoreEffect]:
        """`count` views of `process` died; more than it has are ignored."""
        entry = self._entries.get(object_id)
        have = entry.pins.get(process, 0) if entry is not None else 0
        if not 0 < count <= have:
            self._ignored += 1
        if entry is None or have == 0 or count <= 0:
            return []
        self._shelves.take_pins(entry, process, min(count, have))
        self._shelves.settle(entry)
        self._shelves.trim_cache()
        return self._shelves.settled()

    def promote(self, object_id: bytes) -> list[StoreEffect]:
        """A secondary copy counts as a primary from now on: it is spilled, and never just dropped."""
        entry = self._entries.get(object_id)
        if entry is not None and entry.secondary and entry.state in OFFERED:
            entry.leaving = False
            self._room.promote(entry)
        return self._shelves.settled()

    # --- the end of objects and processes ---

    def free(self, object_id: bytes) -> list[StoreEffect]:
        """Nobody refers to the object any more. Readers keep what they have; new ones are told Missing."""
        entry = self._entries.get(object_id)
        if entry is None or entry.state is State.DOOMED:
            return self._ignore()
        self._shelves.free(entry)
        return self._after_frees()

    def free_owned_by(self, owner_prefix: bytes, spared: Container[bytes] = ()) -> list[StoreEffect]:
        """Free every object whose id begins so, except `spared` ones: its owner is gone."""
        for entry in list(self._entries.values()):
            object_id = entry.object_id
            if object_id.startswith(owner_prefix) and object_id not in spared and entry.state is not State.DOOMED:
                self._shelves.free(entry)
        return self._after_frees()

    def process_died(self, process: bytes) -> list[StoreEffect]:
        """Its pins, waiting requests and unsealed blocks are dropped; what it sealed stays."""
        for entry in [e for e in self._entries.values() if e.concerns(process)]:
            self._shelves.forget_process(entry, process)
            if entry.creator == process and (entry.writing or entry.state is State.WAITING):
                self._shelves.give_up(entry, "the process that wrote it died")
        return self._shelves.settled()

    # --- what the node did ---

    def spilled(self, object_id: bytes, error: str | None) -> list[StoreEffect]:
        """A StartSpill was carried out, or failed with `error`: then spilling rests for a while."""
        entry = self._entries.get(object_id)
        if entry is None or not entry.copying or entry.state is State.RESTORING:
            return self._ignore()
        entry.copying = False
        if error is None:
            entry.on_disk = True
            self._spilled_bytes += entry.nbytes
        else:
            self._spill_error, self._room.can_spill = error, False
            self._spill_rests_until = self._now + SPILL_RETRY_S
        if entry.state is State.SPILLING and (error is not None or entry.pins):
            self._shelves.move(entry, Move.KEEP)
        elif entry.state is State.SPILLING:
            self._shelves.move(entry, Move.LEAVE)
            self._room.release(entry)
        self._shelves.settle(entry)
        return self._shelves.settled()

    def restored(self, object_id: bytes, error: str | None) -> list[StoreEffect]:
        """A StartRestore was carried out, or failed with `error`: then the object is lost here."""
        entry = self._entries.get(object_id)
        if entry is None or not entry.copying or entry.state is State.SPILLING:
            return self._ignore()
        entry.copying = False
        if entry.state is State.RESTORING and error is not None:
            self._shelves.tell(Freed(object_id))
            self._shelves.end(entry, f"{SPOILT}: {error}")
            return self._shelves.settled()
        if entry.state is State.RESTORING:
            self._shelves.move(entry, Move.RESTORE)
            self._restored_bytes += entry.nbytes
            self._shelves.answer_readers(entry)
        self._shelves.settle(entry)
        return self._shelves.settled()

    def tick(self, now: float) -> list[StoreEffect]:
        """Time passes; to be called about once a second.

        Spilling that rests after an error may begin again, and a fragmented store is searched once more.
        """
        self._wake_spilling(now)
        self._room.search_again()
        return self._shelves.settled()

    # --- questions ---

    def contains(self, object_id: bytes) -> bool:
        """Whether the object can be read here: sealed, not freed; perhaps on disk."""
        entry = self._entries.get(object_id)
        return entry is not None and entry.state in OFFERED

    def knows(self, object_id: bytes) -> bool:
        """Whether the object is here in any state: a reader may wait for it."""
        entry = self._entries.get(object_id)
        return entry is not None and entry.state is not State.DOOMED

    def describe(self, object_id: bytes) -> tuple[int, bool]:
        """(nbytes, secondary copy) of an object that `knows`."""
        entry = self._entries[object_id]
        return entry.nbytes, entry.secondary

    def top(self, n: int) -> list[tuple[bytes, int, str, int]]:
        """The `n` largest objects as (object_id, nbytes, state, pins)."""
        largest = heapq.nlargest(n, self._entries.values(), key=lambda entry: entry.nbytes)
        return [(entry.object_id, entry.nbytes, entry.state.value, entry.pins.total()) for entry in largest]

    def statistics(self) -> StoreStatistics:
        """The store as it is now."""
        allocator, states = self._room.allocator, self._shelves.states
        return StoreStatistics(
            used_bytes=allocator.used_bytes,
            budget_bytes=self._room.budget_bytes,
            peak_bytes=self._room.peak_bytes,
            claimed_bytes=allocator.claimed_bytes,
            sealed=sum(states[state] for state in OFFERED),
            spilled=states[State.SPILLED] + states[State.QUEUED],
            pinned=self._shelves.pinned,
            waiting=len(self._shelves.creators) + len(self._shelves.restores),
            spilled_bytes_total=self._spilled_bytes,
            restored_bytes_total=self._restored_bytes,
            evicted_bytes_total=self._shelves.evicted_bytes,
            evicted_total=self._shelves.evicted,
            cached_bytes=self._room.secondary_bytes,
            ignored=self._ignored,
        )

    # --- inside ---

    def _ignore(self) -> list[StoreEffect]:
        self._ignored += 1
        return []

    def _allocate_again(self, entry: Holding, process: bytes, nbytes: int) -> None:
        """A second request for one id: the same once more, or another process made the object meanwhile."""
        object_id = entry.object_id
        same = entry.creator == process and entry.nbytes == nbytes
        if same and entry.state is State.WAITING:
            self._ignored += 1  # it is answered when there is room, once
        elif same and entry.state is State.WRITING:
            self._ignored += 1
            claimed = self._room.allocator.is_claimed(entry.offset, nbytes)
            self._shelves.tell(Granted(process, object_id, entry.offset, nbytes, claimed))
        elif entry.state in OFFERED:
            self._shelves.tell(Refused(process, object_id, ALREADY_HERE))
        else:
            reason = f"object {object_id.hex()} is {entry.state.value} here under another request; try again later"
            self._shelves.tell(Refused(process, object_id, reason))

    def _wake_spilling(self, now: float) -> None:
        self._now = now
        if self._spill_error and now >= self._spill_rests_until:
            self._spill_error, self._room.can_spill = "", True

    def _after_frees(self) -> list[StoreEffect]:
        """A deleted spill file makes room on a full disk: spilling need not rest longer."""
        effects = self._shelves.settled()
        if self._spill_error and any(isinstance(effect, DropSpilled) for effect in effects):
            self._spill_rests_until = min(self._spill_rests_until, self._now)
            self._wake_spilling(self._now)
            effects += self._shelves.settled()
        return effects


def some(table: ObjectTable, n: int, oldest: bool) -> list[Holding]:
    """The `n` oldest or largest objects, to be looked at now."""
    entries = table._entries.values()
    return heapq.nlargest(n, entries, key=lambda entry: -entry.since if oldest else entry.nbytes)


def demote(table: ObjectTable, object_id: bytes) -> list[StoreEffect]:
    """Another node keeps a primary from now on: ours goes, or stays as a secondary copy while it is in use. That is for
    a moment, most often: who gave it to that node has not heard yet that all of it has arrived."""
    entry = table._entries.get(object_id)
    if entry is None or entry.state not in OFFERED or entry.secondary:
        return table._ignore()
    if entry.is_in_use() or entry.readers:
        entry.leaving = True
        table._room.demote(entry)
        table._shelves.trim_cache()
        return table._shelves.settled()
    table._shelves.free(entry)
    return table._after_frees()


def _size(nbytes: int) -> str:
    """1536 -> '1.5 KiB'."""
    amount, unit = float(nbytes), "bytes"
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(amount) < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{nbytes} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"


def _too_large(object_id: bytes, nbytes: int, budget_bytes: int) -> str:
    return (
        f"object {object_id.hex()} of {_size(nbytes)} can never fit into this node's object store of "
        f"{_size(budget_bytes)}; start the node with a larger object_store_bytes or use smaller objects"
    )


def _no_room(entry: Holding, top: list[tuple[bytes, int, str, int]], room: Room, spill_error: str) -> str:
    holders = "; ".join(
        f"{object_id.hex()} {_size(nbytes)} {state}, {pins} readers"
        for object_id, nbytes, state, pins in top
        if object_id != entry.object_id
    )
    disk = f" Nothing can be spilled: {spill_error}." if spill_error else ""
    return (
        f"no room for object {entry.object_id.hex()} of {_size(entry.nbytes)}: {_size(room.allocator.used_bytes)} of "
        f"{_size(room.budget_bytes)} are in use and could not be freed in time.{disk} Largest: {holders or 'none'}. "
        f"Drop arrays and refs you no longer need, or start the node with a larger object_store_bytes"
    )
