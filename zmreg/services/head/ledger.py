"""What the head knows for longer than it lives: actors, groups, drivers and nodes, in a sqlite file of its own.

One thread writes, in order: whatever has collected goes into one transaction, and what was promised to somebody waits
for its commit (`after`). Each commit is flushed to the disk (WAL, synchronous=FULL), so a crash at any point loses
nothing that was acknowledged; an unfinished commit is as if it had never been.

When the disk is full the ledger is read-only: `after` answers with the reason, nothing is forgotten, and writing is
tried again every second until there is room.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from zmreg.core.actor_roll import Stand
from zmreg.model.errors import StateError, StateLockedError
from zmreg.model.job_messages import GONE
from zmreg.model.record import Record
from zmreg.services.head.jobs import Job
from zmreg.services.head.submissions import Submission

FILE: Final = "head.sqlite"
LOCK: Final = "head.lock"
# What nobody waits for may collect this long, so that a thousand actors a second are a hundred commits.
LINGER_S: Final = 0.01
# A full disk is asked again this often.
RETRY_S: Final = 1.0
# Drivers that have gone, and ends of actors, for words about them that were still under way when the head stopped.
_KEPT: Final = 10_000
# sqlite's locks and mapped memory are not to be trusted there (its documentation says so).
REMOTE: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ncpfs", "fuse.sshfs", "fuse.s3fs"})

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS actors (
    actor_id BLOB PRIMARY KEY, owner BLOB NOT NULL, name TEXT NOT NULL, namespace TEXT NOT NULL,
    detached INTEGER NOT NULL, frame BLOB NOT NULL, state TEXT NOT NULL DEFAULT 'PENDING',
    worker BLOB NOT NULL DEFAULT x'', incarnation INTEGER NOT NULL DEFAULT 0,
    restarts_used INTEGER NOT NULL DEFAULT 0, leaving INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS ends (number INTEGER PRIMARY KEY, actor_id BLOB NOT NULL, reason BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS jobs (
    driver BLOB PRIMARY KEY, name TEXT NOT NULL, started REAL NOT NULL, ended REAL NOT NULL, status TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS submissions (
    number INTEGER PRIMARY KEY, job_id TEXT UNIQUE NOT NULL, actor_id BLOB NOT NULL, stage INTEGER NOT NULL,
    note TEXT NOT NULL, tail BLOB NOT NULL, fate TEXT NOT NULL, noticed REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS groups (number INTEGER PRIMARY KEY, group_id BLOB UNIQUE NOT NULL, frame BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS nodes (node BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS graves (number INTEGER PRIMARY KEY, node BLOB NOT NULL);
"""
_ORDER: Final = """
INSERT INTO actors (actor_id, owner, name, namespace, detached, frame) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (actor_id) DO UPDATE SET frame = excluded.frame
"""
_STAND: Final = """
UPDATE actors SET state = ?, worker = ?, incarnation = ?, restarts_used = ?, leaving = ? WHERE actor_id = ?
"""
_SUBMISSION: Final = """
INSERT INTO submissions (job_id, actor_id, stage, note, tail, fate, noticed) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (job_id) DO UPDATE SET actor_id = excluded.actor_id, stage = excluded.stage, note = excluded.note,
    tail = excluded.tail, fate = excluded.fate, noticed = excluded.noticed
"""


class Order(Record):
    """An actor as it was ordered; `frame` is the encoded CreateActor."""

    actor_id: bytes
    owner: bytes
    name: str
    namespace: str
    detached: bool
    frame: bytes


