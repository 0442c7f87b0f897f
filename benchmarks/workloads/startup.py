"""From `init` to the first result, the memory of the idle cluster, and the shutdown."""

from __future__ import annotations

import time
from time import perf_counter

from benchmarks.jobs import identity, noop
from benchmarks.measure import timed
from benchmarks.memory import memory_of
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import MB, Context, Figure, Figures, Target, Workload

# Long enough for helpers started in the background to be up, so that the memory is the idle cluster's.
SETTLE_S = 1.0


def first_result(peer: Peer) -> None:
    """One result by whatever means the peer has: a task, else an actor call, else a map over both workers."""
    if Feature.TASKS in peer.features:
        peer.fetch(peer.task(noop)())
    elif Feature.ACTORS in peer.features:
        peer.fetch(peer.actors(1)[0]())
    else:
        peer.map(identity, [1, 2])


def run(peer: Peer, context: Context) -> Figures:
    """Seconds to the first result (imports not counted) and for the shutdown; PSS with the driver, in MB."""
    before = perf_counter()
    peer.start(2)
    first_result(peer)
    first = perf_counter() - before
    time.sleep(SETTLE_S)
    pids = context.cluster_pids()
    memory = memory_of(pids)
    return {
        "first_result_s": first,
        "shutdown_s": timed(peer.stop),
        "pss_mb": memory.pss_bytes / MB,
        "processes": float(len(pids)),
    }


WORKLOAD = Workload(
    name="startup",
    title="init to first result, shutdown, memory of the idle cluster (2 workers, driver included)",
    figures=(
        Figure("first_result_s", digits=3),
        Figure("shutdown_s", digits=3),
        Figure("pss_mb"),
        Figure("processes", digits=0),
    ),
    run=run,
    targets=(Target("first_result_s", 0.35), Target("shutdown_s", 0.3), Target("pss_mb", 80)),
    self_started=True,
)
