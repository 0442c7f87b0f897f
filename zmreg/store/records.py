"""What the object table speaks in: effects for the node, the lifecycle of an object, and frozen statistics."""

from __future__ import annotations

import enum
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from zmreg.model.errors import InternalError
from zmreg.model.record import Record


class Granted(Record):
    """table -> creator: write here, then seal. Not `claimed`: `Mapping.claim` first, then tell the table."""

    process: bytes
    object_id: bytes
    offset: int
    nbytes: int
    claimed: bool


class Refused(Record):
    """table -> creator: this allocation will not happen; `reason` says why and what to do."""

    process: bytes
    object_id: bytes
    reason: str


class Pinned(Record):
    """table -> reader: the bytes stay where they are until this pin is given back."""

    process: bytes
    object_id: bytes
    offset: int
    nbytes: int


class Missing(Record):
    """table -> reader: the object is not in this store (any longer); look elsewhere."""

    process: bytes
    object_id: bytes
    reason: str


class StartSpill(Record):
    """table -> node: write these bytes to a spill file, then call `spilled`."""

    object_id: bytes
    offset: int
    nbytes: int


class StartRestore(Record):
    """table -> node: read the spill file into these bytes (claim them first if not `claimed`), then call `restored`."""

    object_id: bytes
    offset: int
    nbytes: int
    claimed: bool


class DropSpilled(Record):
    """table -> node: delete the object's spill file."""

    object_id: bytes


class Freed(Record):
    """table -> node: the store no longer offers this object; take it out of the locations. Once per sealed object.

    Its memory may come back later, when the last reader is gone.
    """

    object_id: bytes


StoreEffect: TypeAlias = Granted | Refused | Pinned | Missing | StartSpill | StartRestore | DropSpilled | Freed


class State(enum.Enum):
    """Where the bytes of an object are."""

    WAITING = "waiting"  # its creator waits for room
    WRITING = "writing"  # its creator writes
    SEALED = "sealed"  # in memory, readable
    SPILLING = "spilling"  # in memory, readable, being copied to disk
    SPILLED = "spilled"  # on disk only
    QUEUED = "queued"  # on disk; a reader waits for room in memory
    RESTORING = "restoring"  # on disk, being copied to memory
    DOOMED = "doomed"  # freed; its memory comes back when no reader, writer or copy uses it
    GONE = "gone"


class Move(enum.Enum):
    """What can happen to an object."""

    PLACE = "place"  # room was found
    SEAL = "seal"
    SPILL = "spill"  # a copy to disk begins
    KEEP = "keep"  # that copy ended, the memory stays: somebody reads it, or the disk was full
    LEAVE = "leave"  # the memory is given up, the copy on disk is all there is
    WANT = "want"  # a reader wants it in memory
    DROP_WANT = "drop want"  # that reader has gone
    RESTORE = "restore"  # the copy from disk is complete
    FREE = "free"  # freed while in use
    END = "end"  # nothing is left of it


MOVES: Final[dict[tuple[State, Move], State]] = {
    (State.WAITING, Move.PLACE): State.WRITING,
    (State.WAITING, Move.END): State.GONE,
    (State.WRITING, Move.SEAL): State.SEALED,
    (State.WRITING, Move.FREE): State.DOOMED,
    (State.WRITING, Move.END): State.GONE,
    (State.SEALED, Move.SPILL): State.SPILLING,
    (State.SEALED, Move.LEAVE): State.SPILLED,  # an earlier copy is still on disk
    (State.SEALED, Move.FREE): State.DOOMED,
    (State.SEALED, Move.END): State.GONE,
    (State.SPILLING, Move.KEEP): State.SEALED,
    (State.SPILLING, Move.LEAVE): State.SPILLED,
    (State.SPILLING, Move.FREE): State.DOOMED,
    (State.SPILLED, Move.WANT): State.QUEUED,
    (State.SPILLED, Move.END): State.GONE,
    (State.QUEUED, Move.PLACE): State.RESTORING,
    (State.QUEUED, Move.DROP_WANT): State.SPILLED,
    (State.QUEUED, Move.END): State.GONE,
    (State.RESTORING, Move.RESTORE): State.SEALED,
    (State.RESTORING, Move.FREE): State.DOOMED,
    (State.RESTORING, Move.END): State.GONE,
    (State.DOOMED, Move.END): State.GONE,
}

READABLE: Final = frozenset({State.SEALED, State.SPILLING})
# Offered to others: sealed once and not freed since.
OFFERED: Final = frozenset({State.SEALED, State.SPILLING, State.SPILLED, State.QUEUED, State.RESTORING})


@dataclass(slots=True)
class Holding:
    """One object of the table.

    Invariants: `offset` is a block of the allocator (>= 0) if and only if the object is in memory.
    A block that is read (`pins`), written by its creator (`writing`) or copied to or from disk (`copying`) never moves.
    """

    object_id: bytes
    nbytes: int
    creator: bytes
    secondary: bool
    state: State = State.WAITING
    offset: int = -1
    writing: bool = False
    copying: bool = False
    on_disk: bool = False  # a whole spill file exists; values never change, so it is good while the object lives
    pins: Counter[bytes] = field(default_factory=Counter)
    since: float = 0.0  # about when its creator asked for room, monotonic seconds
    readers: deque[bytes] = field(default_factory=deque)  # one item for each pin request that waits for the bytes
    leaving: bool = False  # it is kept elsewhere in our place, and goes with the last who uses it here

    def __repr__(self) -> str:
        return f"<Holding {self.object_id.hex()[-8:]} {self.state.value} {self.nbytes} bytes, {len(self.pins)} readers>"

    def move(self, move: Move) -> None:
        """Change state along the table; the only place that does. InternalError when there is no such row."""
        state = MOVES.get((self.state, move))
        if state is None:
            raise InternalError(f"object {self.object_id.hex()} is {self.state.value}, cannot {move.value}", repr(self))
        self.state = state

    def concerns(self, process: bytes) -> bool:
        """Whether the process made it, reads it or waits to."""
        return process == self.creator or process in self.pins or process in self.readers

    def is_movable(self) -> bool:
        """Whether its memory can be had: sealed, nobody reads it, nobody copies it."""
        return self.state is State.SEALED and not self.pins

    def is_coming(self) -> bool:
        """Whether its memory comes back by itself, when a copy to or from disk ends."""
        return self.copying and not self.pins and self.state in (State.SPILLING, State.DOOMED)

    def is_in_use(self) -> bool:
        """Whether its block must stay as it is for now."""
        return bool(self.pins) or self.writing or self.copying


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """The store at one moment. Bytes in memory are whole pages; totals count since the start."""

    used_bytes: int
    budget_bytes: int
    peak_bytes: int
    claimed_bytes: int  # of the machine's memory; stays when objects are freed
    sealed: int  # objects offered here, in memory or on disk
    spilled: int  # of these, on disk only
    pinned: int  # objects with a reader
    waiting: int  # creators and restores that wait for room
    spilled_bytes_total: int
    restored_bytes_total: int
    evicted_bytes_total: int  # secondary copies dropped
    evicted_total: int  # how many these were
    cached_bytes: int  # of secondary copies in memory
    ignored: int  # duplicate or late inputs, harmless
