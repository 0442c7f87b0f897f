"""X16: Ctrl-C for all that a program has under way."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

import zmreg
from zmreg.model.errors import TaskCancelledError

T = 30


@zmreg.remote(max_retries=5)
def sleeper(path: str) -> None:
    with open(path, "a") as file:
        file.write(f"{os.getpid()} begun\n")
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        with open(path, "a") as file:
            file.write(f"{os.getpid()} interrupted\n")
        raise


@zmreg.remote(max_retries=5)
def parent(path: str) -> None:
    zmreg.get([sleeper.remote(path)])


@zmreg.remote
def follow(_: object) -> int:
    return 1


@zmreg.remote
class Waits:
    def __init__(self) -> None:
        self.count = 0

    def until_told(self, path: str) -> None:
        Path(path).touch()
        while not zmreg.cancelled():
            time.sleep(0.01)

    def add(self) -> int:
        self.count += 1
        return self.count


@zmreg.remote
class Async:
    async def hold(self, path: str) -> None:
        import asyncio

        Path(path).touch()
        await asyncio.sleep(600)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def until(is_so: object) -> None:
    deadline = time.monotonic() + T
    while not is_so():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


@pytest.mark.usefixtures("cluster")
def test_X16_an_interrupt_reaches_all_that_runs_and_ends_all_that_waits(tmp_path: Path):
    path, told, hung = tmp_path / "calls", tmp_path / "told", tmp_path / "hung"
    actor, loop = Waits.remote(), Async.remote()
    kept = zmreg.put(np.arange(100_000))
    assert actor.add.remote().get(timeout=T) == 1
    refs = [sleeper.remote(str(path)) for _ in range(20)] + [parent.remote(str(path))]
    listens = actor.until_told.remote(str(told))
    refs += [actor.add.remote(), loop.hold.remote(str(hung))]
    refs.append(follow.remote(refs[0]))
    until(lambda: len(lines(path)) >= 2 and told.exists() and hung.exists())
    running = {line.split()[0] for line in lines(path)}
    assert zmreg.interrupt() == len(refs) + 1
    assert listens.get(timeout=T) is None, "it was told, and has returned"
    for ref in refs:
        assert isinstance(ref.exception(timeout=T), TaskCancelledError), ref
    until(lambda: sum("interrupted" in line for line in lines(path)) == sum("begun" in line for line in lines(path)))
    assert {line.split()[0] for line in lines(path)} == running, "what was queued has run"
    assert zmreg.interrupt() == 0
    assert actor.add.remote().get(timeout=T) == 2, "actors stay, with their state"
    assert kept.get(timeout=T)[-1] == 99_999 and follow.remote(1).get(timeout=T) == 1


@pytest.mark.usefixtures("cluster")
def test_X16_with_a_grace_who_does_not_listen_is_killed(tmp_path: Path):
    @zmreg.remote(max_retries=5)
    def deaf(path: str) -> None:
        Path(path).touch()
        while True:
            try:
                time.sleep(600)
            except KeyboardInterrupt:
                continue

    path = tmp_path / "begun"
    ref = deaf.remote(str(path))
    until(path.exists)
    with pytest.raises(ValueError, match="grace=-1"):
        zmreg.interrupt(grace=-1)
    assert zmreg.interrupt(grace=0.2) == 1
    error = ref.exception(timeout=T)
    assert isinstance(error, TaskCancelledError) and error.ended_by == "kill"
