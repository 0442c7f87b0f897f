"""Values of 20 MB that go from node to node within a graph: what of it passes by the node of the program that asked."""

from __future__ import annotations

from time import perf_counter

from benchmarks.jobs import changed_array, make_array, size_of
from benchmarks.peers.base import Feature, GraphStep, Peer
from benchmarks.workloads.base import MB, Context, Figure, Figures, Target, Workload

SIZE = 20 * MB
NODES = 3
STORE_BYTES = 1 << 30


def steps_of(size: int) -> list[GraphStep]:
    """Made on node 1, changed on 2, then on 3, looked at on 1 again: three journeys."""
    return [
        ("made", make_array, (size,), 1),
        ("once", changed_array, ("made",), 2),
        ("twice", changed_array, ("once",), 3),
        ("size", size_of, ("twice",), 1),
    ]


def run(peer: Peer, context: Context) -> Figures:
    """Seconds of one such graph when all is warm, and MB that the asking program's node has sent and received."""
    peer.start_nodes(1 + NODES, STORE_BYTES)
    try:
        peer.serve([make_array, changed_array, size_of], range(1, 1 + NODES))
        assert peer.graph(steps_of(8_000)) == [8_000]  # workers start, definitions travel
        seconds: list[float] = []
        before = _passed(peer)
        end = perf_counter() + context.seconds
        while len(seconds) < 2 or perf_counter() < end:
            began = perf_counter()
            sizes = peer.graph(steps_of(SIZE))
            seconds.append(perf_counter() - began)
            assert sizes == [SIZE], f"{peer.name}: the array came over changed"
        after = _passed(peer)
    finally:
        peer.stop()
    figures = {"seconds": min(seconds)}
    if before is not None and after is not None:
        figures["coordinator_mb"] = (after - before) / len(seconds) / MB
    return figures


def _passed(peer: Peer) -> float | None:
    sent, received = peer.sent_bytes(), peer.received_bytes()
    return None if sent is None or received is None else sent + received


WORKLOAD = Workload(
    name="request_bytes",
    title="a graph that takes 20 MB over three nodes, and what of it passes by the node that asked",
    figures=(Figure("seconds", digits=3), Figure("coordinator_mb", digits=3)),
    run=run,
    needs=frozenset({Feature.NODES, Feature.GRAPHS}),
    targets=(Target("coordinator_mb", 1.0), Target("seconds", 1.0, "ray"), Target("seconds", 1.0, "dask")),
    self_started=True,
    timeout_s=120.0,
)
