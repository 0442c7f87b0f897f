"""What a call between machines costs without a framework: an echo behind two relays, one at a time."""

from __future__ import annotations

from benchmarks.echo import ECHO_BYTES
from benchmarks.measure import latencies, latency_figures
from benchmarks.relay import relayed_socket
from benchmarks.workloads.base import Context, Figure, Figures, Workload


def floor(context: Context) -> Figures:
    """Latency of an echo of 200 bytes that goes by two other processes each way, in the caller's own thread."""
    payload = bytes(ECHO_BYTES)
    with relayed_socket() as dealer:

        def once() -> None:
            dealer.send(payload)
            dealer.recv()

        latencies(once, 0.2, 500)
        return latency_figures(latencies(once, context.seconds, 20_000))


WORKLOAD = Workload(
    name="bare_relay",
    title="bare pyzmq echo of 200 bytes over ipc, tcp under CURVE, and ipc: two relays, four processes",
    figures=(Figure("p50_us"), Figure("p99_us")),
    run=None,
    floor=floor,
    max_rounds=3,
)
