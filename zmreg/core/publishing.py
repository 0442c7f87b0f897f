"""The writer's side of a replicated table: one node's own part, told to everybody else.

Each change is an operation with a number. Operations leave in batches, the latest of them stay in a ring for those who
missed some, and a beacon says twice a second how far the part has come and what its rows add up to. Who is too far
behind reads a snapshot: the rows as they were after one operation, in parts, each asked for by number. So nothing is
remembered about who reads: any part of an answer may get lost and be asked for again.

Invariants:
- operations are numbered without gaps from 1; a batch, once published, never changes, and replays are those batches.
- `count` and `digest` are those of the rows published and not yet deleted, after operation `last_seq`.
- a snapshot's cut is the last operation published when it was taken.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from itertools import islice, takewhile
from typing import Final

from zmreg.core.index import DIGEST_MASK, Admit, Rows, RowStore, everything, rows_hash
from zmreg.core.replica_effects import Publish, PublisherEffect, SendTo
from zmreg.model.record import Record
from zmreg.model.replica_messages import AskReplay, AskSnapshot, Beacon, Delta, SnapshotPart

# A quantum: a burst makes at most 100 messages a second, or full ones. The first change after a pause leaves at once.
FLUSH_S: Final = 0.01
FLUSH_BYTES: Final = 32 << 10
BEACON_S: Final = 0.5
# 65,536 operations on locations are 1.6 MB on the wire, and 5 MB here when they leave in large batches. The bytes bound
# batches of one, which take five times as much each, and tables with larger rows.
RING_OPS: Final = 65_536
RING_BYTES: Final = 8 << 20
# What Python takes for a batch and for each key in it, beside the bytes of keys and values (measured).
_BATCH_COST: Final = 300
_KEY_COST: Final = 50
PART_BYTES: Final = 255 << 10
# Rows say where things are; what is large belongs into the store.
MAX_ROW_BYTES: Final = 64 << 10
# msgpack's headers of a key and a value.
_ROW_OVERHEAD: Final = 6
# More than anybody asks for (core/replicas.py asks for 4), so that one message cannot make us send a gigabyte.
_MOST_PARTS: Final = 16
# Snapshots kept for those who read them: one is made when somebody begins, and shared by who begins soon after.
_SNAPSHOTS: Final = 4
_SNAPSHOT_IDLE_S: Final = 5.0


class PublisherStatistics(Record):
    """`ring_ops` are kept for replays; the others count since the start."""

    last_seq: int
    rows: int
    ring_ops: int
    ring_bytes: int
    deltas: int
    beacons: int
    replays: int
    snapshots: int
    parts: int


class _Snapshot:
    """Rows as they were after operation `cut`, in parts of at most PART_BYTES."""

    __slots__ = ("asked", "cut", "parts")

    def __init__(self, cut: int, rows: Iterable[tuple[bytes, bytes]], now: float) -> None:
        self.cut = cut
        self.asked = now
        self.parts: list[tuple[tuple[bytes, ...], tuple[bytes, ...]]] = []
        keys: list[bytes] = []
        values: list[bytes] = []
        size = 0
        for key, value in rows:
            nbytes = len(key) + len(value) + _ROW_OVERHEAD
            if size + nbytes > PART_BYTES:
                self.parts.append((tuple(keys), tuple(values)))
                keys, values, size = [], [], 0
            keys.append(key)
            values.append(value)
            size += nbytes
        self.parts.append((tuple(keys), tuple(values)))


class Publisher:
    """`node`'s own part of table number `table`. It keeps its rows in `rows`, where lookups find them, and publishes
    those that `admit` lets through. Times are in seconds of whatever clock `tick` gets."""

    def __init__(
        self,
        node: bytes,
        table: int,
        rows: RowStore | None = None,
        incarnation: int = 0,
        ring_ops: int = RING_OPS,
        admit: Admit = everything,
    ) -> None:
        self.node = node
        self.table = table
        self.incarnation = incarnation
        self.rows: RowStore = Rows() if rows is None else rows
        self.last_seq = 0
        """Of the last operation published."""
        self._admit = admit
        self._count = 0
        self._digest = 0
        self._keys: list[bytes] = []
        self._values: list[bytes] = []
        self._bytes = 0
        self._old_keys: list[bytes] = []
        self._old_values: list[bytes] = []
        """The rows that the operations to be published take away or change."""
        self._flushed = self._beaconed = float("-inf")
        self._ring: deque[tuple[Delta, int]] = deque()
        self._ring_limit = ring_ops
        self._ring_ops = self._ring_bytes = 0
        self._snapshots: list[_Snapshot] = []
        self._counts = dict.fromkeys(("deltas", "beacons", "replays", "snapshots", "parts"), 0)

    # -- the part

    def add(self, key: bytes, value: bytes) -> list[PublisherEffect]:
        """Set a row. Publishes when enough have collected; `tick` does it otherwise. Raises ValueError for a row that
        is empty or too large."""
        if not value or len(key) + len(value) > MAX_ROW_BYTES:
            raise ValueError(
                f"a row of table {self.table} with a key of {len(key)} and a value of {len(value)} bytes: values are "
                f"not empty, and both together have at most {MAX_ROW_BYTES}; put large things into the store"
            )
        old = self.rows.put(self.node, key, value)
        if old == value:
            return []
        gone = old is not None and self._withdraw(key, old)
        if self._admit(key, value):
            return self._note(key, value)
        return self._note(key, b"") if gone else []

    def delete(self, key: bytes) -> list[PublisherEffect]:
        """Take a row away; one that is not there is ignored."""
        old = self.rows.remove(self.node, key)
        return self._note(key, b"") if old is not None and self._withdraw(key, old) else []

    def _withdraw(self, key: bytes, old: bytes) -> bool:
        """Whether the old value is among what is published; it no longer counts."""
        if not self._admit(key, old):
            return False
        self._old_keys.append(key)
        self._old_values.append(old)
        return True

    def _note(self, key: bytes, value: bytes) -> list[PublisherEffect]:
        self._keys.append(key)
        self._values.append(value)
        self._bytes += len(key) + len(value) + _ROW_OVERHEAD
        return self._publish() if self._bytes >= FLUSH_BYTES else []

    # -- the clock

    def due(self) -> float:
        """When `tick` wants to be called; -inf: now."""
        beacon = self._beaconed + BEACON_S
        return min(beacon, self._flushed + FLUSH_S) if self._keys else beacon

    def tick(self, now: float) -> list[PublisherEffect]:
        """Publish what is due."""
        if now >= self._beaconed + BEACON_S:
            self._beaconed = now
            self._counts["beacons"] += 1
            return [*self.flush(now), Publish(self.beacon())]
        return self.flush(now) if self._keys and now >= self._flushed + FLUSH_S else []

    def flush(self, now: float) -> list[PublisherEffect]:
        """Publish what has collected."""
        if not self._keys:
            return []
        self._flushed = now
        return self._publish()

    def beacon(self) -> Beacon:
        """How far the part has come, as it has been published."""
        return Beacon(self.node, self.table, self.incarnation, self.last_seq, self._count, self._digest)

    def _publish(self) -> list[PublisherEffect]:
        first, nbytes = self.last_seq + 1, self._bytes + _BATCH_COST + _KEY_COST * len(self._keys)
        delta = Delta(self.node, self.table, self.incarnation, first, tuple(self._keys), tuple(self._values))
        self.last_seq += len(self._keys)
        self._count += len(self._values) - self._values.count(b"") - len(self._old_keys)
        change = rows_hash(self._keys, self._values) - rows_hash(self._old_keys, self._old_values)
        self._digest = (self._digest + change) & DIGEST_MASK
        self._ring.append((delta, nbytes))
        self._ring_ops += len(self._keys)
        self._ring_bytes += nbytes
        while self._ring_ops > self._ring_limit or self._ring_bytes > RING_BYTES:
            oldest, size = self._ring.popleft()
            self._ring_ops -= len(oldest.keys)
            self._ring_bytes -= size
        self._keys, self._values, self._bytes = [], [], 0
        self._old_keys, self._old_values = [], []
        self._counts["deltas"] += 1
        return [Publish(delta)]

    # -- those who ask

    def on_message(self, peer: bytes, message: AskReplay | AskSnapshot, now: float) -> list[PublisherEffect]:
        """Either question."""
        if isinstance(message, AskReplay):
            return self.on_ask_replay(peer, message, now)
        return self.on_ask_snapshot(peer, message, now)

    def on_ask_replay(self, peer: bytes, ask: AskReplay, now: float) -> list[PublisherEffect]:
        """The batches asked for, the oldest first; the first part of a snapshot when the ring has forgotten them."""
        if (other := self._other_life(peer, ask, now)) is not None:
            return other
        if ask.first > self.last_seq:
            return []
        if not self._ring or ask.first < self._ring[0][0].first_seq:
            published = self.flush(now)
            return published + self._parts(peer, self._begin(ask.first, now), 0, 1)
        self._counts["replays"] += 1
        kept = islice(self._ring, self._place_of(ask.first), None)
        return [SendTo(peer, delta) for delta, _ in takewhile(lambda each: each[0].first_seq < ask.until, kept)]

    def _place_of(self, seq: int) -> int:
        """Where in the ring the batch with operation `seq` is."""
        return bisect_left(self._ring, seq, key=lambda kept: kept[0].first_seq + len(kept[0].keys) - 1)

    def on_ask_snapshot(self, peer: bytes, ask: AskSnapshot, now: float) -> list[PublisherEffect]:
        """The parts asked for; when that snapshot is not kept any more, the first part of another."""
        if (other := self._other_life(peer, ask, now)) is not None:
            return other
        kept = next((each for each in self._snapshots if each.cut == ask.cut >= ask.least), None)
        if kept is not None:
            kept.asked = now
            return self._parts(peer, kept, ask.first, ask.count)
        published = self.flush(now)
        return published + self._parts(peer, self._begin(ask.least, now), 0, ask.count if ask.cut < 0 else 1)

    def _other_life(self, peer: bytes, ask: AskReplay | AskSnapshot, now: float) -> list[PublisherEffect] | None:
        """Who asks about another life of this node learns of this one; None when it is about this one."""
        if ask.node != self.node or ask.table != self.table:
            return []
        if ask.incarnation == self.incarnation:
            return None
        return [*self.flush(now), SendTo(peer, self.beacon())] if ask.incarnation < self.incarnation else []

    def _begin(self, least: int, now: float) -> _Snapshot:
        """A snapshot with a cut of at least `least`: one that is kept, if not much has happened since. `flush` first:
        the rows must not be ahead of the last operation published."""
        self._snapshots = [each for each in self._snapshots if now - each.asked < _SNAPSHOT_IDLE_S]
        # What has happened since its cut is replayed: that must be in the ring, and less than the rows themselves.
        oldest = self.last_seq - min(self._ring_ops // 2, max(self._count // 8, 64))
        for each in self._snapshots:
            if each.cut >= max(least, oldest):
                each.asked = now
                return each
        rows, admit = self.rows.items(self.node), self._admit
        if admit is not everything:
            rows = ((key, value) for key, value in rows if admit(key, value))
        fresh = _Snapshot(self.last_seq, rows, now)
        self._snapshots = [*self._snapshots[-_SNAPSHOTS + 1 :], fresh]
        self._counts["snapshots"] += 1
        return fresh

    def _parts(self, peer: bytes, kept: _Snapshot, first: int, count: int) -> list[PublisherEffect]:
        last = len(kept.parts) - 1
        answers: list[PublisherEffect] = []
        for number in range(max(first, 0), min(first + min(count, _MOST_PARTS), last + 1)):
            keys, values = kept.parts[number]
            part = SnapshotPart(self.node, self.table, self.incarnation, kept.cut, number, last, keys, values)
            answers.append(SendTo(peer, part))
        self._counts["parts"] += len(answers)
        return answers

    def statistics(self) -> PublisherStatistics:
        return PublisherStatistics(self.last_seq, self._count, self._ring_ops, self._ring_bytes, **self._counts)

    def __repr__(self) -> str:
        pending = f", {len(self._keys)} not yet published" if self._keys else ""
        return f"<Publisher of table {self.table}: {self._count} rows, operation {self.last_seq}{pending}>"
