"""Messages lost and doubled inside the nodes, readers that do not read, and who joins late: faults 24, 28 and 29.

Between nodes all is encrypted, so no proxy can double or drop one message: services/network/failpoints.py does, from a
seed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psutil
import pytest

import zmreg
from tests.processes.clusters import PATIENCE_S, ask, states, until, until_agreed
from zmreg.services.network import failpoints
from zmreg.testing.cluster import LocalCluster, TestNode

MiB = 1 << 20
# Longer than it takes to be suspected, and no death.
SILENT_S = 4.0


@zmreg.remote(locs={"b"}, num_cpus=0)
def make(nbytes: int, fill: int = 0) -> bytes:
    return bytes([fill]) * nbytes


@zmreg.remote(locs={"b"}, num_cpus=0)
def add(left: bytes, right: int) -> int:
    return len(left) + right


@zmreg.remote(locs={"b"}, num_cpus=0)
class Ledger:
    """What it was told, in order."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def add(self, number: int, ballast: bytes = b"") -> int:
        self.numbers.append(number)
        return number

    def all(self) -> list[int]:
        return self.numbers

    def pid(self) -> int:
        return os.getpid()


@zmreg.remote(locs={"b"}, num_cpus=0)
def churn(seconds: float) -> int:
    """Objects come and go in the store of b, as many as go; returns how many."""
    kept: list[Any] = []
    count, ends = 0, time.monotonic() + seconds
    while time.monotonic() < ends:
        kept.append(zmreg.put(bytes(70_000)))
        count += 1
        if len(kept) > 50:
            del kept[:40]
    return count


