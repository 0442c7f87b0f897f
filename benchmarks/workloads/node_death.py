"""A node is killed (kill -9) while a task runs on it: until the task has run elsewhere, or its caller has been told."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from time import perf_counter

from benchmarks.jobs import forever_at_first
from benchmarks.peers.base import Feature, Handle, Peer
from benchmarks.workloads.base import Context, Figure, Figures, Target, Workload

START_TIMEOUT_S = 20.0
POLL_S = 0.002


def killed(peer: Peer, directory: str, handle: Handle) -> float:
    """Wait until the task of `handle` runs, kill its node, wait for the outcome; seconds from the kill to that."""
    started = Path(directory, "started")
    end = time.monotonic() + START_TIMEOUT_S
    while not started.exists():
        assert time.monotonic() < end, f"{peer.name}: the task has not started within {START_TIMEOUT_S:g} s"
        time.sleep(POLL_S)
    pid = int(started.read_text(encoding="ascii"))
    before = perf_counter()
    peer.kill_node(pid)
    try:
        again = peer.fetch(handle)
    except Exception:  # noqa: BLE001  each framework has an error of its own for it
        again = None
    elapsed = perf_counter() - before
    assert again != pid, f"{peer.name}: a killed worker has answered"
    if again is None:
        started.unlink()
    return elapsed


def run(peer: Peer, context: Context) -> Figures:
    """Seconds until a task that is tried again has its result, and until the caller of another one hears the error."""
    del context
    figures = {}
    peer.start_nodes(4)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-death-") as directory:
            handle = peer.far_task(forever_at_first)(directory)
            figures["again_s"] = killed(peer, directory, handle)
            assert Path(directory, "started").exists(), f"{peer.name}: the task failed instead of being tried again"
        if Feature.ONCE in peer.features:
            with tempfile.TemporaryDirectory(prefix="bench-death-") as directory:
                handle = peer.far_task(forever_at_first, retry=False)(directory)
                figures["told_s"] = killed(peer, directory, handle)
                assert not Path(directory, "started").exists(), f"{peer.name}: the task was tried again"
    finally:
        peer.stop()
    return figures


WORKLOAD = Workload(
    name="node_death",
    title="kill -9 of a node: until its task has run elsewhere, until a caller hears the error (Dask: of a worker)",
    figures=(Figure("again_s", digits=3), Figure("told_s", digits=3)),
    run=run,
    needs=frozenset({Feature.NODES}),
    targets=(Target("again_s", 1.0, "ray"), Target("told_s", 1.0, "ray")),
    self_started=True,
)
