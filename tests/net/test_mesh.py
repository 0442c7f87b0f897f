"""The connections between nodes: what libzmq does when one is made anew at the wrong moment, and what we do then."""

from __future__ import annotations

import ctypes
import os
import select
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.net.relay import HoldingRelay
from zmreg.net.curve import DENIED, OPEN, WRONG_KEY, CurveKeys, Happening, new_key_set, new_keys
from zmreg.net.mesh import Mesh
from zmreg.wire.chunks import pack_chunk_header

WAIT_S = 20.0
HOST = "127.0.0.1"


class Node:
    """A mesh with a loop."""

    def __init__(self, name: bytes, keys: CurveKeys) -> None:
        self.name = name
        self.mesh = Mesh(name, keys, HOST, 0, 0)
        self.heard: list[tuple[bytes, bytes]] = []
        self.overheard: list[bytes] = []
        self.told: list[tuple[bytes, Happening]] = []

    def turn(self) -> None:
        self.mesh.gatekeeper.serve()
        while (heard := self.mesh.receive()) is not None:
            self.heard.append((heard[0], bytes(heard[1][0])))
        while (frame := self.mesh.overhear()) is not None:
            self.overheard.append(frame)
        self.told += self.mesh.happenings(time.monotonic())

    def words(self, node: bytes) -> list[str]:
        return [happening.event for about, happening in self.told if about == node]

    def reach(self, other: Node, called: bytes = b"") -> None:
        self.mesh.connect(called or other.name, HOST, other.mesh.port, other.mesh.pub_port)


def until(nodes: list[Node], done: Callable[[], bool], timeout_s: float = WAIT_S) -> bool:
    poller = select.poll()
    for node in nodes:
        for fd in node.mesh.fds:
            poller.register(fd, select.POLLIN)
    deadline = time.monotonic() + timeout_s
    while True:
        for node in nodes:
            node.turn()
        if done():
            return True
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        poller.poll(min(left, 0.05) * 1e3)


@contextmanager
def two(keys: CurveKeys, others: CurveKeys | None = None) -> Iterator[tuple[Node, Node]]:
    nodes = [Node(b"node-one", keys), Node(b"node-two", others or keys)]
    try:
        yield nodes[0], nodes[1]
    finally:
        for node in nodes:
            node.mesh.close()


def gets_through(one: Node, other: Node, called: bytes, said: bytes) -> bool:
    """Said again and again, as nothing else promises delivery; by a new connection when one is deaf, as
    `Neighbours` does: connections that follow each other at once may reach the gate in any order."""

    def arrived() -> bool:
        one.mesh.send(called, (said,))
        return (one.name, said) in other.heard

    for _ in range(5):
        if until([one, other], arrived, 2):
            return True
        one.mesh.redial(called)
    return False


def test_what_is_sent_arrives_under_the_senders_name() -> None:
    with two(new_keys()) as (one, other):
        assert not one.mesh.send(other.name, (b"too early",))
        one.reach(other)
        assert gets_through(one, other, other.name, b"hello")
        assert one.words(other.name) == [OPEN]


def test_a_chunk_is_sent_from_where_it_lies_and_given_back() -> None:
    """Of large memoryviews no copy is made; who lent the memory learns when libzmq has let go of it."""
    with two(new_keys()) as (one, other):
        one.reach(other)
        assert gets_through(one, other, other.name, b"first")
        nbytes = 1 << 20
        owner = (ctypes.c_ubyte * nbytes).from_buffer(bytearray(b"\x5a" * nbytes))
        back: list[bool] = []
        weakref.finalize(owner, back.append, True)
        part = memoryview(owner).cast("B").toreadonly()
        del owner
        one.mesh.send(other.name, (pack_chunk_header(7, 0), part))
        del part
        chunks: list[bytes] = []

        def arrived() -> bool:
            while (heard := other.mesh.receive()) is not None:
                chunks.extend(bytes(frame.buffer) for frame in heard[1] if not isinstance(frame, bytes))
            return bool(chunks and back)

        other.turn = lambda: None  # type: ignore[method-assign]  # `arrived` receives
        assert until([one, other], arrived)
        assert chunks == [b"\x5a" * nbytes]


