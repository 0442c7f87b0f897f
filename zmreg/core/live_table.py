"""Stages or phases that are at work, as lines of a table: counts as they stand, rates and ends as they may be expected.

A rate is what came out over the last few seconds, not since the beginning: it follows what happens now.
"""

from __future__ import annotations

import html
from collections import deque
from collections.abc import Sequence
from typing import Final

from zmreg.model.record import Record

# Rates are of this long at most, and of this many looks.
WINDOW_S: Final = 5.0
_LOOKS: Final = 64
_NAMES: Final = ("", "state", "in", "out", "rate", "waiting", "blocked", "eta")
_LEFT: Final = 2
"""So many columns begin at the left; the rest are numbers."""


class Line(Record):
    """What one stage or phase says of itself."""

    name: str
    state: str = ""
    items_in: int = 0
    items_out: int = 0
    waiting: int = 0
    """Items that lie before it, or calls under way."""
    blocked_s: float = 0.0
    """Seconds for which it waited for those after it."""
    total: int | None = None
    """How many will come in, where that is known."""


class Row(Record):
    """A line with what follows from the looks before. `eta_s`: None where nobody can know, 0 at the end."""

    line: Line
    rate: float
    eta_s: float | None


class LiveTable:
    """Looks at the same lines, one after the other."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, dict[str, tuple[int, int]]]] = deque(maxlen=_LOOKS)
        self._began: float | None = None
        self.rows: tuple[Row, ...] = ()
        self.elapsed_s = 0.0

    def look(self, lines: Sequence[Line], now: float) -> None:
        """Take what they say now. `now`: seconds of any clock that does not go back."""
        if self._began is None:
            self._began = now
        self.elapsed_s = now - self._began
        while len(self._looks) > 1 and now - self._looks[0][0] > WINDOW_S:
            self._looks.popleft()
        then, before = self._looks[0] if self._looks else (now, {})
        passed = now - then
        self.rows = tuple(_row(line, before.get(line.name, (0, 0)), passed) for line in lines)
        self._looks.append((now, {line.name: (line.items_in, line.items_out) for line in lines}))

    def text(self) -> list[str]:
        """Lines of a terminal, the head first."""
        cells = [_NAMES, *map(_cells, self.rows)]
        used = [at for at in range(len(_NAMES)) if at == 0 or any(row[at] for row in cells[1:])]
        widths = {at: max(len(row[at]) for row in cells) for at in used}
        return [
            "  ".join(row[at].ljust(widths[at]) if at < _LEFT else row[at].rjust(widths[at]) for at in used).rstrip()
            for row in cells
        ]

    def plain(self) -> str:
        """All of it in one line of a log."""
        told = []
        for row in self.rows:
            line = row.line
            state = f" {line.state}" if line.state else ""
            counts = f" {line.items_in} in {line.items_out} out" if line.items_in else ""
            told.append(f"{line.name}{state}{counts}{f' {_rate(row.rate)}' if row.rate else ''}")
        return f"{_span(self.elapsed_s)}: {'; '.join(told)}"

    def to_html(self) -> str:
        """A table without style of its own, but for numbers at the right."""
        head = "".join(f"<th style='text-align:{_side(at)}'>{name}</th>" for at, name in enumerate(_NAMES))
        body = "".join(
            "<tr>" + "".join(f"<td style='text-align:{_side(at)}'>{html.escape(cell)}</td>"
                             for at, cell in enumerate(_cells(row))) + "</tr>"
            for row in self.rows
        )  # fmt: skip
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _row(line: Line, before: tuple[int, int], passed_s: float) -> Row:
    came, went = (line.items_in - before[0], line.items_out - before[1]) if passed_s > 0 else (0, 0)
    rate = max(0, went) / passed_s if passed_s > 0 else 0.0
    eta_s = None
    if line.total is not None:
        left = max(0, line.total - line.items_in)
        if not left and not line.waiting:
            eta_s = 0.0
        elif came > 0:
            eta_s = (left + line.waiting) * passed_s / came
    return Row(line, rate, eta_s)


def _cells(row: Row) -> tuple[str, ...]:
    line = row.line
    taken = f"{line.items_in}/{line.total}" if line.total is not None else str(line.items_in or "")
    return (
        line.name, line.state, taken, str(line.items_out or ""), _rate(row.rate) if row.rate else "",
        str(line.waiting or ""), _span(line.blocked_s) if line.blocked_s >= 0.05 else "",
        "" if row.eta_s is None else _span(row.eta_s),
    )  # fmt: skip


def _side(at: int) -> str:
    return "left" if at < _LEFT else "right"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.3g}/s"


def _span(seconds: float) -> str:
    """As people say it: 0.4 s, 12 s, 3:05, 1:02:03."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, left = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
