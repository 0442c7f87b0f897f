"""One task of 1 s among 1,000 of 1 ms, the same function, on two workers."""

from __future__ import annotations

from benchmarks.jobs import sleep_for
from benchmarks.measure import median, timed
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import Context, Figure, Figures, Target, Workload, warm

SHORT_TASKS = 1_000
SHORT_S = 0.001
LONG_S = 1.0
# The long task comes when the scheduler has already learned that this function is short.
LATE_POSITION = 100


def makespan(peer: Peer, position: int) -> float:
    """Seconds for all tasks, the long one submitted at `position`."""
    durations = [SHORT_S] * SHORT_TASKS
    durations.insert(position, LONG_S)
    call = peer.task(sleep_for)
    return timed(lambda: peer.fetch_all([call(duration) for duration in durations]))


def ideal(short_s: float, position: int) -> float:
    """What two workers need that take the tasks in order, without any overhead."""
    return max(position * short_s / 2 + LONG_S, (SHORT_TASKS * short_s + LONG_S) / 2)


def run(peer: Peer, context: Context) -> Figures:
    """Makespan over the ideal, the long task first and late. The ideal uses the sleep as it really lasts here."""
    del context
    short_s = median([timed(lambda: sleep_for(SHORT_S)) for _ in range(50)])
    call = peer.task(sleep_for)
    warm(peer, lambda: call(SHORT_S))
    return {
        "late_over_ideal": makespan(peer, LATE_POSITION) / ideal(short_s, LATE_POSITION),
        "first_over_ideal": makespan(peer, 0) / ideal(short_s, 0),
    }


WORKLOAD = Workload(
    name="skew",
    title="one 1 s task among 1,000 of 1 ms on 2 workers: makespan over ideal",
    figures=(Figure("late_over_ideal", digits=3), Figure("first_over_ideal", digits=3)),
    run=run,
    needs=frozenset({Feature.TASKS}),
    targets=(Target("late_over_ideal", 1.15), Target("first_over_ideal", 1.15)),
    max_rounds=2,
)
