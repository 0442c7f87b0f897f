"""How a job stands."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from zmreg.model.record import Record

NAMESPACE: Final = "zmreg-jobs"
"""Of the actors that look after jobs; their names are the jobs' ids."""


class JobStatus(StrEnum):
    """Where a job stands; Ray's words."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"

    def is_terminal(self) -> bool:
        """Whether it is over."""
        return self not in (JobStatus.PENDING, JobStatus.RUNNING)


class JobInfo(Record):
    """What is known of a job. Times are seconds of the epoch, by the clock of the node where it runs; 0: not yet."""

    job_id: str
    status: JobStatus
    entrypoint: str
    """The command, as a shell would read it."""
    message: str
    """For people: why it waits, or how it has ended."""
    exit_code: int | None
    """Of the program, or the negative number of the signal that has ended it; None: it is not over, or nobody knows."""
    metadata: dict[str, str]
    submitted: float
    started: float
    ended: float
    node_id: str
    """Where it runs, or ran; empty before."""
    runtime_env: dict[str, Any]
    """What it runs in: of its variables the names alone."""

    def __repr__(self) -> str:
        code = f", exit code {self.exit_code}" if self.exit_code is not None else ""
        return f"<Job {self.job_id} {self.status}{code}: {self.entrypoint:.60}>"


_WAITS: Final = "it waits for a node with room for it"


def info_of(row: Mapping[str, Any]) -> JobInfo:
    """Of what the head knows, with the last that the supervisor has said."""
    note = row["note"]
    status, message, ended = JobStatus(note["status"]), note["message"], note["ended"]
    if row["fate"] or (row["noticed"] and not status.is_terminal()):  # it could not say itself how it ended
        why = row["fate"] or "its supervisor is gone"
        begun = "its program was ended with it" if status == JobStatus.RUNNING else "it had not begun"
        status, message, ended = (
            JobStatus.FAILED,
            f"what looked after the job has ended: {why}; {begun}",
            row["noticed"],
        )
    elif status == JobStatus.PENDING:
        message = message or _WAITS
    return JobInfo(
        row["job_id"], status, note["entrypoint"], message, note["exit_code"], dict(note["metadata"]),
        note["submitted"], note["started"], ended, note["node"], dict(note["runtime_env"]),
    )  # fmt: skip
