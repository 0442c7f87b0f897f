"""The reader's side of a replicated table: every other node's part of it, kept equal to what its writer published.

There is no order among writers and nothing to agree on. Per writer, operations are applied in their order, each once;
so a part always equals its writer's at some operation in the past. What is missed shows by the next operation's number
or by a beacon: it is asked for, and it comes as a replay of the same batches, or, when the writer has forgotten those,
as a snapshot. Until a snapshot is whole, what was known before stays readable, and operations after its cut are held
back; too many of them, and the snapshot is too old to be of use: begin again.

Questions and answers may get lost. Whoever waits asks again after `RETRY_S`, as long as the writer is heard at all.
How a part moves between its states is a table: core/replica_parts.py.

Invariants:
- a part's rows are those its writer had after operation `applied`; `count` and `digest` are theirs.
- at most CREDIT_PARTS parts of snapshots are under way to this node, and WINDOW_PARTS from one writer.
"""

from __future__ import annotations

from typing import Final

from zmreg.core.index import DIGEST_MASK, RowStore, rows_hash
from zmreg.core.replica_effects import Learned, Replaced, ReplicaEffect, SendTo
from zmreg.core.replica_parts import Part, PartMove, PartState, Reading
from zmreg.model.record import Record
from zmreg.model.replica_messages import AskReplay, AskSnapshot, Beacon, Delta, SnapshotPart

FromWriter = Delta | Beacon | SnapshotPart

# Below a beacon's interval: the first beacon after a bad time finds us ready to ask again.
RETRY_S: Final = 0.4
# Four beacons. A writer that is not heard is not asked: questions would only pile up on the way to it.
SILENT_S: Final = 2.0
# Digests that differ are a fault of ours, never of the network. It must not become a storm of snapshots as well.
RESYNC_S: Final = 10.0
# What came before its turn. As many as a writer's ring keeps: beyond that a replay is not to be had either.
HELD_OPS: Final = 65_536
REPLAY_OPS: Final = 8_192
# 1 MiB from one writer and 16 MiB in all: a node that joins a thousand others reads them one after the other.
WINDOW_PARTS: Final = 4
CREDIT_PARTS: Final = 64
# Far more deaths than can happen while one late message is under way.
_GRAVES: Final = 4_096


class ReplicaStatistics(Record):
    """`parts` and `live` are of this moment, the others count since the start. `digest_mismatches` is a fault of ours:
    it is 0 in every test. `late`: from the dead, a former life or a snapshot given up. `malformed`: no sense in it."""

    parts: int
    live: int
    deltas: int
    duplicates: int
    late: int
    malformed: int
    gaps: int
    replays: int
    snapshots: int
    restarts: int
    digest_mismatches: int


