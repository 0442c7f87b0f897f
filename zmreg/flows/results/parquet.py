"""Parquet: row groups as they are flushed, rows one by one or by columns."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zmreg.core.columns import Columns

Row = Mapping[str, Any]


class Groups:
    """A row group for each flush. Another kind of columns than before needs another file: `fits` says so."""

    def __init__(self, compression: str | None) -> None:
        self.columns: list[str] = []
        self._compression = compression or "snappy"
        self._bytes = _Gathered()
        self._writer: Any = None

    def more(self, rows: Any) -> bytes:
        """A list of rows, or `Columns`. Raises DifferentColumnsError when these rows do not fit into this file."""
        if not rows:
            return b""
        import pyarrow

        if isinstance(rows, Columns):
            return self._more_columns(rows)
        names = list(dict.fromkeys(name for row in rows for name in row))
        if self._writer is not None and set(names) <= set(self._writer.schema.names):
            try:
                table = pyarrow.Table.from_pylist(list(rows), schema=self._writer.schema)
            except _no_column() as error:
                raise DifferentColumnsError(str(error)) from error
        elif self._writer is not None:
            raise DifferentColumnsError(", ".join(names))
        else:
            table = _table(rows, names)
            self._writer = pyarrow_parquet().ParquetWriter(self._bytes, table.schema, compression=self._compression)
        return self._written(table)

    def _more_columns(self, rows: Columns) -> bytes:
        import pyarrow

        if self._writer is None:
            table = _columns_table(rows)
            if table is None:
                return self.more(rows.rows())
            self._writer = pyarrow_parquet().ParquetWriter(self._bytes, table.schema, compression=self._compression)
            return self._written(table)
        try:
            struct = _struct(rows, pyarrow.struct(list(self._writer.schema)))
        except _no_column() as error:
            raise DifferentColumnsError(str(error)) from error
        return self._written(pyarrow.Table.from_arrays(struct.flatten(), schema=self._writer.schema))

    def _written(self, table: Any) -> bytes:
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        return self._bytes.taken()

    def end(self) -> bytes:
        if self._writer is not None:
            self._writer.close()
        return self._bytes.taken()


def warm() -> None:
    """Have pyarrow load what it loads with its first table: with pandas beside it, that takes half a second."""
    form = Groups(None)
    form.more([{"": ""}])
    form.end()


class DifferentColumnsError(Exception):
    """Rows do not fit into the file that was begun: they go into the next one."""


class _Gathered(io.RawIOBase):
    """What a ParquetWriter takes for a file: bytes wait here until they are appended to the real one, all or none."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._taken = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._waiting += data
        return len(data)

    def tell(self) -> int:
        return self._taken + len(self._waiting)

    def taken(self) -> bytes:
        taken = bytes(self._waiting)
        self._waiting.clear()
        self._taken += len(taken)
        return taken


def _table(rows: Sequence[Row], names: Sequence[str]) -> Any:
    """Columns of one kind each: where a column has several that do not go together, it is words."""
    import pyarrow

    columns = []
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            column = pyarrow.array(values)
        except _no_column():
            column = _mixed(values)
        if pyarrow.types.is_null(column.type):
            column = column.cast(pyarrow.string())  # Parquet's null column takes nothing else later
        columns.append(column)
    return pyarrow.table(columns, names=list(names))


def _columns_table(rows: Columns) -> Any:
    """As `_table`; None where a column has several kinds: that is looked at row by row."""
    import pyarrow

    arrays = []
    for values in rows.columns:
        try:
            array = _struct(values) if isinstance(values, Columns) else pyarrow.array(values)
        except _no_column():
            return None
        arrays.append(array.cast(pyarrow.string()) if pyarrow.types.is_null(array.type) else array)
    return pyarrow.table(arrays, names=list(rows.names))


def _struct(rows: Columns, kind: Any = None) -> Any:
    """An array of structs, of the kind that is asked for. Raises as `pyarrow.array`, also for a field too many."""
    import pyarrow

    if kind is None:
        arrays = [_struct(each) if isinstance(each, Columns) else pyarrow.array(each) for each in rows.columns]
        return pyarrow.StructArray.from_arrays(arrays, names=list(rows.names))
    fields = list(kind) if pyarrow.types.is_struct(kind) else []
    if not {field.name for field in fields}.issuperset(rows.names):
        raise ValueError(f"{', '.join(rows.names)} are to be {kind}")
    arrays = []
    for field in fields:
        values = rows.get(field.name)
        if isinstance(values, Columns):
            arrays.append(_struct(values, field.type))
        else:
            missing = values is None
            arrays.append(pyarrow.nulls(rows.count, field.type) if missing else pyarrow.array(values, type=field.type))
    return pyarrow.StructArray.from_arrays(arrays, fields=fields)


def _no_column() -> tuple[type[Exception], ...]:
    """What pyarrow raises for values that make no column, or not this one."""
    import pyarrow

    return pyarrow.ArrowException, OverflowError, TypeError, ValueError


def _mixed(values: Sequence[Any]) -> Any:
    import pyarrow

    if all(value is None or type(value) in (int, float) for value in values):
        return pyarrow.array([None if value is None else float(value) for value in values])
    return pyarrow.array([None if value is None else str(value) for value in values])


def pyarrow_parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "format='parquet' needs pyarrow, which is not installed here. Next: pip install 'zmreg[parquet]'"
        ) from error
    return pyarrow.parquet


def opens(path: Path) -> bool:
    import pyarrow

    try:
        with pyarrow_parquet().ParquetFile(path):
            return True
    except (pyarrow.ArrowInvalid, OSError):
        return False


def read_groups(path: Path) -> Iterator[dict[str, Any]]:
    if not opens(path):
        return
    with pyarrow_parquet().ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            yield from file.read_row_group(number).to_pylist()
