"""Jobs that were submitted: what their supervisors have said of them last, and what has become of those that were
silent at their end. The head keeps the list, and runs nothing of it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from zmreg.core.actor_roll import ActorRoll, ActorState
from zmreg.model.errors import ProtocolError
from zmreg.model.job_messages import ENDED, GONE, JOB_ID, PENDING, RUNNING, JobNoted
from zmreg.model.record import Record

# Jobs that are listed after their end; the oldest are forgotten.
ENDED_KEPT: Final = 1_000
# Of one job, so that the list stays below 100 MB: texts that people give are some hundred bytes, and a tail is 16 KiB.
_NOTE_CHARS: Final = 64 * 1024
_TAIL_BYTES: Final = 32 * 1024
# Of one answer: an envelope has 4 MiB (wire/codec.py).
_PAGE_CHARS: Final = 1 << 20


class Submission(Record):
    """A job. Its `note` is JSON that only its readers understand."""

    job_id: str
    actor_id: bytes
    stage: int
    note: str
    tail: bytes
    fate: str = ""
    """What has become of its supervisor, when that could not say itself how the job ended."""
    noticed: float = 0.0
    """When the head heard of its end, in seconds of the epoch; 0 before."""


class Submissions:
    """The head's list. `changed(submission)` is called with each that comes, changes or is forgotten."""

    def __init__(self) -> None:
        self.changed: Callable[[Submission], None] = lambda submission: None
        self._all: dict[str, Submission] = {}
        self._open: set[str] = set()

    def restore(self, submissions: Iterable[Submission]) -> None:
        """Know what the former head knew."""
        self._all = {each.job_id: each for each in submissions}
        self._open = {each.job_id for each in self._all.values() if each.stage < ENDED}

    def noted(self, word: JobNoted, actors: ActorRoll) -> None:
        """A job has come so far. What was said last of an ended job stays: a supervisor that was given up may have
        more to say, and a word may be said again to another head. ProtocolError for what nobody says."""
        sound = re.fullmatch(JOB_ID, word.job_id) and PENDING <= word.stage <= GONE
        if not sound or len(word.note) > _NOTE_CHARS or len(word.tail) > _TAIL_BYTES:
            raise ProtocolError(f"a word about job {word.job_id!r:.80} that no supervisor says")
        known = self._all.get(word.job_id)
        if word.stage == GONE:
            if known is not None and known.stage == ENDED:
                self._forget(known)
        elif known is None:
            if word.stage != RUNNING or not _is_dead(word.actor_id, actors):  # else it was stopped, and is forgotten
                self._put(_of(word))
        elif known.actor_id == word.actor_id and known.stage < ENDED and known.stage <= word.stage:
            self._put(_of(word))

    def settle(self, actors: ActorRoll) -> None:
        """Jobs whose supervisors are dead have ended, whatever they had to say."""
        for job_id in list(self._open):
            job = self._all[job_id]
            if _is_dead(job.actor_id, actors):
                self._put(job.but(stage=ENDED, fate=actors.fate(job.actor_id), noticed=time.time()))

    def _put(self, job: Submission) -> None:
        self._all[job.job_id] = job
        (self._open.discard if job.stage == ENDED else self._open.add)(job.job_id)
        self.changed(job)
        if len(self._all) - len(self._open) > ENDED_KEPT:
            self._forget(next(each for each in self._all.values() if each.stage == ENDED))

    def _forget(self, job: Submission) -> None:
        del self._all[job.job_id]
        self.changed(job.but(stage=GONE))

    def row(self, job_id: str) -> dict[str, Any] | None:
        """One job, with the end of its log."""
        job = self._all.get(job_id)
        return None if job is None else {**_row(job), "tail": job.tail}

    def page(self, start: str) -> dict[str, Any]:
        """{"rows": jobs from the one of number `start` on, the oldest first, "next": where to go on, 0 at the end}."""
        rows: list[dict[str, Any]] = []
        chars, jobs = 0, list(self._all.values())
        for number, job in enumerate(jobs[int(start or 0) :], int(start or 0)):
            chars += len(job.note) + len(job.fate)
            if rows and chars > _PAGE_CHARS:
                return {"rows": rows, "next": number}
            rows.append(_row(job))
        return {"rows": rows, "next": 0}


def _of(word: JobNoted) -> Submission:
    noticed = time.time() if word.stage == ENDED else 0.0
    return Submission(word.job_id, word.actor_id, word.stage, word.note, word.tail, "", noticed)


def _is_dead(actor_id: bytes, actors: ActorRoll) -> bool:
    return actors.state(actor_id) in (None, ActorState.DEAD)


def _row(job: Submission) -> dict[str, Any]:
    return {
        "job_id": job.job_id, "stage": job.stage, "note": job.note, "fate": job.fate, "noticed": job.noticed,
        "actor_id": job.actor_id,
    }  # fmt: skip
