"""100 MB fetched from one node by another, over tcp on loopback (zmreg: under CURVE)."""

from __future__ import annotations

import threading
from time import perf_counter

from benchmarks.echo import chunk_socket, chunk_transfer
from benchmarks.jobs import make_array
from benchmarks.measure import median
from benchmarks.memory import memory_of
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import MB, Context, Figure, Figures, Target, Workload

SIZE = 100 * MB
# The first is measured for memory, and the next ones still touch fresh pages of the stores.
WARM_UP = 3
REPEATS = 8
SAMPLE_EVERY_S = 0.01
# The reading side may take the object's size and 64 MiB, the sending side 64 MiB.
ADDED_MB = SIZE / MB + 2 * (64 << 20) / MB


class PeakMemory(threading.Thread):
    """Samples the PSS of all the cell's processes until told to stop; `added_mb` is the peak above the start."""

    def __init__(self, context: Context) -> None:
        super().__init__(daemon=True)
        self.pids = context.cluster_pids()
        self.before = self.peak = memory_of(self.pids).pss_bytes
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.wait(SAMPLE_EVERY_S):
            self.peak = max(self.peak, memory_of(self.pids).pss_bytes)

    def added_mb(self) -> float:
        """Stop sampling; MB above the start, the last moment included."""
        self.enough.set()
        self.join()
        return (max(self.peak, memory_of(self.pids).pss_bytes) - self.before) / MB


def run(peer: Peer, context: Context) -> Figures:
    """GB/s of fetches whose value is already made on the other node; the memory that the very first one added."""
    peer.start_nodes(2)
    try:
        call = peer.far_task(make_array)
        seconds = []
        added_mb = 0.0
        for repeat in range(WARM_UP + REPEATS):
            handle = call(SIZE)
            peer.settle(handle)
            memory = PeakMemory(context) if repeat == 0 else None
            if memory:
                memory.start()
            before = perf_counter()
            nbytes = peer.bring(handle)
            seconds.append(perf_counter() - before)
            if memory:
                added_mb = memory.added_mb()
            assert nbytes == SIZE, f"{peer.name}: the array came over changed"
            del handle
    finally:
        peer.stop()
    return {"gb_per_s": SIZE / median(seconds[WARM_UP:]) / 1e9, "added_mb": added_mb}


def floor(context: Context) -> Figures:
    """pyzmq by hand: chunks of 1 MiB, 16 on the way, under CURVE and without."""
    del context
    figures = {}
    for name, curve in (("gb_per_s", True), ("plain_gb_per_s", False)):
        with chunk_socket(curve) as dealer:
            seconds = [chunk_transfer(dealer, SIZE) for _ in range(1 + REPEATS)]
        figures[name] = SIZE / median(seconds[1:]) / 1e9
    return figures


WORKLOAD = Workload(
    name="peer_fetch",
    title=(
        "100 MB from another node, tcp loopback (bare: 1 MiB chunks under CURVE, and plain; Ray, Dask: no encryption; "
        "Dask: a worker process from another)"
    ),
    figures=(
        Figure("gb_per_s", lower=False, digits=2),
        Figure("added_mb", digits=0),
        Figure("plain_gb_per_s", lower=False, digits=2),
    ),
    run=run,
    needs=frozenset({Feature.NODES}),
    floor=floor,
    # The design's 1.2 GB/s are two thirds of what bare chunks did on that machine.
    targets=(Target("gb_per_s", 1.2), Target("gb_per_s", 0.67, "bare"), Target("added_mb", round(ADDED_MB))),
    self_started=True,
)
