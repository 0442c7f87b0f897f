"""Memory while 1,000,000 items of 10 KB go through three stages: of the driver and all processes together.

Sampled twice, when a tenth of the items has come out and when all have: what grows between the two grows with the
stream. PSS, so that what processes share counts once. `here` is one process, `apart` a process for each stage; of the
latter a tenth of the items, unless the run is given time (`--seconds 10` and more: all of them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import Any

from benchmarks.memory import memory_of
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import MB, Context, Figure, Figures, Target, Workload
from benchmarks.workloads.pipeline import processes

ITEMS, QUICK_ITEMS, OTHERS_ITEMS = 1_000_000, 2_000, 2_000
NBYTES = 10_000
STAGES = 3
PATIENT_S = 10.0


def items(count: int) -> Iterator[bytes]:
    """Each of them new."""
    for number in range(count):
        yield number.to_bytes(8, "little") + bytes(NBYTES - 8)


def touch(item: bytes) -> bytes:
    """Another one of the same size."""
    return item[:8] + item[8:]


def run(peer: Peer, context: Context) -> Figures:
    """Both ways."""
    count = QUICK_ITEMS if context.quick else ITEMS if peer.name == "zmreg" else OTHERS_ITEMS
    apart = count if context.seconds >= PATIENT_S or peer.name != "zmreg" else max(QUICK_ITEMS, count // 10)
    made: dict[str, float] = {}
    for name, many in (("here", count), ("apart", apart)):
        outputs = peer.pipeline([touch] * STAGES, items(many), name == "apart")
        made |= measured(name, outputs, many, context)
    return made


def floor(context: Context) -> Figures:
    """`multiprocessing.Queue`."""
    count = QUICK_ITEMS if context.quick else ITEMS // 10

    def taken(get: Callable[[], Any]) -> Iterator[Any]:
        while (item := get()) is not None:
            yield item

    with processes([touch] * STAGES, items, count) as get:
        return measured("apart", taken(get), count, context)


def measured(name: str, outputs: Iterable[bytes], count: int, context: Context) -> dict[str, float]:
    """Items a second, MB of all processes at a tenth and at the end, and what lies between."""
    early = late = 0
    pids: list[int] = []
    start = perf_counter()
    paused = 0.0
    number = 0
    for number, item in enumerate(outputs, 1):
        if number in (count // 10, count):
            stop = perf_counter()
            assert len(item) == NBYTES, f"{len(item)} bytes came out"
            pids = pids or context.cluster_pids()
            early, late = late, memory_of(pids).pss_bytes
            paused += perf_counter() - stop
    took = perf_counter() - start - paused
    assert number == count, f"{number} of {count} came out"
    return {f"{name}_growth_mb": (late - early) / MB, f"{name}_mb": late / MB, f"{name}_per_s": count / took}


WORKLOAD = Workload(
    name="stream_memory",
    title="1,000,000 items of 10 KB through three stages (apart: 100,000): memory of all processes at the end, and its "
    "growth since a tenth; bare: multiprocessing.Queue, Ray: 2,000 items",
    figures=(
        Figure("here_growth_mb"),
        Figure("here_mb"),
        Figure("here_per_s", lower=False, digits=0),
        Figure("apart_growth_mb"),
        Figure("apart_mb"),
        Figure("apart_per_s", lower=False, digits=0),
    ),
    run=run,
    floor=floor,
    needs=frozenset({Feature.PIPELINES}),
    targets=(Target("here_growth_mb", 10.0), Target("apart_growth_mb", 10.0)),
    max_rounds=2,
    timeout_s=300.0,
)
