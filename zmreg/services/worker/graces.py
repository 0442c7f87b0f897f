"""A running call that was cancelled, on its worker: what it is told, when it is interrupted, and what ended it.

Plain `cancel`: the flag that `zmreg.cancelled()` reads is set, and SIGINT follows at once. With `grace` seconds the
flag has the first half of them for itself, then comes SIGINT, and when they are over the node kills the process
(services/node/overdue.py): it can also where native code holds the interpreter lock. Only a call that a worker runs by
hand (services/worker/helping.py) is killed from here, as the node sees the outer one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from zmreg.model.errors import TaskCancelledError
from zmreg.services.worker import execute
from zmreg.wire import batches

if TYPE_CHECKING:
    from zmreg.services.worker.intake import Intake

FLAG: Final = "flag"
INTERRUPT: Final = "interrupt"
FORCED_EXIT_CODE: Final = 130


class _Grace:
    """One call's time. `obeyed`: it has asked and was told, so whatever it gives now is not what it was called for."""

    __slots__ = ("ended_by", "obeyed", "timers")

    def __init__(self) -> None:
        self.ended_by = FLAG
        self.obeyed = False
        self.timers: list[threading.Timer] = []

    def after(self, seconds: float, act: Any, task_id: bytes) -> None:
        """Call `act(task_id)` then, unless the call is over."""
        timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), act, (task_id,))
        timer.daemon = True
        self.timers.append(timer)
        timer.start()


class Graces:
    """The cancelled calls of one worker's main thread."""

    def __init__(self, worker: Intake) -> None:
        self._worker = worker
        self._given: dict[bytes, _Grace] = {}

    # -- on the thread that pumps, under the lock ---------------------------------------------------------------------

    def cut(self, task_id: bytes, force: bool, grace_s: float | None) -> None:
        """This call runs, and was cancelled."""
        if force:
            self._worker.answer_now()
            os._exit(FORCED_EXIT_CODE)
        if grace_s is None:
            self._interrupt(task_id)
            return
        if task_id in self._given:
            return
        grace = self._given[task_id] = _Grace()
        grace.after(grace_s / 2, self._interrupt, task_id)
        if task_id.startswith(self._worker.me):
            grace.after(grace_s, self._end_by_hand, task_id)

    def _interrupt(self, task_id: bytes) -> None:
        worker = self._worker
        with worker.lock:
            grace = self._given.get(task_id)
            if grace is not None:
                if task_id not in worker.cancelled:  # it ended while its time was being set
                    del self._given[task_id]
                    return
                grace.ended_by = INTERRUPT
            if worker.signals.executing == task_id:
                worker.signals.target = task_id
                worker.signals.send()

    def _end_by_hand(self, task_id: bytes) -> None:
        if task_id in self._given and task_id in self._worker.cancelled:
            self._worker.answer_now()
            os._exit(FORCED_EXIT_CODE)

    # -- on the thread that runs it -----------------------------------------------------------------------------------

    def saw(self, task_id: bytes) -> None:
        """The call has asked, and was told that it is cancelled."""
        grace = self._given.get(task_id)
        if grace is not None:
            grace.obeyed = True

    def obeyed(self, task_id: bytes) -> bool:
        """It was given time, and has used it: its result is not wanted, and may be half of one."""
        grace = self._given.get(task_id)
        return grace is not None and grace.obeyed

    def is_due(self, task_id: bytes) -> bool:
        """It was cancelled, and has not the time to find out by itself."""
        if task_id not in self._worker.cancelled:
            return False
        grace = self._given.get(task_id)
        return grace is None or grace.ended_by != FLAG

    def row(self, task_id: bytes, error: BaseException) -> batches.Row | None:
        """The answer of a call that ended by `error`: cancelled, and by what; None when that is not why it ended."""
        if task_id not in self._worker.cancelled:
            return None
        grace = self._given.get(task_id)
        if isinstance(error, execute.NotBegun):
            return execute.CANCELLED_ROW
        if not isinstance(error, KeyboardInterrupt):
            # A call it waited for was cancelled along with it, and it has let that error through.
            told = grace is not None and (grace.obeyed or isinstance(error, TaskCancelledError))
            if not told:
                return None
        by = INTERRUPT if grace is None else grace.ended_by
        return [batches.CANCELLED, by.encode(), 0, "", ()]

    def over(self, task_id: bytes) -> None:
        """The call has ended, one way or the other."""
        self._worker.cancelled.discard(task_id)
        grace = self._given.pop(task_id, None)
        if grace is not None:
            for timer in grace.timers:
                timer.cancel()

    def advance(self, task_id: bytes, values: Iterator[Any]) -> Any:
        """Run a generator on to its next value; only its own code can be interrupted."""
        worker = self._worker
        before, worker.signals.executing = worker.signals.executing, task_id
        try:
            if worker.cancelled and self.is_due(task_id):
                raise KeyboardInterrupt
            return next(values)
        except Exception:
            if worker.cancelled and self.obeyed(task_id):
                raise KeyboardInterrupt from None
            raise
        finally:
            worker.signals.executing = before
