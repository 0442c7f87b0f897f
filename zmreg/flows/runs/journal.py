"""What a run has done, in a file that outlives it: one row for each change of a phase, in SQLite.

A row is there once `write` has returned, whatever happens then (`synchronous=FULL`). Each row carries a digest of
itself: of a file with a damaged tail, what is before the damage counts, and the file itself is put aside.
One process writes; whoever else looks on reads (write-ahead log), and tells by a lock whether the writer still lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import sqlite3
import struct
import threading
import time
from _blake2 import blake2b
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from zmreg.model.errors import PhaseError
from zmreg.model.record import Record

log = logging.getLogger("zmreg.runs")

FILE: Final = "journal.sqlite"
LOCK: Final = "lock"
RUN: Final = ""
"""The phase of rows that are about the run as a whole; no phase is called so."""
ITEM: Final = "item"
"""The state of rows that are about one item of a phase."""
_VERSION: Final = 1
# A reader never keeps a writer waiting in WAL mode, but opening for the first time does for a moment.
_BUSY_S: Final = 10.0
# A `struct flock`: a lock of the open file, which who only asks about it does not take, and which closing another
# descriptor of the same file in this process does not give up.
_FLOCK: Final = "hhqqi0q"
_LOCKED: Final = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_INSERT: Final = "insert into rows (phase, state, time, detail, body, digest) values (?, ?, ?, ?, ?, ?)"
_SCHEMA: Final = """create table if not exists rows (
    seq integer primary key, phase text not null, state text not null, time real not null, detail text not null,
    body blob, digest blob not null)"""


class Kept(Record):
    """A row: that `phase` went into `state` at `time` (seconds since 1970).

    Of a phase that is done: `key` says by which code, configuration and inputs; `body` is its output if that is small,
    `file` where it is otherwise, with `nbytes` and `digest` (hex) of that file and its `format`. `form` is "" when the
    output was not kept at all.
    """

    phase: str
    state: str
    time: float
    reason: str = ""
    key: str = ""
    form: str = ""
    file: str = ""
    nbytes: int = 0
    digest: str = ""
    seconds: float = 0.0
    body: bytes | None = None


class Journal:
    """The journal of one run, open for writing: no other process has it."""

    def __init__(self, folder: Path) -> None:
        """Raises PhaseError when the run goes on in another process."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._writing = threading.Lock()
        self._lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.fcntl(self._lock, fcntl.F_OFD_SETLK, _LOCKED)
            except OSError:
                owner = os.pread(self._lock, 32, 0).decode(errors="replace").strip()
                raise PhaseError(
                    f"run {folder.name!r} goes on in process {owner or '?'}: wait for it, or give this one another id"
                ) from None
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, str(os.getpid()).encode(), 0)
            self.past = self._opened()
        except BaseException:
            os.close(self._lock)
            raise

    def _opened(self) -> list[Kept]:
        path = self.folder / FILE
        rows, sound = read(self.folder) if path.exists() else ([], True)
        if not sound:
            aside = _aside(path)
            log.warning("the journal %s is damaged: %d rows of it are good; the rest is in %s", path, len(rows), aside)
        # Used by the thread that drives the run, which need not be the one that made it.
        self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=full")
            self._db.execute(_SCHEMA)
            if not sound:
                for row in rows:
                    self.write(row)
        except sqlite3.Error as error:
            self._db.close()
            raise type(error)(f"the journal {path} cannot be written: {error}; is the disk full?") from error
        except BaseException:
            self._db.close()
            raise
        return rows

    def write(self, row: Kept) -> None:
        """Add a row; it is on the disk when this returns. Raises sqlite3.Error, as for a full disk."""
        detail = _detail(row)
        values = (row.phase, row.state, row.time, detail, row.body, _digest(row, detail))
        with self._writing:
            self._db.execute(_INSERT, values)

    def write_items(self, rows: list[Kept]) -> None:
        """Add rows of items, all or none; on the disk when this returns. From any thread. Raises as `write`."""
        values = [(row.phase, ITEM, row.time, d := _detail(row), row.body, _digest(row, d)) for row in rows]
        with self._writing, self._transaction():
            self._db.executemany(_INSERT, values)

    def forget_items(self, phase: str | None = None) -> list[str]:
        """Remove the rows about items of a phase (None: of all); the files that these have named."""
        which, at = ("state = ?", [ITEM]) if phase is None else ("state = ? and phase = ?", [ITEM, phase])
        with self._writing, self._transaction():
            details = self._db.execute(f"select detail from rows where {which}", at).fetchall()
            self._db.execute(f"delete from rows where {which}", at)
        return [file for (detail,) in details if (file := json.loads(detail)["file"])]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("begin immediate")
        try:
            yield
        except BaseException:
            self._db.execute("rollback")
            raise
        self._db.execute("commit")

    def close(self) -> None:
        """Others may write now. Idempotent."""
        if self._lock >= 0:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            os.close(self._lock)
            self._lock = -1


