"""Whom to end when memory runs short, and what to say of it. Pure; what it decides on was measured a moment ago.

The order: a worker that nobody uses; a task that is tried again; one of which nobody has said whether it is; an actor
that is restarted; what nobody tries again, and of that tasks before actors. Among equals the newest: least work is
lost, and those that have been there for long get done. Who has so little that its end would help nobody is spared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from zmreg.model.record import Record

Use = Literal["idle", "task", "actor"]

# A worker with nothing loaded has about 12 MiB of its own: to end one that has hardly more gives nothing back.
SPARED_BYTES: Final = 32 << 20
# An end should bring the machine so far below the threshold that the next measurement does not ask for another.
MARGIN: Final = 0.01
# When no single end is enough, at least so much of what the largest has.
_SHARE_OF_LARGEST: Final = 0.25
# As many of the largest processes are named in the error.
NAMED: Final = 5
GIB: Final = 1 << 30
MIB: Final = 1 << 20


class Reading(Record):
    """What is in use of a limit, and which limit that is, in words. `kills`: processes that the kernel has ended there
    for want of memory, as far as it tells."""

    used: int
    limit: int
    source: str
    kills: int = 0

    @property
    def share(self) -> float:
        return self.used / self.limit


class Occupant(Record):
    """One worker, with the processes it has started. `nbytes` is its own memory, what it shares with others aside.

    `again`: what it does is tried again; None: nobody has said so yet. `since`: when that began, as far as was seen.
    """

    worker: bytes
    nbytes: int
    use: Use
    again: bool | None
    since: float
    label: str


def is_short(reading: Reading, threshold: float) -> bool:
    """Whether somebody has to go. `threshold`: the share of the limit from which on."""
    return reading.used >= threshold * reading.limit


def victim(occupants: Sequence[Occupant], reading: Reading, threshold: float) -> Occupant | None:
    """Whom to end now; None when memory is not short, or no worker has enough of it to be worth it."""
    if not occupants or not is_short(reading, threshold):
        return None
    largest = max(each.nbytes for each in occupants)
    enough = reading.used - (threshold - MARGIN) * reading.limit
    least = max(SPARED_BYTES, min(enough, _SHARE_OF_LARGEST * largest))
    worth = [each for each in occupants if each.nbytes >= least]
    return min(worth, key=lambda each: (_rank(each), -each.since, -each.nbytes), default=None)


def _rank(occupant: Occupant) -> int:
    match occupant.use, occupant.again:
        case "idle", _:
            return 0
        case "task", True:
            return 1
        case "task", None:
            return 2
        case "actor", True:
            return 3
        case "task", _:
            return 4
    return 5


def reason(chosen: Occupant, reading: Reading, threshold: float, largest: Sequence[tuple[str, int]]) -> str:
    """Why it was ended, with figures. `largest`: (who, bytes) of processes on this machine, the largest first."""
    named = ", ".join(f"{who} {text_of(nbytes)}" for who, nbytes in largest[:NAMED])
    return (
        f"ended by its node before the machine ran out of memory: {text_of(reading.used)} of {text_of(reading.limit)} "
        f"({reading.share:.1%}; {reading.source}) were in use, over memory_threshold={threshold:g}, and it had "
        f"{text_of(chosen.nbytes)} of its own. The largest: {named}"
    )


def text_of(nbytes: int) -> str:
    """`1.50 GiB`, `300 MiB`"""
    return f"{nbytes / GIB:.2f} GiB" if nbytes >= GIB else f"{nbytes / MIB:.0f} MiB"
