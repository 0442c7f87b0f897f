"""What happens to single objects of the store, and who is served when room appears: the inside of `ObjectTable`."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from itertools import chain
from typing import Final

from zmreg.store.records import (
    OFFERED,
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
)
from zmreg.store.room import Room


class Shelves:
    """The entries, their queues and the room they take. Verbs only collect effects; `settled` hands them out.

    Invariants: an entry is in `creators` if and only if WAITING, in `restores` if and only if QUEUED; QUEUED has
    readers; an entry with readers is not readable yet; DOOMED has a user (pins, writing or copying).
    """

    def __init__(self, room: Room) -> None:
        self.room: Final = room
        self.entries: Final[dict[bytes, Holding]] = {}
        self.states: Final[Counter[State]] = Counter()
        self.restores: Final[OrderedDict[bytes, Holding]] = OrderedDict()  # first come, first served, both
        self.creators: Final[OrderedDict[bytes, Holding]] = OrderedDict()
        self.pinned = 0
        self.evicted_bytes = 0
        self.evicted = 0
        self._holds: Counter[bytes] = Counter()  # process -> its pins and unsealed blocks; no zeros
        self._effects: list[StoreEffect] = []

    def settled(self) -> list[StoreEffect]:
        """Serve whoever can be served now; all effects since the last time."""
        self._serve()
        effects, self._effects = self._effects, []
        return effects

    def tell(self, effect: StoreEffect) -> None:
        """Add an effect."""
        self._effects.append(effect)

    def add(self, entry: Holding) -> None:
        """A new object, whose creator waits for room."""
        self.entries[entry.object_id] = self.creators[entry.object_id] = entry
        self.states[entry.state] += 1

    def move(self, entry: Holding, move: Move) -> None:
        """Change the entry's state along the table and keep count."""
        self.states[entry.state] -= 1
        entry.move(move)
        self.states[entry.state] += 1

    def want(self, entry: Holding) -> None:
        """A reader wants a spilled object back in memory."""
        self.move(entry, Move.WANT)
        self.restores[entry.object_id] = entry

    def drop_want(self, entry: Holding) -> None:
        """Readers left: when none is left, the object needs no memory."""
        if entry.state is State.QUEUED and not entry.readers:
            self.move(entry, Move.DROP_WANT)
            del self.restores[entry.object_id]
            self.settle(entry)

    def answer_readers(self, entry: Holding) -> None:
        """The bytes are readable: pin them once for each waiting reader. `settle` afterwards."""
        if entry.readers and not entry.pins:
            self.pinned += 1
        for process in entry.readers:
            entry.pins[process] += 1
            self._holds[process] += 1
            self.tell(Pinned(process, entry.object_id, entry.offset, entry.nbytes))
        entry.readers.clear()

    def disappoint_readers(self, entry: Holding, reason: str) -> None:
        """The bytes will not be readable: Missing for each waiting reader."""
        for process in entry.readers:
            self.tell(Missing(process, entry.object_id, reason))
        entry.readers.clear()

    def take_pins(self, entry: Holding, process: bytes, count: int) -> None:
        """Give back `count` pins, which the process has. `settle` afterwards."""
        entry.pins[process] -= count
        if not entry.pins[process]:
            del entry.pins[process]
        if not entry.pins:
            self.pinned -= 1
        self._let_go(process, count)

    def stop_writing(self, entry: Holding) -> None:
        """The creator touches the bytes no more."""
        entry.writing = False
        self._let_go(entry.creator, 1)

    def give_up(self, entry: Holding, reason: str) -> None:
        """The object will never be whole: its creator gave up or died."""
        if entry.writing:
            self.stop_writing(entry)
        if entry.state is State.DOOMED:
            self.settle(entry)
        else:
            self.end(entry, reason)

    def free(self, entry: Holding) -> None:
        """Nobody refers to the object. What is in use stays DOOMED until its users are done."""
        reason = "it was freed"
        if entry.state in OFFERED:
            self.tell(Freed(entry.object_id))
        if entry.state is State.WAITING:
            self.tell(Refused(entry.creator, entry.object_id, "the object was freed before it was written"))
        if entry.is_in_use():
            self.disappoint_readers(entry, reason)
            self.move(entry, Move.FREE)
            self.settle(entry)
        else:
            self.end(entry, reason)

    def settle(self, entry: Holding) -> None:
        """Its users changed: bury it when it is freed or leaves, and is unused; else sort it into the room's groups."""
        if entry.state is State.DOOMED and not entry.is_in_use():
            self.end(entry, "it was freed")
        elif entry.leaving and not (entry.is_in_use() or entry.readers):
            self.free(entry)
        elif entry.offset >= 0:
            self.room.note(entry)

    def end(self, entry: Holding, reason: str) -> None:
        """Forget the object, memory, file and all; nobody uses its block."""
        self.disappoint_readers(entry, reason)
        self.creators.pop(entry.object_id, None)
        self.restores.pop(entry.object_id, None)
        if entry.offset >= 0:
            self.room.release(entry)
        if entry.on_disk:
            self.tell(DropSpilled(entry.object_id))
        self.move(entry, Move.END)
        del self.states[entry.state], self.entries[entry.object_id]

    def forget_process(self, entry: Holding, process: bytes) -> None:
        """A dead process reads the object no more, nor waits to."""
        if process in entry.readers:
            entry.readers = deque(reader for reader in entry.readers if reader != process)
            self.drop_want(entry)
        if process in entry.pins:
            self.take_pins(entry, process, entry.pins[process])
            self.settle(entry)

    def trim_cache(self, coming_bytes: int = 0) -> None:
        """Drop secondary copies, least recently used first, until they and what comes are within their bound."""
        while (victim := self.room.over_cache(coming_bytes)) is not None:
            self._evict(victim)

    def _let_go(self, process: bytes, count: int) -> None:
        self._holds[process] -= count
        if not self._holds[process]:
            del self._holds[process]

    def _serve(self) -> None:
        """Restores first, then creators, each in order; past a blocked one only those who hold memory themselves."""
        if not self.restores and not self.creators:
            return
        blocked = False
        for entry in list(chain(self.restores.values(), self.creators.values())):
            if blocked and not self._is_holder(entry):
                continue
            if not self._place(entry):
                if self.room.coming_bytes:
                    return  # the first in line gets what comes
                blocked = True

    def _is_holder(self, entry: Holding) -> bool:
        askers = (entry.creator,) if entry.state is State.WAITING else entry.readers
        return any(process in self._holds for process in askers)

    def _place(self, entry: Holding) -> bool:
        while not self.room.place(entry):
            # Each turn takes at least one object out of the movable ones, so this ends.
            victims = self.room.victims_for(entry.nbytes)
            if not victims:
                return False
            for victim in victims:
                self._evict(victim)
        claimed = self.room.allocator.is_claimed(entry.offset, entry.nbytes)
        if entry.state is State.WAITING:
            del self.creators[entry.object_id]
            entry.writing = True
            self._holds[entry.creator] += 1
            self.tell(Granted(entry.creator, entry.object_id, entry.offset, entry.nbytes, claimed))
        else:
            del self.restores[entry.object_id]
            entry.copying = True
            self.tell(StartRestore(entry.object_id, entry.offset, entry.nbytes, claimed))
        self.move(entry, Move.PLACE)
        self.room.note(entry)
        return True

    def _evict(self, entry: Holding) -> None:
        if not self.room.can_drop(entry):
            self.move(entry, Move.SPILL)
            entry.copying = True
            self.tell(StartSpill(entry.object_id, entry.offset, entry.nbytes))
            self.room.note(entry)
        elif entry.on_disk:
            self.move(entry, Move.LEAVE)
            self.room.release(entry)
        else:
            self.evicted_bytes += entry.nbytes
            self.evicted += 1
            self.tell(Freed(entry.object_id))
            self.end(entry, "it was evicted")
