"""A serving process's notice of the calls it has begun, readable after its death: one small file per process.

Calls run side by side there, so that one id (store/board.py) does not say it. Each call's id is written down before
user code runs, and stays when that has ended: its answer may be lost with the process. The place is used again when all
others have been; of whom had it by then, the highest number is kept, one for each 64th of all callers. So a call that
has begun is never taken for one that has not; one that has not is taken for begun only when it stood behind 512 later
ones of its caller, or of another in the same 64th. The reader looks only when the writer is dead, or begins no more.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections import deque
from pathlib import Path
from typing import Final

_ID_BYTES: Final = 16
_CALLER_BYTES: Final = 8
_NO_ID: Final = bytes(_ID_BYTES)
# Calls that can be told exactly: those that run, 64 on threads and any number of coroutines, and the latest others.
_PLACES: Final = 512
_PARTS: Final = 64
_PART_BYTES: Final = 8
_HEAD_BYTES: Final = _PARTS * _PART_BYTES
_BYTES: Final = _HEAD_BYTES + _PLACES * _ID_BYTES


def begun_file(session: Path, process: bytes) -> Path:
    """Where a process of a session has it."""
    return session / f"{process.hex()}.begun"


class Begun:
    """The writer. `begin` and `end` may be called by any thread."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, when there is no room for its 8.5 KiB."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, _BYTES)
            self._map = mmap.mmap(fd, _BYTES)
        finally:
            os.close(fd)
        self._ids = [b""] * _PLACES
        self._free = deque(range(_PLACES))
        self._passed = [b""] * _PARTS
        self._guard = threading.Lock()

    def begin(self, task_id: bytes) -> int:
        """I begin this call (16 bytes: its caller, its number). The place is for `end`."""
        with self._guard:
            if not self._free:
                self._pass(task_id)
                return -1
            place = self._free.popleft()
            if self._ids[place]:
                self._pass(self._ids[place])
            self._ids[place] = task_id
            start = _HEAD_BYTES + place * _ID_BYTES
            self._map[start : start + _ID_BYTES] = task_id
            return place

    def end(self, place: int) -> None:
        """That call is over. -1 is no place."""
        if place >= 0:
            self._free.append(place)

    def _pass(self, task_id: bytes) -> None:
        part = task_id[_CALLER_BYTES - 1] % _PARTS
        number = task_id[_CALLER_BYTES:]  # big-endian: bytes compare as numbers do
        if number > self._passed[part]:
            self._passed[part] = number
            start = part * _PART_BYTES
            self._map[start : start + _PART_BYTES] = number


def take_begun(session: Path, process: bytes) -> bytes:
    """What is to be told of a process that is gone; empty when it had no such file. Removes the file."""
    path = begun_file(session, process)
    try:
        data = path.read_bytes()
        path.unlink()
    except OSError:
        return b""
    ids = (data[start : start + _ID_BYTES] for start in range(_HEAD_BYTES, len(data), _ID_BYTES))
    return data[:_HEAD_BYTES] + b"".join(each for each in ids if each != _NO_ID)


def may_have_begun(told: bytes, task_id: bytes) -> bool:
    """Whether that call has begun, by what `take_begun` gave."""
    part = task_id[_CALLER_BYTES - 1] % _PARTS * _PART_BYTES
    if len(told) < _HEAD_BYTES or task_id[_CALLER_BYTES:] <= told[part : part + _PART_BYTES]:
        return True
    return any(told.startswith(task_id, start) for start in range(_HEAD_BYTES, len(told), _ID_BYTES))
