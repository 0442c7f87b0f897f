"""Rows from several nodes into one sink (runs W8), and the death of a node that writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import zmreg
from tests.processes.drivers import eventually
from zmreg import Sink
from zmreg.flows.results.result_dirs import read_manifest
from zmreg.testing import LocalCluster

T = 30


@pytest.fixture(scope="module")
def nodes() -> Iterator[LocalCluster]:
    with LocalCluster(nodes=[{"num_cpus": 0}, {"num_cpus": 1}, {"num_cpus": 1}]) as cluster:
        cluster.attach()
        yield cluster


@zmreg.remote(max_retries=0)
def write(sink: Sink, worker: int, count: int) -> str:
    for number in range(count):
        sink.write({"worker": worker, "n": number})
    return zmreg.get_runtime_context().get_node_id()


@zmreg.remote(max_retries=0)
def write_for_ever(sink: Sink, started: str) -> None:
    number = 0
    while True:
        sink.write({"worker": "doomed", "n": number}, durable=number == 9)
        if number == 9:
            Path(started).touch()
        number += 1


def test_W8_rows_of_other_nodes_are_there_when_it_is_closed(nodes: LocalCluster, tmp_path: Path) -> None:
    with Sink(tmp_path) as sink:
        places = [node.node_id for node in nodes.nodes[1:]] * 2
        on = [write.options(scheduling_strategy=zmreg.NodeAffinitySchedulingStrategy(place)) for place in places]
        writing = [each.remote(sink, worker, 1000) for worker, each in enumerate(on)]
        assert zmreg.get(writing, timeout=T) == places
    rows = list(Sink.read(tmp_path))
    for worker in range(4):
        assert [row["n"] for row in rows if row["worker"] == worker] == [*range(1000)]
    assert len(rows) == 4000


def test_fault_65_a_node_that_dies_while_it_writes_holds_up_nobody(nodes: LocalCluster, tmp_path: Path) -> None:
    doomed, other = (node.node_id for node in nodes.nodes[1:])
    on = zmreg.NodeAffinitySchedulingStrategy
    with Sink(tmp_path / "results", flush_interval=None) as sink:
        started = tmp_path / "started"
        dying = write_for_ever.options(scheduling_strategy=on(doomed)).remote(sink, str(started))
        writing = write.options(scheduling_strategy=on(other)).remote(sink, 0, 1000)
        eventually(started.exists, T, "it does not write")
        nodes.kill_node(doomed)
        assert dying.exception(T) is not None and writing.get(T) == other
        sink.write({"worker": "driver", "n": 0})
    rows = list(Sink.read(tmp_path / "results"))
    assert [row["n"] for row in rows if row["worker"] == 0] == [*range(1000)]
    kept = [row["n"] for row in rows if row["worker"] == "doomed"]
    assert len(kept) >= 10 and kept == [*range(len(kept))]
    manifest = read_manifest(tmp_path / "results")
    assert manifest is not None and manifest["complete"] is True and manifest["rows"] == len(rows)
