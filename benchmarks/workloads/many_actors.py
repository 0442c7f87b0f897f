"""1,000 actors created and each called once: or as many as time and memory allow, stated."""

from __future__ import annotations

from time import perf_counter

from benchmarks.memory import meminfo_bytes, memory_of
from benchmarks.peers.base import Call, Feature, Peer
from benchmarks.workloads.base import MB, Context, Figure, Figures, Target, Workload

ACTORS = 1_000
BATCH = 25
BUDGET_S = 30.0
# Below this the machine would start to swap or kill; other programs need some too.
MEMORY_RESERVE = 2_000 * MB


def run(peer: Peer, context: Context) -> Figures:
    """How many, how fast, and the PSS each one added, all still alive at the end."""
    wanted = 100 if context.quick else ACTORS
    budget = 10.0 if context.quick else BUDGET_S
    pss_before = memory_of(context.cluster_pids()).pss_bytes
    calls: list[Call] = []
    before = perf_counter()
    while len(calls) < wanted and perf_counter() - before < budget and meminfo_bytes("MemAvailable") > MEMORY_RESERVE:
        new = peer.actors(BATCH)
        assert peer.fetch_all([call() for call in new]) == [1] * BATCH, f"{peer.name}: a new actor did not count 1"
        calls.extend(new)
    elapsed = perf_counter() - before
    added = memory_of(context.cluster_pids()).pss_bytes - pss_before
    before = perf_counter()
    assert peer.fetch_all([call() for call in calls]) == [2] * len(calls), f"{peer.name}: an actor lost its state"
    return {
        "actors": float(len(calls)),
        "created_per_s": len(calls) / elapsed,
        "pss_mb_each": added / MB / len(calls),
        "call_all_s": perf_counter() - before,
    }


WORKLOAD = Workload(
    name="many_actors",
    title=f"{ACTORS:,} actors created and called, at most {BUDGET_S:.0f} s (xoscar, Dask: many in one process)",
    figures=(
        Figure("actors", lower=False, digits=0),
        Figure("created_per_s", lower=False),
        Figure("pss_mb_each", digits=2),
        Figure("call_all_s", digits=3),
    ),
    run=run,
    needs=frozenset({Feature.ACTORS}),
    targets=(Target("actors", ACTORS),),
    max_rounds=1,
    timeout_s=150.0,
)
