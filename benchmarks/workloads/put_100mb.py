"""`put` of a 100 MB array, against a memcpy of the same bytes."""

from __future__ import annotations

from importlib import import_module

from benchmarks.jobs import make_array
from benchmarks.measure import median, timed
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import MB, Context, Figure, Figures, Target, Workload

SIZE = 100 * MB
REPEATS = 8


def run(peer: Peer, context: Context) -> Figures:
    """GB/s of the first put (cold) and the median of the later ones (warm); each handle is dropped before the next."""
    del context
    array = make_array(SIZE)

    def once() -> None:
        handle = peer.put(array)
        del handle

    cold, *warm = [timed(once) for _ in range(1 + REPEATS)]
    return {"warm_gb_per_s": SIZE / median(warm) / 1e9, "cold_gb_per_s": SIZE / cold / 1e9}


def floor(context: Context) -> Figures:
    """memcpy into fresh pages (cold), then into pages already mapped (warm)."""
    del context
    numpy = import_module("numpy")
    array = make_array(SIZE)
    target = numpy.empty_like(array)
    cold, *warm = [timed(lambda: numpy.copyto(target, array)) for _ in range(1 + REPEATS)]
    return {"warm_gb_per_s": SIZE / median(warm) / 1e9, "cold_gb_per_s": SIZE / cold / 1e9}


WORKLOAD = Workload(
    name="put_100mb",
    title="put of 100 MB (bare: memcpy)",
    figures=(Figure("warm_gb_per_s", lower=False, digits=2), Figure("cold_gb_per_s", lower=False, digits=2)),
    run=run,
    needs=frozenset({Feature.PUT}),
    floor=floor,
    targets=(Target("warm_gb_per_s", 0.5, "bare"),),
)
