"""At the cap on workers, a worker that waits runs its own queued calls itself, one at a time, inside its wait.

f calls f calls f: each level blocks a process, and when the node may start no more, nobody is left to run the next. The
node then says WorkersAtCap; from that moment on a worker that waits takes a call from its own queue and sends it to
itself, by the same way as to any other worker. Its main thread, which waits, runs it and waits on.

Only calls that need nothing but CPU are taken: the CPU is the one that the wait has set free, while a GPU or a licence
would have to be booked. Actors do not help: their thread is promised to their own calls.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from zmreg.model.messages import WorkersAtCap
from zmreg.model.specs import CPU, Shape
from zmreg.net.waiting import Waiter
from zmreg.services import arrivals
from zmreg.services.calls import Lane, Task

if TYPE_CHECKING:
    from zmreg.services.intake import Item
    from zmreg.services.worker import Worker

# Python frames between one call of user code and the next inside it (measured: 14), so that helping in depth does not
# use up what sys.getrecursionlimit() grants to user code.
_FRAMES = 30


class OwnHands:
    """Where calls come from that a worker runs itself: nothing is sent ahead, and nothing rides."""

    def place(self, task: Task) -> None:
        """Calls are placed in their pool, never here."""
        assert task.peer is not None
        task.peer.place(task)

    def withdraw(self, task: Task) -> bool:
        """Nothing is queued here."""
        return False

    def refill(self, lane: Lane) -> None:
        """One at a time: the next is taken when the wait goes on."""


class Helping:
    """One worker's own calls, run by itself."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._capped: list[Shape] = []
        self._lane: Lane | None = None

    # -- on the thread that pumps, under the lock ---------------------------------------------------------------------

    def on_cap(self, message: WorkersAtCap) -> None:
        """The node has no more workers for calls of this shape: none may come free before ours ends."""
        shape = Shape(message.resources, message.locs)
        if shape not in self._capped and {name for name, _ in shape.resources} <= {CPU}:
            self._capped.append(shape)
        self.look()

    def look(self) -> None:
        """Take one queued call, if we wait and none that was taken is still to be run."""
        worker = self._worker
        if not self._capped or not worker.signals.may_help or worker.host is not None or worker.own_call_flies:
            return
        if _own_call(worker) is not None:
            worker.signals.offer_work()
            return
        for shape in self._capped:
            pool = worker.tasks.pools.get(shape)
            if pool is not None and pool.queue:
                worker.own_call_flies = True
                lane = self._own_lane()
                lane.push(pool.queue.popleft())
                lane.flush()
                return

    def _own_lane(self) -> Lane:
        worker = self._worker
        if self._lane is None:
            known = worker.tasks.known.setdefault(worker.me, set())
            self._lane = worker.tasks.lanes[worker.me] = Lane(worker, worker.me, OwnHands(), known)
        return self._lane

    # -- on the main thread, inside a wait -----------------------------------------------------------------------------

    def wait(self, waiter: Waiter, timeout: float | None) -> bool:
        """The worker's wait inside user code: the pump leaves it when there is a call of our own to run."""
        worker = self._worker
        deadline = None if timeout is None else time.monotonic() + timeout
        with worker.lock:
            worker.signals.may_help = True
            self.look()
        try:
            while not worker.pump.wait(waiter, None if deadline is None else max(0.0, deadline - time.monotonic())):
                if worker.closed is not None or (deadline is not None and time.monotonic() >= deadline):
                    return False
                self._run()
            return True
        finally:
            worker.signals.may_help = False

    def _run(self) -> None:
        """Run the call that came from ourselves. KeyboardInterrupt: the waiting call was cancelled meanwhile."""
        worker, signals = self._worker, self._worker.signals
        signals.own_work = False
        item = _own_call(worker)
        if item is None:
            return
        worker.inbox.remove(item)
        outer = signals.executing, worker.depth, worker.parent, worker.needed
        refs, limit = arrivals.take(), sys.getrecursionlimit()
        signals.may_help = False
        worker.waits(False)
        sys.setrecursionlimit(limit + _FRAMES)
        try:
            worker.run_own(item)
        finally:
            sys.setrecursionlimit(limit)
            arrivals.put_back(refs)
            signals.executing, worker.depth, worker.parent, worker.needed = outer
            worker.waits(True)
            with worker.lock:
                signals.may_help = True
                self.look()
        if outer[0] in worker.cancelled:
            raise KeyboardInterrupt


def _own_call(worker: Worker) -> Item | None:
    if worker.host is not None:  # an actor's calls to itself wait for the one that runs, or are a deadlock
        return None
    return next((item for item in list(worker.inbox) if item[0] == worker.me), None)
