"""Calls by name when nodes are lost, the head among them. Rows R20, R22, R25 of requests.md."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import zmreg
from tests.processes.clusters import until
from tests.processes.named_hosts import Calling, hosts, known
from zmreg import errors
from zmreg.testing.cluster import LocalCluster


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster([{}, {"locs": {"m1", "common"}}, {"locs": {"m2", "common"}}]) as cluster:
        yield cluster


def test_R22_a_node_that_is_killed_takes_its_hosts_along(cluster: LocalCluster) -> None:
    _, here, there = cluster.nodes
    with hosts((here.address, ()), (there.address, ())) as (first, second):
        cluster.attach()
        until(lambda: len(known("pid")) == 2, "not both are known")
        calling = Calling(lambda: zmreg.call("wait_at_gate", locs={"m1"}))
        until(lambda: zmreg.call("count", "wait_at_gate", locs={"m1"}) == 1, "it did not begin")
        cluster.kill_node(here.node_id)
        assert isinstance(calling.ended(), errors.WorkerDiedError)
        assert {zmreg.call("pid", locs={"common"}, retries=1) for _ in range(10)} == {second.process.pid}
        assert first.end() == 0  # its cluster has ended for it


def test_R20_without_a_head_hosts_are_still_called(cluster: LocalCluster) -> None:
    with hosts((cluster.nodes[2].address, ())) as (host,):
        cluster.attach(cluster.nodes[1].node_id)
        assert zmreg.call("pid", queue_until=10) == host.process.pid
        cluster.kill_node(cluster.nodes[0].node_id)
        assert zmreg.call("pid") == host.process.pid
        assert zmreg.call("call_another", "add", 1, 2) == 3
