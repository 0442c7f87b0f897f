"""No-op tasks as fast as one owner can submit and fetch them, on two workers."""

from __future__ import annotations

from benchmarks.jobs import noop
from benchmarks.measure import rate
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import Context, Figure, Figures, Target, Workload, warm


def run(peer: Peer, context: Context) -> Figures:
    """Tasks per second: all submitted, then all fetched."""
    call = peer.task(noop)
    warm(peer, call)
    return {"per_s": rate(lambda count: peer.run_calls([call], count), context.seconds)}


WORKLOAD = Workload(
    name="task_throughput",
    title="no-op tasks per second, one owner, 2 workers",
    figures=(Figure("per_s", lower=False, digits=0),),
    run=run,
    needs=frozenset({Feature.TASKS}),
    targets=(Target("per_s", 20, "ray"), Target("per_s", 2, "processpool")),
)