Start = Callable[..., LocalCluster]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Two nodes and a program at the first; `start("letters.drop:0.1")` with these fail points."""
    with ExitStack() as stack:

        def started(points: str = "", nodes: int = 2) -> LocalCluster:
            monkeypatch.setenv(failpoints.VARIABLE, points)
            monkeypatch.setenv(failpoints.SEED_VARIABLE, "7")
            specs = [{"num_cpus": 2}, {"num_cpus": 2, "locs": {"b"}}, {"num_cpus": 1}][:nodes]
            cluster = stack.enter_context(LocalCluster(specs))
            cluster.attach()
            return cluster

        yield started


def letters(cluster: LocalCluster, what: str) -> int:
    """A count of all couriers of all nodes together."""
    answers = [ask(node, "network")["Letters"].values() for node in cluster.nodes]
    return sum(row[what] for rows in answers for row in rows)


def test_fault24_what_arrives_twice_counts_once(start: Start):
    cluster = start("letters.duplicate:0.3,acks.duplicate:0.3,chunks.duplicate:0.2,words.duplicate:0.3")
    ledger = Ledger.remote()
    refs = [ledger.add.remote(number) for number in range(500)]
    assert zmreg.get(refs, timeout=PATIENCE_S) == list(range(500))
    for number in range(500, 550):
        assert ledger.add.remote(number).get(timeout=PATIENCE_S) == number
    assert ledger.all.remote().get(timeout=PATIENCE_S) == list(range(550))
    assert [make.remote(3 * MiB, fill).get(timeout=PATIENCE_S)[-1] for fill in range(8)] == list(range(8))
    assert letters(cluster, "duplicates") > 20, "the fault has not bitten"
    found = until_agreed(cluster)
    assert [answer["ProtocolErrors"] for answer in found.values()] == [0, 0]


def test_fault22_what_is_lost_is_said_again(start: Start):
    cluster = start("letters.drop:0.15,acks.drop:0.2,chunks.drop:0.02,words.drop:0.05,delta.drop:0.1")
    ledger = Ledger.remote()
    refs = [ledger.add.remote(number) for number in range(300)]
    assert zmreg.get(refs, timeout=2 * PATIENCE_S) == list(range(300))
    assert ledger.all.remote().get(timeout=PATIENCE_S) == list(range(300))
    big = [make.remote(4 * MiB, fill) for fill in range(6)]
    assert [value[-1] for value in zmreg.get(big, timeout=2 * PATIENCE_S)] == list(range(6))
    value = zmreg.put(bytes(2 * MiB))
    sums = zmreg.get([add.remote(value, number) for number in range(50)], timeout=2 * PATIENCE_S)
    assert sums == [2 * MiB + number for number in range(50)]
    assert letters(cluster, "resent") > 0, "the fault has not bitten"
    assert set(states(cluster.nodes[0]).values()) == {"ALIVE"}
    until_agreed(cluster)


@pytest.mark.parametrize("text", ["letters.drop", "letters.drop:2", "leters.drop:0.1", "delta.duplicate:0.1"])
def test_a_slip_in_the_fail_points_is_an_error(text: str):
    with pytest.raises(ValueError, match=failpoints.VARIABLE):
        failpoints.parse(text)


def test_without_fail_points_the_mesh_is_the_plain_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(failpoints.VARIABLE, raising=False)
    assert failpoints.mesh_class() is failpoints.Mesh
    assert failpoints.parse("letters.drop:0.5, delta.drop:1") == {"letters.drop": 0.5, "delta.drop": 1.0}


def test_fault29_a_subscriber_that_is_stopped_and_loses_news_is_equal_again(start: Start):
    """A gap is noticed by the next batch or beacon, and repaired by a replay or a snapshot."""
    cluster = start("delta.drop:0.2", nodes=3)
    late = cluster.nodes[2]
    busy = [churn.remote(SILENT_S) for _ in range(2)]
    until(lambda: ask(late, "network")["Replica"]["deltas"] > 0, "no news")
    cluster.signal_node(late.node_id, signal.SIGSTOP)
    try:
        counts = zmreg.get(busy, timeout=PATIENCE_S)
    finally:
        cluster.signal_node(late.node_id, signal.SIGCONT)
    assert min(counts) > 250
    found = until_agreed(cluster)
    assert found[late.node_id]["Replica"]["gaps"] > 0, "the fault has not bitten"
    assert set(states(cluster.nodes[0]).values()) == {"ALIVE"}, "so long is no death"


def test_a_snapshot_of_more_than_64_kib_reaches_who_joins_late(start: Start):
    """Named reproduction: the mesh receives large frames in place, and such a frame ended the node that got it."""
    cluster = start()
    refs = [make.remote(70_000, number % 256) for number in range(3_000)]
    zmreg.wait(refs, num_returns=len(refs), timeout=2 * PATIENCE_S, fetch_local=False)
    late = cluster.add_node(num_cpus=1)
    found = until_agreed(cluster)
    assert found[late.node_id]["Parts"][cluster.nodes[1].node_id][2] >= 3_000
    assert found[late.node_id]["Replica"]["snapshots"] >= 1


def rss(node: TestNode) -> int:
    return int(psutil.Process(node.pid).memory_info().rss)


def test_fault28_a_reader_that_stands_still_does_not_fill_the_daemons(start: Start):
    """An actor's process is stopped while 400 MB are said to it: they stay with their caller."""
    cluster = start()
    ledger = Ledger.remote()
    pid = ledger.pid.remote().get(timeout=PATIENCE_S)
    before = [rss(node) for node in cluster.nodes]
    os.kill(pid, signal.SIGSTOP)
    try:
        refs = [ledger.add.remote(number, bytes(60_000)) for number in range(6_000)]
        _, pending = zmreg.wait(refs, num_returns=len(refs), timeout=3.0)
        assert len(pending) == len(refs)
        grown = [after - early for early, after in zip(before, map(rss, cluster.nodes), strict=True)]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert zmreg.get(refs, timeout=2 * PATIENCE_S) == list(range(6_000))
    assert max(grown) < 200 * MiB, f"the daemons grew by {[size // MiB for size in grown]} MiB"
