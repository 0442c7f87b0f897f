"""Cancelling calls of actors: queued, running, threaded, async, too early (core-api rows 25, C15, C16)."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

import zmreg
from zmreg import errors

pytestmark = pytest.mark.usefixtures("cluster")


@zmreg.remote
class Plain:
    def __init__(self):
        self.calls = 0

    def blocks(self, path):
        Path(path, "running").touch()
        while not os.path.exists(path + "/go"):
            time.sleep(0.002)
        self.calls += 1
        return zmreg.cancelled(), zmreg.get_runtime_context().is_canceled()

    def until_told(self, path):
        Path(path, "running").touch()
        while not zmreg.cancelled():
            time.sleep(0.002)
        return zmreg.get_runtime_context().is_canceled()

    def count(self):
        self.calls += 1
        return self.calls

    def pid(self):
        return os.getpid()


@zmreg.remote(max_concurrency=4)
class Threaded:
    def until_cancelled(self, path):
        Path(path).touch()
        while not zmreg.cancelled():
            time.sleep(0.002)
        return "saw it"

    def pid(self):
        return os.getpid()


@zmreg.remote
class Async:
    async def sleeps(self, path):
        import asyncio

        Path(path).touch()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            Path(path + ".told").touch()
            raise

    async def asks(self):
        return zmreg.cancelled()

    async def pid(self):
        return os.getpid()


def appears(path):
    deadline = time.monotonic() + 20
    while not os.path.exists(path):
        assert time.monotonic() < deadline, f"{path} was never made"
        threading.Event().wait(0.005)


def test_row25_a_queued_call_is_dropped(tmp_path):
    actor = Plain.remote()
    first = actor.blocks.remote(str(tmp_path))
    appears(tmp_path / "running")
    queued = [actor.count.remote() for _ in range(3)]
    queued[1].cancel()
    with pytest.raises(errors.TaskCancelledError):
        queued[1].get(timeout=20)
    (tmp_path / "go").touch()
    assert first.get(timeout=20) == (False, False)
    assert [queued[0].get(timeout=20), queued[2].get(timeout=20)] == [2, 3]


def test_row25_a_running_sync_call_is_told_and_not_interrupted(tmp_path):
    actor = Plain.remote()
    before = actor.pid.remote().get(timeout=20)
    ref = actor.until_told.remote(str(tmp_path))
    appears(tmp_path / "running")
    ref.cancel()
    assert ref.get(timeout=20) is True
    assert actor.pid.remote().get(timeout=20) == before
    assert actor.count.remote().get(timeout=20) == 1


def test_row25_C16_a_running_threaded_call_sees_the_flag_and_its_neighbour_does_not(tmp_path):
    actor = Threaded.remote()
    pid = actor.pid.remote().get(timeout=20)
    one, two = (actor.until_cancelled.remote(str(tmp_path / name)) for name in "ab")
    appears(tmp_path / "a")
    appears(tmp_path / "b")
    one.cancel()
    assert one.get(timeout=20) == "saw it"
    assert not two.done()
    two.cancel()
    assert two.get(timeout=20) == "saw it"
    assert actor.pid.remote().get(timeout=20) == pid


def test_row25_an_async_call_gets_cancelled_error(tmp_path):
    actor = Async.remote()
    pid = actor.pid.remote().get(timeout=20)
    ref = actor.sleeps.remote(str(tmp_path / "a"))
    appears(tmp_path / "a")
    ref.cancel()
    with pytest.raises(errors.TaskCancelledError):
        ref.get(timeout=20)
    appears(str(tmp_path / "a") + ".told")
    assert actor.pid.remote().get(timeout=20) == pid


def test_row25_C15_a_cancellation_right_after_the_call_is_never_lost(tmp_path):
    """It may come before the coroutine, or even the actor, exists."""
    actor = Async.remote()
    refs = [actor.sleeps.remote(str(tmp_path / str(n))) for n in range(50)]
    for ref in refs:
        ref.cancel()
    for ref in refs:
        with pytest.raises(errors.TaskCancelledError):
            ref.get(timeout=20)
    for n in range(50):
        ref = actor.sleeps.remote(str(tmp_path / f"later{n}"))
        ref.cancel()
        with pytest.raises(errors.TaskCancelledError):
            ref.get(timeout=20)


def test_row25_a_finished_call_is_a_no_op():
    actor = Plain.remote()
    ref = actor.count.remote()
    assert ref.get(timeout=20) == 1
    ref.cancel()
    assert ref.get(timeout=20) == 1
    assert actor.count.remote().get(timeout=20) == 2


def test_row25_force_is_a_value_error(tmp_path):
    actor = Plain.remote()
    ref = actor.blocks.remote(str(tmp_path))
    with pytest.raises(ValueError, match="kill"):
        ref.cancel(force=True)
    with pytest.raises(ValueError, match="kill"):
        zmreg.cancel(actor.count.remote(), force=True)
    (tmp_path / "go").touch()
    assert ref.get(timeout=20) == (False, False)


def test_row25_asking_in_a_driver_or_an_async_actor_is_a_runtime_error():
    with pytest.raises(RuntimeError):
        zmreg.get_runtime_context().is_canceled()
    with pytest.raises(RuntimeError, match="CancelledError"):
        Async.remote().asks.remote().get(timeout=20)


def test_row25_cancelling_an_actor_is_a_type_error():
    with pytest.raises(TypeError, match="kill"):
        zmreg.cancel(Plain.remote())


def test_row25_a_call_that_waits_for_its_input_and_those_behind_it(tmp_path):
    @zmreg.remote(num_cpus=0)
    def slow(path):
        while not os.path.exists(path + "/go"):
            time.sleep(0.002)
        return path

    actor = Plain.remote()
    waiting = actor.blocks.remote(slow.remote(str(tmp_path)))
    behind = actor.count.remote()
    waiting.cancel()
    with pytest.raises(errors.TaskCancelledError):
        waiting.get(timeout=20)
    assert behind.get(timeout=20) == 1
    (tmp_path / "go").touch()


def test_row25_recursive_reaches_the_tasks_of_an_async_call(tmp_path):
    @zmreg.remote
    def sleeps(path):
        Path(path).touch()
        time.sleep(30)

    @zmreg.remote
    class Parent:
        async def run(self, path):
            return await sleeps.remote(path)

    @zmreg.remote(num_cpus=2)
    def all_free():
        return True

    actor = Parent.remote()
    ref = actor.run.remote(str(tmp_path / "a"))
    appears(tmp_path / "a")
    ref.cancel()
    with pytest.raises(errors.TaskCancelledError):
        ref.get(timeout=20)
    assert all_free.remote().get(timeout=20)
