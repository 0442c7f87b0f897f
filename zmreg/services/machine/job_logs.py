"""The log of a job: what it prints, in a few files of which the oldest goes when it grows. Offsets count from the very
first byte, whatever is left of it: a file's name is the offset at which it begins.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

DIRECTORY: Final = "jobs"
"""Of the session: a directory for each supervisor, named by its actor id, with its job's log and, while that runs, its
working directory. By no name of a job: another one may have it later."""
OVER: Final = "over"
"""A file there when the job has ended."""
WARDEN: Final = "from zmreg.services.machine.warden import main; main()"
"""The process that keeps the log, and ends the job (warden.py)."""
SEGMENT_BYTES: Final = 4 << 20
SEGMENTS: Final = 2
_SUFFIX: Final = ".log"


class JobLog:
    """Its writer. A disk that is full loses lines, and is no matter of the job's."""

    def __init__(self, directory: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._most = segment_bytes
        self._size = 0
        self._begun = 0
        self.lost = 0
        """Bytes that could not be written."""
        self._fd = self._open()

    def _open(self) -> int:
        path = self._directory / f"{self._begun:015}{_SUFFIX}"
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes) -> None:
        """Append. The segment before the last one is removed when a new one begins."""
        try:
            if self._size >= self._most:
                begun, self._begun = self._begun, self._begun + self._size
                try:
                    fresh = self._open()
                except OSError:
                    self._begun = begun
                    raise
                os.close(self._fd)
                self._fd, self._size = fresh, 0
                for path in _segments(self._directory)[:-SEGMENTS]:
                    path.unlink(missing_ok=True)
            written = os.write(self._fd, data)
            self._size += written
            self.lost += len(data) - written
        except OSError:
            self.lost += len(data)

    def close(self) -> None:
        """Nothing is written any more."""
        os.close(self._fd)


def page(directory: Path, offset: int, most: int) -> dict[str, Any] | None:
    """{"data": at most `most` bytes, "start": offset of the first, "next": of what follows, "size": of the end}; None
    when there is no log. A negative `offset` counts from the end; what is gone is skipped."""
    found = _segments(directory)
    sizes: list[tuple[int, int, Path]] = []
    for path in found:
        try:
            sizes.append((int(path.stem), path.stat().st_size, path))
        except OSError:  # it has just been removed
            continue
    if not sizes:
        return None
    begin, size, _ = sizes[-1]
    end = begin + size
    start = min(max(offset if offset >= 0 else end + offset, sizes[0][0]), end)
    data = b""
    for begin, size, path in sizes:
        if begin <= start + len(data) < begin + size and len(data) < most:
            try:
                with path.open("rb") as file:
                    file.seek(start + len(data) - begin)
                    data += file.read(min(most - len(data), begin + size - start - len(data)))
            except OSError:
                return page(directory, offset, most)
    return {"data": data, "start": start, "next": start + len(data), "size": end}


def _segments(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob(f"*{_SUFFIX}") if path.stem.isdigit())
