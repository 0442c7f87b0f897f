"""A tree reduction: leaves made by tasks, added in pairs by tasks, until one is left."""

from __future__ import annotations

from benchmarks.jobs import add, increment
from benchmarks.measure import rate
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import Context, Figure, Figures, Target, Workload


def run(peer: Peer, context: Context) -> Figures:
    """Leaves per second; a tree of n leaves is 2n - 1 tasks."""
    leaf, pair = peer.task(increment), peer.task(add)

    def tree(leaves: int) -> None:
        level = [leaf(index) for index in range(leaves)]
        while len(level) > 1:
            odd = level[-1:] if len(level) % 2 else []
            level = [pair(left, right) for left, right in zip(level[::2], level[1::2], strict=False)] + odd
        expected = leaves * (leaves + 1) // 2
        assert peer.fetch(level[0]) == expected, f"{peer.name}: a tree of {leaves} leaves added up wrong"

    tree(16)
    return {"leaves_per_s": rate(tree, context.seconds, start=32, at_most=20_000)}


WORKLOAD = Workload(
    name="tree_reduce",
    title="tree reduction, leaves per second",
    figures=(Figure("leaves_per_s", lower=False, digits=0),),
    run=run,
    needs=frozenset({Feature.TASKS, Feature.REFS}),
    targets=(Target("leaves_per_s", 20, "ray"),),
)
