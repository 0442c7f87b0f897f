"""At the cap on workers, a worker that waits runs its own queued calls itself, one at a time, inside its wait.

f calls f calls f: each level blocks a process, and when the node may start no more, nobody is left to run the next. The
node then says WorkersAtCap; from that moment on, until it grants a worker after all, a worker that waits takes a call
from its own queue, and its main thread, which waits, runs it and waits on. A task that awaits in a coroutine does the
same between two steps of its event loop.

Only calls that need nothing but CPU are taken: the CPU is the one that the wait has set free, while a GPU or a licence
would have to be booked; and only calls in the worker's own environment. Actors do not help: their thread is promised to
their own calls.

Invariants, without which a tree of tasks may stop for ever:
- whoever waits looks again after each event that can put a call into its queue: a turn of the pump, the end of a call
  that it ran by hand, the beginning of a wait;
- a call that was taken is begun within the same wait, or goes back to its queue: a worker runs nothing without a lease;
- at the end of a wait the node hears that nothing is wanted if nothing is queued: what was run by hand needs no worker.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

from zmreg.model.messages import LeaseGranted, WorkersAtCap
from zmreg.model.specs import CPU, ENV, Shape
from zmreg.net.waiting import Waiter
from zmreg.services.calling.calls import Lane, Task
from zmreg.services.calling.manners import DIGEST_BYTES
from zmreg.services.calling.pools import Pool
from zmreg.services.seat import arrivals
from zmreg.wire import batches

if TYPE_CHECKING:
    import asyncio

    from zmreg.services.worker.intake import Item
    from zmreg.services.worker.worker import Worker

# Python frames between one call of user code and the next inside it (measured: 10, in the midst of an event loop's step
# 16), so that helping in depth does not use up what sys.getrecursionlimit() grants to user code.
_FRAMES = 30


class OwnHands:
    """Where calls come from that a worker runs itself: nothing is sent ahead, and nothing rides."""

    is_pool = False

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
        self._hands = OwnHands()
        self.waits = False
        """The main thread waits inside user code, and may run a call meanwhile."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """It waits in this event loop; None: in the pump."""

    # -- on the thread that pumps, under the lock ---------------------------------------------------------------------

    def on_cap(self, message: WorkersAtCap) -> None:
        """The node has no more workers for calls of this shape: none may come free before ours ends."""
        shape = Shape(message.resources, message.locs, terms=message.terms)
        only_cpu = {name for name, _ in shape.resources} <= {CPU}
        if shape not in self._capped and only_cpu and shape.term(ENV) == self._worker.environment.key:
            self._capped.append(shape)
        self.look()

    def on_grant(self, message: LeaseGranted) -> None:
        """There was a worker after all. If we want still more, and there is none, the node says so again."""
        shape = Shape(message.resources, message.locs, terms=message.terms)
        if shape in self._capped:
            self._capped.remove(shape)

    def look(self) -> None:
        """Take one queued call, if we wait and none that was taken is still to be run."""
        worker = self._worker
        if not self.waits or worker.host is not None:
            return
        if self._taken() is not None:
            self._offer()
            return
        for shape in self._capped:
            pool = worker.tasks.pools.get(shape)
            if pool is not None and pool.queue:
                self._take(pool.queue.popleft())
                self._offer()
                return

    def _offer(self) -> None:
        """Have the main thread leave its wait for a moment."""
        if self._loop is None:
            self._worker.signals.offer_work()
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the wait is over
                self._loop.call_soon_threadsafe(self._run)

    def _take(self, task: Task) -> None:
        """Book the call on our lane to ourselves and put it into our inbox, as if it had been sent."""
        worker, template = self._worker, task.template
        if isinstance(template.target, bytes) and (digest := template.target[:DIGEST_BYTES]) not in worker.callees:
            worker.blobs[digest] = template.blob
        lane = self._own_lane()
        lane.outstanding[task.counter] = task
        task.lane = lane
        task.est = 0.0  # it is not work sent ahead
        worker.by_hand = task.counter
        worker.inbox.extend((worker.me, row) for row in batches.decode_rows(batches.encode_calls([task.row()])))

    def _own_lane(self) -> Lane:
        """The one lane to ourselves: a lease's, if the node has lent us to ourselves, else by hand."""
        worker = self._worker
        lane = worker.tasks.lanes.get(worker.me)
        if lane is None:
            known = worker.tasks.known.setdefault(worker.me, set())
            lane = worker.tasks.lanes[worker.me] = Lane(worker, worker.me, self._hands, known)
        elif isinstance(lane.home, Pool) and lane not in lane.home.lanes:  # that lease was given back
            lane.home, lane.closed, lane.recalled = self._hands, False, False
        return lane

    def _taken(self) -> Item | None:
        """The call that was taken, while it is to be run."""
        me, number = self._worker.me, self._worker.by_hand
        return next((item for item in list(self._worker.inbox) if item[0] == me and item[1][0] == number), None)

    # -- on the main thread, inside a wait -----------------------------------------------------------------------------

    def wait(self, waiter: Waiter, timeout: float | None) -> bool:
        """The worker's wait inside user code: the pump leaves it when there is a call of our own to run."""
        worker = self._worker
        deadline = None if timeout is None else time.monotonic() + timeout
        loop = self._loop  # a coroutine may call get() while others await
        self._begin(None)
        try:
            while not worker.pump.wait(waiter, None if deadline is None else max(0.0, deadline - time.monotonic())):
                if worker.closed is not None or (deadline is not None and time.monotonic() >= deadline):
                    return False
                self._run()
            return True
        finally:
            self._end()
            if loop is not None:
                self._begin(loop)

    def awaits(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """A coroutine of the task begins to wait in this loop; None: the last one that did goes on."""
        if loop is not None:
            self._begin(loop)
        else:
            self._end()

    def _begin(self, loop: asyncio.AbstractEventLoop | None) -> None:
        worker = self._worker
        with worker.lock:
            self._loop, self.waits = loop, True
            worker.signals.may_help = loop is None
            self.look()

    def _end(self) -> None:
        """What was taken and not begun goes back to its queue: from now on its turn would come after our own task."""
        worker = self._worker
        with worker.lock:
            self._loop, self.waits = None, False
            worker.signals.may_help = worker.signals.own_work = False
            item, worker.by_hand = self._taken(), 0
            if item is not None:
                worker.inbox.remove(item)
                task = worker.tasks.lanes[worker.me].answered(item[1][0])
                if task is not None:
                    worker.tasks.start(task)
            for shape in self._capped:
                pool = worker.tasks.pools.get(shape)
                if pool is not None and not pool.queue:
                    pool.lower()

    def _run(self) -> None:
        """Run the call that was taken. KeyboardInterrupt: the waiting call was cancelled meanwhile."""
        worker, signals = self._worker, self._worker.signals
        with worker.lock:
            signals.own_work = False
            item = self._taken() if self.waits else None
            if item is None:
                return
            worker.inbox.remove(item)
            worker.by_hand = 0
            loop, self._loop = self._loop, None
            self.waits = signals.may_help = False
            waits_again = worker.goes_on()
        outer = signals.executing, worker.depth, worker.parent, worker.needed
        refs, limit = arrivals.take(), sys.getrecursionlimit()
        sys.setrecursionlimit(limit + _FRAMES)
        held = signals.lift()
        try:
            worker.run_own(item)
        finally:
            signals.restore(held)
            sys.setrecursionlimit(limit)
            arrivals.put_back(refs)
            signals.executing, worker.depth, worker.parent, worker.needed = outer
            waits_again()
            self._begin(loop)
        if outer[0] in worker.cancelled:
            raise KeyboardInterrupt
