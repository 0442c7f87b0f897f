"""The programs that have taken a seat in the cluster: who, since when, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from zmreg.model.messages import JobStarted
from zmreg.model.record import Record

RUNNING: Final = "RUNNING"
ENDED: Final = "ENDED"
DIED: Final = "DIED"
LEFT: Final = "the driver left"
"""The reason of a death that is none."""
# Programs listed after their end; the head's ledger has more.
_ENDED_KEPT: Final = 1_000
_NAME_CHARS: Final = 200


class Job(Record):
    """A driver. Times are seconds of the epoch, `ended` 0 while it runs."""

    driver: bytes
    name: str
    started: float
    ended: float
    status: str


def program(pid: int) -> str:
    """What was started, as far as the system tells: a script's name and its arguments."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    return " ".join(words[1:] if len(words) > 2 else words).strip()[:_NAME_CHARS]


class Jobs:
    """The head's list of programs. `changed(job)` is called with each that comes or goes."""

    def __init__(self) -> None:
        self.changed: Callable[[Job], None] = lambda job: None
        self._jobs: dict[bytes, Job] = {}

    def restore(self, jobs: list[Job]) -> None:
        """Know what the former head knew."""
        self._jobs = {job.driver: job for job in jobs[-_ENDED_KEPT:]}

    def began(self, word: JobStarted) -> None:
        """A program has taken a seat; said again, nothing changes."""
        if word.driver not in self._jobs:
            self._put(Job(word.driver, word.name, word.started, 0.0, RUNNING))

    def process_died(self, process: bytes, reason: str) -> None:
        """Perhaps a program."""
        job = self._jobs.get(process)
        if job is not None and job.status == RUNNING:
            self._put(job.but(ended=time.time(), status=ENDED if reason == LEFT else DIED))

    def _put(self, job: Job) -> None:
        self._jobs[job.driver] = job
        self.changed(job)
        if len(self._jobs) > _ENDED_KEPT:
            over = next((each for each in self._jobs.values() if each.status != RUNNING), None)
            if over is not None:
                del self._jobs[over.driver]

    def drivers(self) -> set[bytes]:
        """Those that run."""
        return {job.driver for job in self._jobs.values() if job.status == RUNNING}

    def rows(self) -> list[dict[str, object]]:
        """For people, the oldest first."""
        return [
            {
                "JobID": job.driver.hex(), "Name": job.name, "Status": job.status,
                "Started": job.started, "Ended": job.ended,
            }
            for job in self._jobs.values()
        ]  # fmt: skip
