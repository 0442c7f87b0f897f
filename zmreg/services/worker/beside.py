"""Threads that a task has started wait for refs, and the task for them: then its CPU is free, as if it waited itself.

`get` on the main thread says at once that the task is blocked. When another thread waits, the main thread may be busy
with something else, and then the task is not blocked. So whoever waits on another thread looks, at growing intervals,
where the main thread is: in a lock, queue, event or join of the standard library, or in the rest of an event loop, it
stands still, and the node hears that the task's CPU is free. Calls that were sent ahead go back, too. For futures of
refs and of executors, for which the main thread may wait in ways that are not ours, a thread of ours looks.

A task that goes on after all, or has ended while a thread of its own waits on, is seen at the next look: until then one
CPU may be given away twice, and nobody is stuck.
"""

from __future__ import annotations

import queue
import selectors
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from zmreg.model.messages import Blocked
from zmreg.net.waiting import Waiter

if TYPE_CHECKING:
    import concurrent.futures

    from zmreg.services.worker.worker import Worker

# The first look comes when most waits are over, the last ones cost nothing to speak of.
_FIRST_S: Final = 0.02
_LAST_S: Final = 0.5
# Where a thread is that stands still: `Thread.join`, `Future.result`, `Condition.wait`; `Queue.get`; an event loop.
_STANDS_IN: Final = frozenset(each.__file__ for each in (threading, queue, selectors))


class Beside:
    """One worker's threads that wait beside its main one."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._waiting = 0
        """Threads that wait, and futures that are not done."""
        self._watched = False
        self._stood = False
        self._said = False
        """The node has been told that the CPU is free."""
        self._looked_at = 0.0

    def wait(self, waiter: Waiter, timeout: float | None = None) -> bool:
        """As the pump's, on a thread that is not the main one; False when `timeout` seconds went by first."""
        pump = self._worker.pump
        if self._worker.host is not None:  # an actor keeps what it holds
            return pump.wait(waiter, timeout)
        deadline, pause = None if timeout is None else time.monotonic() + timeout, _FIRST_S
        with self._worker.lock:
            self._waiting += 1
        try:
            while not pump.wait(waiter, pause if deadline is None else min(pause, deadline - time.monotonic())):
                if self._worker.closed is not None or (deadline is not None and time.monotonic() >= deadline):
                    return False
                self._look(pause)
                pause = min(2 * pause, _LAST_S)
            return True
        finally:
            self._arrived()

    def expect(self, future: concurrent.futures.Future[Any]) -> None:
        """Somebody may wait for this one, in whatever way."""
        if self._worker.host is not None:
            return
        with self._worker.shield():  # a cancellation in between would leave it counted for good
            with self._worker.lock:
                self._waiting += 1
                if not self._watched:
                    self._watched = True
                    threading.Thread(target=self._watch, name="zmreg-beside", daemon=True).start()
            future.add_done_callback(self._arrived)

    def _watch(self) -> None:
        pause = _FIRST_S
        while True:
            time.sleep(pause)
            with self._worker.lock:
                if not self._waiting or self._worker.closed is not None:
                    self._watched = False
                    return
            self._look(pause)
            pause = min(2 * pause, _LAST_S)

    def _arrived(self, _future: object = None) -> None:
        with self._worker.shield(), self._worker.lock:
            self._waiting -= 1
            if not self._waiting:
                self._stood = False
                self._say(False)

    def _look(self, pause: float) -> None:
        """By one of those who look every `pause` seconds; the others leave it at that."""
        worker = self._worker
        with worker.lock:
            now = time.monotonic()
            if now - self._looked_at < pause / 2:
                return
            self._looked_at = now
        frame = sys._current_frames().get(worker.pump.main)
        stands = worker.idle.done and frame is not None and frame.f_code.co_filename in _STANDS_IN
        with worker.lock:
            stands = stands and not worker.blocked
            if not stands:
                self._say(False)
            elif self._stood:
                self._said = False  # a wait of the main thread in between has ended with the word that it goes on
                self._say(True)
            self._stood = stands

    def _say(self, blocked: bool) -> None:
        """Under the lock. While the main thread waits in `get`, what it has said itself holds."""
        if blocked == self._said or (blocked and self._worker.blocked):
            return
        self._said = blocked
        if not self._worker.blocked:
            if blocked:
                self._worker.give_back_unstarted()
            self._worker.tell_node(Blocked(blocked))
