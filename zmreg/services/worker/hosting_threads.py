"""A threaded actor on its worker: calls side by side, on threads that live as long as the actor."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, ClassVar

from zmreg.model.ids import object_id
from zmreg.model.messages import Construct
from zmreg.services.worker.concurrency import Grouped
from zmreg.services.worker.execute import ActorExit
from zmreg.services.worker.hosting import SyncHost, keep_on
from zmreg.wire import batches

if TYPE_CHECKING:
    from zmreg.services.worker.worker import Worker


class Threads:
    """Threads that take calls off one queue: at most `limit`, made when they are needed, as long-lived as the actor."""

    __slots__ = ("calls", "limit", "name", "threads", "unfinished")

    def __init__(self, limit: int, name: str = "") -> None:
        self.limit = limit
        self.name = name
        self.calls: queue.SimpleQueue[tuple[bytes, batches.Row, bytes] | None] = queue.SimpleQueue()
        self.threads: list[threading.Thread] = []
        self.unfinished: set[bytes] = set()


class ThreadHost(SyncHost):
    """Up to `max_concurrency` calls at once, on threads that live as long as the actor (thread-locals stay)."""

    alone: ClassVar[bool] = False

    def __init__(self, worker: Worker, construct: Construct) -> None:
        super().__init__(worker, construct)
        worker.rest = keep_on
        self._groups = [Threads(max(1, self.concurrency))]
        self._guard = threading.Lock()
        self._over = threading.Event()
        self._at_once = False
        self._exit: SystemExit | None = None

    def _group_of(self, target: str) -> Threads:
        """Who runs a call. Groups: services/worker/concurrency.py."""
        return self._groups[0]

    def takes(self, caller: bytes, rows: list[batches.Row]) -> bool:
        """Hand each call to a thread; one more thread while all are busy and the limit allows."""
        if self.instance is None:
            return False
        for row in rows:
            task_id = object_id(caller, row[0])
            group = self._group_of(row[1])
            with self._guard:
                if self._over.is_set() and self.worker.moving:  # not begun: its caller sends it to where we go on
                    return True
                group.unfinished.add(task_id)
                # By calls, not by idle threads: one that has taken a call and not yet said so would be counted twice.
                if len(group.threads) < min(len(group.unfinished), group.limit):
                    name = "-".join(filter(None, ("zmreg-call", group.name, str(len(group.threads)))))
                    thread = threading.Thread(target=self._work, args=(group,), daemon=True, name=name)
                    group.threads.append(thread)
                    thread.start()
                group.calls.put((caller, row, task_id))
        return True

    def _resume(self, caller: bytes, row: batches.Row, first: bool) -> None:
        group, task_id = self._group_of(row[1]), object_id(caller, row[0])
        with self._guard:
            group.unfinished.add(task_id)
            group.calls.put((caller, row, task_id))

    def _work(self, group: Threads) -> None:
        while True:
            item = group.calls.get()
            if item is None:
                return
            try:
                self.run_here(*item)
            except ActorExit:
                self.end_now()
            except SystemExit as error:
                self._exit = error
                self.end_now()
            with self._guard:
                group.unfinished.discard(item[2])
                self.worker.cancelled.discard(item[2])

    def holds(self, task_id: bytes) -> bool:
        """None: they run on threads of their own."""
        return False

    def cancel(self, task_id: bytes) -> bool:
        """A call that waits is dropped when its turn comes; one that runs can ask `zmreg.cancelled()`."""
        if self.releasing.cancel(task_id):
            return True
        with self._guard:
            if any(task_id in group.unfinished for group in self._groups):
                self.worker.cancelled.add(task_id)
        return True

    def end_now(self) -> None:
        """Wait for no other thread: their calls fail with the process."""
        self.worker.moving = False
        self._at_once = True
        self._over.set()

    def end_when_idle(self) -> None:
        """Threads end behind what is queued."""
        self._over.set()

    def end_threads(self) -> None:
        """Each ends behind what is queued."""
        with self._guard:
            for group in self._groups:
                for _ in group.threads:
                    group.calls.put(None)

    def serve(self) -> None:
        """Wait for the end; then let the threads finish. Raises SystemExit when a call did."""
        inbox = self.worker.inbox
        while inbox:
            caller, row = inbox.popleft()
            self.takes(caller, [row])
        self._over.wait()
        while self.releasing and not self._at_once:
            self.releasing.gone.wait(timeout=0.1)
        self.end_threads()
        for thread in [each for group in self._groups for each in group.threads]:
            while thread.is_alive() and not self._at_once:
                thread.join(timeout=0.1)
        if self._exit is not None:
            raise self._exit
        self.worker.ending = True


class GroupedThreadHost(ThreadHost):
    """Threads by group. Calls that name no group have `max_concurrency` threads, one unless given."""

    def __init__(self, worker: Worker, construct: Construct, groups: Grouped) -> None:
        super().__init__(worker, construct)
        self._plan = groups
        self._by_name = {name: Threads(limit, name) for name, limit in groups.limits.items()}
        self._groups += self._by_name.values()

    def _group_of(self, target: str) -> Threads:
        return self._by_name.get(self._plan.group_of(target), self._groups[0])
