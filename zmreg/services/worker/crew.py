"""The threads that a serving process runs calls on.

A call that the receiving thread hands to another costs a switch of threads, 25 to 60 us of a call's 170. A process that
does nothing but serve need not pay it: there one idle thread of the crew receives (the *attendant*), and a call of
what was quick the last time it runs itself. Meanwhile nobody receives, for 2 ms at most: then the pump's own thread
does. What was not quick, or is not known, another thread runs at once, as calls that another thread received.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from threading import get_ident

from zmreg.net.waiting import Waiter
from zmreg.services.calling.hosts import MAX_THREADS
from zmreg.wire import batches

Call = tuple[bytes, batches.Row, bytes]
"""Caller, row, id of the task."""

# What a switch of threads costs under load, about: a call that is shorter is not worth one.
QUICK_S = 100e-6


class _Spot:
    """Of the one idle thread that receives."""

    __slots__ = ("call", "left", "thread", "waiter")

    def __init__(self) -> None:
        self.waiter = Waiter()
        self.left = threading.Event()
        self.thread = get_ident()
        self.call: Call | None = None


class Crew:
    """Daemon threads that take calls from one queue; another one while all are busy and the limit allows."""

    def __init__(self, work: Callable[[Call], None]) -> None:
        self._work = work
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._unfinished = 0
        self._receive: Callable[[Waiter], object] | None = None
        self._spot: _Spot | None = None

    def attend(self, receive: Callable[[Waiter], object] | None) -> threading.Event | None:
        """From now on have an idle thread of ours receive: `receive` returns when its waiter is done, or when there is
        nothing to receive any more. None: have none do so. The event, if any: who received has left `receive`."""
        with self._guard:
            self._receive = receive
            spot, self._spot = self._spot, None
        if spot is None:
            return None
        spot.waiter.finish()
        return spot.left

    def put(self, call: Call, quick: bool) -> None:
        """Have it run; from the thread that received it."""
        with self._guard:
            self._unfinished += 1
            spot = self._spot
            if spot is not None and (quick or spot.thread != get_ident() or self._unfinished >= MAX_THREADS):
                self._spot = None
                spot.call = call
                spot.waiter.finish()
                return
            # By calls, not by idle threads: one that has just taken a call would be counted twice.
            if len(self._threads) < min(self._unfinished + (spot is not None), MAX_THREADS):
                thread = threading.Thread(target=self._run, daemon=True, name=f"zmreg-serve-{len(self._threads)}")
                self._threads.append(thread)
                thread.start()
            self._calls.put(call)

    def _run(self) -> None:
        while (call := self._next()) is not None:
            self._work(call)
            del call
            with self._guard:
                self._unfinished -= 1

    def _next(self) -> Call | None:
        receive = self._receive
        if receive is not None:
            spot = None
            with self._guard:
                if self._spot is None and self._receive is receive and self._calls.empty():
                    spot = self._spot = _Spot()
            if spot is not None:
                try:
                    receive(spot.waiter)
                finally:
                    spot.left.set()
                with self._guard:
                    if self._spot is spot:
                        self._spot = None
                if spot.call is not None:
                    return spot.call
                if not spot.waiter.done:
                    self._receive = None  # the pump has stopped
        return self._calls.get()

    def close(self) -> None:
        """Let the idle ones end; what runs is not waited for."""
        self.attend(None)
        for _ in self._threads:
            self._calls.put(None)
