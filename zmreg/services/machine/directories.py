"""The directories that sessions live in: made, locked while they are in use, and removed when nobody is."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from zmreg.model.errors import ClusterError

SHARED_MEMORY = Path("/dev/shm")
DISK = Path("/var/tmp")


@dataclass(frozen=True, slots=True)
class Session:
    """The directories of one cluster: sockets and logs, shared memory, spilled objects; and what keeps them locked."""

    path: Path
    arena: Path
    spill: Path
    locks: tuple[int, ...]

    def let_go(self) -> None:
        """Close our copies of the locks: whoever inherited them goes on holding."""
        for lock in self.locks:
            os.close(lock)


def runtime_root() -> Path:
    """The directory under which every session of this user has its own: `$XDG_RUNTIME_DIR/zmreg`, or in tmp."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and len(base) < 60 and os.path.isdir(base):  # a socket path has 107 characters
        return Path(base) / "zmreg"
    return Path(tempfile.gettempdir()) / f"zmreg-{os.getuid()}"


def new_session() -> Session:
    """Fresh 0700 directories for one cluster, locked while it lives; what dead clusters left is swept first.

    Raises ClusterError when the root is not ours alone, OSError when there is no room for directories.
    """
    root = runtime_root()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = root.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ClusterError(f"{root} must belong to you and be closed to others (0700); remove it or chmod it")
    sweep(root)
    while True:
        path = root / secrets.token_hex(4)
        locks: list[int] = []
        try:
            locks.append(_make_locked(path))
            (path / "logs").mkdir(mode=0o700)
            for directory in elsewhere(path):
                locks.append(_make_locked(directory))
        except FileNotFoundError:  # another process's sweep was faster than our lock
            _drop(locks, path)
        except BaseException:
            _drop(locks, path)
            raise
        else:
            return Session(path, *elsewhere(path), locks=tuple(locks))


def elsewhere(session: Path) -> tuple[Path, Path]:
    """A session's other directories: in shared memory for objects, and on disk for those that are spilled."""
    name = f"zmreg-{os.getuid()}-{session.name}"
    return SHARED_MEMORY / name, spill_root() / name


def spill_root() -> Path:
    """Where objects are spilled: `$TMPDIR`, or /var/tmp, which is on disk where /tmp may not be."""
    named = os.environ.get("TMPDIR")
    if named:
        return Path(named)
    return DISK if os.access(DISK, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def _drop(locks: list[int], session: Path) -> None:
    for lock in locks:
        os.close(lock)
    remove(session)


def remove(session: Path) -> None:
    """Remove what a session has on disk and in shared memory. Harmless when it is gone already."""
    for directory in (*elsewhere(session), session):
        shutil.rmtree(directory, ignore_errors=True)


def _make_locked(path: Path) -> int:
    """Make a directory and lock it: whoever holds a copy of the descriptor keeps it from being swept."""
    path.mkdir(mode=0o700)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.stat(path)  # a sweep between mkdir and lock has removed it
    except BaseException:
        os.close(fd)
        raise
    return fd


def sweep(root: Path) -> list[Path]:
    """Remove what nobody has locked any more (kill -9 of everything leaves it). Returns the paths.

    By lock, never by pid: pids are used again.
    """
    swept = []
    pattern = f"zmreg-{os.getuid()}-*"
    for path in [*root.iterdir(), *SHARED_MEMORY.glob(pattern), *spill_root().glob(pattern)]:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # just removed, or none of ours
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
            swept.append(path)
        except BlockingIOError:
            continue
        finally:
            os.close(fd)
    return swept
