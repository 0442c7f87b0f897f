"""The programs that have taken a seat in the cluster: who, since when, and how it ended; and the submitted jobs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from zmreg.core.actor_roll import ActorRoll
from zmreg.model.messages import JobNoted, JobStarted
from zmreg.model.record import Record
from zmreg.services.head.submissions import Submission, Submissions

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
    """The head's lists of programs and of submitted jobs, which are looked after by some of its `actors`."""

    def __init__(self, actors: ActorRoll) -> None:
        self._actors = actors
        self._changed: Callable[[Job], None] = lambda job: None
        self._jobs: dict[bytes, Job] = {}
        self._submitted = Submissions()

    def restore(self, jobs: list[Job], submissions: list[Submission]) -> None:
        """Know what the former head knew."""
        self._jobs = {job.driver: job for job in jobs[-_ENDED_KEPT:]}
        self._submitted.restore(submissions)

    def write_down(self, job: Callable[[Job], None], submission: Callable[[Submission], None]) -> None:
        """Call these with each that comes, changes or goes."""
        self._changed, self._submitted.changed = job, submission

    def hears(self, word: JobStarted | JobNoted) -> None:
        """A program has taken a seat (said again, nothing changes), or a submitted job has come so far."""
        if isinstance(word, JobNoted):
            self._submitted.noted(word, self._actors)
        elif word.driver not in self._jobs:
            self._put(Job(word.driver, word.name, word.started, 0.0, RUNNING))

    def process_died(self, process: bytes, reason: str) -> None:
        """Perhaps a program."""
        job = self._jobs.get(process)
        if job is not None and job.status == RUNNING:
            self._put(job.but(ended=time.time(), status=ENDED if reason == LEFT else DIED))

    def _put(self, job: Job) -> None:
        self._jobs[job.driver] = job
        self._changed(job)
        if len(self._jobs) > _ENDED_KEPT:
            over = next((each for each in self._jobs.values() if each.status != RUNNING), None)
            if over is not None:
                del self._jobs[over.driver]

    def tick(self) -> None:
        """Jobs whose supervisors have died are over."""
        self._submitted.settle(self._actors)

    def submitted(self, topic: str, key: str) -> dict[str, Any] | None:
        """What is known of a submitted job, or (`submissions`) a page of all. None when there is no such job."""
        self.tick()
        return self._submitted.row(key) if topic == "submission" else self._submitted.page(key)

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
