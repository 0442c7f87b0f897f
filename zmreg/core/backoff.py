"""Growing pauses after failures in a row. Time is an argument."""

from __future__ import annotations


class Backoff:
    """`first_s`, doubled with every failure in a row up to `most_s`."""

    __slots__ = ("_first_s", "_most_s", "_not_before", "failures")

    def __init__(self, first_s: float, most_s: float) -> None:
        self.failures = 0
        self._first_s = first_s
        self._most_s = most_s
        self._not_before = float("-inf")

    def failed(self, now: float) -> None:
        # The exponent is bounded: 2 ** failures would outgrow a float on a machine that fails for days.
        self._not_before = now + min(self._most_s, self._first_s * 2 ** min(self.failures, 20))
        self.failures += 1

    def succeeded(self) -> None:
        self.failures = 0
        self._not_before = float("-inf")

    def pauses(self, now: float) -> bool:
        """Whether the next attempt is still to wait."""
        return now < self._not_before

    def __repr__(self) -> str:
        return f"<Backoff {self.failures} failures in a row>"
