"""Quick calls behind one that is suddenly slow (design.md section 4, rule 3), with real workers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import zmreg

pytestmark = pytest.mark.usefixtures("cluster")


@zmreg.remote
def step(number: int, until: str = "", before: int = 0) -> int:
    while until and not Path(until).exists():
        time.sleep(0.005)
    return number


def test_rule3_a_function_that_was_quick_2000_times_and_is_slow_once_delays_no_other_call(tmp_path: Path):
    over = tmp_path / "over"
    for _ in range(3):
        zmreg.get([step.remote(number) for number in range(2000)], timeout=50)
        refs = [step.remote(number, str(over) if number == 1 else "") for number in range(10)]
        slow = refs.pop(1)
        try:
            assert sum(zmreg.get(refs, timeout=20)) == 44
            assert not slow.done()
        finally:
            over.touch()
        assert slow.get(timeout=20) == 1
        over.unlink()


def test_rule3_chains_behind_a_slow_call_go_elsewhere_as_a_whole(tmp_path: Path):
    over = tmp_path / "over"
    zmreg.get([step.remote(number) for number in range(2000)], timeout=50)
    slow = step.remote(0, str(over))
    ends = [step.remote(2, before=step.remote(1)) for _ in range(20)]
    rider = step.remote(3, before=slow)
    try:
        assert zmreg.get(ends, timeout=20) == [2] * 20
        assert not rider.done()
    finally:
        over.touch()
    assert zmreg.get([slow, rider], timeout=20) == [0, 3]
