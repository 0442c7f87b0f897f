"""Threads of a task that wait beside its main one: what their looks cost, and what an interrupt leaves behind."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from zmreg.model.messages import Blocked
from zmreg.net.waiting import HandlerSwap, Waiter
from zmreg.services.worker.beside import Beside


class Pump:
    """Waits, and counts for how many."""

    main = threading.main_thread().ident

    def __init__(self) -> None:
        self.looks = 0

    def wait(self, waiter: Waiter, timeout: float) -> bool:
        if waiter.done:
            return True
        self.looks += 1
        time.sleep(timeout)
        return waiter.done


def worker_of(told: list[Any]) -> Any:
    interrupts = HandlerSwap()
    idle = Waiter()
    idle.done = True
    return SimpleNamespace(
        pump=Pump(), lock=threading.RLock(), host=None, closed=None, idle=idle, blocked=False,
        shield=lambda: interrupts.shield(interrupts), tell_node=told.append,
        give_back_unstarted=lambda: told.append("gave back"),
    )  # fmt: skip


def test_many_threads_that_wait_look_as_often_as_one() -> None:
    """They stand side by side, and two that look in the same moment have seen no more than one."""
    told: list[Any] = []
    worker = worker_of(told)
    beside, waiter, here = Beside(worker), Waiter(), threading.Event()

    def sees_enough() -> None:
        while worker.pump.looks < 300:
            time.sleep(0.01)
        waiter.finish()
        here.set()

    waiting = [threading.Thread(target=beside.wait, args=(waiter,)) for _ in range(50)]
    for each in [*waiting, threading.Thread(target=sees_enough)]:
        each.start()
    here.wait(60)
    for each in waiting:
        each.join()
    assert Blocked(True) in told
    assert told.count(Blocked(True)) == told.count("gave back") < 100
    assert told[-1] == Blocked(False)


@pytest.mark.parametrize("says", ["what is said", "what is counted"])
def test_a_cancellation_tears_nothing_of_what_a_task_s_futures_have_said(says: str) -> None:
    """Told, and then raised: else the node took the CPU of a task that computes for free as long as it runs."""
    told: list[Any] = []
    worker = worker_of(told)
    beside, future = Beside(worker), Future[int]()

    def interrupted(message: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        told.append(message)

    if says == "what is counted":
        worker.lock = Interrupting()
        with pytest.raises(KeyboardInterrupt):
            beside.expect(future)
        worker.lock = threading.RLock()
    else:
        beside.expect(future)
        beside._said, worker.tell_node = True, interrupted
    try:
        future.cancel()
    except KeyboardInterrupt:
        assert says == "what is said"
    assert beside._waiting == 0
    assert told == ([Blocked(False)] if says == "what is said" else [])


class Interrupting:
    """A lock during which a signal comes."""

    def __enter__(self) -> None:
        """Take it."""

    def __exit__(self, *_: object) -> None:
        signal.raise_signal(signal.SIGINT)
