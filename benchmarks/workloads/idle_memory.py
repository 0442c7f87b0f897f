"""Memory of an idle worker process that has run a no-op: PSS and USS."""

from __future__ import annotations

import time

from benchmarks.jobs import pid_after
from benchmarks.memory import memory_of
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import MB, Context, Figure, Figures, Workload

WORKERS = 2
SETTLE_S = 0.5
TRIES = 20


def worker_pids(peer: Peer) -> set[int]:
    """The process ids of the workers, asked from tasks. Raises RuntimeError when only some of them ever answer."""
    call = peer.task(pid_after)
    pids: set[int] = set()
    for _ in range(TRIES):
        pids.update(peer.fetch_all([call(0.05) for _ in range(2 * WORKERS)]))
        if len(pids) >= WORKERS:
            return pids
    raise RuntimeError(f"{peer.name}: only {len(pids)} of {WORKERS} workers took tasks in {TRIES} tries")


def run(peer: Peer, context: Context) -> Figures:
    """MB per worker, the mean of the workers."""
    del context
    pids = worker_pids(peer)
    time.sleep(SETTLE_S)
    memory = memory_of(pids)
    return {"uss_mb": memory.uss_bytes / MB / len(pids), "pss_mb": memory.pss_bytes / MB / len(pids)}


WORKLOAD = Workload(
    name="idle_memory",
    title="memory per idle worker",
    figures=(Figure("uss_mb", digits=2), Figure("pss_mb", digits=2)),
    run=run,
    needs=frozenset({Feature.TASKS}),
    workers=WORKERS,
    max_rounds=2,
)
