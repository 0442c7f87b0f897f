"""Cancelling tasks: queued, running, stuck, nested, at the wrong moment (core-api rows 24, C14, C16)."""

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
def sleeps(path, seconds=30):
    Path(path).touch()
    time.sleep(seconds)
    return "slept"


@zmreg.remote
def add(a, b=0):
    return a + b


def appears(path):
    """Wait until a task has made this file: it runs."""
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} was never made"
        threading.Event().wait(0.005)


def is_cancelled(ref):
    with pytest.raises(errors.TaskCancelledError) as info:
        ref.get(timeout=20)
    return bool(info.value.task_id)


@pytest.fixture
def busy(tmp_path):
    """Both CPUs are taken until the test is over."""
    refs = [sleeps.remote(str(tmp_path / f"busy{n}")) for n in range(2)]
    for n in range(2):
        appears(tmp_path / f"busy{n}")
    yield refs
    for ref in refs:
        ref.cancel()
    zmreg.wait(refs, num_returns=2, timeout=20)


def test_row24_a_queued_task_never_runs(busy, tmp_path):
    ref = sleeps.remote(str(tmp_path / "ran"))
    zmreg.cancel(ref)
    assert is_cancelled(ref)
    assert ref.cancelled()
    for each in busy:
        each.cancel()
    assert add.remote(1, 1).get(timeout=20) == 2
    assert not (tmp_path / "ran").exists()


def test_row24_C14_a_sleeping_task_is_interrupted_without_force(tmp_path):
    ref = sleeps.remote(str(tmp_path / "ran"))
    appears(tmp_path / "ran")
    start = time.monotonic()
    ref.cancel()
    assert is_cancelled(ref)
    assert time.monotonic() - start < 10
    assert ref.done()


def test_row24_the_worker_survives_and_keeps_its_state(tmp_path):
    @zmreg.remote(num_cpus=2)
    def pid():
        return os.getpid()

    before = pid.remote().get(timeout=20)
    ref = sleeps.options(num_cpus=2).remote(str(tmp_path / "ran"))
    appears(tmp_path / "ran")
    ref.cancel()
    assert is_cancelled(ref)
    assert pid.remote().get(timeout=20) == before


def test_row24_the_task_sees_keyboard_interrupt_and_its_finally_runs(tmp_path):
    @zmreg.remote
    def tidy(path):
        try:
            Path(path, "running").touch()
            time.sleep(30)
        except KeyboardInterrupt:
            Path(path, "interrupted").touch()
            raise
        finally:
            Path(path, "finally").touch()

    ref = tidy.remote(str(tmp_path))
    appears(tmp_path / "running")
    ref.cancel()
    assert is_cancelled(ref)
    assert (tmp_path / "interrupted").exists()
    assert (tmp_path / "finally").exists()


def test_row24_force_ends_the_process(tmp_path):
    @zmreg.remote
    def stubborn(path):
        Path(path).touch()
        while True:
            try:
                time.sleep(30)
            except KeyboardInterrupt:
                continue

    ref = stubborn.remote(str(tmp_path / "ran"))
    appears(tmp_path / "ran")
    ref.cancel(force=True)
    with pytest.raises(errors.WorkerDiedError, match="force"):
        ref.get(timeout=20)
    assert add.remote(1, 1).get(timeout=20) == 2


def test_row24_force_on_a_queued_task_is_an_ordinary_cancellation(busy, tmp_path):
    ref = sleeps.remote(str(tmp_path / "ran"))
    ref.cancel(force=True)
    assert is_cancelled(ref)
    assert not any(each.done() for each in busy)


def test_row24_a_finished_task_is_a_no_op():
    ref = add.remote(1, 2)
    assert ref.get(timeout=20) == 3
    ref.cancel()
    ref.cancel(force=True)
    assert ref.get(timeout=20) == 3
    assert not ref.cancelled()
    put = zmreg.put(5)
    put.cancel()
    assert put.get(timeout=20) == 5


def test_row24_cancelling_twice_is_harmless(tmp_path):
    ref = sleeps.remote(str(tmp_path / "ran"))
    appears(tmp_path / "ran")
    ref.cancel()
    ref.cancel()
    assert is_cancelled(ref)
    ref.cancel()
    assert is_cancelled(ref)


def test_row24_only_refs_can_be_cancelled():
    with pytest.raises(TypeError, match="ref"):
        zmreg.cancel("0123")
    with pytest.raises(TypeError, match="ref"):
        zmreg.cancel([add.remote(1)])


