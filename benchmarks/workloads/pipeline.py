"""A stream of small items through 1, 3 and 10 stages, in one process and with a process for each stage.

The floor is what one writes without a framework: coroutines with an `asyncio.Queue` between each two, and processes
with a `multiprocessing.Queue` between each two; bounded, one item at a time.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from benchmarks.jobs import increment
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import Context, Figure, Figures, Target, Workload

STAGES = (1, 3, 10)
HERE_ITEMS = 50_000
APART_ITEMS = 20_000
# Of the others, which take a millisecond for an item.
SLOWER = 20
BUFFER = 64


Passed = tuple[list[Any], float]
"""The outputs, and the seconds from the first of them to the last: by then all has started."""


def run(peer: Peer, context: Context) -> Figures:
    """Items per second of each; a wrong output raises AssertionError."""

    def passed(count: int, items: range, apart: bool) -> Passed:
        outputs = iter(peer.pipeline([increment] * count, items, apart))
        got = [next(outputs)]
        start = perf_counter()
        got += outputs
        return got, perf_counter() - start

    return figures(passed, context, 1 if peer.name == "zmreg" else SLOWER)


def floor(context: Context) -> Figures:
    """The same by queues."""

    def passed(count: int, items: range, apart: bool) -> Passed:
        return by_processes(count, items) if apart else asyncio.run(by_coroutines(count, items))

    return figures(passed, context)


def figures(passed: Callable[[int, range, bool], Passed], context: Context, slower: int = 1) -> Figures:
    """What `passed(stages, items, apart)` has taken."""
    made = {}
    for apart, many in ((False, HERE_ITEMS), (True, APART_ITEMS)):
        items = range(many // (50 if context.quick else slower))
        for count in STAGES:
            got, took = passed(count, items, apart)
            made[f"{'apart' if apart else 'here'}_{count}_per_s"] = (len(items) - 1) / took
            assert got == [item + count for item in items], f"{count} stages gave something else"
    return made


async def by_coroutines(count: int, items: range) -> Passed:
    """Coroutines and queues between them."""
    queues: list[asyncio.Queue[Any]] = [asyncio.Queue(BUFFER) for _ in range(count + 1)]

    async def stage(before: asyncio.Queue[Any], after: asyncio.Queue[Any]) -> None:
        while (item := await before.get()) is not None:
            await after.put(increment(item))
        await after.put(None)

    async def feed() -> None:
        for item in items:
            await queues[0].put(item)
        await queues[0].put(None)

    tasks = [asyncio.create_task(stage(*pair)) for pair in zip(queues, queues[1:], strict=False)]
    tasks.append(asyncio.create_task(feed()))
    got = [await queues[-1].get()]
    start = perf_counter()
    while (item := await queues[-1].get()) is not None:
        got.append(item)
    took = perf_counter() - start
    await asyncio.gather(*tasks)
    return got, took


def by_processes(count: int, items: range) -> Passed:
    """Processes and queues between them."""
    with processes([increment] * count, range, items.stop) as get:
        got = [get()]
        start = perf_counter()
        while (item := get()) is not None:
            got.append(item)
        return got, perf_counter() - start


@contextmanager
def processes(
    functions: Sequence[Callable[[Any], object]], items: Callable[[int], Iterable[Any]], count: int
) -> Iterator[Callable[[], Any]]:
    """A process for each function, and one that makes `items(count)`; what is given gets the next output, at the end
    None."""
    context = multiprocessing.get_context("spawn")
    queues = [context.Queue(BUFFER) for _ in range(len(functions) + 1)]
    stages = [
        context.Process(target=_stage, args=each) for each in zip(functions, queues, queues[1:], strict=False)
    ]  # fmt: skip
    stages.append(context.Process(target=_feed, args=(items, count, queues[0])))
    for stage in stages:
        stage.start()
    yield queues[-1].get
    for stage in stages:
        stage.join()


def _stage(function: Callable[[Any], object], before: Any, after: Any) -> None:
    while (item := before.get()) is not None:
        after.put(function(item))
    after.put(None)


def _feed(items: Callable[[int], Iterable[Any]], count: int, after: Any) -> None:
    for item in items(count):
        after.put(item)
    after.put(None)


WORKLOAD = Workload(
    name="pipeline",
    title="a stream of integers through 1, 3 and 10 stages that add one, in one process (here) and one for each stage "
    "(apart); bare: asyncio.Queue, multiprocessing.Queue; Ray: streaming generators",
    figures=tuple(
        Figure(f"{where}_{count}_per_s", lower=False, digits=0) for where in ("here", "apart") for count in STAGES
    ),
    run=run,
    floor=floor,
    needs=frozenset({Feature.PIPELINES}),
    targets=(
        Target("here_3_per_s", 1.0, "bare"),
        Target("apart_3_per_s", 1.0, "bare"),
        Target("apart_3_per_s", 5.0, "ray"),
    ),
    timeout_s=120.0,
)
