"""Threaded and asyncio actors (core-api rows 44-46, C15)."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import Any

import pytest

import zmreg
from zmreg.model.errors import ActorDiedError, TaskCancelledError
from zmreg.services.seat.client import current

pytestmark = pytest.mark.usefixtures("cluster")
T = 30


def end_of(ref: Any) -> BaseException | None:
    return ref.exception(timeout=T)


# -- 44: threads -------------------------------------------------------------------------------------------------------


@zmreg.remote(max_concurrency=4)
class Threads:
    def __init__(self) -> None:
        self.local = threading.local()
        self.event = threading.Event()
        self.barrier = threading.Barrier(4)
        self.lock = threading.Lock()
        self.now = self.most = 0

    def meet(self) -> int:
        return self.barrier.wait(T)

    def wait(self, value: Any = None) -> Any:
        self.event.wait(T)
        return value

    def open(self) -> None:
        self.event.set()

    def mark(self) -> tuple[str, int]:
        self.local.count = getattr(self.local, "count", 0) + 1
        return threading.current_thread().name, self.local.count

    def crowd(self) -> int:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        threading.Event().wait(0.002)
        with self.lock:
            self.now -= 1
        return self.most

    def poll(self) -> str:
        with self.lock:
            self.now += 1
        while not zmreg.cancelled():
            self.event.wait(0.005)
        return "saw it"

    def begun(self) -> int:
        return self.now

    def leave(self) -> None:
        zmreg.exit_actor()

    def quit(self) -> None:
        sys.exit(3)

    def fail(self) -> None:
        raise KeyError("bad")


def test_row44_calls_run_side_by_side_up_to_the_limit():
    threads = Threads.remote()
    assert sorted(zmreg.get([threads.meet.remote() for _ in range(4)], timeout=T)) == [0, 1, 2, 3]
    assert max(zmreg.get([threads.crowd.remote() for _ in range(60)], timeout=T)) <= 4


def test_row44_trap_thread_locals_persist_between_calls():
    threads = Threads.remote()
    zmreg.get([threads.meet.remote() for _ in range(4)], timeout=T)  # all four threads exist
    marks = zmreg.get([threads.mark.remote() for _ in range(100)], timeout=T)
    by_thread: dict[str, list[int]] = {}
    for name, count in marks:
        by_thread.setdefault(name, []).append(count)
    assert len(by_thread) <= 4
    assert all(sorted(counts) == list(range(1, len(counts) + 1)) for counts in by_thread.values())


def test_row44_a_call_can_overtake_a_waiting_one():
    threads = Threads.remote()
    waiting = threads.wait.remote("done")
    threads.open.remote()
    assert waiting.get(timeout=T) == "done"


def test_row44_a_slow_argument_delays_nobody():
    threads, other = Threads.remote(), Threads.remote()
    slow = threads.wait.remote(other.wait.remote(1))
    assert threads.mark.remote().get(timeout=T)[1] == 1
    zmreg.get([other.open.remote(), threads.open.remote()], timeout=T)
    assert slow.get(timeout=T) == 1


def test_row44_a_chain_of_calls():
    threads = Threads.remote()
    threads.open.remote()
    ref = threads.wait.remote("x")
    for _ in range(30):
        ref = threads.wait.remote(ref)
    assert ref.get(timeout=T) == "x"


def test_row44_cancel_tells_a_running_call_and_drops_a_queued_one():
    threads = Threads.remote()
    running = [threads.poll.remote() for _ in range(3)]
    while threads.begun.remote().get(timeout=T) < 3:
        continue
    last, queued = threads.wait.remote("last"), threads.mark.remote()
    queued.cancel()
    for ref in running:
        ref.cancel()
    assert zmreg.get(running, timeout=T) == ["saw it"] * 3
    threads.open.remote()
    assert last.get(timeout=T) == "last"
    assert isinstance(end_of(queued), TaskCancelledError)
    with pytest.raises(KeyError, match="bad"):
        threads.fail.remote().get(timeout=T)


def test_row44_exit_actor_waits_for_no_other_thread():
    threads = Threads.remote()
    endless = threads.wait.remote()
    zmreg.get([threads.mark.remote() for _ in range(3)], timeout=T)
    left = threads.leave.remote()
    assert isinstance(end_of(left), ActorDiedError)
    assert isinstance(end_of(endless), ActorDiedError)


def test_row44_sys_exit_in_a_thread_ends_the_process():
    threads = Threads.remote()
    error = end_of(threads.quit.remote())
    assert isinstance(error, ActorDiedError)
    assert "code 3" in str(error)


# -- 45: asyncio -------------------------------------------------------------------------------------------------------


@zmreg.remote
class Async:
    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.here = 0
        self.most = 0
        self.cleaned = 0

    async def wait(self, value: Any = None) -> Any:
        self.here += 1
        self.most = max(self.most, self.here)
        try:
            await self.event.wait()
        finally:
            self.here -= 1
        return value

    async def open(self) -> int:
        self.event.set()
        return self.most

    def most_now(self) -> int:
        return self.most

    def thread(self) -> int:
        return threading.get_ident()

    async def athread(self) -> int:
        return threading.get_ident()

    def nthreads(self) -> int:
        return threading.active_count()

    async def endless(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.cleaned += 1

    async def stubborn(self) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    async def cleanups(self) -> int:
        return self.cleaned

    async def leave(self) -> None:
        zmreg.exit_actor()

    async def leave_from_a_task(self) -> None:
        async def later() -> None:
            zmreg.exit_actor()

        asyncio.get_running_loop().create_task(later())
        await asyncio.Event().wait()

    def leave_sync(self) -> None:
        zmreg.exit_actor()

    async def quit(self) -> None:
        sys.exit(4)

    async def fail(self) -> None:
        raise KeyError("bad")

    async def blocking_get(self, box: list[Any]) -> Any:
        return box[0].get(timeout=T)


def test_row45_concurrency_beyond_the_recursion_limit_and_no_thread_per_call():
    count = sys.getrecursionlimit() + 500
    actor = Async.options(max_concurrency=count).remote()
    refs = [actor.wait.remote(n) for n in range(count - 1)]  # one slot is left for those who ask
    while actor.most_now.remote().get(timeout=T) < count - 1:
        continue
    assert actor.nthreads.remote().get(timeout=T) < 10
    actor.open.remote()
    assert zmreg.get(refs, timeout=T) == list(range(count - 1))


def test_row45_the_default_is_1000_at_once():
    actor = Async.remote()
    refs = [actor.wait.remote(n) for n in range(999)]
    assert actor.open.remote().get(timeout=T) == 999  # the 1,000th
    assert zmreg.get(refs, timeout=T) == list(range(999))


def test_row45_max_concurrency_limits_also_to_one():
    actor = Async.options(max_concurrency=1).remote()
    zmreg.get([actor.athread.remote() for _ in range(20)], timeout=T)
    first, second = actor.wait.remote(1), actor.open.remote()
    with pytest.raises(zmreg.errors.GetTimeoutError):
        second.get(timeout=0.2)
    first.cancel()
    assert second.get(timeout=T) == 1


def test_row45_sync_methods_run_on_the_loops_thread():
    actor = Async.remote()
    assert actor.thread.remote().get(timeout=T) == actor.athread.remote().get(timeout=T)


def test_row45_one_async_method_makes_the_whole_class_async_also_by_inheritance():
    class Base:
        async def a(self) -> str:
            return "a"

    @zmreg.remote
    class Child(Base):
        def s(self) -> bool:
            return asyncio.get_running_loop().is_running()

    child = Child.remote()
    assert zmreg.get([child.a.remote(), child.s.remote()], timeout=T) == ["a", True]


def test_row45_a_constructor_on_the_loop():
    @zmreg.remote
    class Background:
        def __init__(self) -> None:
            self.ticks = 0
            self.task = asyncio.get_running_loop().create_task(self.tick())

        async def tick(self) -> None:
            while True:
                self.ticks += 1
                await asyncio.sleep(0)

        async def has_ticked(self) -> bool:
            while not self.ticks:
                await asyncio.sleep(0)
            return True

    assert Background.remote().has_ticked.remote().get(timeout=T)


def test_row45_errors_and_chains_and_refs_in_arguments():
    actor = Async.remote()
    actor.open.remote()
    with pytest.raises(KeyError, match="bad"):
        actor.fail.remote().get(timeout=T)
    ref = actor.wait.remote(1)
    for _ in range(30):
        ref = actor.wait.remote(ref)
    assert ref.get(timeout=T) == 1


def test_row45_two_actors_await_each_other():
    @zmreg.remote
    class Player:
        async def rally(self, other: list[Any], left: int) -> int:
            if left == 0:
                return 0
            me = zmreg.get_runtime_context().current_actor
            return 1 + await other[0].rally.remote([me], left - 1)

    one, two = Player.remote(), Player.remote()
    assert one.rally.remote([two], 40).get(timeout=T) == 40


def test_row45_refs_kept_by_one_of_many_interleaved_calls_stay_alive():
    @zmreg.remote
    class Keeper:
        def __init__(self) -> None:
            self.kept: list[Any] = []

        async def keep(self, box: list[Any]) -> None:
            self.kept.append(box[0])
            await asyncio.sleep(0)  # others unpickle theirs meanwhile

        async def total(self) -> int:
            return sum([await ref for ref in self.kept])

    keeper = Keeper.remote()
    zmreg.get([keeper.keep.remote([zmreg.put(n)]) for n in range(50)], timeout=T)  # our refs die here
    assert keeper.total.remote().get(timeout=T) == sum(range(50))


# -- C15 and the end ---------------------------------------------------------------------------------------------------


def test_C15_cancel_right_behind_the_call_before_its_coroutine_exists():
    actor = Async.remote()
    for _ in range(100):
        ref = actor.endless.remote()
        ref.cancel()
        assert isinstance(end_of(ref), TaskCancelledError)
    assert actor.athread.remote().get(timeout=T)


def test_C15_cancel_of_running_and_of_waiting_coroutines():
    actor = Async.options(max_concurrency=2).remote()
    running = actor.endless.remote()
    assert actor.cleanups.remote().get(timeout=T) == 0  # it has begun: it stood in front
    waiting = [actor.endless.remote() for _ in range(3)]
    for ref in [*waiting, running]:
        ref.cancel()
    assert all(isinstance(end_of(ref), TaskCancelledError) for ref in [*waiting, running])
    assert actor.cleanups.remote().get(timeout=T) >= 1


@pytest.mark.parametrize("how", ["leave", "leave_sync", "leave_from_a_task", "__ray_terminate__"])
def test_row45_exit_with_endless_coroutines_still_exits(how):
    actor = Async.remote()
    endless = [actor.endless.remote(), actor.stubborn.remote()]
    actor.athread.remote().get(timeout=T)
    assert isinstance(end_of(getattr(actor, how).remote()), ActorDiedError)
    assert all(isinstance(end_of(ref), ActorDiedError) for ref in endless)
    assert isinstance(end_of(actor.athread.remote()), ActorDiedError)


def test_row45_sys_exit_in_a_coroutine_ends_the_process():
    error = end_of(Async.remote().quit.remote())
    assert isinstance(error, ActorDiedError)
    assert "code 4" in str(error)


def test_row45_last_handle_gone_ends_after_what_runs():
    actor = Async.options(name="async-queue").remote()
    refs = [actor.wait.remote(n) for n in range(10)]
    weak = zmreg.get_actor("async-queue")
    actor.athread.remote().get(timeout=T)
    del actor
    weak.open.remote()
    assert zmreg.get(refs, timeout=T) == list(range(10))
    while end_of(weak.athread.remote()) is None:
        continue


# -- 46: blocking get --------------------------------------------------------------------------------------------------


def test_row46_blocking_get_in_an_async_actor_works_and_warns_once(capfd):
    @zmreg.remote
    def slow(value: int) -> int:
        threading.Event().wait(0.05)
        return value

    @zmreg.remote(num_cpus=0)
    class Blocks:
        async def run(self, n: int) -> int:
            return slow.remote(n).get()

        async def pid(self) -> int:
            return os.getpid()

    actor = Blocks.remote()
    assert zmreg.get([actor.run.remote(n) for n in range(3)], timeout=T) == [0, 1, 2]
    told = ""
    while "await" not in told:  # it comes by the log, a moment later
        actor.pid.remote().get(timeout=T)
        told += capfd.readouterr().err
    assert told.count("waits for a value without await") == 1
    assert "Blocks" in told


def test_row46_blocking_get_on_another_async_actor():
    one, two = Async.remote(), Async.remote()
    inner = two.wait.remote("inner")
    outer = one.blocking_get.remote([inner])
    two.open.remote()
    assert outer.get(timeout=T) == "inner"


def test_row45_an_answer_does_not_send_its_own_receiver_to_rest():
    """A thread that receives for 2 ms no more, because "callers are at work": a round trip took ten times as long."""

    @zmreg.remote(num_cpus=0)
    class Plain:
        pass

    def behind_answers(self: Any) -> str:
        return current().rest.__name__

    kinds = {"keep_on": [zmreg.remote(num_cpus=0)(AsyncPlain), Threads.options(num_cpus=0)], "touch": [Plain]}
    for name, classes in kinds.items():
        for cls in classes:
            assert cls.remote().__ray_call__.remote(behind_answers).get(timeout=T) == name


class AsyncPlain:
    async def m(self) -> None: ...
