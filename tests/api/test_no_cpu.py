"""Calls that need no CPU: a flood of them is not a flood of processes, and those that wait for each other end."""

from __future__ import annotations

import threading
from pathlib import Path

import psutil
import pytest

import zmreg

pytestmark = pytest.mark.near
BOUND_S = 60.0
# The head and the zygote; workers that are there for calls with a CPU; two for each CPU; twice as many, should all
# stand still for half a second on a busy machine.
FEW = 2 + 2 + 8


@zmreg.remote
def many() -> list[int]:
    return list(range(20_000))


@zmreg.remote(num_cpus=0)
def deep(levels: int) -> int:
    return 1 + deep.remote(levels - 1).get() if levels else 0


@zmreg.remote(num_cpus=0)
def meets(place: str, number: int, others: int) -> int:
    """Ends when all are there, without a get that anybody knows of."""
    (Path(place) / str(number)).touch()
    while len(list(Path(place).iterdir())) < others:
        threading.Event().wait(0.01)
    return number


class Most:
    """How many processes there are below this one at most, while this goes on."""

    def __enter__(self) -> Most:
        self.found = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.found = max(self.found, len(psutil.Process().children(recursive=True)))

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def test_row_8_a_flood_of_projections_starts_few_workers(cluster: object) -> None:
    ref = many.remote()
    zmreg.wait([ref], timeout=BOUND_S)
    with Most() as most:
        assert zmreg.get([ref[number] for number in range(5_000)], timeout=BOUND_S) == list(range(5_000))
    assert 0 < most.found <= FEW


def test_row_8_calls_without_cpu_that_wait_for_each_other_end(cluster: object) -> None:
    assert zmreg.get([deep.remote(30) for _ in range(2)], timeout=BOUND_S) == [30, 30]


def test_row_8_calls_without_cpu_that_meet_in_ways_nobody_knows_of_end(cluster: object, tmp_path: Path) -> None:
    """More than are lent at first: that they stand still is enough to be lent more."""
    refs = [meets.remote(str(tmp_path), number, 20) for number in range(20)]
    assert zmreg.get(refs, timeout=BOUND_S) == list(range(20))
