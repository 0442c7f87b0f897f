"""Four workers read one 500 MB array at the same time: how much memory that adds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.jobs import make_array, read_and_hold
from benchmarks.memory import memory_of
from benchmarks.peers.base import Feature, Handle, Peer
from benchmarks.workloads.base import MB, Context, Figure, Figures, Target, Workload

SIZE = 500 * MB
READERS = 4
WAIT_S = 40.0


def wait_for_readers(directory: Path) -> None:
    """Until all readers have read. Raises TimeoutError when some of them have not in time."""
    end = time.monotonic() + WAIT_S
    while (present := len(list(directory.glob("reader-*")))) < READERS:
        if time.monotonic() > end:
            raise TimeoutError(f"only {present} of {READERS} readers had read the array after {WAIT_S:.0f} s")
        time.sleep(0.02)


def while_held(peer: Peer, value: Handle, nbytes: int, measure: Callable[[], float]) -> float:
    """What `measure` says while all readers hold the value. Raises AssertionError when one read it wrong."""
    call = peer.task(read_and_hold)
    with tempfile.TemporaryDirectory(prefix="bench-read-") as directory:
        results = [call(value, directory, index) for index in range(READERS)]
        try:
            wait_for_readers(Path(directory))
            measured = measure()
        finally:
            Path(directory, "release").touch()
        assert peer.fetch_all(results) == [nbytes / 8] * READERS, f"{peer.name}: a reader added up wrong"
    return measured


def run(peer: Peer, context: Context) -> Figures:
    """PSS of all processes while four tasks hold the array, minus the PSS before it was made, in MB."""

    def pss_mb() -> float:
        return memory_of(context.cluster_pids()).pss_bytes / MB

    # A small array first: all four workers are up, and numpy itself is loaded, before the measurement begins.
    before = while_held(peer, make_array(800), 800, pss_mb)
    array = make_array(SIZE)
    handle = peer.put(array)
    del array
    return {"added_mb": while_held(peer, handle, SIZE, pss_mb) - before}


WORKLOAD = Workload(
    name="shared_read",
    title="four workers read one 500 MB array: memory added",
    figures=(Figure("added_mb", digits=0),),
    run=run,
    needs=frozenset({Feature.TASKS, Feature.PUT, Feature.REFS}),
    targets=(Target("added_mb", 600),),
    workers=READERS,
    max_rounds=1,
    timeout_s=90.0,
)
