"""What workers print: one log file each, read on by whole lines, under a rate cap and a size cap."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path

# Read in steps of this size; more than four of them behind, the rest is skipped and counted.
_STEP_BYTES = 64 * 1024
_BACKLOG_STEPS = 4
_TAIL_BYTES = 4_096
_TAIL_LINES = 20
# Logs of dead workers that are kept for a look: a task that kills its workers all day must not fill the disk.
_DEAD_KEPT = 20


@dataclass(frozen=True, slots=True)
class Output:
    """Text that a worker printed, and how many bytes behind it are not told."""

    worker: bytes
    text: str
    skipped: int


class Printed:
    """The log files of one node's workers, in `directory`. Workers append; this reads, cuts and deletes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read: dict[bytes, int] = {}
        self._dead: deque[Path] = deque()

    def path(self, worker: bytes) -> Path:
        """A worker's log file."""
        return self._directory / f"{worker.hex()}.log"

    def begin(self, worker: bytes) -> None:
        """A worker is there, or will be."""
        self._read[worker] = 0

    def news(self, limit_bytes: int, keep_bytes: int) -> list[Output]:
        """What was printed since the last call, by whole lines, at most `limit_bytes` in all.

        A log over `keep_bytes` is cut to nothing: its writer appends, so it goes on at the start.
        """
        news = []
        for worker in self._read:
            with contextlib.suppress(OSError):
                output = self._next(worker, min(limit_bytes, _STEP_BYTES), whole_lines=True)
                limit_bytes -= len(output.text)
                if output.text or output.skipped:
                    news.append(output)
                if self.path(worker).stat().st_size > keep_bytes:
                    os.truncate(self.path(worker), 0)
                    self._read[worker] = 0
        return news

    def _next(self, worker: bytes, limit_bytes: int, whole_lines: bool) -> Output:
        path, start = self.path(worker), self._read[worker]
        unread = path.stat().st_size - start
        data = b""
        if unread > 0 and limit_bytes > 0:
            with path.open("rb") as log:
                log.seek(start)
                data = log.read(min(unread, limit_bytes))
        if whole_lines and (end := data.rfind(b"\n") + 1 or (len(data) >= _STEP_BYTES and len(data))) < len(data):
            data = data[:end]  # the rest of the line is still to come
        skipped = unread - len(data) if unread > _BACKLOG_STEPS * _STEP_BYTES else 0
        self._read[worker] = start + len(data) + skipped
        return Output(worker, data.decode(errors="replace"), skipped)

    def end(self, worker: bytes) -> Output:
        """The worker is dead: what it printed last, complete line or not."""
        output = Output(worker, "", 0)
        if worker in self._read:
            with contextlib.suppress(OSError):
                output = self._next(worker, _STEP_BYTES, whole_lines=False)
            del self._read[worker]
        self._dead.append(self.path(worker))
        while len(self._dead) > _DEAD_KEPT:
            self._dead.popleft().unlink(missing_ok=True)
        return output

    def tail(self, worker: bytes) -> str:
        """The last lines of a log."""
        try:
            with self.path(worker).open("rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(0, log.tell() - _TAIL_BYTES))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-_TAIL_LINES:])
