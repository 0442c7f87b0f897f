"""C33: a task that keeps killing workers stops, with what it did in the error; others go on."""

from __future__ import annotations

import os
from typing import Any

import pytest

import zmreg
from zmreg.core.tasks import QUARANTINE_AFTER


@zmreg.remote(max_retries=-1)
def poison() -> None:
    os._exit(7)


@zmreg.remote
def double(number: int) -> int:
    return number * 2


def test_c33_a_poison_task_without_end_to_its_retries_is_quarantined(cluster: Any) -> None:
    ref = poison.remote()
    others = [double.remote(number) for number in range(20)]
    assert zmreg.get(others, timeout=30) == [2 * number for number in range(20)]
    with pytest.raises(zmreg.errors.WorkerDiedError, match=f"killed {QUARANTINE_AFTER} workers") as caught:
        ref.get(timeout=50)
    assert caught.value.exit_code == 7
    assert double.remote(4).get(timeout=20) == 8


@zmreg.remote(max_retries=2)
def kill_worker() -> None:
    os._exit(9)


def test_c33_what_a_worker_had_done_before_another_task_killed_it_is_not_charged_for_that(cluster: Any) -> None:
    """Answers leave together: that of a short task may still be in the worker when the next one ends it."""
    double.remote(0).get(timeout=20)
    for _ in range(5):
        refs = [double.remote(number) for number in range(40)]
        killers = [kill_worker.remote() for _ in range(4)]
        assert zmreg.get(refs, timeout=30) == [2 * number for number in range(40)]
        for killer in killers:
            with pytest.raises(zmreg.errors.WorkerDiedError):
                killer.get(timeout=30)
