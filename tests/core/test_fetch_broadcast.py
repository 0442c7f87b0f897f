"""One object to many nodes at once, over links of equal speed, in simulated time.

Each node sends and receives at one speed; what it sends goes to all its peers in turn, as their connections share the
wire. News of who has the object take 12 ms, as the replicated table's do.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Callable
from itertools import count
from math import log2

import pytest

from tests.core.fetch_nodes import Node, Packet, node_id
from zmreg.core.serving import ServeLimits

SPEED = 1e9  # bytes a second, both ways
LATENCY_S = 100e-6
NEWS_S = 0.012
OBJECT = b"O" * 16


class Wire:
    """Events in order of time; the two ends of each link as queues that pass one chunk after the other."""

    def __init__(self, nodes: int, nbytes: int, limits: ServeLimits | None = None) -> None:
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.serial = count()
        self.out: dict[bytes, dict[bytes, deque[Packet]]] = defaultdict(lambda: defaultdict(deque))
        self.sending: set[bytes] = set()
        self.free_at: dict[bytes, float] = defaultdict(float)  # the receiving end of a link
        self.nodes: dict[bytes, Node] = {}
        self.done: dict[bytes, float] = {}
        for number in range(nodes):
            me = node_id(number)
            self.nodes[me] = Node(me, {OBJECT: nbytes}, self.poster(me), serve_limits=limits)
        self.nbytes = nbytes
        self.origin = self.nodes[node_id(0)]
        self.origin.put(OBJECT)

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now + seconds, next(self.serial), what))

    def poster(self, me: bytes) -> Callable[[bytes, Packet], None]:
        def post(to: bytes, packet: Packet) -> None:
            if packet[0] == "chunk":
                self.out[me][to].append(packet)
                self.send(me)
            else:
                self.after(LATENCY_S, lambda: self.arrive(me, to, packet))

        return post

    def send(self, me: bytes) -> None:
        """The next chunk goes on the wire, of the peer whose turn it is."""
        queues = self.out[me]
        if me in self.sending or not queues or me not in self.nodes:
            return
        to = next(iter(queues))
        queue = queues.pop(to)
        packet = queue.popleft()
        if queue:
            queues[to] = queue
        self.sending.add(me)
        took = int(str(packet[3])) / SPEED

        def sent() -> None:
            self.sending.remove(me)
            arrives = self.free_at[to] = max(self.free_at[to] + took, self.now + LATENCY_S)
            self.after(arrives - self.now, lambda: self.arrive(me, to, packet))
            self.send(me)

        self.after(took, sent)

    def arrive(self, sender: bytes, to: bytes, packet: Packet) -> None:
        node = self.nodes.get(to)
        if node is None:
            return
        node.receive(sender, packet, self.now)
        self.settle(node)

    def settle(self, node: Node) -> None:
        """The node's loop, until it has nothing to do."""
        while node.asked_room or node.asked_pins or node.serving.busy or node.asked_locations:
            for object_id in list(node.asked_room):
                node.answer_room(object_id, self.now)
            for object_id, key in list(node.asked_pins):
                node.answer_pin(object_id, key)
            if node.asked_locations:
                node.asked_locations.clear()
                # Not at once: what was made just before a death is known to everybody only when the news are here.
                self.after(2 * NEWS_S, lambda: self.locate(node))
            node.obey(node.serving.step())
        if OBJECT in node.completed and node.me not in self.done:
            self.done[node.me] = self.now
            self.after(NEWS_S, lambda: self.tell(node.me))

    def tell(self, holder: bytes) -> None:
        for node in self.nodes.values():
            node.perform(node.fetching.learn(OBJECT, holder, self.now))
            self.settle(node)

    def locate(self, node: Node) -> None:
        for holder in self.done:
            node.perform(node.fetching.learn(OBJECT, holder, self.now))
        node.perform(node.fetching.no_more(OBJECT, self.now))
        self.settle(node)

    def tick(self) -> None:
        for node in self.nodes.values():
            node.perform(node.fetching.tick(self.now))
            node.obey(node.serving.tick(self.now))
            self.settle(node)
        if any(len(node.fetching) or len(node.serving) for node in self.nodes.values()):
            self.after(0.1, self.tick)

    def run(self) -> tuple[float, float]:
        """(seconds until the last one had it, copies that left the origin)."""
        takers = [node for node in self.nodes.values() if node is not self.origin]
        for node in takers:
            node.want(OBJECT, [self.origin.me], 0.0)
            self.settle(node)
        self.tick()
        while self.events:
            self.now, _, what = heapq.heappop(self.events)
            what()
        assert not any(node.failed for node in takers), [node.failed for node in takers]
        assert len(self.done) == len(takers)
        assert not any(node.pins for node in self.nodes.values()), "every pin was given back"
        return max(self.done.values()), self.origin.sent_bytes / self.nbytes


NBYTES = 64 << 20
ALONE_S = NBYTES / SPEED


@pytest.mark.parametrize(("copies", "factor"), [(2, 1.75), (1, 1.2)])
@pytest.mark.parametrize("nodes", [2, 4, 8, 16, 32])
def test_d4_an_object_to_all_nodes_takes_the_logarithm_of_their_number(nodes: int, copies: int, factor: float) -> None:
    """Measured: 1.5 to 1.7 of the time of one copy for each doubling with two at a time, 1.1 with one at a time.

    One at a time is faster, two do not let one slow node hold up all others. Straight from the origin it takes
    nodes - 1 times one copy.
    """
    took_s, left = Wire(nodes, NBYTES, ServeLimits(copies=copies)).run()
    assert took_s <= factor * ALONE_S * log2(nodes) + NEWS_S
    assert left <= (log2(nodes) if copies == 1 else log2(nodes) * 1.25 + 1)


def test_d4_without_a_tree_the_origin_sends_every_copy() -> None:
    took_s, left = Wire(16, NBYTES, ServeLimits(copies=1_000)).run()
    assert left == 15 and took_s > 14 * ALONE_S


def test_d4_a_small_object_goes_to_all_at_once() -> None:
    took_s, left = Wire(16, 1 << 20).run()
    assert left == 15 and took_s < 0.02


def test_d4_the_origin_dies_in_the_middle_of_it() -> None:
    """The second copy has just been made: everybody else gets it from there, no byte twice."""
    wire = Wire(16, NBYTES)
    first = wire.settle

    def settle(node: Node) -> None:
        first(node)
        if len(wire.done) == 2 and wire.origin.me in wire.nodes:
            del wire.nodes[wire.origin.me]
            for other in list(wire.nodes.values()):
                other.perform(other.fetching.node_gone(wire.origin.me, wire.now))
                other.obey(other.serving.peer_gone(wire.origin.me))
                wire.settle(other)

    wire.settle = settle  # type: ignore[method-assign]
    took_s, _ = wire.run()
    assert took_s < 2.5 * ALONE_S * log2(16)