def test_a_node_can_be_disconnected_and_connected_in_one_breath() -> None:
    """libzmq ended the process: `Assertion failed: !has_out_pipe (routing_id)`."""
    with two(new_keys()) as (one, other):
        for number in range(20):
            one.reach(other)
            if number % 3 == 0:
                assert gets_through(one, other, other.name, b"%d" % number)
            one.mesh.disconnect(other.name)
            assert not one.mesh.knows(other.name)
        one.reach(other)
        assert gets_through(one, other, other.name, b"at last")


def test_a_node_that_is_back_before_its_end_was_noticed_is_heard() -> None:
    """The gate is busy for half a second; without ROUTER_HANDOVER it never heard that node again."""
    with two(new_keys()) as (one, other):
        one.reach(other)
        assert gets_through(one, other, other.name, b"before")
        one.mesh.disconnect(other.name)
        one.reach(other)
        deadline = time.monotonic() + 0.5
        while OPEN not in one.words(other.name)[1:] and time.monotonic() < deadline:
            other.mesh.gatekeeper.serve()
            one.turn()
        assert gets_through(one, other, other.name, b"after")


def test_fault27_old_lines_whose_last_words_come_late_are_closed() -> None:
    """A partition heals, again and again: a node has come anew, then its last words by the old line arrive, and that
    ends. A gate that took the new line for the old one never closed the old one's descriptor."""
    with two(new_keys()) as (one, other):
        relay = HoldingRelay(other.mesh.port)
        try:
            one.mesh.connect(other.name, HOST, relay.port)
            assert gets_through(one, other, other.name, b"before")
            before = len(os.listdir("/proc/self/fd"))
            for number in range(3):
                relay.hold()
                one.mesh.send(other.name, (b"late %d" % number,))
                one.mesh.redial(other.name)
                assert gets_through(one, other, other.name, b"new %d" % number)
                relay.release()
            assert until([one, other], lambda: len(os.listdir("/proc/self/fd")) <= before)
            assert gets_through(one, other, other.name, b"after")
        finally:
            relay.close()


def test_one_gate_under_two_names_is_one_connection() -> None:
    """The first contact turns out to be the head. Dropping one name leaves the other."""
    with two(new_keys()) as (one, other):
        one.mesh.connect(b"contact!", HOST, other.mesh.port)
        assert gets_through(one, other, b"contact!", b"who are you")
        assert until([one, other], lambda: one.words(b"contact!") == [OPEN])
        one.reach(other)
        assert gets_through(one, other, other.name, b"ah, you")
        one.mesh.disconnect(b"contact!")
        assert not one.mesh.send(b"contact!", (b"gone",))
        assert gets_through(one, other, other.name, b"still there")
        assert one.words(other.name) == [] and one.words(b"contact!") == [OPEN], "there was one handshake only"
        assert until([one, other], lambda: bool(other.mesh.publish(b"news")) or b"news" in one.overheard)


def test_a_wrong_key_is_told_of_the_node_that_has_it() -> None:
    with two(new_keys(), new_keys()) as (one, other):
        one.reach(other)
        assert until([one, other], lambda: WRONG_KEY in one.words(other.name), 3)


OLD, NEW = new_key_set(1), new_key_set(2)
STAGES = [CurveKeys((OLD,)), CurveKeys((OLD, NEW)), CurveKeys((NEW, OLD)), CurveKeys((NEW,))]


@pytest.mark.parametrize("stage", range(3))
def test_nodes_one_step_of_a_rotation_apart_find_each_other(stage: int) -> None:
    with two(STAGES[stage], STAGES[stage + 1]) as (one, other):
        one.reach(other)
        other.reach(one)
        assert gets_through(one, other, other.name, b"hello")
        assert gets_through(other, one, one.name, b"hello")
        for node in (one, other):
            assert not {WRONG_KEY, DENIED} & {happening.event for _, happening in node.told}
        assert until([one, other], lambda: bool(one.mesh.publish(b"news")) or b"news" in other.overheard)
        assert until([one, other], lambda: bool(other.mesh.publish(b"news")) or b"news" in one.overheard)
