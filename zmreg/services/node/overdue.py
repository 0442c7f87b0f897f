"""Calls that were cancelled with a grace: their workers are killed when it is over and they are still in them.

The node does it, because it can whatever the worker is stuck in, and however idle the owner is. It looks at the
worker's board (store/board.py), so a worker that has gone on is left alone. Between that look and the kill the call
may end and another begin: that one has an attempt taken from it, as by any other death of its worker.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from zmreg.model.ids import object_id
from zmreg.model.messages import KillOverdue
from zmreg.store.board import showing


class Overdue:
    """One node's list. `kill(worker, why)` is kill -9."""

    def __init__(self, session: Path, kill: Callable[[bytes, str], None]) -> None:
        self._session = session
        self._kill = kill
        self._waiting: dict[bytes, tuple[float, KillOverdue]] = {}
        """By task id: (when, what)."""

    def expect(self, owner: bytes, message: KillOverdue, now: float) -> None:
        """An owner has cancelled a call of its own. The earliest of several moments counts."""
        task_id = object_id(owner, message.counter)
        due = now + message.grace_s
        before = self._waiting.get(task_id)
        if before is None or due < before[0]:
            self._waiting[task_id] = (due, message)

    def tick(self, now: float) -> None:
        """Kill whom it is time for."""
        for task_id, (due, message) in list(self._waiting.items()):
            if due <= now:
                del self._waiting[task_id]
                if showing(self._session / f"{message.worker.hex()}.now") == task_id:
                    self._kill(message.worker, f"its call was cancelled and not over within {message.grace_s:g} s")
