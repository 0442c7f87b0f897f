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
