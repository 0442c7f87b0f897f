"""200 puts of 100 MB through a store of 1 GB, each dropped before the next: memory must stay flat."""

from __future__ import annotations

from time import perf_counter

from benchmarks.jobs import make_array
from benchmarks.memory import memory_of
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import MB, Context, Figure, Figures, Target, Workload

SIZE = 100 * MB
STORE = 1_000 * MB
PUTS = 200
# The store's pages are all touched after so many puts; growth is counted from there.
SETTLED_AFTER = 20
BUDGET_S = 15.0


def run(peer: Peer, context: Context) -> Figures:
    """Growth and peak of the PSS of all processes, in MB, and GB/s; `puts` says how many fitted into the time."""
    array = make_array(SIZE)
    samples: list[float] = []
    done = 0
    seconds = 0.0
    while done < PUTS and (seconds < BUDGET_S or done < 2 * SETTLED_AFTER):
        before = perf_counter()
        for _ in range(SETTLED_AFTER):
            handle = peer.put(array)
            del handle
        seconds += perf_counter() - before
        done += SETTLED_AFTER
        samples.append(memory_of(context.cluster_pids()).pss_bytes / MB)
    return {
        "growth_mb": samples[-1] - samples[0],
        "peak_mb": max(samples),
        "puts": float(done),
        "gb_per_s": done * SIZE / seconds / 1e9,
    }


WORKLOAD = Workload(
    name="put_flat",
    title=f"{PUTS} puts of 100 MB on a 1 GB store: growth of memory after the first {SETTLED_AFTER}",
    figures=(
        Figure("growth_mb"),
        Figure("peak_mb", digits=0),
        Figure("puts", lower=False, digits=0),
        Figure("gb_per_s", lower=False, digits=2),
    ),
    run=run,
    needs=frozenset({Feature.PUT}),
    targets=(Target("growth_mb", 20), Target("puts", PUTS)),
    store_bytes=STORE,
    max_rounds=1,
    timeout_s=90.0,
)