class _Batch:
    """What is to be written in one transaction. Of each thing only the newest state counts."""

    __slots__ = ("calls", "ends", "groups", "jobs", "nodes", "orders", "stands", "submissions")

    def __init__(self) -> None:
        self.orders: dict[bytes, Order] = {}
        self.stands: dict[bytes, Stand] = {}
        self.ends: dict[bytes, bytes] = {}
        self.jobs: dict[bytes, Job] = {}
        self.submissions: dict[bytes, Submission] = {}
        self.groups: dict[bytes, bytes] = {}
        """Encoded CreateGroup; empty: removed."""
        self.nodes: dict[bytes, bool] = {}
        self.calls: list[Callable[[str], None]] = []

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__slots__)

    def before(self, later: _Batch) -> _Batch:
        """Both as one; the calls of neither."""
        both = _Batch()
        for name in ("orders", "stands", "ends", "jobs", "submissions", "groups", "nodes"):
            setattr(both, name, {**getattr(self, name), **getattr(later, name)})
        return both

    def write(self, database: sqlite3.Connection) -> None:
        """All or nothing. sqlite3.Error when it cannot be kept."""
        with database:
            rows: Iterable[Record] = self.orders.values()
            database.executemany(_ORDER, (_values(row) for row in rows))
            database.executemany(_STAND, ((*_values(row)[1:], row.actor_id) for row in self.stands.values()))
            ended = [(actor_id,) for actor_id in self.ends]
            database.executemany("DELETE FROM actors WHERE actor_id = ?", ended)
            database.executemany("INSERT INTO ends (actor_id, reason) VALUES (?, ?)", self.ends.items())
            jobs = (_values(job) for job in self.jobs.values())
            database.executemany("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?)", jobs)
            submitted = self.submissions.values()
            kept = [_values(each) for each in submitted if each.stage != GONE]
            database.executemany(_SUBMISSION, kept)
            forgotten = [(each.job_id,) for each in submitted if each.stage == GONE]
            database.executemany("DELETE FROM submissions WHERE job_id = ?", forgotten)
            orders = [(group_id, frame) for group_id, frame in self.groups.items() if frame]
            removed = [(group_id,) for group_id, frame in self.groups.items() if not frame]
            database.executemany("INSERT OR IGNORE INTO groups (group_id, frame) VALUES (?, ?)", orders)
            database.executemany("DELETE FROM groups WHERE group_id = ?", removed)
            here = [(node,) for node, there in self.nodes.items() if there]
            gone = [(node,) for node, there in self.nodes.items() if not there]
            database.executemany("INSERT OR IGNORE INTO nodes VALUES (?)", here)
            database.executemany("DELETE FROM nodes WHERE node = ?", gone)
            database.executemany("INSERT INTO graves (node) VALUES (?)", gone)


def _values(row: Record) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in type(row).__match_args__)


