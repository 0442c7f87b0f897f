"""What workers print: one log file each, read on by whole lines, under a rate cap and a size cap.

Marks in a log say which call printed what follows (services/worker/voice.py).
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from zmreg.services.worker.voice import QUIET, marks, without_marks

# Read in steps of this size; more than four of them behind, the rest is skipped and counted.
_STEP_BYTES = 64 * 1024
_BACKLOG_STEPS = 4
_TAIL_BYTES = 4_096
_TAIL_LINES = 20
# Logs of dead workers that are kept for a look: a task that kills its workers all day must not fill the disk.
_DEAD_KEPT = 20


@dataclass(frozen=True, slots=True)
class Output:
    """Text that a call of a worker printed, and how many bytes behind it are not told."""

    worker: bytes
    text: str
    skipped: int
    task: bytes = b""
    """Empty when it is not known."""
    label: str = ""


class Printed:
    """The log files of one node's workers, in `directory`. Workers append; this reads, cuts and deletes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read: dict[bytes, int] = {}
        self._marks: dict[bytes, tuple[bytes, str]] = {}
        """The mark in force where a log is read: (task, label)."""
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
                outputs = self._next(worker, min(limit_bytes, _STEP_BYTES), whole_lines=True)
                limit_bytes -= sum(len(output.text) for output in outputs)
                news += outputs
                if (size := self.path(worker).stat().st_size) > keep_bytes:
                    if lost := size - self._read[worker]:
                        self._skip(worker, size)
                        news += _heard([Output(worker, "", lost, *self._marks.get(worker, (b"", "")))])
                    os.truncate(self.path(worker), 0)
                    self._read[worker] = 0
        return news

    def _next(self, worker: bytes, limit_bytes: int, whole_lines: bool) -> list[Output]:
        path, start = self.path(worker), self._read[worker]
        unread = path.stat().st_size - start
        data = b""
        if unread > 0 and limit_bytes > 0:
            data = _part(path, start, min(unread, limit_bytes))
        if whole_lines and (end := data.rfind(b"\n") + 1 or (len(data) >= _STEP_BYTES and len(data))) < len(data):
            data = data[:end]  # the rest of the line is still to come
        self._read[worker] = start + len(data)
        outputs = self._told(worker, data)
        if unread > _BACKLOG_STEPS * _STEP_BYTES and (skipped := self._skip(worker, start + unread)):
            last = outputs.pop() if outputs else Output(worker, "", 0)
            outputs.append(Output(worker, last.text, skipped, last.task, last.label))
        return _heard(outputs)

    def _told(self, worker: bytes, data: bytes) -> list[Output]:
        """The texts of several calls, each with whose it is."""
        texts: list[tuple[tuple[bytes, str], bytes]] = []
        for task, label, text in marks(data):
            if task:
                self._marks[worker] = task, label
            whose = self._marks.get(worker, (b"", ""))
            if text and texts and texts[-1][0] == whose:
                texts[-1] = whose, texts[-1][1] + text
            elif text:
                texts.append((whose, text))
        return [Output(worker, text.decode(errors="replace"), 0, *whose) for whose, text in texts]

    def _skip(self, worker: bytes, end: int) -> int:
        """Leave out what is unread up to the last whole line before `end`. Returns how many bytes these are.

        Whose the next line is says the last mark there; when there is none in the last part, nobody knows.
        """
        start = self._read[worker]
        searched = max(start, end - _STEP_BYTES)
        data = _part(self.path(worker), searched, end - searched)
        whole = data.rfind(b"\n") + 1 or len(data)
        last = (b"", "")
        for task, label, _ in marks(data[:whole]):
            last = (task, label) if task else last
        if last[0] or searched > start:
            self._marks[worker] = last
        self._read[worker] = searched + whole
        return self._read[worker] - start

    def end(self, worker: bytes) -> list[Output]:
        """The worker is dead: what it printed last, complete line or not."""
        outputs: list[Output] = []
        if worker in self._read:
            with contextlib.suppress(OSError):
                outputs = self._next(worker, _STEP_BYTES, whole_lines=False)
            del self._read[worker]
            self._marks.pop(worker, None)
        self._dead.append(self.path(worker))
        while len(self._dead) > _DEAD_KEPT:
            self._dead.popleft().unlink(missing_ok=True)
        return outputs

    def tail(self, worker: bytes) -> str:
        """The last lines of a log."""
        try:
            with self.path(worker).open("rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(0, log.tell() - _TAIL_BYTES))
                lines = without_marks(log.read()).decode(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-_TAIL_LINES:])


def _heard(outputs: list[Output]) -> list[Output]:
    """Without what quiet calls have printed."""
    return [output for output in outputs if not output.label.startswith(QUIET)]


def _part(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as log:
        log.seek(start)
        return log.read(size)