def wall_s() -> float:
    """Seconds since 1970, for who reads a journal; nothing waits by it."""
    return time.time()


def read(folder: Path) -> tuple[list[Kept], bool]:
    """(good rows, in order; whether that is all of them). Nothing is unpickled or changed. No file: no rows."""
    path = folder / FILE
    rows: list[Kept] = []
    if not path.exists():
        return rows, True
    try:
        with contextlib.closing(sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True, timeout=_BUSY_S)) as db:
            for row, digest, detail in _rows(db):
                if row is None or _digest(row, detail) != digest:
                    return rows, False
                rows.append(row)
            sound = db.execute("pragma quick_check(1)").fetchone() == ("ok",)
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):  # its writer was killed while it made the file
            return rows, True
        return rows, False
    except sqlite3.DatabaseError:
        return rows, False
    return rows, sound


def _rows(db: sqlite3.Connection) -> Iterator[tuple[Kept | None, bytes, str]]:
    for phase, state, at, detail, body, digest in db.execute(
        "select phase, state, time, detail, body, digest from rows order by seq"
    ):
        try:
            fields = json.loads(detail)
            row = Kept(phase, state, at, **fields, body=body) if isinstance(fields, dict) else None
        except (ValueError, TypeError):
            row = None
        yield row, digest, detail


def is_running(folder: Path) -> bool:
    """Whether a process of this machine writes this journal."""
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        found = fcntl.fcntl(lock, fcntl.F_OFD_GETLK, _LOCKED)
    finally:
        os.close(lock)
    return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)


class RunSummary(Record):
    """A run as its journal has it. `status`: running, completed, failed, cancelled, or interrupted: its process is gone
    and it has not ended. Times in seconds."""

    run_id: str
    status: str
    started: float
    seconds: float
    phases: dict[str, Kept]
    """The last row of each phase that has one."""
    total: int
    """How many phases there are."""


def summary_of(folder: Path) -> RunSummary | None:
    """None when there is no journal in that folder."""
    running = is_running(folder)  # before the rows are read: a run that ends in between has its last row then
    rows, _ = read(folder)
    if not rows and not (folder / FILE).exists():
        return None
    begun = [index for index, row in enumerate(rows) if row.phase == RUN and row.state == "started"]
    this = rows[begun[-1] :] if begun else rows
    ends = [row for row in this if row.phase == RUN and row.state != "started"]
    status = ends[-1].state if ends else "running" if running else "interrupted"
    started = this[0].time if this else 0.0
    until = ends[-1].time if ends else wall_s() if running else this[-1].time if this else 0.0
    phases = {row.phase: row for row in this if row.phase != RUN and row.state != ITEM}
    total = this[0].nbytes if begun else len(phases)
    return RunSummary(folder.name, status, started, max(0.0, until - started), phases, total)


def summaries(folder: Path) -> list[RunSummary]:
    """Of every run in a folder of runs, the last one first."""
    found = [summary_of(each) for each in folder.iterdir() if each.is_dir()] if folder.is_dir() else []
    return sorted(filter(None, found), key=lambda each: each.started, reverse=True)


def _aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.rename(aside)
    for tail in ("-wal", "-shm"):  # they belong to that file; a new one must not take them for its own
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + tail).rename(aside.with_name(aside.name + tail))
    return aside


def _detail(row: Kept) -> str:
    names = ("reason", "key", "form", "file", "nbytes", "digest", "seconds")
    return json.dumps({name: getattr(row, name) for name in names}, sort_keys=True)


def _digest(row: Kept, detail: str) -> bytes:
    state = blake2b(f"{_VERSION}\0{row.phase}\0{row.state}\0{row.time!r}\0{detail}\0".encode(), digest_size=16)
    state.update(row.body or b"")
    return state.digest()


def _quoted(path: Path) -> str:
    from urllib.parse import quote  # late: for reading alone

    return quote(str(path.absolute()))
