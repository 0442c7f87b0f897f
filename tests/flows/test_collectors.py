"""Results of several sources in one stream (runs W23)."""

from __future__ import annotations

import asyncio
import os
from collections import Counter

import pytest

import zmreg
from tests.processes.drivers import eventually
from zmreg import DistributedResultCollector
from zmreg.model.errors import GetTimeoutError

pytestmark = pytest.mark.usefixtures("cluster")
T = 30


@zmreg.remote(num_cpus=0, max_retries=0)
def produce(collector: DistributedResultCollector, source: int, count: int, dies_at: int = -1) -> None:
    for number in range(count):
        if number == dies_at:
            os._exit(1)
        collector.send(source, number)
    collector.finish(source)


def test_W23_four_sources_of_250_are_1000_in_the_order_of_each() -> None:
    collector = DistributedResultCollector("w", 4, queue_size=10)
    for source in range(4):
        produce.remote(collector, source, 250)
    found = list(collector)
    assert len(found) == 1000
    for source in range(4):
        assert [value for number, value in found if number == source] == [*range(250)]
    assert collector.failed == set() and collector.counts() == dict.fromkeys(range(4), 250)
    assert list(collector) == []


def test_W23_one_that_is_killed_is_marked_and_the_others_go_on() -> None:
    collector = DistributedResultCollector("w", 4)
    for source in range(4):
        produce.remote(collector, source, 250, dies_at=100 if source == 2 else -1)
    found = Counter(source for source, _ in collector)
    assert (found[0], found[1], found[3]) == (250, 250, 250) and found[2] <= 100
    assert collector.failed == {2} and "gone" in collector.failures[2]
    with pytest.raises(ValueError, match="source 2 has ended"):
        collector.send(2, "late")


def test_W23_a_watched_source_ends_as_its_call_does_also_before_it_has_sent_anything() -> None:
    collector = DistributedResultCollector("w", 3)

    @zmreg.remote
    def sends(collector: DistributedResultCollector, source: int) -> None:
        if source == 1:
            raise RuntimeError("before the first result")
        collector.send(source, "one")

    refs = [sends.remote(collector, source) for source in range(3)]
    for source, ref in enumerate(refs):
        collector.watch(source, ref)
    assert sorted(collector) == [(0, "one"), (2, "one")]
    assert collector.failed == {1} and "before the first result" in collector.failures[1]
    zmreg.wait(refs, num_returns=3, timeout=T)


def test_W23_a_full_queue_holds_up_its_own_source_alone() -> None:
    collector = DistributedResultCollector("w", 2, queue_size=2)
    for number in range(2):
        collector.send(0, number)
    with pytest.raises(GetTimeoutError):
        collector.send(0, 2, timeout=0.01)
    collector.send(1, "other", timeout=T)
    collector.finish(0)
    collector.fail(1)
    assert sorted(map(str, collector)) == ["(0, 0)", "(0, 1)", "(0, 2)", "(1, 'other')"]
    assert collector.failed == {1}


def test_W23_sources_there_are_not_are_errors() -> None:
    for sources, size in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            DistributedResultCollector("w", sources, size)
    collector = DistributedResultCollector("w", 2)
    for wrong in (2, -1, "0"):
        with pytest.raises(ValueError, match="has sources 0 to 1"):
            collector.send(wrong, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has sources"):
        collector.finish(2)


def test_W23_async_and_an_interrupted_reader_loses_nothing() -> None:
    collector = DistributedResultCollector("w", 2)

    async def main() -> list[tuple[int, str]]:
        reading = asyncio.create_task(collector.__anext__())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await collector.asend(0, "a")
        await collector.asend(1, "b")
        await collector.afinish(0)
        await collector.afinish(1)
        return [each async for each in collector]

    assert sorted(asyncio.run(main())) == [(0, "a"), (1, "b")]


def test_W23_a_reader_elsewhere_gets_it_all() -> None:
    collector = DistributedResultCollector("w", 1, queue_size=5)

    @zmreg.remote
    def read(collector: DistributedResultCollector) -> list[int]:
        return [value for _, value in collector]

    reading = read.remote(collector)
    produce.remote(collector, 0, 50)
    assert reading.get(T) == [*range(50)]
    eventually(lambda: collector.counts() == {0: 50}, T, "not all were counted")
