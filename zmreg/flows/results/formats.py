"""How rows become bytes in a file, and rows again: JSONL, CSV, Parquet.

Each format has two halves. `encode` runs where a row is written, so that what cannot be written is an error of the line
that writes it; a `Form` runs where the file is, and turns what has been encoded into bytes to append. Whatever is
appended is whole rows, so a file that was cut short can be mended: `whole` says how much of it is whole.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Final, Protocol

from zmreg.flows.results.parquet import Groups, opens, pyarrow_parquet, read_groups
from zmreg.flows.results.torn import members, text_of, whole_lines, whole_records, zipped

Row = Mapping[str, Any]
FORMATS: Final = ("jsonl", "csv", "parquet")
_PLAIN: Final[frozenset[type]] = frozenset({str, int, float, bool, type(None)})


class Form(Protocol):
    """The bytes of one file, as it grows."""

    columns: list[str]
    """Those a reader needs to know beside the file; empty where the file says it all."""

    def more(self, rows: Sequence[Any]) -> bytes:
        """What to append for these rows, whole."""

    def end(self) -> bytes:
        """What to append when no more come."""


class Format:
    """One way to write. `compression`: as the format knows it; None is none, but for Parquet, where it is snappy."""

    def __init__(self, name: str, compression: str | None = None, strict: bool = False) -> None:
        """ValueError for what there is not; ImportError when pyarrow is missing."""
        if name not in FORMATS:
            raise ValueError(f"format={name!r}: there are {', '.join(FORMATS)}")
        self._arrows = _arrow_kinds() if name == "parquet" else frozenset[type]()
        _check_compression(name, compression)
        self.name = name
        self.compression = compression
        self.strict = strict
        self._columns: tuple[str, ...] = ()
        self.is_odd = False
        """Whether something was ever encoded that was a number and is none now, or the other way round."""
        self.suffix = f".{name}.gz" if compression == "gzip" and name != "parquet" else f".{name}"
        self.encode: Callable[[Row], Any] = {"jsonl": self._line, "csv": self._flat, "parquet": self._plain}[name]
        other = None if strict else str
        self._dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=not strict, default=other).encode

    def form(self) -> Form:
        """For a new file."""
        if self.name == "jsonl":
            return _Lines(self.compression)
        return _Table(self.compression) if self.name == "csv" else Groups(self.compression)

    # -- where rows are written ---------------------------------------------------------------------------------------

    def _line(self, row: Row) -> str:
        try:
            return self._dumps(row if type(row) is dict else dict(row))
        except TypeError:
            if self.strict:
                raise
            return self._dumps(_named(row))  # keys that are no strings

    def _flat(self, row: Row) -> tuple[tuple[str, ...], list[Any]]:
        """(columns, values). Rows with the same columns share them: a pickle has them once, and a file compares them
        at no cost."""
        flat: dict[str, Any] = {}
        for name, value in row.items():
            if type(value) in _PLAIN:
                flat[str(name)] = value
            else:
                self._flatten(str(name), value, flat)
        columns = tuple(flat)
        if columns != self._columns:
            self._columns = columns
        return self._columns, [*flat.values()]

    def _flatten(self, name: str, value: object, flat: dict[str, Any]) -> None:
        if type(value) is dict or isinstance(value, Mapping):
            for inner, below in value.items():
                if type(below) in _PLAIN:
                    flat[f"{name}.{inner}"] = below
                else:
                    self._flatten(f"{name}.{inner}", below, flat)
        elif isinstance(value, (list, tuple)):
            flat[name] = self._dumps(value)
        else:
            flat[name] = value if type(value) in _PLAIN else self._other(value)

    def _plain(self, row: Row) -> dict[str, Any]:
        """A row of its own: nothing in it changes with the one that was written."""
        arrows, made = self._arrows, dict(row)
        for name, value in row.items():
            if type(name) is not str:
                return self._plain({str(each): below for each, below in row.items()})
            kind = type(value)
            if kind not in arrows:
                made[name] = self._plain(value) if kind is dict else self._arrow(value)
        return made

    def _arrow(self, value: object) -> Any:
        if type(value) is dict or isinstance(value, Mapping):
            return self._plain(value)
        if isinstance(value, (list, tuple)):
            return [each if type(each) in self._arrows else self._arrow(each) for each in value]
        return value if type(value) in self._arrows else self._other(value)

    def _other(self, value: object) -> Any:
        """Numbers of numpy as numbers, and anything else as words."""
        item = getattr(value, "item", None)
        if callable(item) and getattr(value, "ndim", None) == 0:
            made = item()
            self.is_odd = self.is_odd or isinstance(value, Real) is not (type(made) in (int, float))
            return made
        self.is_odd = self.is_odd or isinstance(value, Real)
        if self.strict:
            kind = type(value).__name__
            raise TypeError(f"a {kind} cannot be written as {self.name}; strict=False writes str(value)")
        return str(value)

    # -- what is in a file --------------------------------------------------------------------------------------------

    def read(self, path: Path, columns: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
        """The rows of a file; one that was cut short ends with its last whole row. `columns`: see `Form`."""
        if self.name == "parquet":
            yield from read_groups(path)
            return
        content: Iterator[str] = text_of(path, self.compression, self.whole(path))
        if self.name == "jsonl":
            yield from (json.loads(line) for line in content)
            return
        import csv  # late, here and below: many import zmreg, and few of them write tables

        rows = csv.reader(content)
        names = next(rows, [])
        if len(columns) > len(names):
            names = list(columns)
        for row in rows:
            yield dict(zip(names, [*row, *[""] * (len(names) - len(row))], strict=False))

    def whole(self, path: Path) -> int:
        """How many bytes of the file, from its beginning, are whole rows."""
        if self.name == "parquet":
            return path.stat().st_size if opens(path) else 0
        if self.compression == "gzip":
            return sum(size for size, _ in members(path))
        return whole_lines(path) if self.name == "jsonl" else whole_records(path)

    def count(self, path: Path, columns: Sequence[str] = ()) -> int:
        """How many rows there are."""
        if self.name == "parquet":
            return int(pyarrow_parquet().ParquetFile(path).metadata.num_rows)
        return sum(1 for _ in self.read(path, columns))

    def finished(self, path: Path, columns: Sequence[str], into: Path) -> bool:
        """Whether a file needed another heading than it has got, and was written anew as `into`."""
        if self.name != "csv" or not columns:
            return False
        content = text_of(path, self.compression, self.whole(path))
        import csv

        rows = csv.reader(content)
        if next(rows, None) in (None, list(columns)):
            return False
        with into.open("wb") as file:
            table = _Table(self.compression)
            table.columns = list(columns)
            file.write(table.heading())
            for rest in _in_blocks(rows, 1000):
                file.write(table.packed([[*row, *[""] * (len(columns) - len(row))] for row in rest]))
        return True


class _Lines:
    def __init__(self, compression: str | None) -> None:
        self.columns: list[str] = []
        self._pack = _packer(compression)

    def more(self, rows: Sequence[Any]) -> bytes:
        return self._pack(("\n".join(rows) + "\n").encode("utf-8", "surrogatepass")) if rows else b""

    def end(self) -> bytes:
        return b""


class _Table:
    """One heading, of the columns that the first rows have; later ones go behind them, and the heading is mended when
    the file is finished."""

    def __init__(self, compression: str | None) -> None:
        self.columns: list[str] = []
        self._known: dict[str, None] = {}
        self._begun = False
        self._pack = _packer(compression)

    def more(self, rows: Sequence[Any]) -> bytes:
        if not rows:
            return b""
        same: tuple[str, ...] | None = None
        for columns, _ in rows:
            if columns is not same:
                same = columns
                self._known.update(dict.fromkeys(columns))
        self.columns = names = list(self._known)
        heading = b""
        if not self._begun:
            self._begun = True
            heading = self.heading()
        return heading + self.packed(_in_columns(rows, tuple(names)))

    def heading(self) -> bytes:
        return self.packed([self.columns])

    def packed(self, rows: Iterable[Sequence[Any]]) -> bytes:
        import csv

        text = io.StringIO()
        csv.writer(text).writerows(rows)
        return self._pack(text.getvalue().encode("utf-8", "surrogatepass"))

    def end(self) -> bytes:
        return b""


def _arrow_kinds() -> frozenset[type]:
    """What pyarrow takes as it is. ImportError when there is no pyarrow."""
    pyarrow_parquet()
    from datetime import date, datetime, time, timedelta  # late: a tenth of what `import zmreg` may cost
    from decimal import Decimal

    return _PLAIN | {bytes, datetime, date, time, timedelta, Decimal}


def _named(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _named(below) for name, below in value.items()}
    return [_named(each) for each in value] if isinstance(value, (list, tuple)) else value


def _check_compression(name: str, compression: str | None) -> None:
    if name == "parquet":
        known = {None, "snappy", "gzip", "zstd", "lz4", "brotli", "none"}
    else:
        known = {None, "gzip"}
    if compression not in known:
        names = ", ".join(sorted(map(repr, known)))
        raise ValueError(f"compression={compression!r} does not go with format={name!r}; there are {names}")


def _packer(compression: str | None) -> Callable[[bytes], bytes]:
    """Each piece a gzip member of its own: a file that is cut short loses the last one alone."""
    return bytes if compression is None else lambda data: zipped(data)


def _in_columns(rows: Iterable[tuple[tuple[str, ...], list[Any]]], names: tuple[str, ...]) -> Iterator[list[Any]]:
    same: tuple[str, ...] | None = None
    as_they_are = False
    for columns, values in rows:
        if columns is not same:
            same, as_they_are = columns, columns == names
        if as_they_are:
            yield values
        else:
            row = dict(zip(columns, values, strict=True))
            yield [row.get(name, "") for name in names]


def _in_blocks(rows: Iterable[list[str]], count: int) -> Iterator[list[list[str]]]:
    block: list[list[str]] = []
    for row in rows:
        block.append(row)
        if len(block) >= count:
            yield block
            block = []
    if block:
        yield block
