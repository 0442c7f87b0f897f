"""cancel(grace=): the flag first, then the interrupt, then the kill, and the error says which it was (core-api C14)."""

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
def sleeps(path):
    Path(path).touch()
    time.sleep(30)


@zmreg.remote
def stubborn(path):
    """Whatever it is told, it goes on."""
    Path(path).write_text(str(os.getpid()))
    while True:
        try:
            time.sleep(30)
        except KeyboardInterrupt:
            Path(path + ".interrupted").touch()


@zmreg.remote
def obedient(path):
    Path(path).touch()
    while not zmreg.cancelled():
        time.sleep(0.002)
    return "half of a result"


@zmreg.remote
def add(a, b):
    return a + b


@zmreg.remote(num_cpus=2)
def two_cpus():
    return True


def appears(path):
    deadline = time.monotonic() + 20
    while not os.path.exists(path):
        assert time.monotonic() < deadline, f"{path} was never made"
        threading.Event().wait(0.005)


def outcome(ref):
    """What ended it."""
    with pytest.raises(errors.TaskCancelledError) as info:
        ref.get(timeout=20)
    assert info.value.task_id
    return info.value.ended_by


def running(function, path, *args):
    ref = function.remote(str(path), *args)
    appears(path)
    return ref


def test_C14_one_that_asks_ends_by_the_flag(tmp_path):
    ref = running(obedient, tmp_path / "a")
    start = time.monotonic()
    zmreg.cancel(ref, grace=30)
    assert outcome(ref) == "flag"
    assert time.monotonic() - start < 10, "it had to wait for the interrupt"


def test_C14_one_that_asks_and_raises_ends_by_the_flag(tmp_path):
    @zmreg.remote(max_retries=3, retry_exceptions=True)
    def raises(path):
        Path(path).touch()
        while not zmreg.cancelled():
            time.sleep(0.002)
        raise ValueError("stopped")

    ref = running(raises, tmp_path / "a")
    ref.cancel(grace=30)
    assert outcome(ref) == "flag"


def test_C14_one_that_sleeps_ends_by_the_interrupt(tmp_path):
    ref = running(sleeps, tmp_path / "a")
    ref.cancel(grace=0.4)
    assert outcome(ref) == "interrupt"
    assert two_cpus.remote().get(timeout=20)


def test_C14_the_interrupt_comes_after_half_of_the_grace(tmp_path):
    @zmreg.remote
    def notes(path):
        Path(path).touch()
        start = time.monotonic()
        try:
            time.sleep(30)
        except KeyboardInterrupt:
            Path(path + ".after").write_text(str(time.monotonic() - start))
            raise

    ref = running(notes, tmp_path / "a")
    ref.cancel(grace=1)
    assert outcome(ref) == "interrupt"
    assert float((tmp_path / "a.after").read_text()) > 0.3


def test_C14_one_that_swallows_the_interrupt_is_killed_after_the_grace(tmp_path):
    ref = running(stubborn, tmp_path / "a")
    pid = int((tmp_path / "a").read_text())
    start = time.monotonic()
    ref.cancel(grace=0.5)
    with pytest.raises(errors.TaskCancelledError, match=r"grace=0.5 s, so its process was killed") as info:
        ref.get(timeout=20)
    took = time.monotonic() - start
    assert info.value.ended_by == "kill"
    assert 0.4 < took < 10
    assert (tmp_path / "a.interrupted").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert two_cpus.remote().get(timeout=20)


def test_C14_one_stuck_in_native_code_with_the_interpreter_lock_is_killed(tmp_path):
    @zmreg.remote
    def holds_the_lock(path):
        import ctypes

        Path(path).touch()
        ctypes.PyDLL(None).sleep(60)  # PyDLL keeps the lock: no other thread of that process runs

    ref = running(holds_the_lock, tmp_path / "a")
    ref.cancel(grace=0.3)
    assert outcome(ref) == "kill"


def test_C14_the_driver_may_be_busy_with_other_things(tmp_path):
    """The kill is the node's business: no call of ours is needed for it to happen."""
    ref = running(stubborn, tmp_path / "a")
    pid = int((tmp_path / "a").read_text())
    ref.cancel(grace=0.2)
    deadline = time.monotonic() + 20
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
    assert outcome(ref) == "kill"


def test_C14_what_was_sent_behind_a_killed_one_runs_elsewhere(tmp_path):
    refs = [running(stubborn, tmp_path / str(n)) for n in range(2)]
    behind = [add.options(max_retries=0).remote(n, 1) for n in range(50)]
    for ref in refs:
        ref.cancel(grace=0.2)
    assert [outcome(ref) for ref in refs] == ["kill", "kill"]
    assert zmreg.get(behind, timeout=30) == [n + 1 for n in range(50)]


def test_C14_grace_reaches_children_and_grandchildren(tmp_path):
    @zmreg.remote
    def parent(path, depth):
        if depth:
            return parent.remote(path, depth - 1).get()
        return stubborn.remote(path).get()

    ref = parent.remote(str(tmp_path / "leaf"), 1)
    appears(tmp_path / "leaf")
    pid = int((tmp_path / "leaf").read_text())
    ref.cancel(grace=0.4)
    assert outcome(ref) in ("flag", "interrupt")
    assert two_cpus.remote().get(timeout=20)
    assert not os.path.exists(f"/proc/{pid}")


def test_C14_a_parent_ends_with_the_child_that_saw_the_flag(tmp_path):
    @zmreg.remote
    def parent(path):
        return obedient.remote(path).get()

    ref = parent.remote(str(tmp_path / "leaf"))
    appears(tmp_path / "leaf")
    ref.cancel(grace=30)
    assert outcome(ref) == "flag"


