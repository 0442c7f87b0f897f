"""Rows that were taken and are in no file yet, one by one or by columns, as they came."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, cast

from zmreg.core.columns import Columns, joined

Rows = Sequence[Any] | Columns


class Waiting:
    """In the order of writing."""

    def __init__(self) -> None:
        self._pieces: deque[Rows] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, rows: Rows) -> None:
        """Behind the others."""
        if not len(rows):
            return
        self._count += len(rows)
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, list) and not isinstance(rows, Columns):
            last += rows
        else:
            self._pieces.append(rows if isinstance(rows, Columns) else list(rows))

    def first(self, count: int) -> Rows:
        """So many rows, at most all; by columns when all of them are, and of the same fields."""
        taken: list[Rows] = []
        for piece in self._pieces:
            if count <= 0:
                break
            taken.append(piece if len(piece) <= count else _part(piece, 0, count))
            count -= len(piece)
        first = taken[0] if taken else []
        if isinstance(first, Columns) and all(isinstance(each, Columns) and first.fits(each) for each in taken):
            return joined(cast("list[Columns]", taken))
        rows: list[Any] = []
        for each in taken:
            rows += each.rows() if isinstance(each, Columns) else each
        return rows

    def drop(self, count: int) -> None:
        """The first ones are in a file."""
        self._count -= min(count, self._count)
        while self._pieces and count > 0:
            piece = self._pieces.popleft()
            if len(piece) > count:
                self._pieces.appendleft(_part(piece, count, len(piece)))
            count -= len(piece)


def _part(rows: Rows, first: int, end: int) -> Rows:
    return rows.part(first, end) if isinstance(rows, Columns) else rows[first:end]
