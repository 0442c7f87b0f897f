"""Rows that all have the same fields, by columns: they take less to send, to sum up, and to write as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Values = tuple[Any, ...]


class Columns:
    """`count` rows. A column of dicts with the same fields is `Columns` again; any other is a tuple of the values."""

    __slots__ = ("columns", "count", "names")

    def __init__(self, names: tuple[str, ...], columns: Sequence[Values | Columns], count: int) -> None:
        self.names = names
        self.columns = tuple(columns)
        self.count = count

    def __reduce__(self) -> tuple[Any, ...]:
        return Columns, (self.names, self.columns, self.count)

    def __len__(self) -> int:
        return self.count

    def get(self, name: str) -> Values | Columns | None:
        """The column of that name; None: there is none."""
        return self.columns[self.names.index(name)] if name in self.names else None

    def part(self, first: int, end: int) -> Columns:
        """Some of the rows, one after the other."""
        end = min(end, self.count)
        made = [each.part(first, end) if isinstance(each, Columns) else each[first:end] for each in self.columns]
        return Columns(self.names, made, max(0, end - first))

    def fits(self, other: Columns) -> bool:
        """Whether the other rows have the same fields, nested ones too."""
        return self.names == other.names and all(
            mine.fits(theirs)
            if isinstance(mine, Columns) and isinstance(theirs, Columns)
            else type(mine) is type(theirs)
            for mine, theirs in zip(self.columns, other.columns, strict=True)
        )

    def rows(self) -> list[dict[str, Any]]:
        """They as dicts."""
        each = [column.rows() if isinstance(column, Columns) else column for column in self.columns]
        return [dict(zip(self.names, values, strict=True)) for values in zip(*each, strict=True)]

    def __repr__(self) -> str:
        return f"<Columns {', '.join(self.names)} of {self.count} rows>"


def columned(rows: Sequence[dict[str, Any]]) -> Columns | None:
    """The rows by columns; None: there are none, or not all have the same fields in the same order."""
    if not rows or not rows[0]:
        return None
    names = tuple(rows[0])
    if not all(map(names.__eq__, map(tuple, rows))):
        return None
    columns: list[Values | Columns] = []
    for values in zip(*map(dict.values, rows), strict=True):
        inner = columned(values) if set(map(type, values)) == {dict} else None
        columns.append(values if inner is None else inner)
    return Columns(names, columns, len(rows))


def joined(parts: Sequence[Columns]) -> Columns:
    """All rows of those that `fits`, in order."""
    if len(parts) == 1:
        return parts[0]
    made: list[Values | Columns] = []
    for each in zip(*(part.columns for part in parts), strict=True):
        if isinstance(each[0], Columns):
            made.append(joined(each))
        else:
            whole: list[Any] = []
            for values in each:
                whole += values
            made.append(tuple(whole))
    return Columns(parts[0].names, made, sum(part.count for part in parts))
