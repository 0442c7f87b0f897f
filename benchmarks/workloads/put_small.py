"""`put` of an int."""

from __future__ import annotations

from benchmarks.measure import rate
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import Context, Figure, Figures, Target, Workload


def run(peer: Peer, context: Context) -> Figures:
    """Puts per second; the handles of a batch are kept until it ends."""

    def batch(count: int) -> None:
        put = peer.put
        handles = [put(index) for index in range(count)]
        assert peer.fetch(handles[-1]) == count - 1

    batch(16)
    return {"per_s": rate(batch, context.seconds)}


WORKLOAD = Workload(
    name="put_small",
    title="put of an int, per second",
    figures=(Figure("per_s", lower=False, digits=0),),
    run=run,
    needs=frozenset({Feature.PUT}),
    targets=(Target("per_s", 50, "ray"),),
)
