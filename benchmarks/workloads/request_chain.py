"""A chain of 1,000 steps over two nodes, handed over as one graph; and the same chain made call by call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

from benchmarks.jobs import increment
from benchmarks.peers.base import Call, Feature, GraphStep, Peer
from benchmarks.workloads.base import Context, Figure, Figures, Target, Workload

STEPS = 1_000
QUICK_STEPS = 100


def steps_of(count: int) -> list[GraphStep]:
    """Each takes the value of the one before."""
    rest: list[GraphStep] = [(f"step{number}", increment, (f"step{number - 1}",), None) for number in range(1, count)]
    return [("step0", increment, (0,), None), *rest]


def by_hand(peer: Peer, call: Call, count: int) -> list[object]:
    """The same without a graph."""
    handle = call(0)
    for _ in range(count - 1):
        handle = call(handle)
    return [peer.fetch(handle)]


def measure(
    peer: Peer,
    context: Context,
    steps_of: Callable[[int], Sequence[GraphStep]],
    by_hand: Callable[[Peer, Call, int], list[object]],
) -> Figures:
    """Steps per second both ways, in turn, from the steps written down to all values; the best of each."""
    count = QUICK_STEPS if context.quick else STEPS
    steps = steps_of(count)
    peer.start_nodes(2)
    try:
        peer.serve([increment], [0, 1])
        call = peer.task(increment)
        expected = by_hand(peer, call, count)
        ways: dict[str, Callable[[], list[object]]] = {
            "steps_per_s": lambda: peer.graph(steps),
            "by_hand_per_s": lambda: by_hand(peer, call, count),
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        end = perf_counter() + 2 * context.seconds
        while len(took["steps_per_s"]) < 2 or perf_counter() < end:
            for name, way in ways.items():
                before = perf_counter()
                values = way()
                took[name].append(perf_counter() - before)
                assert values == expected, f"{peer.name}: {name} gave other values"
    finally:
        peer.stop()
    return {name: count / min(each) for name, each in took.items()}


def run(peer: Peer, context: Context) -> Figures:
    """See `measure`."""
    return measure(peer, context, steps_of, by_hand)


FIGURES = (Figure("steps_per_s", lower=False, digits=0), Figure("by_hand_per_s", lower=False, digits=0))
WORKLOAD = Workload(
    name="request_chain",
    title="chain of 1,000 steps over two nodes as one graph (by_hand: call by call), steps per second, best of a run",
    figures=FIGURES,
    run=run,
    needs=frozenset({Feature.NODES, Feature.GRAPHS}),
    targets=(Target("steps_per_s", 2.0, "ray"), Target("steps_per_s", 2.0, "dask")),
    self_started=True,
    timeout_s=240.0,
)
