"""Events at nodes without a network (I9, I12): who hears of what, by which way, and what goes with whom.

Real nodes: processes/test_events.py.
"""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from zmreg.core.outlets import WINDOW_ITEMS
from zmreg.core.topics import BACKLOG_ITEMS
from zmreg.model.ids import node_of
from zmreg.model.messages import (
    Answer,
    Events,
    EventsTaken,
    Message,
    PatternNews,
    Subscribe,
    Unsubscribe,
    WatchPatterns,
)
from zmreg.services.node import topics as service
from zmreg.services.node.topics import Topics
from zmreg.wire import batches, codec

A, B, C = (letter * 4 + bytes(4) for letter in (b"a", b"b", b"c"))


def process(node: bytes, number: int = 1) -> bytes:
    return node[:4] + number.to_bytes(4, "big")


class World:
    """Nodes, and processes that only listen. All that is said arrives, in the order of its saying."""

    def __init__(self, *nodes: bytes, alone: bool = False) -> None:
        self.mail: deque[tuple[bytes, bytes, Message]] = deque()
        self.told: list[tuple[bytes, Message]] = []
        self.passed: list[tuple[bytes, bytes]] = []
        """(from, to) of each batch of events between nodes."""
        self.deaf: set[bytes] = set()
        """Processes that do not acknowledge."""
        self.now = 0.0
        self.nodes = {node: self._node(node) for node in nodes}
        self.topics = {node: Topics(each) for node, each in self.nodes.items()}
        for me, each in self.topics.items() if not alone else ():
            each.listen(lambda said, me=me: self._publish(me, said), lambda to, said, me=me: self._raw(me, to, said))

    def _node(self, me: bytes) -> Any:
        clients = {process(me, number): None for number in range(1, 5)}
        return SimpleNamespace(
            me=me, clients=clients, protocol_errors=0,
            post=lambda to, message: self.mail.append((me, to, codec.decode(codec.encode(message)))),
        )  # fmt: skip

    def _publish(self, sender: bytes, message: Any) -> None:
        for node in self.topics:
            if node != sender:
                self._raw(sender, node, message)

    def _raw(self, sender: bytes, to: bytes, message: Any) -> None:
        table = self.topics[to].table
        assert table is not None
        table.on_message(sender, codec.decode(codec.encode(message)), self.now)  # type: ignore[arg-type]

    def settle(self) -> None:
        while self.mail:
            sender, to, message = self.mail.popleft()
            if to in self.topics:
                if isinstance(message, Events):
                    self.passed.append((sender, to))
                self.topics[to].hear(sender, message)  # type: ignore[arg-type]
                continue
            self.told.append((to, message))
            if isinstance(message, Events) and to not in self.deaf:
                items, nbytes = max(1, len(message.topics)), sum(map(len, [*message.topics, *message.values]))
                self.mail.append((to, sender, EventsTaken(items, nbytes)))

    def say(self, client: bytes, message: Any) -> None:
        self.topics[node_of(client)].hear(client, message)
        self.settle()

    def go_on(self) -> None:
        """Half a second: what nodes tell each other is told."""
        for _ in range(10):
            self.now += 0.05
            for each in self.topics.values():
                if each.table is not None:
                    each.table.tick(self.now)
                each.turn()
            self.settle()

    def subscribe(self, client: bytes, pattern: str) -> str:
        self.say(client, Subscribe(7, pattern))
        (answer,) = [message for to, message in self.told if to == client and isinstance(message, Answer)][-1:]
        self.go_on()
        return str(batches.unpack_plain(answer.body))

    def publish(self, client: bytes, *topics: str, value: bytes = b"v") -> None:
        self.say(client, Events(topics, (value,) * len(topics), (), ()))

    def heard(self, client: bytes) -> list[str]:
        """Topics of the events that came there since this was asked."""
        found = [
            each for to, message in self.told if to == client and isinstance(message, Events) for each in message.topics
        ]
        self.told = [(to, message) for to, message in self.told if to != client or not isinstance(message, Events)]
        return found

    def lost(self, client: bytes) -> dict[str, int]:
        found: dict[str, int] = {}
        for to, message in self.told:
            if to == client and isinstance(message, Events):
                for pattern, count in zip(message.lost, message.counts, strict=True):
                    found[pattern] = found.get(pattern, 0) + count
        return found

    def watched(self, client: bytes) -> set[str]:
        """What a publisher knows, from all that it was told."""
        known: set[str] = set()
        for to, message in self.told:
            if to == client and isinstance(message, PatternNews):
                known = (known | set(message.added)) - set(message.gone)
        return known


