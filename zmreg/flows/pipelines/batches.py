"""What goes from one process of a pipeline to the next at a time: many entries, by columns.

Most stages make one item of each: then where the entries come from are three numbers for all of them, and what is
pickled is little more than a list of the items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

Entry = tuple[int, int, int, Any]
"""(edge, number) of the item that it was made of, the how many-th of it, and what is sent. Who gets entries of a stage
that runs for the second time knows by these which it has."""
Column = int | range | tuple[int, ...]
"""The same number for all, numbers one after the other, or one for each."""
Columns = tuple[Column, Column, Column, tuple[Any, ...]]
"""Edges, numbers, parts, and what is sent."""
Last = dict[int, tuple[int, int]]
"""Of each edge, what the last entry was made of."""


def columns(entries: Sequence[Entry]) -> Columns | None:
    """The entries, smaller; None for none."""
    if not entries:
        return None
    edges, numbers, parts, sent = zip(*entries, strict=True)
    return _column(edges), _column(numbers), _column(parts), sent


def _column(values: tuple[int, ...]) -> Column:
    first, count = values[0], len(values)
    if values.count(first) == count:
        return first
    if values[-1] - first == count - 1 and values == tuple(range(first, first + count)):
        return range(first, first + count)
    return values


def fresh(batch: Columns, last: Last) -> Sequence[int] | None:
    """Which of the entries have not come before, by their places; None: all. `last` says what has, and is told."""
    edges, numbers, parts, sent = batch
    if type(edges) is int and last.get(edges, (-1, -1)) < (_at(numbers, 0), _at(parts, 0)):
        last[edges] = _at(numbers, -1), _at(parts, -1)
        return None
    found = []
    origins = zip(range(len(sent)), _spread(edges), _spread(numbers), _spread(parts), strict=False)  # some are endless
    for place, edge, number, part in origins:
        if last.get(edge, (-1, -1)) < (number, part):
            last[edge] = number, part
            found.append(place)
    return found if len(found) < len(sent) else None


def _at(column: Column, place: int) -> int:
    return column if isinstance(column, int) else column[place]


def _spread(column: Column) -> Iterator[int]:
    return repeat(column) if isinstance(column, int) else iter(column)
