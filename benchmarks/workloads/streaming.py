"""Small items of a generator on a worker, taken one by one while it runs: without a bound, and with one of 8."""

from __future__ import annotations

from time import perf_counter

from benchmarks.jobs import numbers
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import Context, Figure, Figures, Target, Workload

ITEMS = 100_000
BOUND = 8


def run(peer: Peer, context: Context) -> Figures:
    """Items per second, and how long the first takes; a wrong item raises AssertionError."""
    rate(peer, 100, None)
    first = first_us(peer)
    return {
        "items_per_s": rate(peer, ITEMS // 20 if context.quick or peer.name != "zmreg" else ITEMS, None),
        "bounded_per_s": rate(peer, 1_000 if context.quick else 5_000, BOUND),
        "first_us": first,
    }


def rate(peer: Peer, count: int, bound: int | None) -> float:
    """Items per second of one stream of `count`."""
    start, total = perf_counter(), 0
    for handle in peer.stream(numbers, count, bound):
        total += peer.fetch(handle)
    took = perf_counter() - start
    assert total == count * (count - 1) // 2, f"{peer.name}: a stream of {count} items gave others"
    return count / took


def first_us(peer: Peer) -> float:
    """From the call until its only item is here, the best of ten."""
    times = []
    for _ in range(10):
        start = perf_counter()
        for handle in peer.stream(numbers, 1, None):
            peer.fetch(handle)
            times.append(perf_counter() - start)
    return 1e6 * min(times)


WORKLOAD = Workload(
    name="streaming",
    title="100,000 small items of one generator (others: 5,000)",
    figures=(
        Figure("items_per_s", lower=False, digits=0),
        Figure("bounded_per_s", lower=False, digits=0),
        Figure("first_us"),
    ),
    run=run,
    needs=frozenset({Feature.STREAMS}),
    targets=(Target("items_per_s", 5.0, "ray"), Target("bounded_per_s", 1.0, "ray")),
)
