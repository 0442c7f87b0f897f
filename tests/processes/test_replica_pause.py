"""Fault 29, for longer: a node that keeps a replica stands still for ten seconds while another goes on publishing."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

import zmreg
from tests.processes.clusters import ask, states, until, until_agreed
from zmreg.services.network import failpoints
from zmreg.testing import LocalCluster

PATIENCE_S = 30.0
# Longer than any timeout of the registry.
PAUSE_S = 10.0


@zmreg.remote(locs={"b"}, num_cpus=0)
def churn(seconds: float) -> int:
    """Objects come and go in the store of b; returns how many."""
    kept: list[Any] = []
    count, ends = 0, time.monotonic() + seconds
    while time.monotonic() < ends:
        kept.append(zmreg.put(bytes(70_000)))
        count += 1
        time.sleep(0.002)
        if len(kept) > 50:
            del kept[:40]
    return count


@pytest.mark.timeout(150)
def test_fault29_a_subscriber_that_stands_still_for_ten_seconds_is_equal_afterwards(monkeypatch: pytest.MonkeyPatch):
    """With a longer patience than usual, so that it is not declared dead meanwhile; and some of what it missed is lost.

    Two workers make a thousand changes a second.
    """
    monkeypatch.setenv(failpoints.VARIABLE, "delta.drop:0.2")
    patient = {"dead_after_s": 40.0}
    specs = [{"num_cpus": 2, **patient}, {"num_cpus": 2, "locs": {"b"}, **patient}, {"num_cpus": 1, **patient}]
    with LocalCluster(specs) as cluster:
        cluster.attach()
        late = cluster.nodes[2]
        busy = [churn.remote(PAUSE_S + 2) for _ in range(2)]
        until(lambda: ask(late, "network")["Replica"]["deltas"] > 0, "no news")
        began = time.monotonic()
        cluster.signal_node(late.node_id, signal.SIGSTOP)
        try:
            counts = zmreg.get(busy, timeout=3 * PATIENCE_S)
            assert time.monotonic() - began >= PAUSE_S
        finally:
            cluster.signal_node(late.node_id, signal.SIGCONT)
        assert sum(counts) > 2_000
        found = until_agreed(cluster)
        assert found[late.node_id]["Replica"]["gaps"] > 0, "the fault has not bitten"
        assert set(states(cluster.nodes[0]).values()) == {"ALIVE"}
