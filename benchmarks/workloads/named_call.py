"""A call by name, one at a time, beside a task and an actor call of the same cluster: on our node, and on another."""

from __future__ import annotations

from benchmarks.jobs import increment, noop
from benchmarks.measure import latencies, percentile
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.bare_echo import one_at_a_time
from benchmarks.workloads.base import Context, Figure, Figures, Target, Workload

# Each kind is timed in so many turns, one after the other: a ratio must not be made of two different minutes.
TURNS = 4


def run(peer: Peer, context: Context) -> Figures:
    """Medians of each kind, p99 of the near call by name, and how many actor calls a call by name takes."""
    peer.start_nodes(2)
    try:
        peer.serve([noop, increment], [0, 1])
        near_task, near_actor, far_task, far_actor = (
            peer.task(noop),
            peer.actors(1)[0],
            peer.far_task(noop),
            peer.far_actor(),
        )
        calls = {
            "p50_us": peer.named(noop, 0),
            "task_p50_us": lambda: peer.fetch(near_task()),
            "actor_p50_us": lambda: peer.fetch(near_actor()),
            "far_p50_us": peer.named(noop, 1),
            "far_task_p50_us": lambda: peer.fetch(far_task()),
            "far_actor_p50_us": lambda: peer.fetch(far_actor()),
        }
        samples: dict[str, list[float]] = {name: [] for name in calls}
        for call in calls.values():
            latencies(call, 0.3, 200)  # workers start, definitions and connections settle
        for _ in range(TURNS):
            for name, call in calls.items():
                samples[name] += latencies(call, context.seconds / TURNS, 10_000)
    finally:
        peer.stop()
    figures = {name: percentile(each, 0.5) for name, each in samples.items()}
    figures["p99_us"] = percentile(samples["p50_us"], 0.99)
    figures["x_actor"] = figures["p50_us"] / figures["actor_p50_us"]
    figures["far_x_actor"] = figures["far_p50_us"] / figures["far_actor_p50_us"]
    return figures


WORKLOAD = Workload(
    name="named_call",
    title="call of a named function, one at a time, beside a task and an actor call (bare: 200-byte echo)",
    figures=(
        Figure("p50_us"),
        Figure("p99_us"),
        Figure("task_p50_us"),
        Figure("actor_p50_us"),
        Figure("far_p50_us"),
        Figure("far_task_p50_us"),
        Figure("far_actor_p50_us"),
        Figure("x_actor", digits=2),
        Figure("far_x_actor", digits=2),
    ),
    run=run,
    needs=frozenset({Feature.NODES, Feature.NAMES}),
    floor=one_at_a_time,
    targets=(Target("p50_us", 3.0, "bare"), Target("x_actor", 1.5), Target("far_x_actor", 1.25)),
    self_started=True,
)
