"""Lines that several workers print alike are shown once, and then counted.

Only lines that are the same byte for byte, of different sources, within `window_s`: what one source prints again and
again is shown each time, and so is the first source's line. Nothing is dropped without being counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

# Lines remembered at once. Whoever prints more different ones has few that are alike.
MOST: Final = 2_000

Told = tuple[Hashable, str, str]
"""(place, source, line) of a line to show."""


class _Line:
    __slots__ = ("count", "source", "until")

    def __init__(self, source: str, until: float) -> None:
        self.source = source
        self.until = until
        self.count = 0


class Echoes:
    """What was printed in the last seconds. `place` is where it is shown: lines are alike only in one place."""

    def __init__(self, window_s: float) -> None:
        """`window_s` 0: every line is shown."""
        self.window_s = window_s
        self._lines: OrderedDict[tuple[Hashable, str], _Line] = OrderedDict()

    def hear(self, place: Hashable, source: str, line: str, now: float) -> bool:
        """Whether to show this line now. Ask `over(now)` first."""
        if self.window_s <= 0 or not line:
            return True
        known = self._lines.get((place, line))
        if known is None:
            self._lines[place, line] = _Line(source, now + self.window_s)
            return True
        if known.source == source:
            return True
        known.count += 1
        return False

    def over(self, now: float) -> list[Told]:
        """What is to be said of lines whose time is over, and of the oldest when there are too many."""
        told: list[Told] = []
        while self._lines:
            key, line = next(iter(self._lines.items()))
            if line.until > now and len(self._lines) <= MOST:
                break
            del self._lines[key]
            if line.count:
                told.append((key[0], line.source, f"{key[1]} [repeated {line.count}x by others]"))
        return told

    def due(self) -> float | None:
        """When `over` has something to say at the earliest; None while nothing is counted."""
        return min((line.until for line in self._lines.values() if line.count), default=None)

    def __repr__(self) -> str:
        return f"<Echoes [{len(self._lines)} lines | {sum(line.count for line in self._lines.values())} counted]>"
