"""Twenty threads of one driver, each calling a no-op task one at a time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

from benchmarks.jobs import noop
from benchmarks.measure import latency_figures
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import Context, Figure, Figures, Workload, warm

THREADS = 20


def run(peer: Peer, context: Context) -> Figures:
    """Calls per second of all threads together, and the latencies each of them saw."""
    call = peer.task(noop)
    warm(peer, call)
    gate = threading.Barrier(THREADS + 1)

    def caller() -> list[float]:
        gate.wait()
        return peer.time_calls(call, context.seconds, 1_000_000)

    with ThreadPoolExecutor(THREADS) as threads:
        callers = [threads.submit(caller) for _ in range(THREADS)]
        gate.wait()
        before = perf_counter()
        samples = [sample for each in callers for sample in each.result()]
        elapsed = perf_counter() - before
    return {"per_s": len(samples) / elapsed, **latency_figures(samples)}


WORKLOAD = Workload(
    name="caller_threads",
    title=f"no-op task, one at a time in each of {THREADS} threads",
    figures=(Figure("per_s", lower=False, digits=0), Figure("p50_us"), Figure("p99_us")),
    run=run,
    needs=frozenset({Feature.TASKS}),
    max_rounds=2,
)