class Replica:
    """All parts of table number `table` but `me`'s own, in `rows`. Times are in seconds of one clock."""

    def __init__(self, me: bytes, table: int, rows: RowStore, held_ops: int = HELD_OPS) -> None:
        self._me = me
        self._table = table
        self._rows = rows
        self._held_ops = held_ops
        self._parts: dict[bytes, Part] = {}
        self._behind: dict[bytes, Part] = {}  # neither LIVE nor DEAD, in the order they fell behind
        self._dead: dict[bytes, int] = {}  # node -> the incarnation it died in
        self._credit = CREDIT_PARTS
        self._starved = False  # somebody has not been asked for want of credit
        self._counts = dict.fromkeys(ReplicaStatistics.__match_args__[2:], 0)

    # -- what comes in

    def on_message(self, sender: bytes, message: FromWriter, now: float) -> list[ReplicaEffect]:
        """`sender` is the node it came from, as the transport knows it: nobody writes another's part."""
        if message.node != sender or message.table != self._table or sender == self._me or not _makes_sense(message):
            self._counts["malformed"] += 1
            return []
        effects: list[ReplicaEffect] = []
        part = self._part_for(message, effects, now)
        if part is None:
            self._counts["late"] += 1
            return []
        part.heard = now
        if isinstance(message, Delta):
            self._on_delta(part, message, effects)
        elif isinstance(message, Beacon):
            self._on_beacon(part, message, now)
        else:
            self._on_part(part, message, effects, now)
        self._pursue(part, effects, now)
        return effects

    def _part_for(self, message: FromWriter, effects: list[ReplicaEffect], now: float) -> Part | None:
        """None for the dead and for former lives."""
        node, incarnation = message.node, message.incarnation
        part = self._parts.get(node)
        if part is None:
            if incarnation <= self._dead.get(node, -1):
                return None
            part = self._parts[node] = self._behind[node] = Part(node, incarnation, now)
        elif incarnation < part.incarnation:
            return None
        elif incarnation > part.incarnation:
            self._rows.drop(node)
            part.reborn(incarnation)
            self._behind[node] = part
            effects.append(Replaced(node))
        return part

    def _on_delta(self, part: Part, delta: Delta, effects: list[ReplicaEffect]) -> None:
        last = delta.first_seq + len(delta.keys) - 1
        part.target = max(part.target, last)
        if part.state is PartState.UNKNOWN and delta.first_seq == 1:
            self._caught_up(part, PartMove.BEGAN)
        if last <= part.applied:
            self._counts["duplicates"] += 1
        elif part.state in (PartState.LIVE, PartState.GAP) and delta.first_seq <= part.applied + 1:
            self._apply(part, delta, effects)
            self._apply_held(part, effects)
        elif not part.held.add(delta):
            self._counts["duplicates"] += 1
        elif part.held.ops > self._held_ops:
            self._begin_again(part, f"{part.held.ops} operations held back")

    def _on_beacon(self, part: Part, beacon: Beacon, now: float) -> None:
        part.target = max(part.target, beacon.last_seq)
        if part.state is PartState.UNKNOWN and beacon.last_seq == 0:
            self._caught_up(part, PartMove.BEGAN)
        comparable = part.state is PartState.LIVE and beacon.last_seq == part.applied
        if comparable and not part.adds_up(beacon.count, beacon.digest):
            self._counts["digest_mismatches"] += 1
            if now - part.resynced >= RESYNC_S:
                part.resynced = now
                part.life.move(PartMove.DIVERGED, f"{part.count} rows here, {beacon.count} there")
                self._fall_behind(part)

    def _on_part(self, part: Part, message: SnapshotPart, effects: list[ReplicaEffect], now: float) -> None:
        if part.state is PartState.GAP and message.cut > part.applied:
            # The answer to a replay the writer could not give.
            part.life.move(PartMove.OUTRUN, f"its writer has forgotten operation {part.applied + 1}")
            self._fall_behind(part)
        reading = part.reading
        if reading is None or message.cut < max(reading.cut, reading.least):
            self._counts["late"] += 1
            return
        if message.cut > reading.cut:
            self._counts["restarts"] += reading.cut >= 0
            reading.adopt(message)
        if not reading.take(message):
            self._counts["duplicates"] += 1
            return
        part.asked_at = now
        if reading.whole():
            self._replace(part, reading)
            effects.append(Replaced(part.node))
            self._apply_held(part, effects)

    # -- the rows

    def _apply(self, part: Part, delta: Delta, effects: list[ReplicaEffect]) -> None:
        """Those of its operations that are new."""
        known = part.applied + 1 - delta.first_seq
        keys, values = (delta.keys[known:], delta.values[known:]) if known else (delta.keys, delta.values)
        old_keys, old_values = self._rows.change(part.node, keys, values)
        part.count += len(values) - values.count(b"") - len(old_keys)
        part.digest = (part.digest + rows_hash(keys, values) - rows_hash(old_keys, old_values)) & DIGEST_MASK
        part.applied += len(keys)
        self._counts["deltas"] += 1
        effects.append(Learned(part.node, keys, values))

    def _apply_held(self, part: Part, effects: list[ReplicaEffect]) -> None:
        for delta in part.held.follow(part.applied):
            self._apply(part, delta, effects)
        if part.applied >= part.target:
            part.held.clear()  # all that is left was overtaken by a snapshot

    def _replace(self, part: Part, reading: Reading) -> None:
        """The snapshot is whole: it takes the place of what was known before."""
        self._rows.drop(part.node)
        for each in reading.parts.values():
            self._rows.change(part.node, each.keys, each.values)
        part.applied, part.count, part.digest = reading.cut, reading.rows, reading.digest & DIGEST_MASK
        part.target = max(part.target, part.applied)
        self._counts["snapshots"] += 1
        self._caught_up(part, PartMove.SYNCED)

    # -- being behind

    def _caught_up(self, part: Part, move: PartMove) -> None:
        part.life.move(move)
        part.reading = None
        self._behind.pop(part.node, None)

    def _fall_behind(self, part: Part) -> None:
        """It is in GAP or SYNCING now, and nothing has been asked for yet."""
        part.reading = Reading(part.applied) if part.state is PartState.SYNCING else None
        part.asked_at = float("-inf")
        part.asked_until = 0
        self._behind[part.node] = part

    def _begin_again(self, part: Part, why: str) -> None:
        """The snapshot that is read, or was to be replaced by a replay, is too old."""
        part.held.clear()
        if not part.life.can(PartMove.OUTRUN):
            return  # UNKNOWN or LIVE: nothing has been asked for yet
        self._counts["restarts"] += 1
        part.life.move(PartMove.OUTRUN, why)
        self._fall_behind(part)

    def _pursue(self, part: Part, effects: list[ReplicaEffect], now: float) -> None:
        """Whatever has happened: settle where the part stands, and ask for what is missing."""
        if part.state is PartState.UNKNOWN:
            part.life.move(PartMove.ASKED, f"operation {part.target} exists")
            self._fall_behind(part)
        elif part.state is PartState.LIVE and part.applied < part.target:
            part.life.move(PartMove.MISSED, f"operation {part.applied + 1} of {part.target}")
            self._counts["gaps"] += 1
            self._fall_behind(part)
        elif part.state is PartState.GAP and part.applied >= part.target:
            self._caught_up(part, PartMove.FILLED)
        if part.node in self._behind:
            effects.extend(self._asks(part, now))
        self._account(part)
        if self._starved and self._credit > 0:
            effects.extend(self._asks_of_all(now))

    def _asks(self, part: Part, now: float) -> list[ReplicaEffect]:
        """What this part wants to be asked now: nothing, most of the time."""
        node, table, incarnation = part.node, self._table, part.incarnation
        if part.reading is not None:
            reading = part.reading
            first, count = self._parts_wanted(part, reading, now)
            if count <= 0:
                return []
            part.asked_at = now
            reading.asked = max(reading.asked, first + count)
            self._account(part)
            return [SendTo(node, AskSnapshot(node, table, incarnation, reading.cut, reading.least, first, count))]
        first = part.applied + 1
        if now - part.asked_at < RETRY_S and first < part.asked_until:
            return []
        until = min(part.held.first() or part.target + 1, part.target + 1, first + REPLAY_OPS)
        part.asked_at, part.asked_until = now, until
        self._counts["replays"] += 1
        return [SendTo(node, AskReplay(node, table, incarnation, first, until))]

    def _parts_wanted(self, part: Part, reading: Reading, now: float) -> tuple[int, int]:
        """(first, count): more parts as the window opens; those that do not come once more."""
        if reading.asked > 0 and now - part.asked_at >= RETRY_S:
            first, count = reading.missing()
            if count > 0:
                return first, count
        if reading.outstanding() > WINDOW_PARTS // 2:
            return 0, 0
        parts = reading.last + 1 if reading.cut >= 0 else 1
        count = min(WINDOW_PARTS - reading.outstanding(), parts - reading.asked)
        if count > self._credit:
            self._starved = True
        return reading.asked, min(count, self._credit)

    def _account(self, part: Part) -> None:
        """Bring the credit up to date with what is under way for `part`."""
        taken = part.reading.outstanding() if part.reading is not None else 0
        self._credit += part.credit - taken
        part.credit = taken

    def _asks_of_all(self, now: float) -> list[ReplicaEffect]:
        """Of all parts that are behind and whose writer is heard."""
        self._starved = False
        return [ask for part in self._behind.values() if now - part.heard < SILENT_S for ask in self._asks(part, now)]

    # -- the clock and the dead

    def tick(self, now: float) -> list[ReplicaEffect]:
        """Ask again for what has not come."""
        for part in self._behind.values():
            if part.reading is not None and part.reading.outstanding() and now - part.heard >= SILENT_S:
                part.reading = Reading(part.applied)  # its credit is for others
                self._account(part)
        return self._asks_of_all(now) if self._behind else []

    def due(self, now: float) -> float | None:
        """When `tick` wants to be called; None: not before the next message."""
        return now + RETRY_S / 4 if self._behind else None

    def forget(self, node: bytes) -> None:
        """It was declared dead: nothing it said counts, and nothing it may still say in this life."""
        part = self._parts.pop(node, None)
        if part is not None:
            part.life.move(PartMove.FORGOTTEN)
            part.reading = None
            self._account(part)
            self._behind.pop(node, None)
            self._rows.drop(node)
        self._dead[node] = max(self._dead.pop(node, 0), part.incarnation if part is not None else 0)
        if len(self._dead) > _GRAVES:
            del self._dead[next(iter(self._dead))]

    # -- looking in

    def state_of(self, node: bytes) -> PartState:
        part = self._parts.get(node)
        if part is None:
            return PartState.DEAD if node in self._dead else PartState.UNKNOWN
        return part.state

    def position_of(self, node: bytes) -> tuple[int, int, int, int]:
        """(incarnation, last operation applied, rows, digest) of a part; (-1, 0, 0, 0) when there is none."""
        part = self._parts.get(node)
        return (part.incarnation, part.applied, part.count, part.digest) if part is not None else (-1, 0, 0, 0)

    def story_of(self, node: bytes) -> tuple[str, ...]:
        """A part's last moves."""
        part = self._parts.get(node)
        return part.life.story() if part is not None else ()

    def audit(self) -> list[bytes]:
        """The nodes whose rows do not add up to what was counted: none, or the store is at fault. Reads every row."""
        wrong = []
        for node, part in self._parts.items():
            rows = list(self._rows.items(node))
            digest = rows_hash([key for key, _ in rows], [value for _, value in rows])
            if not part.adds_up(len(rows), digest & DIGEST_MASK):
                wrong.append(node)
        return wrong

    def statistics(self) -> ReplicaStatistics:
        live = sum(part.state is PartState.LIVE for part in self._parts.values())
        return ReplicaStatistics(len(self._parts), live, **self._counts)

    def __repr__(self) -> str:
        behind = ", ".join(f"{part.node.hex()} {part.state}" for part in list(self._behind.values())[:3])
        return f"<Replica of table {self._table}: {len(self._parts)} parts, {len(self._behind)} behind {behind}>"


def _makes_sense(message: FromWriter) -> bool:
    """What the types do not say already."""
    match message:
        case Delta():
            return message.first_seq >= 1 and len(message.keys) == len(message.values) > 0
        case Beacon():
            return message.last_seq >= 0
        case SnapshotPart():
            fits = 0 <= message.part <= message.last and message.cut >= 0
            return fits and len(message.keys) == len(message.values) and all(message.values)