class Ledger:
    """The head's memory. Made by `open_ledger`; all calls are the node's loop's."""

    def __init__(self, database: sqlite3.Connection, lock: int, epoch: int, former: bytes) -> None:
        self.epoch = epoch
        """How often a head has started from this file, this time included."""
        self.former = former
        """The node that was the head before; empty when there was none. It is dead: we have its lock."""
        self.refused = ""
        """Why nothing can be written just now; empty: it can."""
        self.commits = 0
        self._database = database
        self._lock = lock
        self.actors: list[tuple[Order, Stand]] = [(Order(*row[:6]), Stand(row[0], *row[6:])) for row in self._actors()]
        """As they were when the last head stopped, in the order they came."""
        ends = database.execute("SELECT actor_id, reason FROM ends ORDER BY number")
        self.ends: dict[bytes, bytes] = dict(ends.fetchall())
        """Actors that are dead for good, and why; the oldest are forgotten."""
        self.jobs = [Job(*row) for row in database.execute("SELECT * FROM jobs ORDER BY started")]
        columns = "job_id, actor_id, stage, note, tail, fate, noticed"
        submitted = database.execute(f"SELECT {columns} FROM submissions ORDER BY number")
        self.submissions = [Submission(*row) for row in submitted]
        self.groups: list[bytes] = [row[0] for row in database.execute("SELECT frame FROM groups ORDER BY number")]
        """Placement groups as they were ordered, encoded CreateGroup."""
        self.nodes: list[bytes] = [row[0] for row in database.execute("SELECT node FROM nodes")]
        """The members when the last head stopped."""
        self.graves: list[bytes] = [row[0] for row in database.execute("SELECT node FROM graves ORDER BY number")]
        """Nodes that have gone: one that was only silent is still dead when it comes back. The oldest are forgotten."""
        self._batch = _Batch()
        self._wake = threading.Condition()
        self._urgent = self._closing = False
        self._done: list[tuple[Callable[[str], None], str]] = []
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable when `settle` has something to do."""
        self._thread = threading.Thread(target=self._run, name="zmreg-ledger", daemon=True)
        self._thread.start()

    def _actors(self) -> list[tuple[Any, ...]]:
        columns = (
            "actor_id, owner, name, namespace, detached, frame, state, worker, incarnation, restarts_used, leaving"
        )
        rows = self._database.execute(f"SELECT {columns} FROM actors ORDER BY rowid").fetchall()
        return [(*row[:4], bool(row[4]), *row[5:10], bool(row[10])) for row in rows]

    # -- what is kept -------------------------------------------------------------------------------------------------

    def order(self, order: Order) -> None:
        """An actor was accepted, or its inputs are known now."""
        self._put("orders", order.actor_id, order)

    def stand(self, stand: Stand) -> None:
        """An actor that was ordered stands so now."""
        self._put("stands", stand.actor_id, stand)

    def end(self, actor_id: bytes, reason: bytes) -> None:
        """It is dead for good, or was refused."""
        with self._wake:
            self._batch.orders.pop(actor_id, None)
            self._batch.stands.pop(actor_id, None)
        self._put("ends", actor_id, reason)

    def job(self, job: Job) -> None:
        """A driver has come or gone."""
        self._put("jobs", job.driver, job)

    def submission(self, submission: Submission) -> None:
        """A submitted job stands so now, or is to be forgotten."""
        self._put("submissions", submission.job_id.encode(), submission)

    def group(self, group_id: bytes, frame: bytes) -> None:
        """A placement group was accepted; empty `frame`: it is no more."""
        self._put("groups", group_id, frame)

    def node(self, node: bytes, there: bool) -> None:
        """A node has joined or is gone."""
        self._put("nodes", node, there)

    def _put(self, table: str, key: bytes, row: object) -> None:
        with self._wake:
            if not self._batch:
                self._wake.notify()
            getattr(self._batch, table)[key] = row

    def after(self, call: Callable[[str], None], urgent: bool = True) -> None:
        """Call back from `settle` when all that was put so far is on the disk: `call("")`; or `call(why it is not)`."""
        with self._wake:
            if not self._batch or (urgent and not self._urgent):
                self._urgent = self._urgent or urgent
                self._wake.notify()
            self._batch.calls.append(call)

    def settle(self) -> None:
        """Make the calls that are due."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)
        with self._wake:
            done, self._done = self._done, []
        for call, why in done:
            call(why)

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        batch = _Batch()  # what could not be written yet
        while True:
            with self._wake:
                self._wake.wait_for(lambda: bool(self._batch) or self._closing, RETRY_S if batch else None)
                if self._batch and not self.refused:
                    self._wake.wait_for(lambda: self._urgent or self._closing, LINGER_S)
                closing, self._urgent = self._closing, False
                fresh, self._batch = self._batch, _Batch()
            batch = batch.before(fresh)
            why = self._write(batch)
            if not why:
                batch = _Batch()
            with self._wake:
                self.refused = why
                self._done += [(call, why) for call in fresh.calls]
            if fresh.calls:
                os.eventfd_write(self.fd, 1)
            if closing:
                return

    def _write(self, batch: _Batch) -> str:
        """Why it could not be written; empty when it is on the disk."""
        try:
            batch.write(self._database)
        except sqlite3.Error as error:
            return str(error)
        self.commits += 1
        return ""

    def close(self) -> None:
        """Write what is left, as far as that is possible, and let others have the file."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        self._database.close()
        os.close(self.fd)
        os.close(self._lock)


# -- opening -----------------------------------------------------------------------------------------------------------


def open_ledger(directory: Path, cluster: str, node: bytes) -> Ledger:
    """Take the directory for this head, make its epoch one more than the last, and read what the last one kept.

    Raises StateLockedError while another head has it, StateError for a directory that is open to others or on a
    network's file system, a file that is damaged or another cluster's, or a disk that cannot be written.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_private(directory)
        _require_local(directory)
        lock = _take(directory)
    except StateError:
        raise
    except OSError as error:
        raise StateError(f"the head cannot use {directory} for its state: {error}") from None
    try:
        database = _connect(directory / FILE)
        try:
            return Ledger(database, lock, *_begin(database, directory, cluster, node))
        except BaseException:
            database.close()
            raise
    except sqlite3.Error as error:
        os.close(lock)
        raise StateError(
            f"the head's state in {directory / FILE} cannot be read or written: {error}. Make room on the disk, bring "
            "back a copy, or move it away: the cluster then starts without its names"
        ) from None
    except BaseException:
        os.close(lock)
        raise


