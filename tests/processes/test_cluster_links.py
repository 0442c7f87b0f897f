"""Bad links between nodes that are not the head: faults 21 to 27, with real processes on loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

import zmreg
from tests.processes.clusters import PATIENCE_S, ask, states, until, until_agreed, until_state
from zmreg.testing.cluster import LocalCluster, TestNode
from zmreg.testing.wires import Link

MiB = 1 << 20


@zmreg.remote(locs={"b"}, num_cpus=0)
def make(nbytes: int, fill: int = 0) -> bytes:
    return bytes([fill]) * nbytes


@zmreg.remote(locs={"a"}, num_cpus=0)
def length(value: bytes) -> int:
    return len(value)


@zmreg.remote(locs={"b"}, num_cpus=0)
class Ledger:
    """What it was told, in order."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def add(self, number: int) -> int:
        self.numbers.append(number)
        return number

    def all(self) -> list[int]:
        return self.numbers

    def hold(self, seconds: float) -> str:
        time.sleep(seconds)
        return "late"


def three_nodes() -> list[dict[str, Any]]:
    return [{"num_cpus": 1, "locs": {name}} for name in "abc"]


@pytest.fixture(scope="module")
def wired() -> Iterator[LocalCluster]:
    """Head a, b, and c with the program: everything that is told here lies between b and c."""
    with LocalCluster(three_nodes(), wired=True) as cluster:
        cluster.attach(cluster.nodes[2].node_id)
        yield cluster


@pytest.fixture
def link(wired: LocalCluster) -> Iterator[Link]:
    """What lies between b and c; whole again for the next test."""
    _, b, c = wired.nodes
    link = wired.link(b.node_id, c.node_id)
    yield link
    link.heal()
    until_state(c, b.node_id, "ALIVE", PATIENCE_S)
    until_state(b, c.node_id, "ALIVE", PATIENCE_S)
    found = until_agreed(wired)
    assert [answer["ProtocolErrors"] for answer in found.values()] == [0, 0, 0]


def until_straight(*nodes: TestNode) -> None:
    """Wait until letters of these nodes take the straight way again."""
    until(lambda: not any(ask(node, "network")["Around"] for node in nodes), "some still goes around")


def fetched(node: TestNode) -> dict[str, int]:
    """{node id: objects fetched from there}."""
    return {peer: row["objects"] for peer, row in ask(node, "network")["Fetches"]["links"].items()}


# The order matters to the clock only: who has been around a broken link stays there for ten seconds, and some tests
# have to wait until the straight way is taken again. So what breaks the link comes last.


def test_fault22_a_slow_line_is_slow_and_correct(wired: LocalCluster, link: Link):
    """8 MiB at 1.5 MB/s: longer than a heartbeat waits, which cannot overtake what is under way."""
    ledger = Ledger.remote()
    ledger.add.remote(0).get(timeout=PATIENCE_S)
    ref = make.remote(8 * MiB, 5)
    zmreg.wait([ref], timeout=PATIENCE_S, fetch_local=False)
    link.throttle(1_500_000)
    refs = [ledger.add.remote(number) for number in range(1, 50)]
    assert ref.get(timeout=PATIENCE_S) == b"\x05" * (8 * MiB)
    assert zmreg.get(refs, timeout=PATIENCE_S) == list(range(1, 50))
    assert ledger.all.remote().get(timeout=PATIENCE_S) == list(range(50))
    assert "DEAD" not in states(wired.nodes[0]).values()


def test_fault23_delay_and_jitter_kill_nobody(wired: LocalCluster, link: Link):
    a, b, c = wired.nodes
    suspicions = ask(c, "network")["Members"]["suspicions"]
    ledger = Ledger.remote()
    ledger.add.remote(0).get(timeout=PATIENCE_S)
    until_straight(b, c)
    link.delay(0.1, jitter_s=0.05)
    began = time.monotonic()
    for number in range(1, 10):
        assert ledger.add.remote(number).get(timeout=PATIENCE_S) == number
    assert time.monotonic() - began > 9 * 0.1, "the line was not slow"
    assert [len(make.remote(MiB).get(timeout=PATIENCE_S)) for _ in range(3)] == [MiB] * 3
    assert ledger.all.remote().get(timeout=PATIENCE_S) == list(range(10))
    assert ask(c, "network")["Members"]["suspicions"] == suspicions
    assert set(states(c).values()) == {"ALIVE"}


