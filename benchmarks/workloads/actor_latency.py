"""A call of an actor's method, one at a time."""

from __future__ import annotations

from benchmarks.measure import latency_figures
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.bare_echo import one_at_a_time
from benchmarks.workloads.base import Context, Figure, Figures, Target, Workload, warm


def run(peer: Peer, context: Context) -> Figures:
    """p50 and p99 of one call."""
    (call,) = peer.actors(1)
    warm(peer, call)
    return latency_figures(peer.time_calls(call, context.seconds, 10_000))


WORKLOAD = Workload(
    name="actor_latency",
    title="actor call, one at a time (bare: 200-byte echo)",
    figures=(Figure("p50_us"), Figure("p99_us")),
    run=run,
    needs=frozenset({Feature.ACTORS}),
    floor=one_at_a_time,
    targets=(Target("p50_us", 1.5, "bare"),),
)
