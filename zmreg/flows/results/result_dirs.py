"""A directory of results on disk: parts, the manifest that lists them, a lock, what a crash has left, and what is old.

    part-00000.jsonl        finished: whole, listed in the manifest with its checksum, never changed again
    part-00001.jsonl.open   being written: whole rows up to the last flush, perhaps a torn one behind them
    manifest.json           replaced as a whole; `complete` is true once the sink was closed in order
    .lock                   locked by the process that writes

A part gets its final name after its bytes are on the disk, and is listed after that. So what has a final name is whole,
whether it is listed or not, and an `.open` one beside a final one of the same name has the same rows and goes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from zmreg.flows.results.formats import Format

MANIFEST: Final = "manifest.json"
OPEN: Final = ".open"
LOCK: Final = ".lock"
LAYOUT: Final = 1
_REWRITE: Final = ".rewrite"
_BLOCK: Final = 1 << 20
# A program that is started again at once finds the sink of the one that was killed still saving what it has: 20 to
# 180 ms as measured. Nobody is told when a lock is free.
_ENDS_WITHIN_S: Final = 2.0
_LOOK_S: Final = 0.02


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """What the manifest says; None when there is none of ours."""
    try:
        found = json.loads((directory / MANIFEST).read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("zmreg_results") == LAYOUT else None


def write_manifest(directory: Path, manifest: dict[str, Any]) -> None:
    """Replace it, on the disk when this returns."""
    fresh = directory / f".{MANIFEST}"
    with fresh.open("w", encoding="utf-8") as file:
        json.dump({"zmreg_results": LAYOUT, **manifest}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, directory / MANIFEST)
    sync_directory(directory)


def sync_directory(directory: Path) -> None:
    """Have names on the disk, too."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def checksum(path: Path) -> str:
    """SHA-256, as sha256sum prints it."""
    import hashlib  # late, as shutil: milliseconds, for those who only import zmreg

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Lock:
    """Held by the one process that writes into a directory; free when that is gone, however it ended."""

    def __init__(self, directory: Path) -> None:
        """OSError (EWOULDBLOCK) when another one writes there, and goes on doing so for two seconds."""
        self._fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        until = time.monotonic() + _ENDS_WITHIN_S
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if time.monotonic() > until:
                    os.close(self._fd)
                    raise BlockingIOError(
                        error.errno, f"another sink writes into {directory}; close it first, or choose another path"
                    ) from None
            time.sleep(_LOOK_S)

    def release(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def is_written(directory: Path) -> bool:
    """Whether somebody writes there now."""
    try:
        fd = os.open(directory / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def part_name(number: int, form: Format) -> str:
    """Of a finished part."""
    return f"part-{number:05d}{form.suffix}"


def parts(directory: Path, form: Format) -> list[Path]:
    """All that hold rows, in the order of writing: finished ones, then the open one."""
    done = sorted(path for path in directory.glob(f"part-*{form.suffix}"))
    return [*done, *sorted(path for path in directory.glob(f"part-*{form.suffix}{OPEN}") if final(path) not in done)]


def final(path: Path) -> Path:
    """The name of an open part once it is finished."""
    return path.with_name(path.name.removesuffix(OPEN))


def entry_of(path: Path, rows: int, digest: str | None = None) -> dict[str, Any]:
    """What the manifest says of a finished part."""
    return {"name": path.name, "rows": rows, "bytes": path.stat().st_size, "sha256": digest or checksum(path)}


def recovered(directory: Path, form: Format, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Finish what a crash has left open, and list all parts. What was torn is cut off; what holds nothing goes."""
    listed = {entry["name"]: entry for entry in manifest.get("parts", ())}
    columns = list(manifest.get("columns", ()))
    for stray in directory.glob(f"*{_REWRITE}"):
        stray.unlink()
    for path in sorted(directory.glob(f"part-*{form.suffix}{OPEN}")):
        if not final(path).exists():
            with path.open("r+b") as file:
                file.truncate(form.whole(path))
            if path.stat().st_size and form.count(path, columns):
                finish(path, form, columns)
                continue
        path.unlink()
    found = []
    for path in sorted(directory.glob(f"part-*{form.suffix}")):
        found.append(listed.get(path.name) or entry_of(path, form.count(path)))
    return found


def finish(path: Path, form: Format, columns: list[str]) -> Path:
    """Give an open part, whole by now, its final name. It is on the disk before, and only then seen."""
    target, fresh = final(path), path.with_name(f".{path.name}{_REWRITE}")
    try:
        source = fresh if form.finished(path, columns, fresh) else path
        fd = os.open(source, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(source, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # what was written anew
    sync_directory(path.parent)
    return target


def read_rows(directory: Path, form: Format, columns: list[str]) -> Iterator[dict[str, Any]]:
    """All rows: of finished parts, and the whole ones of the open one."""
    for path in parts(directory, form):
        yield from form.read(path, columns if path.name.endswith(OPEN) else ())


class Appender:
    """A file that grows by pieces, each of them as a whole. What the disk did not take is kept, and tried again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        """Bytes that are there, whole pieces all of them."""
        self._waiting = b""
        import hashlib

        self._digest = hashlib.sha256()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    @property
    def waiting(self) -> bool:
        """Whether there are bytes that the disk has not taken."""
        return bool(self._waiting)

    @property
    def digest(self) -> str:
        """SHA-256 of what is there."""
        return self._digest.hexdigest()

    def hold(self, piece: bytes) -> None:
        """Have it written with the next piece."""
        self._waiting += piece

    def append(self, piece: bytes, sync: bool = False) -> None:
        """OSError when the disk does not take it: then none of it is in the file, and it comes with the next piece."""
        self._waiting += piece
        if self._waiting:
            view, at = memoryview(self._waiting), 0
            try:
                while at < len(view):
                    at += os.pwrite(self._fd, view[at : at + _BLOCK], self.size + at)
            except OSError as error:
                os.ftruncate(self._fd, self.size)
                error.filename = error.filename or str(self.path)
                raise
            self._digest.update(view)
            self.size += at
            self._waiting = b""
        if sync:
            os.fsync(self._fd)

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


# -- what is old -------------------------------------------------------------------------------------------------------


def retain(
    parent: str | Path,
    *,
    keep_last: int | None = None,
    max_age: float | None = None,
    max_bytes: int | None = None,
    now: Callable[[], float] | None = None,
) -> list[str]:
    """Delete old results below `parent`; the names of the directories that went, oldest first.

    `keep_last`: so many remain; `max_age`: seconds since they were last written; `max_bytes`: of all together, the
    youngest first. Nothing is touched but directories with a manifest of ours, and never one that is being written.
    """
    import shutil  # late: it brings three compressors

    _check("keep_last", keep_last)
    _check("max_age", max_age)
    _check("max_bytes", max_bytes)
    parent = Path(parent)
    found = [path for path in parent.iterdir() if read_manifest(path) is not None] if parent.is_dir() else []
    ages = sorted(((_written(path), path) for path in found), key=lambda each: (-each[0], each[1].name))
    gone, kept, total = [], 0, 0
    for written, path in ages:
        size = sum(each.stat().st_size for each in path.iterdir() if each.is_file())
        old = (
            (keep_last is not None and kept >= keep_last)
            or (max_age is not None and (now or _today)() - written > max_age)
            or (max_bytes is not None and total + size > max_bytes)
        )
        if old and not is_written(path):
            shutil.rmtree(path, ignore_errors=True)
            gone.append(path.name)
            continue
        kept, total = kept + 1, total + size
    return gone[::-1]


def _check(name: str, value: float | None) -> None:
    if value is not None and not value >= 0:
        raise ValueError(f"{name}={value!r}: a number from 0 is needed, or None for no limit")


def _written(path: Path) -> float:
    return (path / MANIFEST).stat().st_mtime


def _today() -> float:
    import time

    return time.time()  # beside times of files, which are of that clock
