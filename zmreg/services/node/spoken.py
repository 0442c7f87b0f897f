"""The way of what workers print: from their node to the program behind, whichever processes are in between.

A node reads its workers' logs. What a driver's call has printed goes to that driver. A call that was made in a task
belongs to whoever made that task's call, and so on: the node asks the workers in between (core/hearsay.py), but keeps
the lines until it knows, so that they are lost with none of these. When one of them is gone, the lines are for the
program that the worker which printed serves. Nobody else gets them.

A program that ends asks every node for the rest: what was printed by then is on its way when the node answers.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from zmreg.core.hearsay import Hearsay
from zmreg.model.ask_messages import CallersOf, LogLines, WhoseCalls
from zmreg.model.ids import counter_of, is_driver, node_of, object_id, owner_of
from zmreg.model.record import Record

if TYPE_CHECKING:
    from zmreg.services.node.node import Node
    from zmreg.services.node.printed import Output
    from zmreg.services.seat.station import Station

# Changes of the task that makes calls, remembered by a worker: those of the last seconds are asked for.
_CHANGES: Final = 4_096
# A worker answers in a millisecond unless it stands still. Then its program gets the lines, only not in their cell.
PATIENCE_S: Final = 0.5
# Of the rate cap's share for one turn, what a program that ends may have at once: a second's.
_LAST_READS: Final = 5


class Ancestry:
    """In which tasks a worker has made its calls: numbers only grow, so the changes are enough."""

    __slots__ = ("_first", "_parents", "latest")

    def __init__(self) -> None:
        self._first: deque[int] = deque(maxlen=_CHANGES)
        self._parents: deque[bytes] = deque(maxlen=_CHANGES)
        self.latest: bytes | None = None

    def note(self, counter: int, parent: bytes | None) -> None:
        """From this call on, `parent` makes them."""
        self.latest = parent
        if parent is not None:
            self._first.append(counter)
            self._parents.append(parent)

    def of(self, counter: int) -> bytes:
        """The task that has made this call; the latest one for 0; empty when that is not known any more."""
        if not self._first:
            return b""
        place = bisect_right(self._first, counter) if counter else len(self._first)
        return self._parents[place - 1] if place else b""


class _Lines(Record):
    """What one call has printed, and the program that its worker serves; empty when that is not known."""

    source: str
    text: str
    skipped: int
    program: bytes


class Spoken:
    """What one node's workers print."""

    def __init__(self, node: Node, bytes_a_turn: int) -> None:
        """`bytes_a_turn`: how much is read at most with each tick; 0: nobody wants any of it."""
        self._node = node
        self._limit = bytes_a_turn
        self._hearsay: Hearsay[_Lines] = Hearsay(PATIENCE_S)
        self._replies: list[tuple[int, Callable[[], object]]] = []

    def tick(self, now: float) -> None:
        """Send on what workers have printed, as fast as the cap allows."""
        self._send(self._hearsay.overdue(now))
        self._read()

    def _read(self) -> bool:
        """Whether there was something."""
        node = self._node
        news = node.nursery.printed.news(self._limit, node.settings.log_bytes_per_worker)
        for output in news:
            child = node.nursery.children[output.worker]
            self._hear(child.name, child.pid, output)
        self._ask()
        return bool(news)

    def finish(self, reply: Callable[[], object]) -> None:
        """Read what is there, and call `reply` when all of it is on its way: at once, or within PATIENCE_S."""
        for _ in range(_LAST_READS):
            if not self._read():
                break
        self._replies.append((self._hearsay.latest(), reply))
        self._settle()

    def last_words(self, name: str, pid: int, outputs: Iterable[Output]) -> None:
        """What a worker has printed that is gone. To be called while the leases still know it."""
        for output in outputs:
            self._hear(name, pid, output)
        self._ask()

    def _hear(self, name: str, pid: int, output: Output) -> None:
        node = self._node
        if not node.settings.log_to_driver or not (output.text or output.skipped):
            return
        holder = node.leases.holder(output.worker)
        task = output.task or (object_id(holder, 0) if holder else b"")
        lines = _Lines(f"{output.label or name} pid={pid}", output.text, output.skipped, self._program(output.worker))
        owner = owner_of(task) if task else b""
        if not owner or owner == node.me or is_driver(owner):
            self._post(task if owner != node.me else b"", lines)
        else:
            self._hearsay.hold(task, lines, time.monotonic())

    def _program(self, worker: bytes) -> bytes:
        """Whom a worker serves for life; empty when nobody knows. Programs that came to a cluster are in their workers'
        environment; who started one for itself is here, and in none."""
        node = self._node
        job, holder = node.leases.job_of(worker), node.leases.holder(worker)
        if job and is_driver(job) and (job in node.clients or node.neighbours is not None):
            return job
        if holder and is_driver(holder):
            return holder
        return next((each for each, hello in node.clients.items() if node.is_founder(hello)), b"")

    # -- who is behind it ----------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        node = self._node
        while questions := self._hearsay.questions():
            for process, tasks in questions.items():
                here = node_of(process) == node.me
                if (here and process not in node.nursery.children) or not node.post(process, WhoseCalls(tasks)):
                    self._send(self._hearsay.gone(process))
        self._settle()

    def on_callers(self, message: CallersOf) -> None:
        """A worker has answered, or the node where it was."""
        for task, caller in zip(message.tasks, message.callers, strict=False):
            self._send(self._hearsay.answered(task, caller))
        self._ask()

    def gone(self, prefix: bytes) -> None:
        """A process is gone, or all those of a node."""
        self._send(self._hearsay.gone(prefix))
        self._settle()

    # -- on its way ----------------------------------------------------------------------------------------------------

    def _send(self, known: Iterable[tuple[bytes, _Lines]]) -> None:
        for call, lines in known:
            self._post(call, lines)

    def _post(self, call: bytes, lines: _Lines) -> None:
        """To the driver whose call that is; else to the one that the worker serves; else to all here."""
        node = self._node
        if driver := owner_of(call) if call else lines.program:
            far = "" if node_of(driver) == node.me else f" node={node.me.hex()[:8]}"
            known = call if call and counter_of(call) else b""
            node.post(driver, LogLines(lines.source + far, lines.text, lines.skipped, known))
            return
        for client, hello in node.clients.items():
            if hello.role == "driver":
                node.post(client, LogLines(lines.source, lines.text, lines.skipped, b""))

    def _settle(self) -> None:
        replies, self._replies = self._replies, []
        for number, reply in replies:
            if self._hearsay.settled(number):
                reply()
            else:
                self._replies.append((number, reply))


def answer_for_dead(node: Node, origin: bytes, message: WhoseCalls) -> None:
    """A worker of ours that is gone was asked who has made its calls."""
    node.post(origin, CallersOf(message.tasks, (b"",) * len(message.tasks)))


def tell_callers(seat: Station, node: bytes, message: WhoseCalls) -> None:
    """A node wants to know in which tasks we have made these calls."""
    callers = tuple(seat.ancestry.of(counter_of(task)) for task in message.tasks)
    seat.post(node, CallersOf(message.tasks, callers))
