"""Reference counting against a naive account: never released while held, released exactly once at the end."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from zmreg.core.effects import ReferenceEffect
from zmreg.core.references import ReferenceBook

OBJECTS = [b"owner--Aobject-%d" % number for number in range(4)]
PROCESSES = [b"process%d" % number for number in range(3)]
OUTSIDE = b"other--Bobject-0"

objects = st.sampled_from(OBJECTS)
processes = st.sampled_from(PROCESSES)


class AnyOrder(RuleBasedStateMachine):
    """Holds are plain sets here: (kind, who) per object. Containers only hold objects of a higher number: no cycles."""

    def __init__(self) -> None:
        super().__init__()
        self.book = ReferenceBook()
        self.holds: dict[bytes, set[tuple[str, bytes]]] = {}
        self.pins: dict[bytes, int] = {}
        self.dead: set[bytes] = set()

    def perform(self, effects: list[ReferenceEffect]) -> None:
        for effect in effects:
            assert effect.object_id in self.holds, "released twice, or never exported"
            assert not self.holds.pop(effect.object_id), "released while held"
            assert not self.pins.pop(effect.object_id, 0), "released while pinned"
            for held in self.holds.values():
                held.discard(("in", effect.object_id))
        assert all(held or self.pins.get(object_id) for object_id, held in self.holds.items()), "not released in time"

    @rule(object_id=objects)
    def export(self, object_id: bytes) -> None:
        if object_id not in self.holds:
            self.holds[object_id] = {("local", b"")}
        self.perform(self.book.export(object_id))

    @rule(object_id=objects, alive=st.booleans())
    def local(self, object_id: bytes, alive: bool) -> None:
        if object_id in self.holds:
            (self.holds[object_id].add if alive else self.holds[object_id].discard)(("local", b""))
        self.perform(self.book.local(object_id, alive))

    @rule(object_id=objects, process=processes)
    def borrowed(self, object_id: bytes, process: bytes) -> None:
        if object_id in self.holds and process not in self.dead:
            self.holds[object_id].add(("process", process))
        self.perform(self.book.borrowed(object_id, process))

    @rule(object_id=objects, process=processes)
    def released(self, object_id: bytes, process: bytes) -> None:
        self.holds.get(object_id, set()).discard(("process", process))
        self.perform(self.book.released(object_id, process))

    @rule(object_id=objects)
    def pin(self, object_id: bytes) -> None:
        if object_id in self.holds:
            self.pins[object_id] = self.pins.get(object_id, 0) + 1
            self.perform(self.book.pin(object_id))

    @rule(object_id=objects)
    def unpin(self, object_id: bytes) -> None:
        if self.pins.get(object_id):
            self.pins[object_id] -= 1
            self.perform(self.book.unpin(object_id))

    @rule(inner=objects, outer=st.sampled_from([*OBJECTS, OUTSIDE]))
    def contained(self, inner: bytes, outer: bytes) -> None:
        if inner in self.holds and (outer == OUTSIDE or (outer in self.holds and outer < inner)):
            self.holds[inner].add(("in", outer))
            self.perform(self.book.contained(inner, outer))

    @rule(inner=objects, outer=st.sampled_from([*OBJECTS, OUTSIDE]))
    def uncontained(self, inner: bytes, outer: bytes) -> None:
        self.holds.get(inner, set()).discard(("in", outer))
        self.perform(self.book.uncontained(inner, outer))

    @rule(process=st.sampled_from(PROCESSES[1:]))
    def process_dies(self, process: bytes) -> None:
        self.dead.add(process)
        for held in self.holds.values():
            held.discard(("process", process))
        self.perform(self.book.process_died(process))

    @invariant()
    def accounts_agree(self) -> None:
        assert {each for each in OBJECTS if self.book.is_exported(each)} == set(self.holds)
        for object_id, held in self.holds.items():
            why = self.book.why(object_id)
            assert why is not None
            assert {("process", process) for process in why.borrowers} == {
                pair for pair in held if pair[0] == "process"
            }
            assert why.pins == self.pins.get(object_id, 0)

    def teardown(self) -> None:
        """Everybody lets go: each object still there is released exactly once, and nothing is remembered."""
        for object_id in OBJECTS:
            self.local(object_id, False)
            self.uncontained(object_id, OUTSIDE)
            while self.pins.get(object_id):
                self.unpin(object_id)
        for process in PROCESSES:
            self.process_dies(process)
        assert self.holds == {}
        assert not any((self.book._records, self.book._contents, self.book._borrowed_by))


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
