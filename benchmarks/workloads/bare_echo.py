"""The bare pyzmq echo by itself: one at a time, and pipelined."""

from __future__ import annotations

from benchmarks.echo import ECHO_BYTES, echo_many, echo_socket
from benchmarks.measure import latencies, latency_figures, rate
from benchmarks.workloads.base import Context, Figure, Figures, Workload


def one_at_a_time(context: Context) -> Figures:
    """Latency of the echo in the caller's own thread: the floor of the call latencies."""
    payload = bytes(ECHO_BYTES)
    with echo_socket() as dealer:

        def once() -> None:
            dealer.send(payload)
            dealer.recv()

        latencies(once, 0.2, 500)
        return latency_figures(latencies(once, context.seconds, 20_000))


def floor(context: Context) -> Figures:
    """Latency and pipelined rate."""
    figures = dict(one_at_a_time(context))
    with echo_socket() as dealer:
        figures["per_s"] = rate(lambda count: echo_many(dealer, count), context.seconds)
    return figures


WORKLOAD = Workload(
    name="bare_echo",
    title="bare pyzmq DEALER/ROUTER echo of 200 bytes over ipc, two processes",
    figures=(Figure("p50_us"), Figure("p99_us"), Figure("per_s", lower=False, digits=0)),
    run=None,
    floor=floor,
    max_rounds=3,
)
