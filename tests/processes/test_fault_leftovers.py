"""Faults of the table that stand between the others: late answers (25), a long pause of a replica (29), inputs (57)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import zmreg
from tests.processes.clusters import ask, states, until, until_agreed
from tests.processes.drivers import eventually
from zmreg.services.client import current
from zmreg.testing import LocalCluster
from zmreg.wire import batches

PATIENCE_S = 30.0
# Longer than the 7 s of the test of losses, and than any timeout of the registry.
PAUSE_S = 10.0


@pytest.mark.near
def test_fault25_an_answer_held_until_after_the_retry_is_dropped_and_counted(cluster: Any, tmp_path: Path):
    """The answer of the first attempt is held back, its worker killed, the task run again; then it arrives."""
    seat = current()
    held: list[tuple[bytes, list[batches.Row]]] = []
    plain: Callable[[bytes, list[batches.Row]], None] = seat.tasks.on_results

    def hold_first(worker: bytes, rows: list[batches.Row]) -> None:
        if held:
            plain(worker, rows)
        else:
            held.append((worker, rows))

    @zmreg.remote
    def attempt(path: Path) -> int:
        with path.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return os.getpid()

    late = zmreg.stats()["tasks"]["late_answers"]
    seat.tasks.on_results = hold_first  # type: ignore[method-assign]
    try:
        ref = attempt.remote(tmp_path / "log")
        eventually(lambda: held, PATIENCE_S, "no answer has come")
        first = int((tmp_path / "log").read_text())
        os.kill(first, signal.SIGKILL)
        second = ref.get(timeout=PATIENCE_S)
    finally:
        seat.tasks.on_results = plain  # type: ignore[method-assign]
    assert second != first
    assert zmreg.stats()["tasks"]["late_answers"] == late
    with seat.lock:
        plain(*held[0])
    assert zmreg.stats()["tasks"]["late_answers"] == late + 1
    assert ref.get(timeout=PATIENCE_S) == second
    assert attempt.remote(tmp_path / "log").get(timeout=PATIENCE_S) > 0


@zmreg.remote(locs={"b"}, num_cpus=0)
def churn(seconds: float) -> int:
    """Objects come and go in the store of b; returns how many."""
    kept: list[Any] = []
    count, ends = 0, time.monotonic() + seconds
    while time.monotonic() < ends:
        kept.append(zmreg.put(bytes(70_000)))
        count += 1
        if len(kept) > 50:
            del kept[:40]
    return count


@pytest.mark.timeout(150)
def test_fault29_a_subscriber_that_stands_still_for_ten_seconds_is_equal_afterwards():
    """With a longer patience than usual, so that it is not declared dead meanwhile."""
    patient = {"dead_after_s": 40.0}
    specs = [{"num_cpus": 2, **patient}, {"num_cpus": 2, "locs": {"b"}, **patient}, {"num_cpus": 1, **patient}]
    with LocalCluster(specs) as cluster:
        cluster.attach()
        late = cluster.nodes[2]
        busy = [churn.remote(PAUSE_S + 2) for _ in range(2)]
        until(lambda: ask(late, "network")["Replica"]["deltas"] > 0, "no news")
        began = time.monotonic()
        cluster.signal_node(late.node_id, signal.SIGSTOP)
        try:
            counts = zmreg.get(busy, timeout=3 * PATIENCE_S)
            assert time.monotonic() - began >= PAUSE_S
        finally:
            cluster.signal_node(late.node_id, signal.SIGCONT)
        assert sum(counts) > 1_000
        until_agreed(cluster)
        assert set(states(cluster.nodes[0]).values()) == {"ALIVE"}


def test_fault57_what_depends_on_a_failed_input_fails_with_it_down_the_chain_and_does_not_run(
    cluster: Any, tmp_path: Path
):
    @zmreg.remote
    def fails() -> None:
        raise LookupError("upstream")

    @zmreg.remote
    def after(value: object, name: str, directory: Path) -> object:
        (directory / name).touch()
        return value

    bad = fails.remote()
    chain = after.remote(bad, "one", tmp_path)
    last = after.remote(after.remote(chain, "two", tmp_path), "three", tmp_path)
    with pytest.raises(LookupError, match="upstream") as caught:
        last.get(timeout=PATIENCE_S)
    assert isinstance(caught.value, zmreg.errors.TaskError)
    assert any("was not run" in note for note in caught.value.__notes__)
    assert not list(tmp_path.iterdir())
