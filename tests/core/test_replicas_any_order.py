"""Replicas under every order of losses, duplicates, delays, deaths and new lives hypothesis can think of.

At any time a part equals what its writer had published at some operation; after a quiet time and two beacons it is
what the writer has now.
"""

from __future__ import annotations

from random import Random

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.effort import examples
from zmreg.core.index import DIGEST_MASK, SCOPES, LocationIndex, location, row_hash
from zmreg.core.publishing import BEACON_S, Publisher
from zmreg.core.replica_effects import Publish, SendTo
from zmreg.core.replica_parts import PartState
from zmreg.core.replicas import CREDIT_PARTS, Replica
from zmreg.model.replica_messages import AskReplay, AskSnapshot

NODES = [b"node-%d\0\0" % number for number in range(3)]
TABLE = 1
LATENCY_S = 0.005


class AnyOrder(RuleBasedStateMachine):
    """Three nodes, each a writer and a reader; the wire is a list of which anything may be taken at any time."""

    nodes = st.sampled_from(NODES)

    @initialize(
        ring_ops=st.sampled_from([1, 4, 65_536]),
        held_ops=st.sampled_from([1, 5, 65_536]),
        scope=st.sampled_from(["all", "all", "large", "owner"]),
        parts=st.booleans(),
    )
    def start(self, ring_ops: int, held_ops: int, scope: str, parts: bool) -> None:
        self.ring_ops = ring_ops
        self.admit = SCOPES[scope]
        # Rows this large make snapshots of several parts from a handful of rows.
        self.pad = bytes(60_000) if parts and scope == "all" else b""
        self.now = 0.0
        self.born = 0
        self.wire: list[tuple[bytes, bytes, object]] = []
        self.stores = {node: LocationIndex() for node in NODES}
        self.readers = {node: Replica(node, TABLE, self.stores[node], held_ops) for node in NODES}
        self.writers: dict[bytes, Publisher] = {}
        self.history: dict[tuple[bytes, int], dict[int, tuple[int, int]]] = {}
        self.dead: set[bytes] = set()
        for node in NODES:
            self.begin(node, 0)

    def begin(self, node: bytes, incarnation: int) -> None:
        self.stores[node].drop(node)
        self.writers[node] = Publisher(
            node, TABLE, self.stores[node], incarnation=incarnation, ring_ops=self.ring_ops, admit=self.admit
        )
        self.history[node, incarnation] = {0: (0, 0)}

    def perform(self, me: bytes, effects: list[object]) -> None:
        for effect in effects:
            if isinstance(effect, Publish):
                self.wire += [(me, to, effect.message) for to in NODES if to != me]
            elif isinstance(effect, SendTo):
                self.wire.append((me, effect.node, effect.message))
        writer = self.writers[me]
        beacon = writer.beacon()
        told = beacon.count, beacon.digest
        assert self.history[me, writer.incarnation].setdefault(beacon.last_seq, told) == told

    def deliver(self, sender: bytes, to: bytes, message: object) -> None:
        if isinstance(message, AskReplay | AskSnapshot):
            self.perform(to, self.writers[to].on_message(sender, message, self.now))
        else:
            self.perform(to, self.readers[to].on_message(sender, message, self.now))

    @rule(node=nodes, key=st.integers(0, 7), size=st.sampled_from([1, 1 << 20, 3 << 20]), flush=st.booleans())
    def add(self, node: bytes, key: int, size: int, flush: bool) -> None:
        self.perform_if_published(node, self.writers[node].add(self.key(key), location(size, True)), flush)

    @rule(node=nodes, key=st.integers(0, 7), flush=st.booleans())
    def delete(self, node: bytes, key: int, flush: bool) -> None:
        self.perform_if_published(node, self.writers[node].delete(self.key(key)), flush)

    def key(self, number: int) -> bytes:
        return number.to_bytes(16, "big") + self.pad

    def perform_if_published(self, node: bytes, effects: list[object], flush: bool) -> None:
        if flush:
            effects = effects + self.writers[node].flush(self.now)
        if effects:
            self.perform(node, effects)

    @rule(seconds=st.sampled_from([0.001, 0.02, 0.3, 0.5, 3.0, 20.0]))
    def time(self, seconds: float) -> None:
        self.now += seconds
        for node in NODES:
            self.perform(node, self.writers[node].tick(self.now))
            self.perform(node, self.readers[node].tick(self.now))

    @precondition(lambda self: self.wire)
    @rule(data=st.data(), fate=st.sampled_from(["deliver", "deliver", "duplicate", "lose"]))
    def one(self, data: st.DataObject, fate: str) -> None:
        place = data.draw(st.integers(0, len(self.wire) - 1))
        sender, to, message = self.wire[place] if fate == "duplicate" else self.wire.pop(place)
        if fate != "lose":
            self.deliver(sender, to, message)

    @precondition(lambda self: self.wire)
    @rule(count=st.integers(1, 30))
    def the_oldest(self, count: int) -> None:
        for _ in range(min(count, len(self.wire))):
            self.deliver(*self.wire.pop(0))

    @rule(seed=st.integers(0, 2**32), turns=st.integers(1, 40), loss=st.sampled_from([0.05, 0.3, 0.6]))
    def bad_weather(self, seed: int, turns: int, loss: float) -> None:
        """A while of writing, and of losses, duplicates and letters that overtake each other."""
        chance = Random(seed)
        for _ in range(turns):
            self.now += chance.choice([0.001, 0.01, 0.1])
            for node in NODES:
                for _ in range(chance.randrange(3)):
                    key, size = chance.randrange(8), chance.choice([1, 2, 1 << 20])
                    gone = chance.random() < 0.4
                    writer = self.writers[node]
                    effects = writer.delete(self.key(key)) if gone else writer.add(self.key(key), location(size, gone))
                    self.perform_if_published(node, effects, chance.random() < 0.5)
                self.perform(node, self.writers[node].tick(self.now))
                self.perform(node, self.readers[node].tick(self.now))
            chance.shuffle(self.wire)
            arrived = [self.wire.pop() for _ in range(chance.randrange(len(self.wire) + 1))]
            for letter in arrived:
                for _ in range(0 if chance.random() < loss else chance.choice([1, 1, 1, 2])):
                    self.deliver(*letter)
            self.a_part_is_what_its_writer_had_at_some_operation()

    @rule(node=nodes)
    def reborn(self, node: bytes) -> None:
        self.begin(node, self.writers[node].incarnation + 1)
        self.dead.discard(node)

    @rule(node=nodes)
    def declared_dead(self, node: bytes) -> None:
        """By everybody, and what it says in this life is not heard any more. All have heard of this life: to forget one
        that was never heard of buries the first."""
        self.dead.add(node)
        self.perform(node, self.writers[node].flush(self.now))
        for other in NODES:
            if other != node:
                self.deliver(node, other, self.writers[node].beacon())
                self.readers[other].forget(node)

    def quiet(self) -> None:
        """Nothing is lost any more. Two beacons and a few round trips later all are equal."""
        self.wire.clear()
        until = self.now + 2 * BEACON_S + 20 * LATENCY_S
        while self.now < until:
            self.now += LATENCY_S
            arrived, self.wire = self.wire, []
            for letter in arrived:
                self.deliver(*letter)
            for node in NODES:
                self.perform(node, self.writers[node].tick(self.now))
                self.perform(node, self.readers[node].tick(self.now))
        for me in NODES:
            for node in NODES:
                if node == me:
                    continue
                published = {key: value for key, value in self.writers[node].rows.items(node) if self.admit(key, value)}
                expected = {} if node in self.dead else published
                assert dict(self.stores[me].items(node)) == expected, self.readers[me].story_of(node)
                state = PartState.DEAD if node in self.dead else PartState.LIVE
                assert self.readers[me].state_of(node) is state
            assert self.readers[me]._credit == CREDIT_PARTS

    @invariant()
    def a_part_is_what_its_writer_had_at_some_operation(self) -> None:
        for me in getattr(self, "readers", {}):
            assert self.readers[me].statistics().digest_mismatches == 0
            assert self.readers[me].statistics().malformed == 0
            assert not self.readers[me].audit()
            for node in NODES:
                incarnation, applied, count, digest = self.readers[me].position_of(node)
                if incarnation >= 0:
                    assert self.history[node, incarnation][applied] == (count, digest)

    def teardown(self) -> None:
        if hasattr(self, "readers"):
            self.quiet()


TestAnyOrder = AnyOrder.TestCase
# Without shrinking: it takes longer than a test may, and would hide the failure it was to make small.
TestAnyOrder.settings = settings(
    max_examples=examples(30), stateful_step_count=20, deadline=None, phases=(Phase.explicit, Phase.generate)
)


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=4), st.binary(min_size=1, max_size=4)), unique_by=lambda row: row[0]))
def test_the_digest_is_the_sum_over_the_rows_in_any_order(rows: list[tuple[bytes, bytes]]) -> None:
    writer = Publisher(NODES[0], TABLE)
    for key, value in rows:
        writer.add(key, b"before" + value)
        writer.add(key, value)
        assert writer.beacon().count == 0  # nothing is told of what has not been published
    writer.flush(0.0)
    assert writer.beacon().digest == sum(row_hash(*row) for row in reversed(rows)) & DIGEST_MASK