@pytest.fixture
def world() -> World:
    return World(A, B, C)


def test_I9_an_event_goes_to_whom_it_concerns_once_and_to_no_other_node(world: World) -> None:
    near, far, other = process(A, 2), process(B), process(C)
    assert [world.subscribe(near, "run.#"), world.subscribe(far, "run.*"), world.subscribe(other, "walk")] == [""] * 3
    assert world.subscribe(near, "#") == "", "two patterns of one process that match: still one event"
    world.publish(process(A), "run.1", "run.1.done", "walk", "stand")
    assert world.heard(near) == ["run.1", "run.1.done", "walk", "stand"]
    assert world.heard(far) == ["run.1"] and world.heard(other) == ["walk"]
    assert world.passed == [(A, B), (A, C)]


def test_I9_two_listeners_on_a_node_cost_one_message_to_it(world: World) -> None:
    for number in (1, 2, 3):
        world.subscribe(process(B, number), "x")
    world.publish(process(A), "x")
    assert [world.heard(process(B, number)) for number in (1, 2, 3)] == [["x"]] * 3 and world.passed == [(A, B)]


def test_I9_a_node_alone_needs_no_table() -> None:
    world = World(A, alone=True)
    assert world.subscribe(process(A, 2), "x.*") == ""
    world.publish(process(A), "x.1", "y")
    assert world.heard(process(A, 2)) == ["x.1"]
    world.topics[A].gone(process(A, 2))
    world.publish(process(A), "x.2")
    assert world.heard(process(A, 2)) == []


def test_I9_who_listens_no_more_or_is_gone_gets_nothing(world: World) -> None:
    for number in (1, 2):
        world.subscribe(process(B, number), "x")
    world.say(process(B, 1), Unsubscribe("x"))
    world.go_on()
    world.publish(process(A), "x")
    assert world.heard(process(B, 1)) == [] and world.heard(process(B, 2)) == ["x"]
    world.topics[B].gone(process(B, 2))
    world.go_on()
    world.passed.clear()
    world.publish(process(A), "x")
    assert world.passed == [], "nobody there listens, and node A knows"


def test_I9_with_a_node_goes_what_its_processes_listened_to(world: World) -> None:
    world.subscribe(process(B), "x")
    world.say(process(A), WatchPatterns())
    assert world.watched(process(A)) == {"x"}
    table = world.topics[A].table
    assert table is not None
    table.forget(B)
    world.topics[A].gone(B)
    world.topics[A].turn()
    world.publish(process(A), "x")
    assert world.passed == [] and world.watched(process(A)) == set()
    assert world.topics[A].interests.patterns() == []


def test_I9_a_publisher_is_told_what_anybody_listens_to_before_its_own_subscription_is_answered(world: World) -> None:
    world.subscribe(process(C), "far")
    world.say(process(A), WatchPatterns())
    world.say(process(A), Subscribe(1, "near"))
    kinds = [type(message) for to, message in world.told if to == process(A)]
    assert world.watched(process(A)) == {"far", "near"} and kinds == [PatternNews, PatternNews, Answer]
    world.say(process(A), Unsubscribe("near"))
    world.say(process(C), Unsubscribe("far"))
    world.go_on()
    assert world.watched(process(A)) == set()


def test_I9_much_news_comes_in_parts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_NEWS_AT_ONCE", 10)
    for number in range(25):
        world.say(process(A), Subscribe(number, f"x.{number}"))
    world.say(process(A, 2), WatchPatterns())
    news = [message for to, message in world.told if to == process(A, 2) and isinstance(message, PatternNews)]
    assert [each.whole for each in news] == [False, False, True] and len(world.watched(process(A, 2))) == 25


