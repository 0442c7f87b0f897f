"""Answers that come too late (fault 25), and tasks whose inputs have failed (57)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import zmreg
from tests.processes.drivers import eventually
from zmreg.services.seat.client import current
from zmreg.wire import batches

PATIENCE_S = 30.0


@pytest.mark.near
def test_fault25_an_answer_held_until_after_the_retry_is_dropped_and_counted(cluster: Any, tmp_path: Path):
    """The answer of the first attempt is held back, its worker killed, the task run again; then it arrives."""
    seat = current()
    held: list[tuple[bytes, list[batches.Row], bytes]] = []
    plain: Callable[[bytes, list[batches.Row], bytes], None] = seat.tasks.on_results

    def hold_first(worker: bytes, rows: list[batches.Row], frame: bytes = b"") -> None:
        if held:
            plain(worker, rows, frame)
        else:
            held.append((worker, rows, frame))

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
