"""A chain of dependent tasks: each takes the ref of the one before."""

from __future__ import annotations

from benchmarks.jobs import increment
from benchmarks.measure import rate
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import Context, Figure, Figures, Target, Workload

# Longer chains would measure how deep a peer's bookkeeping may recurse, not how fast it hops.
LONGEST = 5_000


def run(peer: Peer, context: Context) -> Figures:
    """Hops per second of chains submitted whole, then fetched at the end."""
    call = peer.task(increment)

    def chain(hops: int) -> None:
        handle = call(0)
        for _ in range(hops - 1):
            handle = call(handle)
        assert peer.fetch(handle) == hops, f"{peer.name}: a chain of {hops} hops counted wrong"

    chain(16)
    return {"hops_per_s": rate(chain, context.seconds, start=32, at_most=LONGEST)}


WORKLOAD = Workload(
    name="chain",
    title="chain of dependent tasks, hops per second",
    figures=(Figure("hops_per_s", lower=False, digits=0),),
    run=run,
    needs=frozenset({Feature.TASKS, Feature.REFS}),
    targets=(Target("hops_per_s", 20, "ray"),),
)
