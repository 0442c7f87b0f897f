"""Actor calls as fast as one owner can make them: two actors, called in turn."""

from __future__ import annotations

from benchmarks.measure import rate
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import Context, Figure, Figures, Target, Workload, warm


def run(peer: Peer, context: Context) -> Figures:
    """Calls per second: all submitted, then all fetched."""
    calls = peer.actors(2)
    for call in calls:
        warm(peer, call)
    return {"per_s": rate(lambda count: peer.run_calls(calls, count), context.seconds)}


WORKLOAD = Workload(
    name="actor_throughput",
    title="actor calls per second, one owner, 2 actors",
    figures=(Figure("per_s", lower=False, digits=0),),
    run=run,
    needs=frozenset({Feature.ACTORS}),
    targets=(Target("per_s", 20, "ray"), Target("per_s", 5, "xoscar")),
)
