"""Waits that can never end: calls between workers that wait for each other in a circle, found and broken.

A sync actor that waits for a call to itself, or two that wait for each other's, would hang for ever in silence. So a
worker that blocks without a timeout sends a probe to the worker it waits for; a worker that is blocked itself passes it
on to those it waits for. A probe that comes back to a worker still in the same wait has proven a circle (Chandy, Misra
and Haas, "Distributed deadlock detection", 1983, AND model). Each step checks that the call it came by is unfinished
at the receiver; answers and probes travel by one connection in order, so what was answered is never taken for waiting.

Of a circle one call is withdrawn: its owner, the deepest in the chain of calls, gets DeadlockError from its wait. A
shallower probe that meets a deeper waiting worker is dropped, and the deeper one asks again: whoever blocks last, the
question goes round once all have blocked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from zmreg.model.errors import DeadlockError
from zmreg.model.messages import DeadlockProbe
from zmreg.services.calling.calls import Task
from zmreg.services.calling.endings import cancel_sent
from zmreg.services.calling.peers import Peer
from zmreg.services.seat.entries import PENDING, Entry

if TYPE_CHECKING:
    from zmreg.services.worker.intake import Intake

# Calls looked at per wait and per probe: a wait for more than this is a fan-out, whose circles show in its first calls.
_MOST = 64


class Deadlocks:
    """One worker's part in the search. All methods run under its lock."""

    def __init__(self, worker: Intake) -> None:
        self._worker = worker
        self._entries: Sequence[Entry] = ()
        self._serial = 0
        self._since = 0
        self._asked: set[int] = set()
        self._passed_on: set[tuple[bytes, int]] = set()
        self._heard: dict[tuple[bytes, int], DeadlockProbe] = {}
        """The last probe about each call that is not answered yet: who waits asks once, and we may wait only later."""

    def begins(self, entries: Sequence[Entry]) -> None:
        """The main thread blocks until all of these are there, without a timeout."""
        self._entries = entries
        self._since = self._serial + 1
        self._asked.clear()
        self._passed_on.clear()
        self._ask()
        for (sender, _), probe in list(self._heard.items()):
            self.on_probe(sender, probe)

    def ends(self) -> None:
        """It goes on."""
        self._entries = ()

    @property
    def waiting(self) -> bool:
        """The main thread blocks."""
        return bool(self._entries)

    def look_again(self) -> None:
        """Something happened: ask again if a call that we wait for was sent only now (its actor had no place yet)."""
        if any(task.counter not in self._asked for task in self._awaited()):
            self._ask()

    def _ask(self) -> None:
        """Send our own probe, to actors only: every circle goes through one, and it passes probes on."""
        self._serial += 1
        for task in self._awaited():
            self._asked.add(task.counter)
            if isinstance(task.peer, Peer):
                self._send(task, self._worker.me, self._serial, self._worker.depth, task.counter, ())

    def _awaited(self) -> Iterator[Task]:
        """Our own calls, sent and unanswered, that the wait is for, directly or as inputs of calls."""
        entries = [entry for entry in self._entries if entry.state == PENDING][:_MOST]
        seen: set[int] = set()
        while entries and len(seen) < _MOST:
            task = entries.pop().task
            if task is None or task.counter in seen:
                continue
            seen.add(task.counter)
            if task.lane is not None and task.counter in task.lane.outstanding:
                yield task
            else:
                entries += [entry for entry in task.inputs() if entry.state == PENDING]

    def _send(self, task: Task, initiator: bytes, serial: int, depth: int, start: int, path: tuple[str, ...]) -> None:
        assert task.lane is not None
        task.lane.flush()  # the call itself must be there before a question about it
        probe = DeadlockProbe(initiator, serial, depth, start, task.counter, (*path, task.template.name))
        self._worker.post(task.lane.worker, probe)

    def on_probe(self, sender: bytes, probe: DeadlockProbe) -> None:
        """`sender` waits for its call `probe.counter`, which it had sent here."""
        worker = self._worker
        self._heard.pop((sender, probe.counter), None)
        if not worker.has_unfinished(sender, probe.counter):
            return
        if len(self._heard) >= _MOST:
            self._heard = {key: each for key, each in self._heard.items() if worker.has_unfinished(*key)}
        if len(self._heard) < _MOST:
            self._heard[sender, probe.counter] = probe
        if not self._entries:
            return
        if probe.initiator == worker.me:
            if probe.serial >= self._since:
                self._break(probe)
        elif (probe.depth, probe.initiator) < (worker.depth, worker.me):
            self._ask()
        elif (probe.initiator, probe.serial) not in self._passed_on and len(probe.path) < _MOST:
            self._passed_on.add((probe.initiator, probe.serial))
            for task in self._awaited():
                self._send(task, probe.initiator, probe.serial, probe.depth, probe.start, probe.path)

    def _break(self, probe: DeadlockProbe) -> None:
        """Withdraw our call of the circle: its wait ends with the error."""
        worker = self._worker
        task = worker.tasks.live.get(probe.start)
        if task is None or task.lane is None:
            return
        lane = task.lane
        task.cancelled = True
        if lane.worker == worker.me:  # a message to ourselves would come after the call it is about
            worker.drop_call(worker.me, task.counter)
        else:
            cancel_sent(task, lane, False, True)
        lane.answered(task.counter)
        who = worker.host.class_name() if worker.host is not None else "a task"
        chain = ", which waits for ".join(f"{name}()" for name in probe.path)
        text = (
            f"deadlock: {who} waits for {chain}, which only runs where {who} waits. {probe.path[0]}() was withdrawn. "
            "Await such calls in async methods, or return the ref instead of waiting for its value."
        )
        worker.tasks.fail(task, DeadlockError(text, path=probe.path))
