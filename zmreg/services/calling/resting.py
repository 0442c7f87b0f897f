"""Tasks whose workers were ended for want of memory: tried again after a pause, when others may be done with theirs.

Under the client's lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from zmreg.services.calling.calls import Task

# 1 s, doubled with each time, up to 30 s.
PAUSE_S: Final = 1.0
MAX_PAUSE_S: Final = 30.0


class Resting:
    """Those of one owner. `start(task)` has it run."""

    def __init__(self, start: Callable[[Task], None]) -> None:
        self._start = start
        self._until: list[tuple[float, Task]] = []

    def __bool__(self) -> bool:
        return bool(self._until)

    def put(self, task: Task, times: int, now: float) -> None:
        """Try it again later. `times`: how often this has happened to it."""
        self._until.append((now + min(MAX_PAUSE_S, PAUSE_S * 2 ** (times - 1)), task))

    def tick(self, now: float, live: Callable[[Task], bool]) -> None:
        """Start those whose pause is over; those that have ended meanwhile, by a cancellation, are forgotten."""
        due = [task for until, task in self._until if until <= now]
        self._until = [each for each in self._until if each[0] > now and live(each[1])]
        for task in due:
            if live(task):
                self._start(task)
