"""One writer's part of a replicated table, as another node knows it: its lifecycle, what is held back, a snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Final

from zmreg.core.index import DIGEST_MASK, rows_hash
from zmreg.core.lifecycle import Lifecycle
from zmreg.model.replica_messages import Delta, SnapshotPart


class PartState(StrEnum):
    """How much of a writer's part is known here."""

    UNKNOWN = "UNKNOWN"  # heard of, nothing read yet
    SYNCING = "SYNCING"  # a snapshot is being read; what was known before stays readable until it is whole
    LIVE = "LIVE"  # everything the writer has said
    GAP = "GAP"  # something was missed and has been asked for
    DEAD = "DEAD"


class PartMove(StrEnum):
    """What can happen to a part."""

    BEGAN = "heard from its first word"
    ASKED = "asked for a snapshot"
    SYNCED = "snapshot whole"
    MISSED = "missed something"
    FILLED = "caught up"
    OUTRUN = "too far behind"
    DIVERGED = "digest differs"
    REBORN = "its writer began anew"
    FORGOTTEN = "its writer is dead"


MOVES: Final = {
    (PartState.UNKNOWN, PartMove.BEGAN): PartState.LIVE,
    (PartState.UNKNOWN, PartMove.ASKED): PartState.SYNCING,
    (PartState.SYNCING, PartMove.SYNCED): PartState.LIVE,
    (PartState.SYNCING, PartMove.OUTRUN): PartState.SYNCING,
    (PartState.LIVE, PartMove.MISSED): PartState.GAP,
    (PartState.LIVE, PartMove.DIVERGED): PartState.SYNCING,
    (PartState.GAP, PartMove.FILLED): PartState.LIVE,
    (PartState.GAP, PartMove.OUTRUN): PartState.SYNCING,
    (PartState.SYNCING, PartMove.REBORN): PartState.UNKNOWN,
    (PartState.LIVE, PartMove.REBORN): PartState.UNKNOWN,
    (PartState.GAP, PartMove.REBORN): PartState.UNKNOWN,
    (PartState.UNKNOWN, PartMove.FORGOTTEN): PartState.DEAD,
    (PartState.SYNCING, PartMove.FORGOTTEN): PartState.DEAD,
    (PartState.LIVE, PartMove.FORGOTTEN): PartState.DEAD,
    (PartState.GAP, PartMove.FORGOTTEN): PartState.DEAD,
}


class Held:
    """Operations that came before their turn: while a snapshot is read, or beyond a gap. Bounded by who fills it."""

    __slots__ = ("_by_first", "ops")

    def __init__(self) -> None:
        self._by_first: dict[int, Delta] = {}
        self.ops = 0

    def add(self, delta: Delta) -> bool:
        """False when it is held already."""
        if delta.first_seq in self._by_first:
            return False
        self._by_first[delta.first_seq] = delta
        self.ops += len(delta.keys)
        return True

    def follow(self, applied: int) -> Iterator[Delta]:
        """Those that continue operation `applied` without a gap, in their order. They are no longer held, nor are those
        that a snapshot or a replay has overtaken."""
        for first in [first for first in self._by_first if first <= applied]:
            self.ops -= len(self._by_first.pop(first).keys)
        while (delta := self._by_first.pop(applied + 1, None)) is not None:
            self.ops -= len(delta.keys)
            applied += len(delta.keys)
            yield delta

    def first(self) -> int | None:
        """The number of the first operation held."""
        return min(self._by_first, default=None)

    def clear(self) -> None:
        self._by_first.clear()
        self.ops = 0


class Reading:
    """A snapshot that is being read: the parts that have come, in whatever order."""

    __slots__ = ("asked", "cut", "digest", "last", "least", "parts", "rows")

    def __init__(self, least: int) -> None:
        self.least = least
        """What is known here already: a snapshot that ends before is of no use."""
        self.cut = -1
        self.last = 0
        self.asked = 0
        """Parts below this number have been asked for."""
        self.rows = 0
        self.digest = 0
        self.parts: dict[int, SnapshotPart] = {}

    def adopt(self, part: SnapshotPart) -> None:
        """Read the snapshot this part belongs to. What was read of another is worth nothing."""
        self.cut, self.last = part.cut, part.last
        self.asked = part.part + 1
        self.rows = self.digest = 0
        self.parts.clear()

    def take(self, part: SnapshotPart) -> bool:
        """False when it has come before."""
        if part.part in self.parts:
            return False
        self.parts[part.part] = part
        self.asked = max(self.asked, part.part + 1)
        self.rows += len(part.keys)
        self.digest += rows_hash(part.keys, part.values)
        return True

    def whole(self) -> bool:
        return self.cut >= 0 and len(self.parts) == self.last + 1

    def outstanding(self) -> int:
        """Parts asked for that have not come."""
        return self.asked - len(self.parts)

    def missing(self) -> tuple[int, int]:
        """(first, count) of the first run of parts that were asked for and have not come."""
        first = next((number for number in range(self.asked) if number not in self.parts), self.asked)
        count = next((ahead for ahead in range(self.asked - first) if first + ahead in self.parts), self.asked - first)
        return first, count


class Part:
    """What is known of one writer."""

    __slots__ = (
        "applied", "asked_at", "asked_until", "count", "credit", "digest", "heard", "held", "incarnation", "life",
        "node", "reading", "resynced", "target",
    )  # fmt: skip

    def __init__(self, node: bytes, incarnation: int, now: float) -> None:
        self.node = node
        self.incarnation = incarnation
        self.life = Lifecycle(f"the part of node {node.hex()}", PartState.UNKNOWN, MOVES)
        self.applied = 0
        """The last operation the rows here have."""
        self.target = 0
        """The last operation known to exist."""
        self.count = 0
        self.digest = 0
        self.held = Held()
        self.reading: Reading | None = None
        self.credit = 0
        """Parts of its snapshot under way, as accounted for by the replica."""
        self.heard = now
        self.asked_at = float("-inf")
        self.asked_until = 0
        self.resynced = float("-inf")

    @property
    def state(self) -> PartState:
        return self.life.state

    def adds_up(self, count: int, digest: int) -> bool:
        return self.count == count and self.digest & DIGEST_MASK == digest

    def reborn(self, incarnation: int) -> None:
        """Its writer has begun anew: nothing it said before counts."""
        self.life.move(PartMove.REBORN, f"incarnation {incarnation} after {self.incarnation}")
        self.incarnation = incarnation
        self.applied = self.target = self.count = self.digest = 0
        self.held.clear()
        self.reading = None
        self.asked_at = self.resynced = float("-inf")

    def __repr__(self) -> str:
        return f"<Part of {self.node.hex()}: {self.state}, operation {self.applied} of {self.target}>"