def test_row24_a_task_that_waits_for_its_input(tmp_path):
    slow = sleeps.remote(str(tmp_path / "ran"))
    waiting = add.remote(slow, "!")
    waiting.cancel()
    assert is_cancelled(waiting)
    assert not slow.done()
    slow.cancel()
    assert is_cancelled(slow)


def test_row24_dependants_of_a_cancelled_task_fail_with_its_error(tmp_path):
    slow = sleeps.remote(str(tmp_path / "ran"))
    after = add.remote(slow, "!")
    later = add.remote(after, "?")
    appears(tmp_path / "ran")
    slow.cancel()
    assert is_cancelled(later)
    assert is_cancelled(after)


def test_row24_recursive_reaches_children_and_grandchildren(tmp_path):
    @zmreg.remote
    def parent(path, depth):
        if depth:
            return parent.remote(path, depth - 1).get()
        return sleeps.remote(path).get()

    ref = parent.remote(str(tmp_path / "leaf"), 2)
    appears(tmp_path / "leaf")
    ref.cancel()
    assert is_cancelled(ref)
    # Every CPU is free again: the sleeper is gone too, though nobody here holds its ref.
    assert two_cpus.remote().get(timeout=20)


@zmreg.remote(num_cpus=2)
def two_cpus():
    return True


def test_row24_not_recursive_leaves_the_children_alone(tmp_path):
    @zmreg.remote
    def parent(path):
        ref = sleeps.remote(path, 0.3)
        try:
            return ref.get()
        finally:
            Path(path + ".done").touch() if ref.get() == "slept" else None

    ref = parent.remote(str(tmp_path / "leaf"))
    appears(tmp_path / "leaf")
    zmreg.cancel(ref, recursive=False)
    assert is_cancelled(ref)
    appears(tmp_path / "leaf.done")


def test_row24_any_holder_may_cancel(tmp_path):
    @zmreg.remote
    def canceller(box):
        zmreg.cancel(box[0])
        return True

    ref = sleeps.remote(str(tmp_path / "ran"))
    appears(tmp_path / "ran")
    assert canceller.remote([ref]).get(timeout=20)
    assert is_cancelled(ref)


def test_row24_an_interrupt_never_hits_the_next_task(tmp_path):
    """Cancellations of short tasks, at whatever moment they come, end that task or none."""
    kept, cancelled = [], []
    for n in range(300):
        ref = add.remote(n, 1)
        if n % 3 == 0:
            ref.cancel()
            cancelled.append((n, ref))
        else:
            kept.append((n, ref))
    assert zmreg.get([ref for _, ref in kept], timeout=30) == [n + 1 for n, _ in kept]
    for n, ref in cancelled:
        error = ref.exception(timeout=20)
        assert isinstance(error, errors.TaskCancelledError) or (error is None and ref.get(timeout=20) == n + 1)


def test_row24_cancel_at_the_moment_of_finishing():
    """Section 4: this can abort the driver in Ray."""

    @zmreg.remote
    def short():
        time.sleep(0.002)
        return 1

    for n in range(150):
        ref = short.remote()
        threading.Event().wait((n % 10) * 0.0005)
        ref.cancel()
        error = ref.exception(timeout=20)
        assert error is None or isinstance(error, errors.TaskCancelledError), error
    assert add.remote(1, 1).get(timeout=20) == 2


def test_row24_cancel_right_after_submit_never_overtakes(tmp_path):
    refs = [sleeps.remote(str(tmp_path / "ran"), 20) for _ in range(40)]
    for ref in refs:
        ref.cancel()
    for ref in refs:
        assert is_cancelled(ref)
    assert two_cpus.remote().get(timeout=20)


@pytest.mark.parametrize("which", [0, 3, 9])
def test_row24_the_middle_of_a_chain(which, tmp_path):
    """Section 4: what came before has its value, what comes after fails with the cancellation."""
    gate = tmp_path / "gate"
    refs = [wait_for.remote(str(gate))]
    for _ in range(10):
        refs.append(add.remote(refs[-1], 1))
    refs[which].cancel()
    assert is_cancelled(refs[which])
    gate.touch()
    for place, ref in enumerate(refs):
        if place >= which:
            assert is_cancelled(ref)
        else:
            assert ref.get(timeout=20) == place


@zmreg.remote
def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.005)
    return 0


def test_row24_a_long_chain_falls_without_recursion(tmp_path):
    gate = tmp_path / "gate"
    ref = first = wait_for.remote(str(gate))
    for _ in range(3_000):
        ref = add.remote(ref, 1)
    first.cancel()
    assert is_cancelled(first)
    gate.touch()
    assert is_cancelled(ref)


