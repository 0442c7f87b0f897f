"""Calls of a task and of an actor on another node: one at a time, and 5,000 at once."""

from __future__ import annotations

from benchmarks.echo import ECHO_BYTES, chunk_socket
from benchmarks.jobs import noop
from benchmarks.measure import latencies, latency_figures, percentile
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import Context, Figure, Figures, Target, Workload, warm

COUNT = 5_000
QUICK_COUNT = 500


def run(peer: Peer, context: Context) -> Figures:
    """p50 and p99 of one actor call, p50 of one task, and both kinds per second when all are made first."""
    count = QUICK_COUNT if context.quick else COUNT
    peer.start_nodes(2)
    try:
        task, method = peer.far_task(noop), peer.far_actor()
        for call in (task, method):
            warm(peer, call)
        figures = latency_figures(peer.time_calls(method, context.seconds, 10_000))
        figures["task_p50_us"] = percentile(peer.time_calls(task, context.seconds, 10_000), 0.5)
        figures["per_s"] = count / peer.run_calls([method], count)
        figures["task_per_s"] = count / peer.run_calls([task], count)
    finally:
        peer.stop()
    return figures


def floor(context: Context) -> Figures:
    """A pyzmq echo over tcp under CURVE."""
    payload = bytes(ECHO_BYTES)
    with chunk_socket() as dealer:

        def once() -> None:
            dealer.send(payload)
            dealer.recv()

        latencies(once, 0.2, 500)
        return latency_figures(latencies(once, context.seconds, 20_000))


WORKLOAD = Workload(
    name="far_call",
    title=(
        "calls on another node: one at a time, and 5,000 at once (bare: 200-byte echo over tcp under CURVE; Ray, Dask: "
        "no encryption)"
    ),
    figures=(
        Figure("p50_us"),
        Figure("p99_us"),
        Figure("task_p50_us"),
        Figure("per_s", lower=False, digits=0),
        Figure("task_per_s", lower=False, digits=0),
    ),
    run=run,
    needs=frozenset({Feature.NODES}),
    floor=floor,
    targets=(Target("p50_us", 1.0, "ray"), Target("task_per_s", 20.0, "ray")),
    self_started=True,
)
