"""X15: a local cluster gets more nodes, and fewer, without losing what they have."""

from __future__ import annotations

import numpy as np
import pytest

import zmreg
from zmreg.testing import LocalCluster

T = 30


@zmreg.remote(num_cpus=0, scheduling_strategy="SPREAD")
def make(number: int) -> np.ndarray:
    return np.full(500_000, number, np.uint8)


@pytest.mark.timeout(120)
def test_X15_scale_starts_nodes_like_the_last_and_retires_the_newest_without_a_loss():
    with LocalCluster(nodes=[{"num_cpus": 0}, {"num_cpus": 1, "locs": {"b"}, "name": "b"}]) as cluster:
        cluster.attach()
        assert len(cluster.scale(4)) == 4
        zmreg.wait_for_nodes(4, timeout=T)
        assert zmreg.cluster_resources()["CPU"] == 3.0
        alive = [row for row in zmreg.nodes() if row["Alive"]]
        assert sorted(row["Locs"] == ["b"] for row in alive) == [False, True, True, True]
        assert len({row["NodeName"] for row in alive}) == 4
        refs = [make.remote(number) for number in range(12)]
        zmreg.wait(refs, num_returns=12, timeout=T, fetch_local=False)
        assert cluster.scale(2) == cluster.nodes
        assert [int(value[0]) for value in zmreg.get(refs, timeout=T)] == list(range(12))
        assert zmreg.stats()["tasks"]["rebuilt"] == 0, "they were computed again"
        assert sum(row["Alive"] for row in zmreg.nodes()) == 2
        with pytest.raises(ValueError, match="close"):
            cluster.scale(0)
