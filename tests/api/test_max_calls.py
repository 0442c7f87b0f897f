"""Row 7: a worker ends after n calls of a function, its answers sent and what it owns handed on."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

import zmreg
from tests.processes.drivers import eventually

LARGE = 1 << 20


@zmreg.remote(max_calls=2)
def leaky(number: int) -> tuple[int, int]:
    return number, os.getpid()


@zmreg.remote(max_calls=1)
def owns(number: int) -> Any:
    return [zmreg.put(number)]


@zmreg.remote
def wait_for(path: str) -> str:
    while not os.path.exists(path):
        time.sleep(0.005)
    return "went"


@zmreg.remote(max_calls=1)
def leaves(path: str) -> Any:
    return os.getpid(), bytes(LARGE), [zmreg.put(bytes(LARGE)), zmreg.put(7), wait_for.remote(path)]


@zmreg.remote(max_calls=1)
def grow(number: int) -> int:
    return number + 1


def test_row7_no_process_runs_more_calls_than_allowed_and_all_are_answered(cluster: Any) -> None:
    answers = zmreg.get([leaky.remote(number) for number in range(12)], timeout=50)
    assert [number for number, _ in answers] == list(range(12))
    assert max(Counter(pid for _, pid in answers).values()) <= 2


def test_row7_what_the_worker_owned_outlives_it(cluster: Any) -> None:
    inner = owns.remote(7).get(timeout=20)[0]
    assert leaky.remote(1).get(timeout=20)[0] == 1
    assert inner.get(timeout=20) == 7


def test_row7_it_ends_when_answers_and_what_it_owns_are_in_other_hands_and_then_it_ends(
    cluster: Any, tmp_path: Path
) -> None:
    """The trap of the row: to exit before that. A large answer, values it has put, and a call of its own under way."""
    go = str(tmp_path / "go")
    pid, answer, (large, small, running) = leaves.remote(go).get(timeout=20)
    assert answer == bytes(LARGE)
    assert not zmreg.wait([running], timeout=0.1)[0], "the answer did not wait for what it had called"
    Path(go).touch()
    assert running.get(timeout=20) == "went"
    eventually(lambda: not psutil.pid_exists(pid), 20, "the worker stays")
    assert (large.get(timeout=20), small.get(timeout=20)) == (bytes(LARGE), 7)


def test_row7_chains_go_on_on_other_workers(cluster: Any) -> None:
    ref = grow.remote(0)
    for _ in range(5):
        ref = grow.remote(ref)
    assert ref.get(timeout=50) == 6


def test_row7_the_limit_belongs_to_the_function(cluster: Any) -> None:
    with pytest.raises(ValueError, match="max_calls belongs to the function"):
        leaky.options(max_calls=3)
    with pytest.raises(ValueError, match="max_calls"):
        zmreg.remote(max_calls=-1)(len)