def test_C14_not_recursive_leaves_the_child(tmp_path):
    @zmreg.remote
    def parent(path):
        ref = sleeps.remote(path)
        while not zmreg.cancelled():
            time.sleep(0.002)
        Path(path + ".child").touch() if not ref.done() else None
        ref.cancel()

    ref = parent.remote(str(tmp_path / "leaf"))
    appears(tmp_path / "leaf")
    zmreg.cancel(ref, recursive=False, grace=30)
    assert outcome(ref) == "flag"
    assert (tmp_path / "leaf.child").exists()


def test_C14_a_call_of_an_actor_made_by_a_task_is_told_only(tmp_path):
    @zmreg.remote
    class Actor:
        def waits(self, path):
            Path(path).touch()
            while not zmreg.cancelled():
                time.sleep(0.002)
            return "told"

        def alive(self):
            return True

    @zmreg.remote
    def parent(actor, path):
        return actor.waits.remote(path).get()

    actor = Actor.remote()
    ref = parent.remote(actor, str(tmp_path / "a"))
    appears(tmp_path / "a")
    ref.cancel(grace=5)
    assert ref.get(timeout=20) == "told"  # the task itself never asked
    assert actor.alive.remote().get(timeout=20)


def test_C14_generators_and_coroutines(tmp_path):
    @zmreg.remote(num_returns=3)
    def yields(path):
        yield 1
        Path(path).touch()
        while not zmreg.cancelled():
            time.sleep(0.002)

    @zmreg.remote
    async def awaits(path):
        import asyncio

        Path(path).touch()
        await asyncio.sleep(30)

    first, second, third = running(yields, tmp_path / "a")
    second.cancel(grace=30)
    assert [outcome(second), outcome(third)] == ["flag", "flag"]
    assert first.get(timeout=20) == 1
    ref = running(awaits, tmp_path / "b")
    ref.cancel(grace=0.2)
    assert outcome(ref) == "interrupt"


def test_C14_one_that_never_asked_and_finishes_in_time_keeps_its_value(tmp_path):
    @zmreg.remote
    def finishes(path):
        Path(path).touch()
        appears(path + ".go")
        return 7

    ref = running(finishes, tmp_path / "a")
    ref.cancel(grace=30)
    (tmp_path / "a.go").touch()
    assert ref.get(timeout=20) == 7


def test_C14_grace_zero_and_a_shorter_second_grace_kill(tmp_path):
    ref = running(stubborn, tmp_path / "a")
    ref.cancel(grace=0)
    assert outcome(ref) == "kill"
    ref = running(stubborn, tmp_path / "b")
    ref.cancel(grace=600)
    ref.cancel(grace=0.2)
    assert outcome(ref) == "kill"


def test_C14_a_queued_task_never_runs_and_nothing_is_killed(tmp_path):
    busy = [running(sleeps, tmp_path / str(n)) for n in range(2)]
    queued = sleeps.remote(str(tmp_path / "ran"))
    queued.cancel(grace=0)
    assert outcome(queued) == ""
    assert not any(ref.done() for ref in busy)
    for ref in busy:
        ref.cancel()
    assert [outcome(ref) for ref in busy] == ["interrupt", "interrupt"]
    assert not (tmp_path / "ran").exists()


def test_C14_any_holder_may_give_grace(tmp_path):
    @zmreg.remote
    def canceller(box):
        zmreg.cancel(box[0], grace=0.2)

    ref = running(stubborn, tmp_path / "a")
    canceller.remote([ref]).get(timeout=20)
    assert outcome(ref) == "kill"


@pytest.mark.parametrize("grace", [-1, float("nan"), float("inf")])
def test_C14_a_bad_grace_is_a_value_error(grace):
    ref = add.remote(1, 2)
    with pytest.raises(ValueError, match="grace"):
        zmreg.cancel(ref, grace=grace)
    with pytest.raises(ValueError, match="one of them"):
        zmreg.cancel(ref, force=True, grace=1)
    assert ref.get(timeout=20) == 3


def test_C14_row25_grace_on_an_actor_call_is_a_value_error(tmp_path):
    @zmreg.remote
    class Actor:
        def waits(self, path):
            Path(path).touch()
            appears(path + ".go")
            until = time.monotonic() + 20  # the word goes by way of its owner
            while not zmreg.cancelled() and time.monotonic() < until:
                time.sleep(0.005)
            return zmreg.cancelled()

    @zmreg.remote
    def canceller(box, **how):
        zmreg.cancel(box[0], **how)

    actor = Actor.remote()
    ref = running(actor.waits, tmp_path / "a")
    with pytest.raises(ValueError, match="kill"):
        ref.cancel(grace=1)
    before = zmreg.stats()["errors"]["internal"]
    # Another holder cannot know that an actor makes it: the call is told, and its owner's process has no error of ours.
    canceller.remote([ref], force=True).get(timeout=20)
    canceller.remote([ref], grace=1).get(timeout=20)
    (tmp_path / "a.go").touch()
    assert ref.get(timeout=20) is True
    assert zmreg.stats()["errors"]["internal"] == before


def test_C14_many_graces_leave_nothing_behind(tmp_path):
    """Timers and notes of calls that end by themselves go with them."""

    @zmreg.remote
    def short(n):
        time.sleep(0.002)
        return n

    for n in range(100):
        ref = short.remote(n)
        threading.Event().wait((n % 5) * 0.0005)
        ref.cancel(grace=0.05)
        error = ref.exception(timeout=20)
        assert error is None or isinstance(error, errors.TaskCancelledError), error

    @zmreg.remote
    def left():
        from zmreg.services.seat.client import current

        threading.Event().wait(0.2)  # the last timer's time
        timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
        return len(timers), len(current().graces._given)

    assert zmreg.get([left.remote() for _ in range(2)], timeout=20) == [(0, 0), (0, 0)]
