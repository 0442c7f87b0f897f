"""One object that a node fetches, and whom it can be had from: the bookkeeping under `Fetching`. Decides nothing else.

The lifecycle is the table `MOVES`; `ENDED` is for good, and a new wish for the same object is a new `Want`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from random import Random
from typing import Final

from zmreg.core.lifecycle import Lifecycle, named


class Stage(enum.StrEnum):
    """Where a fetch stands."""

    QUEUED = "QUEUED"
    RESERVING = "RESERVING"
    FETCHING = "FETCHING"
    WAITING = "WAITING"
    ENDED = "ENDED"


class Turn(enum.StrEnum):
    """What may happen to a fetch."""

    RESERVE = "asked for room"
    ASK = "asked a holder"
    LACK = "nobody to ask"
    LINE_UP = "somebody to ask"
    END = "ended"


MOVES: Final[Mapping[tuple[Stage, Turn], Stage]] = {
    (Stage.QUEUED, Turn.RESERVE): Stage.RESERVING,
    (Stage.QUEUED, Turn.ASK): Stage.FETCHING,
    (Stage.QUEUED, Turn.LACK): Stage.WAITING,
    (Stage.RESERVING, Turn.ASK): Stage.FETCHING,
    (Stage.RESERVING, Turn.LACK): Stage.WAITING,
    (Stage.FETCHING, Turn.ASK): Stage.FETCHING,
    (Stage.FETCHING, Turn.LACK): Stage.WAITING,
    (Stage.WAITING, Turn.LINE_UP): Stage.QUEUED,
    (Stage.QUEUED, Turn.END): Stage.ENDED,
    (Stage.RESERVING, Turn.END): Stage.ENDED,
    (Stage.FETCHING, Turn.END): Stage.ENDED,
    (Stage.WAITING, Turn.END): Stage.ENDED,
}

# The stages that use up one of the node's transfers.
UNDER_WAY: Final = (Stage.RESERVING, Stage.FETCHING)

# A holder that denied having it is asked again when the news names it again, so often at most: news may be old.
MAX_DENIALS: Final = 3
# Pauses before somebody is asked again: doubled with each time in a row, between these bounds.
_SILENT_PAUSE_S: Final = (0.25, 4.0)
_BUSY_PAUSE_S: Final = (0.05, 1.0)


class Holder:
    """One node that has, or may have, the object."""

    __slots__ = ("busy", "denials", "node", "not_before", "out", "silences", "unsure")

    def __init__(self, node: bytes) -> None:
        self.node = node
        self.not_before = float("-inf")
        self.out = False  # has denied having it, or cannot be asked any more
        self.denials = 0  # of what news had said
        self.unsure = False  # named by one who is just sending it there
        self.silences = 0  # in a row
        self.busy = 0  # answers in a row that it has too much to do

    def was_silent(self, now: float) -> None:
        self.not_before = now + _doubled(_SILENT_PAUSE_S, self.silences)
        self.silences += 1
        self.busy = 0

    def was_busy(self, now: float, spread: float) -> None:
        """`spread`: 0.5 to 1.5, so that those who were turned away together do not come back together."""
        self.not_before = now + _doubled(_BUSY_PAUSE_S, self.busy) * spread
        self.busy += 1
        self.silences = 0

    def denied(self) -> None:
        self.out = True
        self.denials += not self.unsure

    def gave(self) -> None:
        self.silences = self.busy = 0


def _doubled(bounds: tuple[float, float], times: int) -> float:
    # The shift is bounded as the pause is: 1 << times would outgrow a float.
    return min(bounds[1], bounds[0] * (1 << min(times, 20)))


class Want:
    """One object under way.

    Invariants: 0 <= offset <= upto <= nbytes while a transfer is under way, and every byte before `offset` is written.
    """

    __slots__ = (
        "answered",
        "asked",
        "has_room",
        "holder",
        "holders",
        "hope_at",
        "life",
        "nbytes",
        "object_id",
        "offset",
        "queued_at",
        "start",
        "transfer",
        "tried",
        "upto",
        "window",
        "word_at",
    )

    def __init__(self, object_id: bytes, nbytes: int, window: int, now: float) -> None:
        self.object_id = object_id
        self.nbytes = nbytes
        self.life: Lifecycle[Stage, Turn] = Lifecycle(named("fetch of object", object_id), Stage.QUEUED, MOVES)
        self.holders: dict[bytes, Holder] = {}
        self.tried: dict[bytes, str] = {}
        self.has_room = False
        self.transfer = 0  # the number of the last transfer; transfers count from 1
        self.holder = b""  # whose it is
        self.start = 0  # where it began
        self.offset = 0
        self.upto = 0
        self.window = window
        self.word_at = now  # when this transfer was asked for, or its last chunk came
        self.hope_at = now  # when it was last known that somebody has the object and means to send it
        self.queued_at = now
        self.asked = False  # AskLocations since the last progress
        self.answered = False  # ... and `no_more` came

    def __repr__(self) -> str:
        return f"<Want {self.life.what} {self.life.state} {self.offset}/{self.nbytes}>"

    @property
    def stage(self) -> Stage:
        return self.life.state

    @property
    def under_way(self) -> bool:
        return self.life.state in UNDER_WAY

    def note(self, node: bytes, unsure: bool) -> bool:
        """`node` may have it: whether that is of use. `unsure`: it may just be getting it, and denies it until then."""
        holder = self.holders.get(node)
        if holder is None:
            holder = self.holders[node] = Holder(node)
        elif not holder.out or (holder.denials >= MAX_DENIALS and not unsure):
            return False
        holder.out, holder.unsure = False, unsure
        return True

    def wake(self) -> None:
        """Somebody else has it now, so that who sent it there has less to do: all that were busy can be asked again."""
        for holder in self.holders.values():
            if holder.busy:
                holder.not_before = float("-inf")
                holder.busy = 1

    def drop(self, node: bytes, why: str) -> None:
        """It is of no use any more."""
        holder = self.holders.get(node)
        if holder is not None:
            holder.denied()
            self.blame(node, why)

    def blame(self, node: bytes, why: str) -> None:
        """Note why `node` did not give it; the last answer counts and stands last."""
        self.tried.pop(node, None)
        self.tried[node] = why

    def candidates(self) -> Iterable[Holder]:
        """Everybody who may give it, now or later."""
        return (holder for holder in self.holders.values() if not holder.out)

    def hopeless(self) -> bool:
        """Nobody is left who could be asked, now or later."""
        return all(holder.out for holder in self.holders.values())

    def unheard(self) -> bool:
        """Nobody who may have it has answered when he was last asked."""
        return all(holder.silences for holder in self.candidates())

    def slept(self, since: float, now: float) -> None:
        """Our own process stood still from `since` to `now`: that was nobody's silence."""
        self.word_at = min(now, self.word_at + now - since)
        self.hope_at = min(now, self.hope_at + now - since)

    def choose(self, now: float, loads: Mapping[bytes, int], random: Random) -> Holder | None:
        """Whom to ask now: who has least to do for us, then who was not busy, then by chance. None: nobody yet."""
        ready = [holder for holder in self.candidates() if holder.not_before <= now]
        if not ready:
            return None
        return min(ready, key=lambda holder: (loads.get(holder.node, 0), holder.busy, random.random()))

    def next_try(self) -> float:
        """When somebody may be asked again; infinity when nobody is left."""
        return min((holder.not_before for holder in self.candidates()), default=float("inf"))
