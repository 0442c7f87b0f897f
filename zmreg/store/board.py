"""A worker's notice of what it runs and what it has stored, readable after its death: one small file per worker.

What it runs is written before each call (0.2 us), so that after a kill -9 the owner knows which of the calls it had
sent have begun. What it has stored is written before it says so to anybody: of its two last messages, "sealed" to the
node and the result to the owner, only the second may have left the process, and then the object must not be dropped.
Stores of 16 bytes are not atomic, but the reader looks only when the writer is dead.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ID_BYTES: Final = 16
_NO_ID: Final = bytes(_ID_BYTES)
_ALL: Final = b"\xff" * _ID_BYTES
# Sealed objects remembered: more can't be in a queue, since their creator waits for room for each of them.
_SEALED_KEPT: Final = 8
_BYTES: Final = _ID_BYTES * (1 + _SEALED_KEPT)
# Behind these: of which task, or of all here, and how many bytes; then what its caller has said of how it is shown.
_NOTE_AT: Final = _BYTES + _ID_BYTES + 2
NOTE_BYTES: Final = 1_024


@dataclass(frozen=True, slots=True)
class LastWords:
    """What a dead worker had on its board. `running`: a task id, or empty; `sealed`: ids of objects it had written."""

    running: bytes
    sealed: tuple[bytes, ...]


class Board:
    """One worker's notice; the file lies in the session directory."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, _NOTE_AT + NOTE_BYTES)
            self._map = mmap.mmap(fd, _NOTE_AT + NOTE_BYTES)
        finally:
            os.close(fd)
        self._stored = 0
        self.of_all = b""
        """What was said of all that runs here."""

    def show(self, task_id: bytes) -> None:
        """I begin this task (16 bytes)."""
        self._map[:_ID_BYTES] = task_id

    def clear(self) -> None:
        """I run nothing, and everything I ran has been answered."""
        self._map[:_ID_BYTES] = _NO_ID

    def describe(self, task_id: bytes, note: bytes) -> None:
        """How this task (16 bytes), or with b"" all that runs here, is to be shown. What is too long is cut."""
        if not task_id:
            self.of_all = note
        note, head = note[:NOTE_BYTES], slice(_BYTES, _BYTES + _ID_BYTES)
        self._map[head] = _NO_ID
        self._map[_NOTE_AT : _NOTE_AT + len(note)] = note
        self._map[_NOTE_AT - 2 : _NOTE_AT] = len(note).to_bytes(2, "big")
        self._map[head] = task_id or _ALL

    def restore(self) -> None:
        """What was said of all that runs here, if anything was, is true again."""
        if self.of_all:
            self.describe(b"", self.of_all)

    def stored(self, object_id: bytes) -> None:
        """All bytes of this object are in the store."""
        self._stored = self._stored % _SEALED_KEPT + 1
        start = self._stored * _ID_BYTES
        self._map[start : start + _ID_BYTES] = object_id


def showing(path: Path) -> bytes:
    """The task that a living worker is in, or empty. It may be over when you read it here."""
    try:
        with open(path, "rb") as file:
            task_id = file.read(_ID_BYTES)
    except OSError:  # it has none yet, or is gone
        return b""
    return b"" if task_id == _NO_ID else task_id


def described(path: Path, task_id: bytes) -> bytes:
    """What a living worker's board says of how this task is shown; empty when it says nothing of it."""
    try:
        data = path.read_bytes()
    except OSError:
        return b""
    if data[_BYTES : _BYTES + _ID_BYTES] not in (task_id, _ALL):
        return b""
    return data[_NOTE_AT : _NOTE_AT + int.from_bytes(data[_NOTE_AT - 2 : _NOTE_AT], "big")]


def read_board(path: Path) -> LastWords:
    """What a dead worker was in, and had stored. Removes the file."""
    try:
        data = path.read_bytes()[:_BYTES]
        path.unlink()
    except OSError:  # it died before it had a board
        return LastWords(b"", ())
    ids = [data[start : start + _ID_BYTES] for start in range(0, len(data), _ID_BYTES)]
    ids = [b"" if each == _NO_ID else each for each in ids]
    return LastWords(ids[0] if ids else b"", tuple(filter(None, ids[1:])))
