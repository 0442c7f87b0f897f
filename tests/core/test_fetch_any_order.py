"""Both ends of fetches under every order of events hypothesis can think of, over a net that loses, doubles and mixes.

The nodes' own model of a store (fetch_nodes.py) checks each step: bytes in order and once, credit never exceeded, a
pin for each that is given back, room for each that is written.
"""

from __future__ import annotations

from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.core.fetch_nodes import Node, Packet, node_id
from tests.effort import examples
from zmreg.core.fetching import FetchLimits
from zmreg.core.serving import ServeLimits

MIB = 1 << 20
SIZES = [0, 1, MIB, 2 * MIB + 1, 5 * MIB, 40 * MIB]
OBJECTS = [b"OWNER---" + number.to_bytes(8, "big") for number in range(len(SIZES))]
picks = st.integers(0, 10_000)
FETCH = FetchLimits(window_bytes=4 * MIB, transfers=3, in_flight_bytes=24 * MIB)
SERVE = ServeLimits(copies=1, transfers=4, turn_chunks=3, handed_bytes=8 * MIB)


class AnyOrder(RuleBasedStateMachine):
    """Plays the net, the stores, the owner of the objects and the table of locations."""

    @initialize(nodes=st.integers(2, 5), holders=st.lists(picks, min_size=1, max_size=8))
    def start(self, nodes: int, holders: list[int]) -> None:
        self.now = 100.0
        self.net: list[tuple[bytes, bytes, Packet]] = []
        self.nodes: dict[bytes, Node] = {}
        self.untold: list[tuple[bytes, bytes]] = []  # (who has not heard, who died)
        self.born = 0
        for _ in range(nodes):
            self.add()
        for pick, object_id in zip(holders, OBJECTS, strict=False):
            self.a_node(pick).put(object_id)

    def add(self) -> None:
        me = node_id(self.born)
        self.born += 1

        def post(to: bytes, packet: Packet) -> None:
            self.net.append((me, to, packet))

        self.nodes[me] = Node(me, dict(zip(OBJECTS, SIZES, strict=True)), post, FETCH, SERVE)

    def a_node(self, pick: int) -> Node:
        return list(self.nodes.values())[pick % len(self.nodes)]

    # -- what nodes want ----------------------------------------------------------------------------------------------

    @rule(pick=picks, which=st.sampled_from(OBJECTS), holders=st.lists(picks, max_size=3))
    def want(self, pick: int, which: bytes, holders: list[int]) -> None:
        node = self.a_node(pick)
        if which not in node.has:
            node.want(which, [self.a_node(holder).me for holder in holders], self.now)

    @rule(pick=picks, which=st.sampled_from(OBJECTS))
    def want_from_those_who_have_it(self, pick: int, which: bytes) -> None:
        node = self.a_node(pick)
        if which not in node.has:
            node.want(which, [each.me for each in self.nodes.values() if which in each.has], self.now)

    @rule(pick=picks, which=st.sampled_from(OBJECTS))
    def cancel(self, pick: int, which: bytes) -> None:
        node = self.a_node(pick)
        node.perform(node.fetching.cancel(which, self.now))
        assert which not in node.fetching and which not in node.rooms

    # -- what the stores do -------------------------------------------------------------------------------------------

    @rule(pick=picks, full=st.sampled_from([False] * 5 + [True]))
    def answer_stores(self, pick: int, full: bool) -> None:
        node = self.a_node(pick)
        node.full = full
        self.settle(node)
        node.full = False

    def settle(self, node: Node) -> None:
        for object_id in list(node.asked_room):
            if object_id in node.asked_room:
                node.answer_room(object_id, self.now)
        for object_id, key in list(node.asked_pins):
            node.answer_pin(object_id, key)

    @rule(pick=picks, which=st.sampled_from(OBJECTS))
    def evict(self, pick: int, which: bytes) -> None:
        node = self.a_node(pick)
        if not any(object_id == which for object_id, _ in node.pins):
            node.has.pop(which, None)

    @rule(pick=picks, turns=st.integers(1, 10))
    def step(self, pick: int, turns: int) -> None:
        node = self.a_node(pick)
        for _ in range(turns):
            node.obey(node.serving.step())

    # -- what the net does --------------------------------------------------------------------------------------------

    def deliver(self, place: int, keep: bool = False) -> None:
        sender, to, packet = self.net[place] if keep else self.net.pop(place)
        if to in self.nodes:
            self.nodes[to].receive(sender, packet, self.now)

    @precondition(lambda self: self.net)
    @rule(count=st.integers(1, 40))
    def pass_in_order(self, count: int) -> None:
        for _ in range(min(count, len(self.net))):
            self.deliver(0)

    @precondition(lambda self: self.net)
    @rule(pick=picks, double=st.booleans())
    def pass_any(self, pick: int, double: bool) -> None:
        self.deliver(pick % len(self.net), double)

    @precondition(lambda self: self.net)
    @rule(pick=picks, count=st.integers(1, 5))
    def lose(self, pick: int, count: int) -> None:
        place = pick % len(self.net)
        del self.net[place : place + count]

    @rule(seed=st.integers(0, 2**32), rounds=st.integers(1, 30), bad=st.sampled_from([0.0, 0.02, 0.2]))
    def run_a_while(self, seed: int, rounds: int, bad: float) -> None:
        """Everybody works; of the packets so many are lost, so many come twice, so many come late."""
        random = Random(seed)
        for _ in range(rounds):
            for node in self.nodes.values():
                self.settle(node)
                node.obey(node.serving.step())
            for _ in range(len(self.net)):
                place = random.randrange(min(len(self.net), 4)) if random.random() < bad else 0
                if random.random() < bad:
                    del self.net[place]
                else:
                    self.deliver(place, keep=random.random() < bad)
            self.pass_time(0.05, 1)

    # -- news, deaths, time -------------------------------------------------------------------------------------------

    @rule(pick=picks, holder=picks, which=st.sampled_from(OBJECTS))
    def news(self, pick: int, holder: int, which: bytes) -> None:
        """Old, new or wrong: the table promises nothing."""
        node = self.a_node(pick)
        node.perform(node.fetching.learn(which, self.a_node(holder).me, self.now))

    @rule(pick=picks, all_of_them=st.booleans())
    def answer_locations(self, pick: int, all_of_them: bool) -> None:
        node = self.a_node(pick)
        while node.asked_locations:
            object_id = node.asked_locations.pop()
            for each in self.nodes.values():
                if all_of_them and object_id in each.has:
                    node.perform(node.fetching.learn(object_id, each.me, self.now))
            node.perform(node.fetching.no_more(object_id, self.now))

    @precondition(lambda self: len(self.nodes) > 1)
    @rule(pick=picks, replaced=st.booleans())
    def kill(self, pick: int, replaced: bool) -> None:
        dead = self.a_node(pick).me
        del self.nodes[dead]
        self.untold += [(each, dead) for each in self.nodes]
        if replaced:
            self.add()

    @precondition(lambda self: self.untold)
    @rule(pick=picks)
    def tell_of_a_death(self, pick: int) -> None:
        who, dead = self.untold.pop(pick % len(self.untold))
        if who in self.nodes:
            node = self.nodes[who]
            node.perform(node.fetching.node_gone(dead, self.now))
            node.obey(node.serving.peer_gone(dead))

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.5, 2.0, 5.0, 60.0]), ticks=st.integers(1, 30))
    def pass_time(self, seconds: float, ticks: int) -> None:
        for _ in range(ticks):
            self.now += seconds / ticks
            for node in self.nodes.values():
                node.perform(node.fetching.tick(self.now))
                node.obey(node.serving.tick(self.now))

    # -- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def bounds_hold(self) -> None:
        for node in getattr(self, "nodes", {}).values():
            fetch, serve = node.fetching.statistics(), node.serving.statistics()
            assert fetch.reserving + fetch.fetching <= FETCH.transfers
            assert fetch.in_flight_bytes <= FETCH.in_flight_bytes
            most = SERVE.handed_bytes + SERVE.large_chunk_bytes  # the last chunk may begin just below the bound
            assert 0 <= serve.handed_bytes < most and serve.transfers <= SERVE.transfers
            assert fetch.reserving == len(node.asked_room)
            assert len(node.rooms) <= fetch.fetching + fetch.waiting + fetch.queued
            assert len(node.asked_pins) == serve.pinning
            pinned = serve.transfers + sum(key in node.serving._unwanted for _, key in node.asked_pins)
            assert len(node.pins) + len(node.asked_pins) == pinned

    def teardown(self) -> None:
        """Quiet: nothing is lost any more, everybody hears of everything, and every fetch comes to an end."""
        if not hasattr(self, "nodes"):
            return
        while self.untold:
            self.tell_of_a_death(0)
        for _ in range(600):
            for node in list(self.nodes.values()):
                self.settle(node)
                self.answer_locations(list(self.nodes).index(node.me), True)
                node.obey(node.serving.step())
            while self.net:
                self.deliver(0)
            self.pass_time(0.1, 1)
        for node in self.nodes.values():
            assert not len(node.fetching), f"{node.fetching} after a minute of quiet"
            assert not node.rooms and not node.asked_room
            assert not node.pins and not node.asked_pins and not len(node.serving)
            assert node.fetching.statistics().in_flight_bytes == 0 == node.serving.statistics().handed_bytes
            assert not node.serving.busy and not node.fetching._lines.loads and not node.fetching._lines.transfers
            self.check_ends(node)

    def check_ends(self, node: Node) -> None:
        """What was wanted, and not called off, is here or was refused with reasons; a healthy cluster then has it."""
        for object_id in OBJECTS:
            live = [each for each in self.nodes.values() if object_id in each.has]
            if object_id not in node.has and live:
                node.want(object_id, [each.me for each in live], self.now)
                for _ in range(200):
                    for each in self.nodes.values():
                        self.settle(each)
                        each.obey(each.serving.step())
                    while self.net:
                        self.deliver(0)
                    self.pass_time(0.1, 1)
                assert object_id in node.completed, node.failed.get(object_id)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=examples(50), stateful_step_count=40, deadline=None)
