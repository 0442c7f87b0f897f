"""Direct against central: 100 tasks on three nodes that share one argument of 5 MB (requirement D22).

Direct, it is stored once and passed as a ref: each node fetches it once. Central, as where a coordinator passes all
values, the driver sends it along with each call.
"""

from __future__ import annotations

from time import perf_counter

from benchmarks.jobs import make_array, size_of
from benchmarks.peers.base import Feature, Handle, Peer
from benchmarks.workloads.base import MB, Context, Figure, Figures, Target, Workload

SIZE = 5 * MB
TASKS = 100
NODES = 3
STORE_BYTES = 1 << 30


def run(peer: Peer, context: Context) -> Figures:
    """Seconds and MB sent by the driver's node, both ways, and how many times fewer bytes go directly."""
    del context
    peer.start_nodes(1 + NODES, STORE_BYTES)
    try:
        calls = [peer.far_task(size_of, 1 + number % NODES) for number in range(TASKS)]
        peer.fetch_all([call(make_array(8)) for call in calls[:NODES]])  # workers start, definitions travel
        array = make_array(SIZE)
        figures: dict[str, float] = {}
        for way in ("direct", "central"):
            sent = peer.sent_bytes()
            before = perf_counter()
            argument: Handle = peer.put(array) if way == "direct" else array
            sizes = peer.fetch_all([call(argument) for call in calls])
            figures[f"{way}_s"] = perf_counter() - before
            assert sizes == [SIZE] * TASKS, f"{peer.name}: the array came over changed"
            after = peer.sent_bytes()
            if sent is not None and after is not None:
                figures[f"{way}_mb"] = (after - sent) / MB
            del argument
        if "direct_mb" in figures:
            figures["times_fewer"] = figures["central_mb"] / figures["direct_mb"]
    finally:
        peer.stop()
    return figures


WORKLOAD = Workload(
    name="central",
    title="100 tasks with a shared 5 MB argument on 3 nodes: a ref (direct), or the value with each call (central)",
    figures=(
        Figure("direct_s", digits=3),
        Figure("central_s", digits=3),
        Figure("direct_mb", digits=1),
        Figure("central_mb", digits=1),
        Figure("times_fewer", lower=False, digits=1),
    ),
    run=run,
    needs=frozenset({Feature.NODES, Feature.PUT}),
    targets=(Target("times_fewer", 10.0),),
    self_started=True,
    max_rounds=2,
)
