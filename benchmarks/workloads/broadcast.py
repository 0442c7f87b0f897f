"""One object of 1 GB to four other nodes at once: how long until each has it, and what its origin has sent."""

from __future__ import annotations

from time import perf_counter

from benchmarks.jobs import make_array, size_of
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import MB, Context, Figure, Figures, Target, Workload

SIZE = 1_000 * MB
QUICK_SIZE = 100 * MB
NODES = 4


def run(peer: Peer, context: Context) -> Figures:
    """Seconds until a task on each of the nodes has looked at it, and how often over its origin has sent it."""
    size = QUICK_SIZE if context.quick else SIZE
    peer.start_nodes(1 + NODES, size + size // 3)
    try:
        calls = [peer.far_task(size_of, number) for number in range(1, 1 + NODES)]
        peer.fetch_all([call(make_array(8)) for call in calls])  # workers start, definitions travel
        handle = peer.put(make_array(size))
        sent = peer.sent_bytes()
        before = perf_counter()
        sizes = peer.fetch_all([call(handle) for call in calls])
        figures = {"seconds": perf_counter() - before}
        assert sizes == [size] * NODES, f"{peer.name}: the array came over changed"
        after = peer.sent_bytes()
        if sent is not None and after is not None:
            figures["sent_times"] = (after - sent) / size
    finally:
        peer.stop()
    return figures


WORKLOAD = Workload(
    name="broadcast",
    title="1 GB to 4 nodes at once, fresh memory (sent_times: how often over its origin sent it)",
    figures=(Figure("seconds", digits=2), Figure("sent_times", digits=2)),
    run=run,
    needs=frozenset({Feature.NODES, Feature.PUT}),
    targets=(Target("sent_times", 2.1), Target("seconds", 1.0, "ray"), Target("seconds", 1.0, "dask")),
    self_started=True,
    max_rounds=2,
    timeout_s=120.0,
)
