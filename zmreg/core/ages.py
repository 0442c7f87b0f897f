"""How old a number is, among numbers that are given out one after the other: by a look at the next one now and then.

Nothing is noted for a single one. Between two looks anything may have been given out, so what is known of a number are
two moments; where they are far apart, nobody says how old it is.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

# Looks that are remembered. When there are more, only those stay that are apart from the next by this part of their
# age: about a thousand for a year.
MOST_LOOKS: Final = 2_048
_APART: Final = 1 / 64
# How far apart the two moments may be: a second, or so large a part of the age.
EXACT_S: Final = 1.0
EXACT_PART: Final = 0.25

_Look = tuple[int, float, float]
"""(the next number, since when, as far as seen; until when, as far as seen)."""


class Ages:
    """Of one process's numbers. Any thread may look and ask; of two looks at the same instant one may be lost."""

    __slots__ = ("_looks",)

    def __init__(self) -> None:
        self._looks: list[_Look] = []

    def look(self, following: int, now: float) -> None:
        """`following` is the next number that will be given out."""
        looks = self._looks
        if not looks or looks[-1][0] < following:
            looks.append((following, now, now))
            if len(looks) > MOST_LOOKS:
                self._looks = _fewer(looks, now)
        elif looks[-1][0] == following:
            looks[-1] = (following, looks[-1][1], now)

    def of(self, number: int, now: float) -> float | None:
        """Seconds; None when it is not known well enough."""
        looks = self._looks
        place = bisect_right(looks, number, key=lambda look: look[0])
        if not place:
            return None
        oldest = now - looks[place - 1][2]
        youngest = now - looks[place][1] if place < len(looks) else 0.0
        age = max(0.0, (oldest + youngest) / 2)
        return age if oldest - youngest <= max(EXACT_S, EXACT_PART * age) else None


def _fewer(looks: list[_Look], now: float) -> list[_Look]:
    """Without those that say little. At most three quarters of what may be remembered, whatever the clock does."""
    kept = [looks[-1]]
    for look in reversed(looks[1:]):
        if kept[-1][1] - look[2] >= (now - look[2]) * _APART:
            kept.append(look)
    return [looks[0], *reversed(kept[: MOST_LOOKS * 3 // 4])]


def old(seconds: float | None) -> str:
    """For people: "3 s", "5 min", "2 h", "4 d"; empty when it is not known."""
    if seconds is None:
        return ""
    for unit, most, size in (("s", 120, 1), ("min", 120, 60), ("h", 48, 3_600)):
        if seconds < most * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"
