"""What is said of submitted jobs. Of this the head keeps a list; what runs a job is an actor like any other."""

from __future__ import annotations

from typing import ClassVar, Final

from zmreg.model.record import Sentence

PENDING: Final = 0
RUNNING: Final = 1
ENDED: Final = 2
GONE: Final = 3
"""The stages of a job, as far as the head tells them apart: it only goes up. GONE: it is to be forgotten."""

# A name in paths and in commands.
JOB_ID: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"


class JobNoted(Sentence):
    """client -> its node -> head: a submitted job has come to this stage. Its supervisor is that actor."""

    KIND: ClassVar[int] = 210
    job_id: str
    actor_id: bytes
    stage: int
    note: str
    """All that is known of it, as JSON, for who asks; the head does not read it."""
    tail: bytes
    """The end of its log, when it has ended."""
