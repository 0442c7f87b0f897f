"""1,000 steps that do not take each other's values, handed over as one graph; and the same made call by call."""

from __future__ import annotations

from benchmarks.jobs import increment
from benchmarks.peers.base import Call, Feature, GraphStep, Peer
from benchmarks.workloads.base import Context, Figures, Target, Workload
from benchmarks.workloads.request_chain import FIGURES, measure


def steps_of(count: int) -> list[GraphStep]:
    """Side by side."""
    return [(f"step{number}", increment, (number,), None) for number in range(count)]


def by_hand(peer: Peer, call: Call, count: int) -> list[object]:
    """The same without a graph."""
    return list(peer.fetch_all([call(number) for number in range(count)]))


def run(peer: Peer, context: Context) -> Figures:
    """As for the chain."""
    return measure(peer, context, steps_of, by_hand)


WORKLOAD = Workload(
    name="request_fanout",
    title="1,000 steps side by side on two nodes as one graph (by_hand: call by call), steps per second, best of a run",
    figures=FIGURES,
    run=run,
    needs=frozenset({Feature.NODES, Feature.GRAPHS}),
    targets=(Target("steps_per_s", 5.0, "ray"), Target("steps_per_s", 5.0, "dask")),
    self_started=True,
    timeout_s=240.0,
)
