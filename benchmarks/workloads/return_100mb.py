"""A worker returns a 100 MB array to the driver."""

from __future__ import annotations

from benchmarks.jobs import kept_array, prepare_array, size_of
from benchmarks.measure import median, timed
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import MB, Context, Figure, Figures, Target, Workload

SIZE = 100 * MB
REPEATS = 6


def run(peer: Peer, context: Context) -> Figures:
    """Seconds from submit to the array in the driver: the first (cold) and the median of the later ones (warm).

    The workers have made their arrays before: only returning is timed. Looks at both ends, not at every page.
    """
    del context
    prepare, call = peer.task(prepare_array), peer.task(kept_array)
    assert set(peer.fetch_all([prepare(SIZE, 0.1) for _ in range(4)])) == {SIZE}

    def once() -> None:
        assert size_of(peer.fetch(call(SIZE))) == SIZE, f"{peer.name}: the array came back changed"

    cold, *warm = [timed(once) for _ in range(1 + REPEATS)]
    return {"warm_s": median(warm), "cold_s": cold}


WORKLOAD = Workload(
    name="return_100mb",
    title="worker returns 100 MB to the driver",
    figures=(Figure("warm_s", digits=4), Figure("cold_s", digits=4)),
    run=run,
    needs=frozenset({Feature.TASKS}),
    targets=(Target("warm_s", 1.0, "ray"), Target("warm_s", 1.0, "dask")),
    close_race=True,
)
