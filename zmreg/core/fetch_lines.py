"""Who of the wants is under way and who waits in line: the bookkeeping of slots and transfers under `Fetching`."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

from zmreg.core.fetch_effects import Request
from zmreg.core.wants import Holder, Stage, Turn, Want
from zmreg.model.fetch_messages import WINDOW_BYTES


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Bounds of one node's fetches. Sizes in bytes, times in seconds."""

    window_bytes: int = WINDOW_BYTES
    transfers: int = 8
    in_flight_bytes: int = 256 << 20
    stall_s: float = 2.0
    """A transfer without a chunk for so long is given up with that holder; doubled for each time in a row."""
    patience_s: float = 10.0
    """Without any progress or hope of it for so long, the fetch fails."""


class Lines:
    """Slots, the queue before them, and the numbers of transfers.

    Invariants:
    - `active` wants are RESERVING or FETCHING, never more than `limits.transfers`; `flight_bytes` is what they weigh.
    - `transfers` has every FETCHING want once, under the number of its last transfer, and nobody else.
    - a QUEUED want stands in one queue, once.
    """

    __slots__ = ("_fresh", "_resumed", "_serial", "active", "flight_bytes", "limits", "loads", "transfers")

    def __init__(self, limits: FetchLimits) -> None:
        self.limits = limits
        self.active = 0
        self.flight_bytes = 0
        self.loads: Counter[bytes] = Counter()  # holder -> our transfers with it
        self.transfers: dict[int, Want] = {}
        self._fresh: deque[Want] = deque()
        self._resumed: deque[Want] = deque()  # have their room already and go first: memory should not wait
        self._serial = 0

    def __repr__(self) -> str:
        return (
            f"<Lines {self.active}/{self.limits.transfers} under way, {len(self._fresh) + len(self._resumed)} queued>"
        )

    def weight(self, want: Want) -> int:
        """What it counts against `in_flight_bytes`."""
        return min(want.nbytes, self.limits.in_flight_bytes // 2)

    def line_up(self, want: Want, now: float) -> None:
        """A want that is QUEUED takes its place in line."""
        want.queued_at = now
        (self._resumed if want.has_room else self._fresh).append(want)

    def next(self, now: float) -> Want | None:
        """Take the want whose turn it is out of the line; None when there is none, or no slot for it."""
        for queue in (self._resumed, self._fresh):
            while queue and queue[0].stage is not Stage.QUEUED:
                queue.popleft()  # ended while it stood in line
            if queue:
                if not self._fits(queue[0]):
                    return None
                want = queue.popleft()
                want.hope_at += now - want.queued_at
                return want
        return None

    def _fits(self, want: Want) -> bool:
        # An empty line takes anybody: else a limit below one object's size would stop everything.
        if self.active == 0:
            return True
        light = self.flight_bytes + self.weight(want) <= self.limits.in_flight_bytes
        return light and self.active < self.limits.transfers

    def move(self, want: Want, turn: Turn, why: str = "") -> None:
        """The only way to another stage: keeps the slots."""
        before = want.under_way
        want.life.move(turn, why)
        change = want.under_way - before
        self.active += change
        self.flight_bytes += change * self.weight(want)

    def begin(self, want: Want, holder: Holder, now: float) -> Request:
        """A new transfer of a want that is FETCHING, from the byte it has reached."""
        self._serial += 1
        want.transfer, want.holder = self._serial, holder.node
        want.start, want.upto = want.offset, min(want.nbytes, want.offset + want.window)
        want.word_at = now
        self.transfers[want.transfer] = want
        self.loads[holder.node] += 1
        return Request(holder.node, want.transfer, want.object_id, want.offset, want.upto)

    def leave(self, want: Want) -> None:
        """Its transfer, if there is one, is over: what still comes under that number is late."""
        if self.transfers.pop(want.transfer, None) is not None:
            self.loads[want.holder] -= 1
            if not self.loads[want.holder]:
                del self.loads[want.holder]
