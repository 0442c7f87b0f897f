"""200 graphs at once, each handed over by a thread of its own: a chain of five steps, then five that take its end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

from benchmarks.jobs import increment
from benchmarks.measure import percentile
from benchmarks.peers.base import Feature, GraphStep, Peer
from benchmarks.workloads.base import Context, Figure, Figures, Target, Workload

GRAPHS = 200
QUICK_GRAPHS = 20
LENGTH = 5


def steps_of(first: int) -> list[GraphStep]:
    """Ten steps; the ends give `first` + 6."""
    chain: list[GraphStep] = [("step0", increment, (first,), None)]
    chain += [(f"step{number}", increment, (f"step{number - 1}",), None) for number in range(1, LENGTH)]
    return chain + [(f"end{number}", increment, (f"step{LENGTH - 1}",), None) for number in range(LENGTH)]


def run(peer: Peer, context: Context) -> Figures:
    """Graphs per second, from the first that is handed over to the last that is done, and how long one takes then."""
    count = QUICK_GRAPHS if context.quick else GRAPHS
    took: list[float] = []

    def one(first: int) -> list[object]:
        before = perf_counter()
        values = peer.graph(steps_of(first))
        took.append(perf_counter() - before)
        return values

    peer.start_nodes(2)
    try:
        peer.serve([increment], [0, 1])
        with ThreadPoolExecutor(count) as threads:
            list(threads.map(one, range(count)))  # threads, workers and connections
            took.clear()
            before = perf_counter()
            values = list(threads.map(one, range(count)))
            seconds = perf_counter() - before
        assert values == [[first + LENGTH + 1] * LENGTH for first in range(count)], f"{peer.name}: other values"
    finally:
        peer.stop()
    return {
        "graphs_per_s": count / seconds,
        "p50_ms": 1e3 * percentile(took, 0.5),
        "p99_ms": 1e3 * percentile(took, 0.99),
    }


WORKLOAD = Workload(
    name="request_many",
    title="200 graphs of ten steps at once, by 200 threads, on two nodes",
    figures=(Figure("graphs_per_s", lower=False, digits=0), Figure("p50_ms"), Figure("p99_ms")),
    run=run,
    needs=frozenset({Feature.NODES, Feature.GRAPHS}),
    targets=(Target("graphs_per_s", 2.0, "ray"), Target("graphs_per_s", 2.0, "dask")),
    self_started=True,
    timeout_s=240.0,
)