def test_row24_deferred_while_arguments_are_loaded(tmp_path):
    """Interrupting an unpickling or an import would leave broken modules behind; the call still never begins."""

    class SlowToLoad:
        def __init__(self, path):
            self.path = path

        def __reduce__(self):
            return load_slowly, (self.path,)

    @zmreg.remote
    def takes(_slow, path):
        Path(path).touch()

    ref = takes.remote(SlowToLoad(str(tmp_path)), str(tmp_path / "ran"))
    appears(tmp_path / "loading")
    ref.cancel()
    assert is_cancelled(ref)
    assert (tmp_path / "loaded").exists()
    assert not (tmp_path / "ran").exists()


def load_slowly(path):
    Path(path, "loading").touch()
    while not zmreg.cancelled():
        time.sleep(0.005)
    Path(path, "loaded").touch()


def test_row24_a_task_blocked_in_get(tmp_path):
    @zmreg.remote
    def waits(box, path):
        Path(path).touch()
        return box[0].get()

    slow = sleeps.remote(str(tmp_path / "slow"))
    appears(tmp_path / "slow")
    ref = waits.remote([slow], str(tmp_path / "waits"))
    appears(tmp_path / "waits")
    zmreg.cancel(ref, recursive=False)
    assert is_cancelled(ref)
    assert not slow.done()
    slow.cancel()
    assert is_cancelled(slow)


def test_row24_a_cancelled_task_is_never_retried(tmp_path):
    @zmreg.remote(max_retries=5, retry_exceptions=True)
    def counts(path):
        with open(path, "a") as file:
            file.write(".")
        try:
            time.sleep(30)
        except KeyboardInterrupt:
            raise ValueError("hides the interrupt") from None

    ref = counts.remote(str(tmp_path / "n"))
    appears(tmp_path / "n")
    ref.cancel()
    assert ref.exception(timeout=20) is not None
    assert two_cpus.remote().get(timeout=20)
    assert (tmp_path / "n").stat().st_size == 1


def test_row24_several_returns_are_all_cancelled(tmp_path):
    refs = sleeps.options(num_returns=3).remote(str(tmp_path / "ran"))
    appears(tmp_path / "ran")
    refs[1].cancel()
    assert all(is_cancelled(ref) for ref in refs)


def test_row24_an_async_task_gets_cancelled_error(tmp_path):
    import asyncio

    @zmreg.remote(num_cpus=2)
    async def waits(path):
        asyncio.get_running_loop().call_soon(Path(path, "running").touch)  # when it waits: before, nobody tells it
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            Path(path, "told").touch()
            raise

    @zmreg.remote(num_cpus=2)
    async def next_one():
        await asyncio.sleep(0)
        return len(asyncio.all_tasks())

    ref = waits.remote(str(tmp_path))
    appears(tmp_path / "running")
    ref.cancel()
    assert is_cancelled(ref)
    assert (tmp_path / "told").exists()
    assert next_one.remote().get(timeout=20) == 1  # nothing of the cancelled one is left on the loop


def test_C16_cancelled_tells_a_task_and_its_threads(tmp_path):
    @zmreg.remote
    def cooperative(path):
        from concurrent.futures import ThreadPoolExecutor

        def loop():
            while not zmreg.cancelled():
                time.sleep(0.005)
            return "stopped"

        with ThreadPoolExecutor(1) as pool:
            thread = pool.submit(loop)
            assert not zmreg.cancelled()
            Path(path, "running").touch()
            try:
                time.sleep(30)
            except KeyboardInterrupt:
                Path(path, thread.result(20)).touch()
                assert zmreg.cancelled()
                raise

    ref = cooperative.remote(str(tmp_path))
    appears(tmp_path / "running")
    ref.cancel()
    assert is_cancelled(ref)
    assert (tmp_path / "stopped").exists()


def test_C16_cancelled_in_a_driver_is_a_runtime_error():
    with pytest.raises(RuntimeError):
        zmreg.cancelled()


def test_row24_cancel_while_another_thread_gets(tmp_path):
    ref = sleeps.remote(str(tmp_path / "ran"))
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(ref.exception(timeout=20)))
    thread.start()
    appears(tmp_path / "ran")
    ref.cancel()
    thread.join(20)
    assert isinstance(outcome[0], errors.TaskCancelledError)


def test_row24_a_timeout_in_get_cancels_nothing(tmp_path):
    ref = sleeps.remote(str(tmp_path / "ran"), 0.3)
    with pytest.raises(errors.GetTimeoutError):
        ref.get(timeout=0.01)
    assert ref.get(timeout=20) == "slept"
