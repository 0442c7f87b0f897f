"""What owns the files of a sink: buffers rows, appends them, finishes parts, counts. No cluster is needed for it.

A row is *taken* when it is in the buffer here, and *kept* when a flush has put it into the file. A full disk refuses
what comes and keeps what was taken; each later attempt begins with what is waiting.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from zmreg.core.aggregates import Aggregates, Measures
from zmreg.core.columns import Columns
from zmreg.flows.results.formats import Form, Format
from zmreg.flows.results.parquet import DifferentColumnsError
from zmreg.flows.results.result_dirs import (
    OPEN,
    Appender,
    Lock,
    entry_of,
    finish,
    part_name,
    read_manifest,
    read_rows,
    recovered,
    retain,
    write_manifest,
)
from zmreg.flows.results.waiting import Waiting
from zmreg.model.record import Record

WRITTEN: Final = "result.written"
FLUSHED: Final = "result.flushed"
DISK_LOW: Final = "result.disk_low"


class Terms(Record):
    """What a sink was asked to do."""

    format: str = "jsonl"
    compression: str | None = None
    strict: bool = False
    buffer_size: int = 1000
    """Rows between two flushes."""
    fsync: bool = False
    """Whether a flush waits for the disk, and not for the kernel alone."""
    part_bytes: int = 256 << 20
    """A part that has so many is finished, and the next one begun."""
    key: str | tuple[str, ...] | None = None
    """The field, as a path with dots, by which a row is known, or several: one that was written before is dropped."""
    disk_warn: float = 0.05
    """Below this share of free space on the disk, an event says so."""
    keep_last: int | None = None
    max_age: float | None = None
    max_bytes: int | None = None
    workflow_id: str | None = None


class Recorder:
    """One directory of results, written by this process alone. May be called from any thread."""

    def __init__(self, directory: str | Path, terms: Terms, tell: Callable[[str, dict[str, Any]], None]) -> None:
        """Takes up what is there already. `tell`: topic and value of an event.

        Raises ValueError when results of another format are there, OSError when the directory cannot be written or
        another process does.
        """
        self.directory = Path(directory)
        self.aggregates = Aggregates()
        self.write_count = 0
        """Rows taken since this one began."""
        self.flush_count = 0
        self.duplicates = 0
        """Rows dropped because of their key."""
        self.closed = False
        self._terms = terms
        self._tell = tell
        self._guard = threading.RLock()
        self._format = Format(terms.format, terms.compression, terms.strict)
        self._buffer = Waiting()
        self._open: tuple[Appender, Form] | None = None
        self._open_rows = 0
        self._low = False
        self._stale = False
        """Whether the manifest on the disk is not what it should be."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(self.directory)
        try:
            before = self._manifest_before()
            self._columns: list[str] = []
            self._parts = recovered(self.directory, self._format, before)
            self._number = 1 + max((_number_of(entry["name"]) for entry in self._parts), default=-1)
            self._keys = self._keys_before()
            self._write_manifest(False)
        except BaseException:
            self._lock.release()
            raise

    # -- rows ---------------------------------------------------------------------------------------------------------

    def take(
        self, rows: Sequence[Any] | Columns, measures: Sequence[Measures] | None, keys: Sequence[str]
    ) -> tuple[bool, Exception | None]:
        """Encoded rows, with what they are counted by (or nothing; None: by what is in the columns), and their keys
        (if there is one).

        Whether they were taken, and what stands in the way of the disk. Raises ValueError after the end.
        """
        with self._guard:
            self._check()
            try:
                self._settle()
            except OSError as error:
                return False, error
            if measures is None and isinstance(rows, Columns):
                self.aggregates.add_columns(rows)
            elif not isinstance(rows, Columns):
                rows, measures = self._new_ones(rows, measures or (), keys)
                for each in measures:
                    self.aggregates.add(each)
            self._buffer.add(rows)
            self.write_count += len(rows)
            if rows:
                self._tell(WRITTEN, {**self._about(), "rows": len(rows)})
            try:
                while len(self._buffer) >= self._terms.buffer_size:
                    self._flush(self._terms.buffer_size)
            except OSError as error:
                return True, error
            return True, None

    def flush(self, promise: bool = True) -> None:
        """Put into the file what is taken. OSError when the disk does not take it; nothing is lost by that.

        `promise`: whoever asks counts on it. A Parquet file can be read when it is finished, and not before: then the
        part ends here.
        """
        with self._guard:
            if self.closed:
                return
            self._settle()
            self._flush(len(self._buffer))
            if promise and self._terms.format == "parquet":
                self._commit()

    def close(self, complete: bool) -> None:
        """Flush, finish the part, and say in the manifest whether that is all. Idempotent. OSError: not closed."""
        with self._guard:
            if self.closed:
                return
            self.flush(promise=False)
            self._commit()
            self._write_manifest(complete)
            self.closed = True
            terms = self._terms
            if (terms.keep_last, terms.max_age, terms.max_bytes) != (None, None, None):
                retain(
                    self.directory.parent,
                    keep_last=terms.keep_last, max_age=terms.max_age, max_bytes=terms.max_bytes,
                )  # fmt: skip
            self._lock.release()

    def give_up(self) -> None:
        """The process ends. What can be saved is; the manifest says that it is not all."""
        with self._guard:
            try:
                self.close(complete=False)
            finally:
                self._lock.release()

    def state(self) -> dict[str, Any]:
        """How far it is; `rows` are all that the directory has, `buffered` those not yet in a file."""
        with self._guard:
            rows = sum(entry["rows"] for entry in self._parts) + self._open_rows
            return {
                "write_count": self.write_count, "flush_count": self.flush_count, "duplicates": self.duplicates,
                "rows": rows, "buffered": len(self._buffer), "parts": len(self._parts), "closed": self.closed,
            }  # fmt: skip

    # -- inside -------------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self.closed:
            raise ValueError(f"the sink in {self.directory} is closed: nothing more can be written; open another one")

    def _settle(self) -> None:
        """What the disk did not take comes first."""
        if self._stale:
            self._write_manifest(False)
        if self._open is not None and self._open[0].waiting:
            self._open[0].append(b"", self._terms.fsync)
            self._flushed(0)

    def _flush(self, count: int) -> None:
        if not count:
            return
        self._look_at_the_disk()
        rows: Any = self._buffer.first(count)  # by columns only where the form takes them
        appender, form = self._part()
        known = form.columns  # each a list of its own
        try:
            piece = form.more(rows)
        except DifferentColumnsError:
            self._commit()
            appender, form = self._part()
            piece = form.more(rows)
        appender.hold(piece)
        self._buffer.drop(count)
        self._open_rows += len(rows)
        if form.columns != known:
            self._columns = form.columns
            self._write_manifest(False)  # before rows that need it are in the file
        appender.append(b"", self._terms.fsync)
        self._flushed(len(rows))
        if appender.size >= self._terms.part_bytes:
            self._commit()

    def _flushed(self, rows: int) -> None:
        self.flush_count += 1
        self._tell(FLUSHED, {**self._about(), "rows": rows})

    def _part(self) -> tuple[Appender, Form]:
        if self._open is None:
            name = part_name(self._number, self._format) + OPEN
            self._open = Appender(self.directory / name), self._format.form()
            self._number += 1
            self._open_rows = 0
        return self._open

    def _commit(self) -> None:
        """Finish the open part. Each step may be tried again after a full disk."""
        if self._open is None:
            return
        appender, form = self._open
        if not self._open_rows:
            appender.close()
            appender.path.unlink()
            self._open = None
            return
        appender.append(form.end())
        path = finish(appender.path, self._format, form.columns)
        appender.close()
        digest = None if form.columns else appender.digest  # a table may have been written anew
        self._parts.append(entry_of(path, self._open_rows, digest))
        self._open, self._open_rows, self._columns = None, 0, []
        self._write_manifest(False)

    def _new_ones(
        self, rows: Sequence[Any], measures: Sequence[Measures], keys: Sequence[str]
    ) -> tuple[Sequence[Any], Sequence[Measures]]:
        if self._keys is None:
            return rows, measures
        fresh = []
        for number, key in enumerate(keys):
            if key not in self._keys:
                self._keys.add(key)
                fresh.append(number)
        self.duplicates += len(keys) - len(fresh)
        return [rows[number] for number in fresh], [measures[number] for number in fresh] if measures else ()

    def _look_at_the_disk(self) -> None:
        disk = os.statvfs(self.directory)
        share = disk.f_bavail / disk.f_blocks if disk.f_blocks else 1.0
        low = share < self._terms.disk_warn
        if low and not self._low:
            self._tell(DISK_LOW, {**self._about(), "free_bytes": disk.f_bavail * disk.f_frsize, "free_share": share})
        self._low = low

    def _about(self) -> dict[str, Any]:
        return {
            "path": str(self.directory), "workflow_id": self._terms.workflow_id,
            "write_count": self.write_count, "flush_count": self.flush_count,
        }  # fmt: skip

    def _manifest_before(self) -> dict[str, Any]:
        before = read_manifest(self.directory) or {}
        mine = self._terms.format, self._format.compression
        theirs = before.get("format", mine[0]), before.get("compression", mine[1])
        if theirs != mine:
            raise ValueError(
                f"{self.directory} has results in {theirs[0]} ({theirs[1] or 'plain'}), not {mine[0]} "
                f"({mine[1] or 'plain'}); go on with these, or choose another directory"
            )
        return before

    def _keys_before(self) -> set[str] | None:
        if self._terms.key is None:
            return None
        return {key_of(row, self._terms.key, self.directory) for row in read_rows(self.directory, self._format, [])}

    def _write_manifest(self, complete: bool) -> None:
        manifest = {
            "workflow_id": self._terms.workflow_id, "format": self._terms.format,
            "compression": self._format.compression, "complete": complete,
            "rows": sum(entry["rows"] for entry in self._parts), "parts": self._parts,
        }  # fmt: skip
        if self._columns:
            manifest["columns"] = self._columns
        self._stale = True
        write_manifest(self.directory, manifest)
        self._stale = False


def key_of(row: Any, key: str | tuple[str, ...], sink: str | Path) -> str:
    """The value of a field, or of several, as words. A name with dots in it goes before a way through what is nested.

    ValueError for a row that lacks one. `sink`: its directory, for the error.
    """
    if isinstance(key, str):
        return _value_at(row, key, key, sink)
    return repr(
        [_value_at(row, path, key, sink) for path in key]
    )  # and not joined: "a" and "b-c" are not "a-b" and "c"


def _value_at(row: Any, path: str, key: str | tuple[str, ...], sink: str | Path) -> str:
    found = row
    if path in row:
        found = row[path]
    else:
        for name in path.split("."):
            try:
                found = found[name]
            except (KeyError, TypeError):
                raise ValueError(
                    f"a row without {path!r} for the sink in {sink}, which has key={key!r}; "
                    f"it has {', '.join(map(repr, row)) or 'no field'}"
                ) from None
    return str(found)


def _number_of(name: str) -> int:
    return int(name.removeprefix("part-").partition(".")[0])
