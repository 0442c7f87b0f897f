"""A terminal's side of a stopped call (services/worker/stopping.py): what comes from there, and what is said.

Handlers run on whatever thread receives; the terminal's own thread waits for what they leave.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from zmreg.model.debug_messages import (
    LINE_CHARS,
    DebugAttach,
    DebugLine,
    DebugOver,
    DebugSign,
    DebugTaken,
    DebugText,
    DebugWord,
)
from zmreg.model.errors import ClusterError, GetTimeoutError, WorkerDiedError, ZmregError
from zmreg.model.ids import NODE_BYTES
from zmreg.model.messages import NodeGone, ProcessDied
from zmreg.net.waiting import Waiter
from zmreg.services.seat.client import Client

# A worker answers in milliseconds; one that holds the interpreter for so long does not stand at a prompt.
ANSWER_S: Final = 10.0


class Visits:
    """All of this process's visits to stopped calls: one for each terminal."""

    def __init__(self, client: Client) -> None:
        self.open: dict[int, Visit] = {}
        self.count = 0
        hear_of_process, hear_of_node = client.handlers[ProcessDied], client.handlers[NodeGone]

        def process_died(sender: bytes, message: Any) -> None:
            hear_of_process(sender, message)
            self._lost(message.process, _death(message))

        def node_gone(sender: bytes, message: Any) -> None:
            hear_of_node(sender, message)
            self._lost(message.node[:NODE_BYTES], WorkerDiedError(f"its node is gone: {message.reason}"))

        client.handlers |= {
            DebugText: self._on_word,
            DebugOver: self._on_word,
            ProcessDied: process_died,
            NodeGone: node_gone,
        }
        client.questions.at_the_end.append(self._end)

    def _on_word(self, sender: bytes, message: DebugText | DebugOver) -> None:
        visit = self.open.get(message.visit)
        if visit is not None and visit.worker == sender and visit.number == message.number:
            visit.hear(message)

    def _lost(self, prefix: bytes, error: ZmregError) -> None:
        for visit in self.open.values():
            if visit.worker.startswith(prefix):
                visit.hear(error)

    def _end(self) -> None:
        for visit in self.open.values():
            visit.hear(ClusterError("the cluster is gone, or was left"))


def _death(message: ProcessDied) -> WorkerDiedError:
    how = f"signal {message.signal}" if message.signal else f"exit code {message.exit_code}"
    text = f"worker {message.process.hex()}, whose call this was, has died: {message.reason or how}"
    return WorkerDiedError(text)


_visits: weakref.WeakKeyDictionary[Client, Visits] = weakref.WeakKeyDictionary()

Heard = DebugText | DebugOver | ZmregError


class Visit:
    """One terminal at one stopped call; `with` it. Leaving is no end of the stop."""

    def __init__(self, client: Client, worker: bytes, number: int) -> None:
        self.worker = worker
        self.number = number
        self.is_over = False
        self.when_over: Callable[[], object] = _nothing
        """Called once, under the lock, on the thread that receives."""
        self._client = client
        self._heard: deque[Heard] = deque()
        self._waiter = Waiter()

    def __enter__(self) -> Visit:
        client = self._client
        with client.shield(), client.lock:
            client.check()
            visits = _visits.get(client)
            if visits is None:
                visits = _visits[client] = Visits(client)
            visits.count += 1
            self.visit = visits.count
            visits.open[self.visit] = self
            if not self._say(DebugAttach(self.number, self.visit)):
                self.hear(WorkerDiedError(f"worker {self.worker.hex()} is gone"))
        return self

    def __exit__(self, *_: object) -> None:
        client = self._client
        with client.shield(), client.lock:
            _visits[client].open.pop(self.visit, None)
            if not self.is_over and client.closed is None:
                self._say(DebugSign(self.number, self.visit, False))

    def hear(self, what: Heard) -> None:
        """Under the lock: something has come, or happened."""
        if self.is_over:
            return
        self._heard.append(what)
        self._waiter.finish()
        if not isinstance(what, DebugText):
            self.is_over = True
            self.when_over()

    def poll(self) -> DebugText | DebugOver | None:
        """What comes next; None: nothing yet. Raises what has ended it: WorkerDiedError, ClusterError."""
        client = self._client
        with client.shield(), client.lock:
            if not self._heard:
                self._waiter = Waiter()
                return None
            found = self._heard.popleft()
        if isinstance(found, ZmregError):
            raise found
        return found

    def wait(self, timeout: float | None = None) -> None:
        """After a `poll` that gave nothing: until there is something. Raises GetTimeoutError, ClusterError."""
        if not self._client.wait(self._waiter, timeout):
            self._client.check()
            text = f"worker {self.worker.hex()} has not answered within {timeout} s"
            raise GetTimeoutError(text, timeout_s=timeout)

    def answer(self, line: str) -> None:
        """The line that was asked for. ValueError when it is too long."""
        if len(line) > LINE_CHARS:
            raise ValueError(f"a line of {len(line)} characters: {LINE_CHARS} are allowed")
        self._tell(DebugLine(self.number, self.visit, line))

    def took(self, text: str) -> None:
        """That was shown."""
        self._tell(DebugTaken(self.number, self.visit, len(text)))

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._tell(DebugSign(self.number, self.visit, True))

    def _tell(self, message: DebugWord) -> None:
        with self._client.shield(), self._client.lock:
            self._say(message)

    def _say(self, message: DebugWord) -> bool:
        return self._client.post(self.worker, message)


def _nothing() -> None:
    """Nobody wants to know."""
