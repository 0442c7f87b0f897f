"""The object table against a model of memory that remembers who wrote each page last."""

from __future__ import annotations

import random
from collections import Counter
from typing import assert_never

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from zmreg.store.arena import PAGE, round_to_pages
from zmreg.store.objects import (
    DropSpilled,
    Freed,
    Granted,
    Missing,
    ObjectTable,
    Pinned,
    Refused,
    StartRestore,
    StartSpill,
    StoreEffect,
    demote,
)
from zmreg.store.records import State

PAGES = 16
PROCESSES = [b"p0", b"p1", b"p2"]
processes = st.sampled_from(PROCESSES)
picks = st.integers(0, 1000)
seldom = st.sampled_from([False] * 7 + [True])  # for inputs that end much at once
Key = tuple[bytes, bytes]


class StoreModel(RuleBasedStateMachine):
    """Plays the node and all its processes."""

    @initialize(slack=st.integers(0, 4), evict=st.booleans())
    def start(self, slack: int, evict: bool) -> None:
        self.budget = PAGES * PAGE
        self.table = ObjectTable(self.budget, self.budget + slack * PAGE, evict_secondaries=evict)
        self.now = 0.0
        self.made = 0
        self.sizes: dict[bytes, int] = {}
        self.stamps: dict[int, bytes] = {}  # page -> the object whose bytes are there
        self.asked_room: set[Key] = set()
        self.asked_pins: Counter[Key] = Counter()
        self.writing: dict[Key, int] = {}  # -> offset
        self.pins: Counter[Key] = Counter()
        self.places: dict[bytes, int] = {}  # pinned object -> offset
        self.spilling: dict[bytes, int] = {}
        self.restoring: dict[bytes, int] = {}
        self.files: set[bytes] = set()
        self.offered: set[bytes] = set()

    # --- the node performs effects ---

    def pages(self, object_id: bytes, offset: int) -> range:
        assert offset % PAGE == 0
        return range(offset // PAGE, (offset + round_to_pages(self.sizes[object_id])) // PAGE)

    def write(self, object_id: bytes, offset: int) -> None:
        for page in self.pages(object_id, offset):
            self.stamps[page] = object_id

    def check_bytes(self, object_id: bytes, offset: int) -> None:
        assert all(self.stamps.get(page) == object_id for page in self.pages(object_id, offset))

    def perform(self, effects: list[StoreEffect]) -> None:
        for effect in effects:
            match effect:
                case Granted(process, object_id, offset, nbytes):
                    self.asked_room.remove((process, object_id))  # asked, and not answered before
                    assert nbytes == self.sizes[object_id]
                    self.writing[process, object_id] = offset
                    self.write(object_id, offset)
                case Refused(process, object_id):
                    self.asked_room.remove((process, object_id))
                case Pinned(process, object_id, offset):
                    self.answer_pin(process, object_id)
                    assert object_id in self.offered
                    assert self.places.setdefault(object_id, offset) == offset
                    self.check_bytes(object_id, offset)
                    self.pins[process, object_id] += 1
                case Missing(process, object_id):
                    self.answer_pin(process, object_id)
                case StartSpill(object_id, offset):
                    assert object_id in self.offered and object_id not in self.places
                    assert object_id not in self.spilling
                    self.spilling[object_id] = offset
                case StartRestore(object_id, offset):
                    assert object_id in self.files
                    self.restoring[object_id] = offset
                    self.write(object_id, offset)  # it may write at once
                case DropSpilled(object_id):
                    assert object_id not in self.spilling and object_id not in self.restoring
                    self.files.remove(object_id)
                case Freed(object_id):
                    self.offered.remove(object_id)  # once
                case _:
                    assert_never(effect)

    def answer_pin(self, process: bytes, object_id: bytes) -> None:
        assert self.asked_pins[process, object_id] > 0
        self.asked_pins[process, object_id] -= 1
        self.asked_pins += Counter()  # drops zeros

    # --- processes ask ---

    @rule(process=processes, pages=st.one_of(st.integers(0, 5), st.integers(0, PAGES + 1)), secondary=st.booleans())
    def allocate(self, process: bytes, pages: int, secondary: bool) -> None:
        object_id = bytes([self.made % 2]) * 8 + self.made.to_bytes(8, "big")
        self.made += 1
        self.sizes[object_id] = pages * PAGE
        self.asked_room.add((process, object_id))
        self.perform(self.table.allocate(process, object_id, pages * PAGE, self.now, secondary))
        assert pages <= PAGES or (process, object_id) not in self.asked_room

    @precondition(lambda self: self.asked_room)
    @rule(pick=picks, timed_out=st.booleans())
    def give_up_waiting(self, pick: int, timed_out: bool) -> None:
        process, object_id = sorted(self.asked_room)[pick % len(self.asked_room)]
        if timed_out:
            self.perform(self.table.allocate_timed_out(process, object_id))
        else:
            self.asked_room.remove((process, object_id))
            self.perform(self.table.abort(process, object_id))
        assert (process, object_id) not in self.asked_room

    @precondition(lambda self: self.writing)
    @rule(pick=picks, abort=st.integers(0, 4), claim=st.booleans())
    def finish_writing(self, pick: int, abort: int, claim: bool) -> None:
        process, object_id = sorted(self.writing)[pick % len(self.writing)]
        offset = self.writing.pop((process, object_id))
        if claim:
            self.table.claimed(object_id)
        if abort == 0:
            self.perform(self.table.abort(process, object_id))
            return
        self.write(object_id, offset)
        self.offered.add(object_id)
        effects = self.table.seal(process, object_id)
        if not self.table.contains(object_id) and Freed(object_id) not in effects:
            self.offered.remove(object_id)  # freed while it was written: never announced
        self.perform(effects)

    @precondition(lambda self: self.made)
    @rule(process=processes, pick=picks, among=st.sampled_from(["offered", "files", "writing", "all"]))
    def pin(self, process: bytes, pick: int, among: str) -> None:
        groups = {"offered": self.offered, "files": self.files & self.offered, "writing": {o for _, o in self.writing}}
        known = sorted(groups.get(among, ())) or sorted(self.sizes)
        object_id = known[pick % len(known)]
        self.asked_pins[process, object_id] += 1
        self.perform(self.table.pin(process, object_id))

    @precondition(lambda self: self.asked_pins)
    @rule(pick=picks)
    def pin_timed_out(self, pick: int) -> None:
        process, object_id = sorted(self.asked_pins)[pick % len(self.asked_pins)]
        before = self.asked_pins[process, object_id]
        self.perform(self.table.pin_timed_out(process, object_id))
        assert self.asked_pins[process, object_id] < before

    @precondition(lambda self: self.pins)
    @rule(pick=picks, count=st.integers(1, 3))
    def unpin(self, pick: int, count: int) -> None:
        process, object_id = sorted(self.pins)[pick % len(self.pins)]
        self.drop_pins(process, object_id, count)
        self.perform(self.table.unpin(process, object_id, count))

    def drop_pins(self, process: bytes, object_id: bytes, count: int) -> None:
        self.check_bytes(object_id, self.places[object_id])  # readable to the last
        self.pins[process, object_id] -= min(count, self.pins[process, object_id])
        self.pins += Counter()
        if not any(pinned == object_id for _, pinned in self.pins):
            del self.places[object_id]

    @precondition(lambda self: self.made)
    @rule(pick=picks, stranger=seldom)
    def free(self, pick: int, stranger: bool) -> None:
        known = sorted(self.sizes) if stranger or not self.offered else sorted(self.offered)
        object_id = known[pick % len(known)]
        self.perform(self.table.free(object_id))
        assert object_id not in self.offered

    @precondition(lambda self: self.offered)
    @rule(pick=picks, back=st.booleans())
    def demote_or_promote(self, pick: int, back: bool) -> None:
        object_id = sorted(self.offered)[pick % len(self.offered)]
        self.perform(self.table.promote(object_id) if back else demote(self.table, object_id))
        assert object_id in self.offered or object_id not in self.places

    @rule(owner=st.integers(0, 1), really=seldom)
    def free_owned_by(self, owner: int, really: bool) -> None:
        if not really:
            return
        self.perform(self.table.free_owned_by(bytes([owner]) * 8))
        assert not any(object_id.startswith(bytes([owner]) * 8) for object_id in self.offered)

    @rule(process=processes, really=seldom)
    def process_died(self, process: bytes, really: bool) -> None:
        if not really:
            return
        for owner, object_id in list(self.pins):
            if owner == process:
                self.drop_pins(process, object_id, 1000)
        self.asked_room = {key for key in self.asked_room if key[0] != process}
        self.asked_pins = Counter({key: n for key, n in self.asked_pins.items() if key[0] != process})
        self.writing = {key: offset for key, offset in self.writing.items() if key[0] != process}
        self.perform(self.table.process_died(process))

    # --- the disk answers, time passes, messages come twice ---

    @precondition(lambda self: self.spilling)
    @rule(pick=picks, fail=seldom)
    def spilled(self, pick: int, fail: bool) -> None:
        object_id = sorted(self.spilling)[pick % len(self.spilling)]
        self.check_bytes(object_id, self.spilling.pop(object_id))
        if not fail:
            self.files.add(object_id)
        self.perform(self.table.spilled(object_id, "disk full" if fail else None))

    @precondition(lambda self: self.restoring)
    @rule(pick=picks, fail=seldom)
    def restored(self, pick: int, fail: bool) -> None:
        object_id = sorted(self.restoring)[pick % len(self.restoring)]
        self.check_bytes(object_id, self.restoring.pop(object_id))
        self.perform(self.table.restored(object_id, "checksum" if fail else None))

    @rule(seconds=st.sampled_from([0.1, 6.0]))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.perform(self.table.tick(self.now))

    @precondition(lambda self: self.made)
    @rule(process=processes, pick=picks)
    def late_duplicates(self, process: bytes, pick: int) -> None:
        object_id = sorted(self.sizes)[pick % len(self.sizes)]
        before = self.table.statistics().ignored
        expected = 0
        if (process, object_id) not in self.writing:
            self.perform(self.table.seal(process, object_id))
            expected += 1
        if (process, object_id) not in self.pins:
            self.perform(self.table.unpin(process, object_id))
            expected += 1
        if object_id not in self.spilling and object_id not in self.restoring:
            self.perform(self.table.spilled(object_id, None))
            self.perform(self.table.restored(object_id, None))
            expected += 2
        if (process, object_id) in self.asked_room:
            self.perform(self.table.allocate(process, object_id, self.sizes[object_id], self.now))
            expected += 1
        assert self.table.statistics().ignored == before + expected

    # --- always ---

    @invariant()
    def granted_blocks_are_whole(self) -> None:
        for (_, object_id), offset in self.writing.items():
            self.check_bytes(object_id, offset)
        for object_id, offset in self.places.items():
            self.check_bytes(object_id, offset)

    @invariant()
    def books_are_right(self) -> None:
        stats = self.table.statistics()
        assert stats.used_bytes <= stats.budget_bytes <= self.budget
        assert stats.peak_bytes <= stats.budget_bytes
        assert stats.sealed == len(self.offered) == sum(self.table.contains(o) for o in self.sizes)
        assert stats.pinned == len(self.places)
        assert stats.waiting >= len(self.asked_room)

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """While no copy is under way, the first in line cannot be served by any means at hand."""
        shelves = self.table._shelves
        room = shelves.room
        first = next(iter([*shelves.restores.values(), *shelves.creators.values()]), None)
        if first is None or self.spilling or self.restoring:
            return
        stuck = [e for e in shelves.entries.values() if e.offset >= 0 and not e.is_movable()]
        free = self.budget - sum(round_to_pages(e.nbytes) for e in stuck)
        edges = sorted([(e.offset, e.offset + round_to_pages(e.nbytes)) for e in stuck])
        ends, widest = 0, 0
        for start, end in [*edges, (room.allocator.capacity_bytes, 0)]:
            widest, ends = max(widest, start - ends), end
        assert not room.can_spill or round_to_pages(first.nbytes) > min(free, widest)

    @invariant()
    def groups_are_right(self) -> None:
        shelves, room = self.table._shelves, self.table._shelves.room
        entries = shelves.entries.values()
        assert set(room._coming) == {e.object_id for e in entries if e.is_coming()}
        assert room.coming_bytes == sum(round_to_pages(e.nbytes) for e in entries if e.is_coming())
        movable = {e.object_id for e in entries if e.is_movable()}
        assert set(room._counted) == movable == set(room._primaries) | set(room._secondaries)
        drop = sum(round_to_pages(e.nbytes) for e in entries if e.is_movable() and room.can_drop(e))
        assert room._droppable_bytes == drop
        assert room._droppable_bytes + room._spillable_bytes == sum(
            round_to_pages(e.nbytes) for e in entries if e.is_movable()
        )
        assert all(e.is_in_use() for e in entries if e.state is State.DOOMED)
        assert all((e.offset >= 0) == (e.object_id in {b.object_id for b in room._by_offset.values()}) for e in entries)

    def teardown(self) -> None:
        """When all disk work ends and everybody lets go, everybody is answered; then nothing is left."""
        if not hasattr(self, "table"):
            return
        for _ in range(1000):
            self.tick(6.0)
            if self.spilling:
                self.spilled(0, False)
            elif self.restoring:
                self.restored(0, False)
            elif self.writing:
                self.finish_writing(0, 1, True)
            elif self.pins:
                self.unpin(0, 1000)
            else:
                break
        assert not self.asked_room
        assert not self.asked_pins
        assert self.table.statistics().waiting == 0
        for process in PROCESSES:
            self.process_died(process, True)
        for owner in (0, 1):
            self.free_owned_by(owner, True)
        stats = self.table.statistics()
        assert (stats.used_bytes, stats.sealed, stats.spilled, stats.pinned, stats.waiting) == (0, 0, 0, 0, 0)
        assert not self.files and not self.offered
        assert not self.table._entries and not self.table._shelves._holds


TestStoreModel = StoreModel.TestCase


@pytest.mark.parametrize("seed", range(4))
def test_long_walk_with_much_spilling(seed: int) -> None:
    """The same model for thousands of steps, with the weights of a busy store: hypothesis seldom gets this deep."""
    chance = random.Random(seed)
    model = StoreModel()
    model.start(slack=seed % 3, evict=bool(seed % 2))

    def any_number() -> int:
        return chance.randrange(1000)

    def process() -> bytes:
        return chance.choice(PROCESSES)

    steps = {
        "allocate": (
            20,
            lambda: model.allocate(process(), chance.choice([0, 1, 1, 2, 3, 5, 9]), chance.random() < 0.2),
        ),
        "write": (40, lambda: model.writing and model.finish_writing(any_number(), chance.randrange(9), True)),
        "pin": (30, lambda: model.pin(process(), any_number(), chance.choice(["offered", "offered", "files"]))),
        "unpin": (30, lambda: model.pins and model.unpin(any_number(), 1)),
        "spilled": (40, lambda: model.spilling and model.spilled(any_number(), chance.random() < 0.03)),
        "restored": (40, lambda: model.restoring and model.restored(any_number(), chance.random() < 0.03)),
        "free": (5, lambda: model.offered and model.free(any_number(), False)),
        "timeout": (2, lambda: model.asked_room and model.give_up_waiting(any_number(), chance.random() < 0.5)),
        "pin timeout": (2, lambda: model.asked_pins and model.pin_timed_out(any_number())),
        "died": (1, lambda: model.process_died(process(), chance.random() < 0.3)),
        "tick": (5, lambda: model.tick(1.0)),
        "late": (5, lambda: model.late_duplicates(process(), any_number())),
    }
    model.allocate(process(), 1, False)
    for name in chance.choices(list(steps), [weight for weight, _ in steps.values()], k=3000):
        steps[name][1]()
        model.granted_blocks_are_whole()
        model.books_are_right()
        model.nobody_waits_for_nothing()
        model.groups_are_right()
    assert model.table.statistics().restored_bytes_total > 100 * PAGE
    model.teardown()
