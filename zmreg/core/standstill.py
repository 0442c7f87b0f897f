"""Whether a worker stands still: its first unanswered call takes much longer than calls of that function did so far."""

from __future__ import annotations

from typing import Final

# Shorter than this nothing is slow: a process may wait so long for a CPU. It is also how often owners look, then.
STILL_S: Final = 0.004
# A call that takes so many times what was expected of it is slow; less is how durations vary.
FACTOR: Final = 4


class Standstill:
    """What the looks at one worker have seen. Times are in seconds of whatever clock `lasts` gets."""

    __slots__ = ("_first", "_since")

    def __init__(self) -> None:
        self._first = -1
        self._since = 0.0

    def lasts(self, first: int, expected_us: float, now: float) -> bool:
        """Whether `first`, the number of the oldest unanswered call, was that already long enough ago.

        Counts from the first look that found it so: what comes before it began is not its own time.
        """
        if first != self._first:
            self._first, self._since = first, now
            return False
        return now - self._since >= max(STILL_S, FACTOR * expected_us * 1e-6)

    def __repr__(self) -> str:
        return f"<Standstill at call {self._first} since {self._since:.3f}>"