def test_fault25_an_answer_that_comes_after_its_call_was_given_up_changes_nothing(wired: LocalCluster, link: Link):
    ledger = Ledger.remote()
    ledger.add.remote(0).get(timeout=PATIENCE_S)
    given_up = ledger.hold.remote(0.2)
    behind = ledger.add.remote(1)
    until_straight(*wired.nodes[1:])
    link.delay(1.0)
    with pytest.raises(zmreg.errors.GetTimeoutError):
        given_up.get(timeout=0.4)
    del given_up
    assert behind.get(timeout=PATIENCE_S) == 1
    assert ledger.all.remote().get(timeout=PATIENCE_S) == [0, 1]


@pytest.mark.parametrize("port", ["gate", "shout"])
def test_fault26_what_is_said_and_what_is_published_may_overtake_each_other(wired: LocalCluster, link: Link, port: str):
    _, b, c = wired.nodes
    late = wired.link(b.node_id, c.node_id, port)
    late.delay(0.3, jitter_s=0.1)
    for number in range(5):
        ref = make.remote(2 * MiB, number)
        assert ref.get(timeout=PATIENCE_S) == bytes([number]) * (2 * MiB)
        del ref
    until_agreed(wired)


def test_a_connection_that_is_cut_again_and_again_loses_nothing(wired: LocalCluster, link: Link):
    ledger = Ledger.remote()
    refs = [ledger.add.remote(0)]
    for _ in range(10):
        refs += [ledger.add.remote(len(refs) + more) for more in range(20)]
        link.cut()
        refs[-1].get(timeout=PATIENCE_S)
    assert zmreg.get(refs, timeout=PATIENCE_S) == list(range(201))
    assert ledger.all.remote().get(timeout=PATIENCE_S) == list(range(201))


@pytest.mark.parametrize("how", ["mute", "stall"])
def test_fault21_calls_go_around_a_broken_link_in_order_and_once(wired: LocalCluster, link: Link, how: str):
    a, b, c = wired.nodes
    ledger = Ledger.remote()
    assert ledger.add.remote(0).get(timeout=PATIENCE_S) == 0
    before = ask(a, "network")["PassedOn"]
    getattr(link, how)()
    began = time.monotonic()
    refs = [ledger.add.remote(number) for number in range(1, 200)]
    assert zmreg.get(refs, timeout=PATIENCE_S) == list(range(1, 200))
    assert time.monotonic() - began < 10
    assert ask(a, "network")["PassedOn"] > before
    assert states(a)[b.node_id] == states(a)[c.node_id] == "ALIVE", "the head hears both"
    until_state(c, b.node_id, "SUSPECTED")
    began = time.monotonic()
    assert ledger.add.remote(200).get(timeout=PATIENCE_S) == 200
    assert time.monotonic() - began < 2, "once the way is known it is used at once"
    link.heal()
    assert ledger.all.remote().get(timeout=PATIENCE_S) == list(range(201))


def test_fault21_an_object_that_a_third_node_has_comes_from_there(wired: LocalCluster, link: Link):
    a, b, c = wired.nodes
    ref = make.remote(3 * MiB)
    assert length.remote(ref).get(timeout=PATIENCE_S) == 3 * MiB  # the head has a copy now
    until(lambda: len(zmreg.who_has([ref])[ref]) == 2, "the copy is not announced")
    until_straight(b, c)  # or what b has comes around
    before = fetched(c).get(a.node_id, 0)
    link.mute()
    assert len(ref.get(timeout=PATIENCE_S)) == 3 * MiB
    assert fetched(c)[a.node_id] == before + 1


def test_fault21_an_object_that_only_the_other_side_has_comes_around(wired: LocalCluster, link: Link):
    a, b, c = wired.nodes
    ref = make.remote(20 * MiB, 7)
    zmreg.wait([ref], timeout=PATIENCE_S, fetch_local=False)
    link.mute()
    until_state(c, b.node_id, "SUSPECTED")
    assert ref.get(timeout=PATIENCE_S) == b"\x07" * (20 * MiB)
    assert ask(a, "network")["PassedOn"] >= 20


def test_fault27_a_half_open_connection_is_cut_within_ten_seconds(wired: LocalCluster, link: Link):
    _, b, c = wired.nodes
    before = ask(c, "network")["Links"].get("lost", 0)
    link.mute()
    began = time.monotonic()
    until(lambda: ask(c, "network")["Links"].get("lost", 0) > before, "nobody has noticed")
    assert time.monotonic() - began < 12  # 8 s of silence, after at most 2 s until the next beat is due
    link.heal()
    assert len(make.remote(MiB).get(timeout=PATIENCE_S)) == MiB


def test_a_line_that_flips_bits_gives_correct_values(wired: LocalCluster, link: Link):
    """CURVE notices every flipped bit. libzmq then stops reading, and the heartbeat ends the link: said again after."""
    link.corrupt(3 * MiB)
    for number in range(4):
        assert make.remote(MiB, number).get(timeout=2 * PATIENCE_S) == bytes([number]) * MiB
