"""An actor for which no node has room lives as soon as any has, wherever it was sent first (row 9)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zmreg
from tests.processes.clusters import PATIENCE_S, ask, until
from tests.processes.test_head_restart import Restartable
from zmreg.testing.cluster import LocalCluster, TestNode

NODES = [{"locs": {name}, "num_cpus": 1, "resources": {"tape": 1}} for name in ("x", "y")]


@zmreg.remote(max_retries=0)
def hold(path: str) -> str:
    """Runs until somebody writes into the pipe."""
    with open(path) as pipe:
        return pipe.read()


@zmreg.remote
class Where:
    def node(self) -> str:
        return str(zmreg.get_runtime_context().get_node_id())


class Busy:
    """Both nodes run something until they are let go."""

    def __init__(self, directory: Path, nodes: list[TestNode], options: dict[str, Any]) -> None:
        self.pipes = {node.node_id: directory / node.node_id for node in nodes}
        self.held = {}
        for node, loc in zip(nodes, "xy", strict=True):
            os.mkfifo(self.pipes[node.node_id])
            task = hold.options(locs={loc}, **options)
            self.held[node.node_id] = task.remote(str(self.pipes[node.node_id]))
        until(lambda: all(self._is_full(node, options) for node in nodes), "they do not run")

    def _is_full(self, node: TestNode, options: dict[str, Any]) -> bool:
        name = next(iter(options.get("resources", ("CPU",))))
        row = next(row for row in ask(node, "nodes") if row["NodeID"] == node.node_id)
        return not row["Available"].get(name, 0.0)

    def let_go(self, node_id: str) -> None:
        with open(self.pipes[node_id], "w"):
            pass
        assert self.held[node_id].get(timeout=PATIENCE_S) == ""


def waits_at(nodes: list[TestNode], head: TestNode) -> str:
    """Where something waits for room, as the head has heard."""

    def found() -> str:
        rows = {row["NodeID"]: row for row in ask(head, "nodes")}
        return next((node.node_id for node in nodes if rows.get(node.node_id, {}).get("Waiting")), "")

    return str(until(found, "it waits nowhere"))


def other_than(node_id: str, nodes: list[TestNode]) -> str:
    return next(node.node_id for node in nodes if node.node_id != node_id)


# -- before there is the cluster of the others: a program is attached to one -------------------------------------------


def test_row9_fault10_an_actor_waits_on_when_the_head_is_another(tmp_path: Path) -> None:
    made = Restartable(tmp_path / "state", *NODES, num_cpus=0)
    with made.cluster:
        nodes = made.cluster.nodes[2:]
        busy = Busy(tmp_path, nodes, {})
        late = Where.options(num_cpus=1).remote()
        waits_at(nodes, made.head)
        made.restart()
        made.until_followed()
        free = other_than(waits_at(nodes, made.head), nodes)
        busy.let_go(free)
        assert late.node.remote().get(timeout=PATIENCE_S) == free


def test_row9_an_actor_goes_from_a_node_that_is_drained_to_the_others_queue(tmp_path: Path) -> None:
    with LocalCluster([{"num_cpus": 0}, *NODES]) as cluster:
        cluster.attach()
        nodes = cluster.nodes[1:]
        busy = Busy(tmp_path, nodes, {})
        late = Where.options(num_cpus=1).remote()
        where = waits_at(nodes, cluster.nodes[0])
        free = other_than(where, nodes)
        cluster.signal_node(where, signal.SIGTERM)
        until(lambda: waits_at(nodes, cluster.nodes[0]) == free, "it is not sent on")
        busy.let_go(free)
        assert late.node.remote().get(timeout=10) == free
        busy.let_go(where)
        cluster.await_end(where, PATIENCE_S)


# -- on one cluster ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair() -> Iterator[LocalCluster]:
    with LocalCluster(NODES) as cluster:
        cluster.attach()
        yield cluster


@pytest.mark.parametrize(
    ("task", "actor"),
    [
        ({}, {"num_cpus": 1}),
        ({"num_cpus": 0, "resources": {"tape": 1}}, {"num_cpus": 0, "resources": {"tape": 1}}),
        ({}, {"num_cpus": 1, "scheduling_strategy": "SPREAD"}),
    ],
    ids=["cpu", "tape", "spread"],
)
def test_row9_an_actor_lives_where_room_comes_first(
    pair: LocalCluster, tmp_path: Path, task: dict[str, Any], actor: dict[str, Any]
) -> None:
    busy = Busy(tmp_path, pair.nodes, task)
    late = Where.options(**actor).remote()
    where = waits_at(pair.nodes, pair.nodes[0])
    free = other_than(where, pair.nodes)
    busy.let_go(free)
    assert late.node.remote().get(timeout=10) == free
    busy.let_go(where)


def test_row9_an_actor_that_has_to_be_at_one_node_waits_there(pair: LocalCluster, tmp_path: Path) -> None:
    busy = Busy(tmp_path, pair.nodes, {})
    there, free = (node.node_id for node in pair.nodes)
    hard, soft = (
        Where.options(num_cpus=1, scheduling_strategy=zmreg.NodeAffinitySchedulingStrategy(there, soft)).remote()
        for soft in (False, True)
    )
    assert waits_at(pair.nodes, pair.nodes[0]) == there
    busy.let_go(free)
    with pytest.raises(zmreg.errors.GetTimeoutError):
        hard.node.remote().get(timeout=2.5)
    busy.let_go(there)
    assert hard.node.remote().get(timeout=10) == there
    del hard
    assert soft.node.remote().get(timeout=10) == there
