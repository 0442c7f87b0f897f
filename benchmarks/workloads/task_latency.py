"""A no-op task, one at a time: submit, fetch, again."""

from __future__ import annotations

from benchmarks.jobs import noop
from benchmarks.measure import latency_figures
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.bare_echo import one_at_a_time
from benchmarks.workloads.base import Context, Figure, Figures, Target, Workload, warm


def run(peer: Peer, context: Context) -> Figures:
    """p50 and p99 of one call."""
    call = peer.task(noop)
    warm(peer, call)
    return latency_figures(peer.time_calls(call, context.seconds, 10_000))


WORKLOAD = Workload(
    name="task_latency",
    title="no-op task, one at a time (bare: 200-byte echo)",
    figures=(Figure("p50_us"), Figure("p99_us")),
    run=run,
    needs=frozenset({Feature.TASKS}),
    floor=one_at_a_time,
    targets=(Target("p50_us", 1.7, "bare"),),
)