def test_I9_what_cannot_be_subscribed_to_is_told_why(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is no topic" in world.subscribe(process(A), "x..y")
    monkeypatch.setattr(service, "MAX_PATTERNS", 2)
    assert [world.subscribe(process(A), pattern) for pattern in ("1", "2", "2")] == [""] * 3
    assert "may listen to 2 patterns" in world.subscribe(process(A), "3")
    assert "is not on node" in world.subscribe(process(A, 99), "x")


def test_I12_a_listener_that_stands_still_loses_the_oldest_and_others_nothing(world: World) -> None:
    slow, quick, far = process(A, 2), process(A, 3), process(B)
    world.deaf.add(slow)
    for client in (slow, quick, far):
        world.subscribe(client, "x.#")
    total = BACKLOG_ITEMS + WINDOW_ITEMS + 1_000
    for start in range(0, total, 50):
        world.publish(process(A), *(f"x.{number}" for number in range(start, min(start + 50, total))))
    assert world.heard(quick) == world.heard(far) == [f"x.{number}" for number in range(total)]
    ways = world.topics[A].statistics()["Ways"]
    assert ways[slow.hex()]["dropped"] > 900 and ways[quick.hex()]["dropped"] == ways[B.hex()]["dropped"] == 0
    under_way = ways[slow.hex()]["under_way"]
    world.deaf.clear()
    world.say(slow, EventsTaken(under_way, 0))
    lost, read = world.lost(slow), world.heard(slow)
    assert lost == {"x.#": ways[slow.hex()]["dropped"]} and len(read) + lost["x.#"] == total
    assert read[-1] == f"x.{total - 1}"


def test_I12_what_was_lost_on_the_way_here_is_told_to_those_of_that_pattern(world: World) -> None:
    both, other, far = process(A, 2), process(A, 3), process(B)
    for client, pattern in ((both, "x.#"), (both, "*.y"), (other, "*.y"), (far, "x.#")):
        world.subscribe(client, pattern)
    world.say(process(A), Events((), (), ("x.#", "z"), (5, 9)))
    assert world.lost(both) == world.lost(far) == {"x.#": 5} and world.lost(other) == {}


def test_I12_a_sender_is_told_how_much_has_come(world: World) -> None:
    for _ in range(WINDOW_ITEMS):
        world.publish(process(A), "x")
    taken = [message for to, message in world.told if to == process(A) and isinstance(message, EventsTaken)]
    assert sum(each.items for each in taken) == WINDOW_ITEMS and all(each.nbytes == 2 * each.items for each in taken)


def test_I9_nonsense_is_counted_and_changes_nothing(world: World) -> None:
    world.subscribe(process(A, 2), "x")
    world.say(process(A), Events(("x",), (), (), ()))
    world.say(process(A), Events((), (), ("x",), ()))
    world.say(process(A), Events(("x",), (b"v",), (), (), (1.0, 2.0)))
    assert world.nodes[A].protocol_errors == 3 and world.heard(process(A, 2)) == []
    world.topics[A].rows.put(B, b"a..b", b"1")
    world.topics[A].rows.put(B, b"\xff\xff", b"1")
    assert world.topics[A].statistics()["Malformed"] == 2
    world.say(process(A), EventsTaken(1 << 40, 1 << 40))
    world.publish(process(A), "x")
    assert world.heard(process(A, 2)) == ["x"]


def test_I9_last_words_are_heard_and_nobody_is_told_that_they_were(world: World) -> None:
    world.subscribe(process(B), "x")
    del world.nodes[A].clients[process(A)]
    world.topics[A].gone(process(A))
    for _ in range(WINDOW_ITEMS):
        world.publish(process(A), "x")
    assert len(world.heard(process(B))) == WINDOW_ITEMS
    assert not [message for to, message in world.told if to == process(A)]


def test_X12_what_is_logged_is_kept_by_the_own_node_alone_and_told_like_any_other(world: World) -> None:
    world.subscribe(process(B), "x.#")
    world.say(process(A), Events(("x.1", "x.2", "x.3"), (b"1", b"2", b"3"), (), (), (7.0, 0.0, 9.0)))
    rows, older = world.topics[A].kept.page("x.#", 10, 1 << 20)
    assert [row[1:] for row in rows] == [("x.1", 7.0, b"1"), ("x.3", 9.0, b"3")] and not older
    assert world.heard(process(B)) == ["x.1", "x.2", "x.3"]
    assert world.topics[B].kept.statistics().events == 0
    world.say(B, Events(("y",), (b"1",), (), (), (7.0,)))
    world.topics[A].hear(B, Events(("y",), (b"1",), (), (), (7.0,)))
    assert world.topics[A].statistics()["Kept"]["events"] == 2, "what another node says is not kept"
