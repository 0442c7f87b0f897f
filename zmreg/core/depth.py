"""How far ahead an owner works: tasks sent ahead follow their duration, and an idle worker takes from a busy one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, TypeVar

Worker = TypeVar("Worker")

# Work kept ahead at one worker: many round trips (~0.1 ms) long, yet nothing anyone notices waiting behind.
AIM_S: Final = 0.002
# Deeper than this a batch gains nothing more, and what is sent has to be stolen back.
MAX_DEPTH: Final = 256
# A slow outlier counts at once (half of it), a return to normal is believed slowly: sending 100 tasks behind a
# 1 s task costs far more than sending too few behind short ones.
_RISE: Final = 0.5
_FALL: Final = 0.1


class DurationEstimate:
    """A moving estimate of how long one function runs, in seconds; None before the first observation."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds: float | None = None

    def observe(self, seconds: float) -> None:
        """One more run took this long. A clock that went backwards counts as 0."""
        seconds = max(0.0, seconds)
        if self.seconds is None:
            self.seconds = seconds
        else:
            weight = _RISE if seconds > self.seconds else _FALL
            self.seconds += weight * (seconds - self.seconds)

    def __repr__(self) -> str:
        return "<DurationEstimate unknown>" if self.seconds is None else f"<DurationEstimate {self.seconds:.6f} s>"


def depth_for(estimate_s: float | None) -> int:
    """Tasks to have at one worker at a time, the running one included: ~2 ms of work, 1 to 256; 1 while unknown."""
    if estimate_s is None:
        return 1
    if estimate_s * MAX_DEPTH <= AIM_S:
        return MAX_DEPTH
    return max(1, int(AIM_S / estimate_s))


def choose_victim(outstanding: Mapping[Worker, int], idle: Collection[Worker]) -> tuple[Worker, int] | None:
    """(worker, how many unstarted tasks to take back from it), or None when nobody is idle or nothing is unstarted.

    `outstanding` counts the tasks sent to each worker and not finished; one of them runs and cannot be taken.
    Half of the busiest worker's rest, rounded up: a thief that finds one task waiting behind a long one takes it.
    """
    if not idle:
        return None
    busy = [worker for worker in outstanding if worker not in idle]
    if not busy:
        return None
    busiest = max(busy, key=lambda worker: outstanding[worker])
    unstarted = outstanding[busiest] - 1
    return (busiest, (unstarted + 1) // 2) if unstarted > 0 else None
