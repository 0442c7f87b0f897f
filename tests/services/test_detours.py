"""The way around a broken link: when it is taken, by whom, and when it is given up (services/network/detours.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zmreg.core.nodes import Members
from zmreg.model.ids import node_of
from zmreg.model.messages import NodeRecord
from zmreg.services.network.detours import Detours, Forwarded

A, B, C, D = (node_of(name * 8) for name in (b"a", b"b", b"c", b"d"))


class Network:
    """Remembers what was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, tuple[Any, ...]]] = []

    def send(self, node: bytes, frames: Sequence[Any]) -> bool:
        self.sent.append((node, tuple(frames)))
        return True


class Seat:
    """The detours of one node of a cluster whose head is A; `hears` are those that are not silent."""

    def __init__(self, me: bytes, *others: bytes) -> None:
        self.me, self.others = me, others
        self.network = Network()
        self.members = Members(me, me == A)
        for node in (me, *others):
            self.members.on_record(record(node), 0.0)
        self.detours = Detours(me, self.network, self.members)
        self.now = 0.0

    def pass_time(self, seconds: float, hears: Sequence[bytes], stuck: Sequence[bytes] = ()) -> list[bytes]:
        """Whose way has changed by then."""
        changed = []
        for _ in range(int(seconds * 2)):
            self.now += 0.5
            for node in hears:
                self.members.on_beat(node, self.now)
            self.members.tick(self.now)
            changed += self.detours.review([(node, node in stuck) for node in self.others], self.now)
        return changed

    def send(self, node: bytes) -> tuple[bytes, tuple[Any, ...]]:
        self.detours.send(node, (b"ZL....", b"body"))
        return self.network.sent.pop()


def record(node: bytes) -> NodeRecord:
    return NodeRecord(node, "n", "h", 1, 2, node == A, "3.11.0", "0", 1, (), (), (), 0, 0, 0, 0)


def test_fault21_who_is_silent_is_reached_through_the_head_and_hears_so():
    c, a, b = Seat(C, A, B), Seat(A, B, C), Seat(B, A, C)
    assert c.send(B) == (B, (b"ZL....", b"body"))
    assert c.pass_time(3.0, hears=[A]) == [B]
    to, frames = c.send(B)
    assert to == A and frames[1:] == (b"ZL....", b"body")
    assert a.detours.hear(C, list(frames), 3.0) is None, "not for the head itself"
    onward = a.network.sent.pop()
    assert onward == (B, frames) and a.detours.passed_on == 1
    assert b.detours.hear(A, list(onward[1]), 3.0) == Forwarded(C, [b"ZL....", b"body"])
    assert b.detours.came_around(C, A, 3.0) and not b.detours.came_around(C, A, 3.1), "once is news"
    assert b.send(C)[0] == A


def test_fault20_who_is_heard_and_acknowledges_nothing_is_reached_around_too():
    c = Seat(C, A, B)
    assert c.pass_time(1.0, hears=[A, B], stuck=[B]) == [B]
    assert c.detours.around() == {B: A}


def test_the_straight_way_is_tried_again_after_ten_seconds_when_the_other_is_heard():
    c = Seat(C, A, B)
    c.pass_time(3.0, hears=[A])
    assert c.pass_time(9.0, hears=[A, B]) == [], "not yet"
    assert c.pass_time(1.0, hears=[A, B]) == [B]
    assert c.send(B)[0] == B and c.detours.around() == {}


def test_there_is_no_detour_to_or_from_the_head():
    a, c = Seat(A, B, C), Seat(C, A, B)
    assert a.pass_time(5.0, hears=[B]) == [] and a.detours.around() == {}
    assert c.pass_time(5.0, hears=[B]) == [] and c.detours.around() == {}


def test_another_relay_is_taken_when_the_head_is_silent_as_well():
    c = Seat(C, A, B, D)
    c.pass_time(4.0, hears=[A, D])
    assert c.detours.around() == {B: A}
    c.pass_time(4.0, hears=[D])
    assert c.detours.around() == {B: D}
    c.detours.forget(D)
    assert c.detours.around() == {}


def test_nobody_is_passed_on_twice_and_nobody_speaks_for_others():
    a, c = Seat(A, B, C), Seat(C, A, B)
    c.pass_time(3.0, hears=[A])
    _, frames = c.send(B)
    assert a.detours.hear(B, list(frames), 3.0) is None and a.network.sent == [], "B says it is from C"
    assert a.detours.hear(C, [frames[0]], 3.0) is None and a.network.sent == [], "nothing behind the header"
    assert a.detours.hear(C, [frames[0][:-1], b"x"], 3.0) is None and a.network.sent == []
    stranger = Detours(D, Network(), Members(D, False))
    assert stranger.hear(A, list(frames), 3.0) is None, "neither is known"
