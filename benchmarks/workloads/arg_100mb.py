"""A 100 MB array passed to a task as a plain argument."""

from __future__ import annotations

from benchmarks.jobs import make_array, size_of
from benchmarks.measure import median, timed
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import MB, Context, Figure, Figures, Target, Workload, warm

SIZE = 100 * MB
REPEATS = 5


def run(peer: Peer, context: Context) -> Figures:
    """Seconds from submit to the task's answer: the first (cold) and the median of the later ones (warm)."""
    del context
    array = make_array(SIZE)
    call = peer.task(size_of)
    small = array[:16].copy()
    warm(peer, lambda: call(small))

    def once() -> None:
        assert peer.fetch(call(array)) == SIZE, f"{peer.name}: the task saw another array"

    cold, *later = [timed(once) for _ in range(1 + REPEATS)]
    return {"warm_s": median(later), "cold_s": cold}


WORKLOAD = Workload(
    name="arg_100mb",
    title="100 MB as a plain argument",
    figures=(Figure("warm_s", digits=4), Figure("cold_s", digits=4)),
    run=run,
    needs=frozenset({Feature.TASKS}),
    targets=(Target("warm_s", 1.0, "ray"), Target("warm_s", 1.0, "dask")),
    close_race=True,
)
