"""One 100 MB object to 20 tasks."""

from __future__ import annotations

from benchmarks.jobs import make_array, size_of
from benchmarks.measure import median, timed
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import MB, Context, Figure, Figures, Target, Workload, warm

SIZE = 100 * MB
TASKS = 20
REPEATS = 4


def run(peer: Peer, context: Context) -> Figures:
    """Seconds for the 20 tasks, the put not counted; a fresh object each time, so no copy is left in the workers."""
    del context
    array = make_array(SIZE)
    call = peer.task(size_of)
    small = array[:16].copy()
    warm(peer, lambda: call(small))

    def measure() -> float:
        handle = peer.put(array)
        seconds = timed(lambda: peer.fetch_all([call(handle) for _ in range(TASKS)]))
        assert peer.fetch(call(handle)) == SIZE
        return seconds

    cold, *later = [measure() for _ in range(1 + REPEATS)]
    return {"warm_s": median(later), "cold_s": cold}


WORKLOAD = Workload(
    name="fanout_100mb",
    title="one 100 MB object to 20 tasks",
    figures=(Figure("warm_s", digits=4), Figure("cold_s", digits=4)),
    run=run,
    needs=frozenset({Feature.TASKS, Feature.PUT, Feature.REFS}),
    targets=(Target("warm_s", 1.0, "ray"), Target("warm_s", 1.0, "dask")),
    close_race=True,
)
