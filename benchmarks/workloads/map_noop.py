"""`map` of a no-op over 20,000 small items, with automatic chunks where the peer has them."""

from __future__ import annotations

from benchmarks.jobs import identity
from benchmarks.measure import median, timed
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import Context, Figure, Figures, Target, Workload

ITEMS = 20_000
REPEATS = 5


def run(peer: Peer, context: Context) -> Figures:
    """Items per second, the median of five maps after one untimed; wrong results raise AssertionError."""
    items = list(range(ITEMS))
    assert peer.map(identity, items) == items, f"{peer.name}: map changed or reordered the items"
    repeats = 2 if context.quick else REPEATS
    return {"items_per_s": ITEMS / median([timed(lambda: peer.map(identity, items)) for _ in range(repeats)])}


WORKLOAD = Workload(
    name="map_noop",
    title="map of a no-op over 20,000 items",
    figures=(Figure("items_per_s", lower=False, digits=0),),
    run=run,
    needs=frozenset({Feature.MAP}),
    targets=(Target("items_per_s", 1.0, "mpire"),),
)
