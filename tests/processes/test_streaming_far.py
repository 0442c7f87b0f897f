"""Generators between nodes: items, parking, deaths (core-api rows 26-28; reliability row 64)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zmreg
from zmreg.testing.cluster import LocalCluster

T = 30
LIMIT = "_generator_backpressure_num_objects"


def until(is_so: Callable[[], Any], what: str) -> None:
    """What other processes do takes a moment."""
    deadline = time.monotonic() + T
    while not is_so():
        assert time.monotonic() < deadline, f"not in time: {what}"
        threading.Event().wait(0.01)


@pytest.fixture(scope="module")
def nodes() -> Iterator[LocalCluster]:
    """A head without CPUs, where the test has its seat, and two nodes that work."""
    with LocalCluster(nodes=[{"num_cpus": 0}, {"resources": {"a": 9}}, {"resources": {"b": 9}}]) as cluster:
        cluster.attach()
        yield cluster


@zmreg.remote
def mixed(n: int) -> Iterator[Any]:
    """Small ones, and every seventh in the store of its node."""
    for i in range(n):
        yield np.full(50_000, i) if i % 7 == 0 else i


class Producer:
    def marking(self, marks: str) -> Iterator[int]:
        try:
            for i in range(1_000):
                Path(marks, f"item-{i}").touch()
                yield i
        finally:
            Path(marks, "over").touch()


@zmreg.remote
class Taker:
    def take(self, producer: Any, marks: str) -> int:
        self.generator = producer.marking.options(**{LIMIT: 2}).remote(marks)
        return next(self.generator).get(timeout=T)

    def crash(self) -> None:
        os._exit(1)


def on(node: str) -> dict[str, float]:
    return {node: 0.1}


def test_row26_items_come_from_another_node_small_and_large(nodes: LocalCluster) -> None:
    for limit in (-1, 3):
        generator = mixed.options(resources=on("a"), **{LIMIT: limit}).remote(60)
        assert [int(np.max(ref.get(timeout=T))) for ref in generator] == list(range(60))
    assert mixed.options(resources=on("b")).remote(5_000).completed().get(timeout=T) == 5_000


def test_row28_a_far_producer_parks_goes_on_and_ends(nodes: LocalCluster, tmp_path: Path) -> None:
    producer = zmreg.remote(Producer).options(resources=on("a")).remote()
    generator = producer.marking.options(**{LIMIT: 2}).remote(str(tmp_path))
    until((tmp_path / "item-1").exists, "two items")
    next(generator)
    until((tmp_path / "item-2").exists, "one more")
    del generator
    until((tmp_path / "over").exists, "its finally block")
    assert not (tmp_path / "item-3").exists()
    producer.close(T)


def test_row28_a_callers_death_ends_a_parked_producer_on_another_node(nodes: LocalCluster, tmp_path: Path) -> None:
    producer = zmreg.remote(Producer).options(resources=on("a")).remote()
    taker = Taker.options(resources=on("b")).remote()
    assert taker.take.remote(producer, str(tmp_path)).get(timeout=T) == 0
    until((tmp_path / "item-2").exists, "parked again")
    assert not (tmp_path / "over").exists()
    taker.crash.remote()
    until((tmp_path / "over").exists, "its finally block")
    producer.close(T)


def test_fault64_the_death_of_its_node_is_a_replay_behind_what_was_taken(nodes: LocalCluster, tmp_path: Path) -> None:
    @zmreg.remote(max_retries=1)
    def counting(marks: str) -> Iterator[Any]:
        for i in range(30):
            Path(marks, f"{zmreg.get_runtime_context().get_node_id()}-{i}").touch()
            yield i if i % 3 else np.full(50_000, i)

    (_, first, _) = nodes.nodes
    there = zmreg.NodeAffinitySchedulingStrategy(first.node_id, soft=True)
    generator = counting.options(scheduling_strategy=there, **{LIMIT: 4}).remote(str(tmp_path))
    taken = [int(np.max(next(generator).get(timeout=T))) for _ in range(10)]
    until((tmp_path / f"{first.node_id}-13").exists, "four untaken")
    nodes.kill_node(first.node_id)
    taken += [int(np.max(ref.get(timeout=T))) for ref in generator]
    assert taken == list(range(30))
    assert zmreg.stats()["tasks"]["rebuilt"], "12 lay untaken at the node that died, and was made again by itself"
    assert len({path.name.partition("-")[0] for path in tmp_path.iterdir()}) == 2