def _require_private(directory: Path) -> None:
    """Classes and arguments are in it, pickled: whoever can write there could run code here."""
    status = directory.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise StateError(
            f"{directory} is open to other users (owner {status.st_uid}, mode {status.st_mode & 0o777:o}), and what is "
            f"in it is trusted: chmod 700 {directory}, or name another with --state-dir"
        )


def _require_local(directory: Path, mounts: Path = Path("/proc/self/mounts")) -> None:
    place, kind = directory.resolve(), ""
    best = -1
    for line in mounts.read_text(errors="replace").splitlines():
        _, at, found, *_ = line.split()
        at = at.replace("\\040", " ")
        if place.is_relative_to(at) and len(at) >= best:
            best, kind = len(at), found
    if kind in REMOTE:
        raise StateError(
            f"{directory} is on a network's file system ({kind}), where neither the lock nor the database are safe: "
            "name a directory on a disk of this machine with --state-dir"
        )


def _take(directory: Path) -> int:
    """The lock, held until the descriptor is closed, however we end. It says who has it."""
    path = directory / LOCK
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise StateLockedError(
            f"the state in {directory} is held by pid {holder}, the head that runs; `zmreg stop` ends it"
        ) from None
    except OSError:
        os.close(fd)
        raise
    return fd


def _connect(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))  # and its companions with it
    database = sqlite3.connect(path, check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    return database


def _begin(database: sqlite3.Connection, directory: Path, cluster: str, node: bytes) -> tuple[int, bytes]:
    """(our epoch, the former head). Nothing is served before the epoch is on the disk."""
    (health,) = database.execute("PRAGMA integrity_check").fetchone()
    if health != "ok":
        raise sqlite3.DatabaseError(f"it is damaged: {health}")
    with database:
        for statement in _TABLES.split(";"):
            database.execute(statement)
        meta = dict(database.execute("SELECT name, value FROM meta").fetchall())
        if meta.get("cluster", cluster) != cluster:
            raise StateError(
                f"the state in {directory} is of cluster {meta['cluster']}, and the key is of cluster {cluster}: name "
                "the key file that belongs to it with --key, or another directory with --state-dir"
            )
        epoch = int(meta.get("epoch", "0")) + 1
        new = {"cluster": cluster, "epoch": str(epoch), "head": node.hex(), "started": str(time.time())}
        database.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", new.items())
        database.execute(f"DELETE FROM ends WHERE number <= (SELECT max(number) FROM ends) - {_KEPT}")
        database.execute(f"DELETE FROM graves WHERE number <= (SELECT max(number) FROM graves) - {_KEPT}")
        newest = f"(SELECT driver FROM jobs ORDER BY started DESC LIMIT {_KEPT})"
        database.execute(f"DELETE FROM jobs WHERE status != 'RUNNING' AND driver NOT IN {newest}")
    return epoch, bytes.fromhex(meta.get("head", ""))
