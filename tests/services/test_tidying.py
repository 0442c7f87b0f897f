"""Idle workers give back the memory that tasks have freed (core-api C31)."""

from __future__ import annotations

import builtins
import os

import psutil

import zmreg
from tests.processes.drivers import eventually
from zmreg.model.messages import TidyUp
from zmreg.services.worker.tidying import IDLE_S, Tidying

MIB = 1 << 20


def test_C31_a_worker_is_told_once_for_each_time_that_it_is_idle() -> None:
    told: list[bytes] = []
    tidying = Tidying(lambda worker, message: told.append(worker))
    tidying.tick(10.0, {b"a": 9.9, b"b": 9.5})
    assert told == []
    tidying.tick(9.5 + IDLE_S, {b"a": 9.9, b"b": 9.5})
    assert told == [b"b"]
    tidying.tick(20.0, {b"a": 9.9, b"b": 9.5})
    tidying.tick(30.0, {b"a": 9.9, b"b": 9.5})
    assert told == [b"b", b"a"]
    tidying.tick(30.0, {b"b": 9.5})  # `a` has work
    tidying.tick(40.0, {b"a": 35.0, b"b": 9.5})
    assert told == [b"b", b"a", b"a"]
    assert TidyUp() == TidyUp()


@zmreg.remote
def takes_and_frees() -> int:
    """Most of 200 MB, with something behind it that stays."""
    taken = [bytes(60_000) for _ in range(3_500)]
    builtins.kept_by_test = taken[::500]  # type: ignore[attr-defined]
    return os.getpid()


def test_C31_what_tasks_have_freed_goes_back_to_the_system() -> None:
    with zmreg.init(num_cpus=1):
        process = psutil.Process(takes_and_frees.remote().get(timeout=30))
        assert process.memory_info().rss > 150 * MIB, "the allocator gives it back by itself: this test shows nothing"
        eventually(lambda: process.memory_info().rss < 100 * MIB, 20, "the memory is still taken")
