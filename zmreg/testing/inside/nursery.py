"""The workers of a node that has no processes: threads."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from signal import SIGKILL
from typing import Any

from zmreg.model.ids import ProcessId, worker_id
from zmreg.services.node.node import Node
from zmreg.services.node.nursery import Child, Death, Nursery
from zmreg.services.worker import threads
from zmreg.testing.inside.workers import ThreadWorker

# Threads that were killed end with their next step of Python code; one that waits in C is left behind.
END_S = 2.0

log = logging.getLogger("zmreg.testing")


class Bell:
    """What a node's loop polls in place of the zygote's channel."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._guard = threading.Lock()

    def fileno(self) -> int:
        """To be polled."""
        return self._fd

    def ring(self) -> None:
        """There is news."""
        with self._guard:
            if self._fd >= 0:
                os.eventfd_write(self._fd, 1)

    def hush(self) -> None:
        """It is being looked at."""
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return

    def close(self) -> None:
        """No more."""
        with self._guard:
            fd, self._fd = self._fd, -1
            os.close(fd)


class ThreadNursery(Nursery):
    """As `Nursery`; a worker that is killed is gone at once, whatever its thread still does."""

    def __init__(self, channel: Any, pid: int, config: dict[str, Any], died: Callable[[Death], None]) -> None:
        super().__init__(channel, pid, config, died)
        self._bell: Bell = channel
        self._facts: deque[tuple[bytes, int]] = deque()
        self._threads: dict[bytes, threading.Thread] = {}
        self._workers: dict[bytes, ThreadWorker] = {}
        self._guard = threading.Lock()

    def start(self) -> None:
        """One more worker."""
        self._born += 1
        self._begin(worker_id(self._node, self._born))

    def lodge(self, worker: bytes, house: bytes) -> None:
        """The same: there is but one process."""
        self._begin(worker, house)

    def _begin(self, worker: bytes, house: bytes = b"") -> None:
        self.children[worker] = Child(worker, os.getpid(), house=house)
        if not house:
            self.printed.begin(worker)
        thread = threading.Thread(
            target=self._live, args=(worker,), name=f"zmreg-worker-{worker[-4:].hex()}", daemon=True
        )
        self._threads[worker] = thread
        thread.start()

    def _live(self, me: bytes) -> None:
        worker = ThreadWorker(self._session, ProcessId(me), ProcessId(self._node), partial(self._ended, me))
        threads.belongs(worker)
        try:
            with self._guard:
                self._workers[me] = worker
                child = self.children.get(me)
                killed = child is None or child.kill_at == 0
            if killed:
                worker.die(int(SIGKILL))
            worker.live()
        finally:
            threads.leaves()
            with self._guard:
                self._workers.pop(me, None)
                self._threads.pop(me, None)

    def _ended(self, worker: bytes, status: int) -> None:
        self._facts.append((worker, status))
        self._bell.ring()

    def hear(self) -> bool:
        """Take what has happened."""
        self._bell.hush()
        while self._facts:
            worker, status = self._facts.popleft()
            self._gone(worker, status, "")
        return True

    def _gone(self, worker: bytes, status: int | None, why: str) -> None:
        for lodger in [each.worker for each in self.children.values() if each.house == worker]:
            self.kill(lodger, why)
        super()._gone(worker, status, why)

    def kill(self, worker: bytes, why: str) -> None:
        """As kill -9 would."""
        child = self.children.get(worker)
        if child is None:
            return
        child.killed = child.killed or why
        with self._guard:
            child.kill_at = 0
            living = self._workers.get(worker)
        if living is not None:
            living.die(int(SIGKILL))

    def close(self) -> None:
        """Kill what is left; wait for the threads."""
        for worker in list(self.children):
            self.kill(worker, "the cluster was shut down")
        deadline = time.monotonic() + END_S
        for thread in list(self._threads.values()):
            thread.join(max(0.0, deadline - time.monotonic()))
        if left := [thread.name for thread in list(self._threads.values()) if thread.is_alive()]:
            log.warning(
                "%s of a cluster within this process still run code of yours that waits in C (a lock, a socket); "
                "nobody hears of it any more",
                ", ".join(left),
            )
        self._bell.close()


class ThreadNode(Node):
    """A node whose workers are threads."""

    nursery_kind = ThreadNursery
