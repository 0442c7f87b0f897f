"""What a worker prints, by whole lines, each with whose it is: a mark stands in the log where the call changes.

A worker's stdout and stderr are one file, to which it appends; its node reads that (services/node/printed.py). A mark
is a line of its own, `\\x1e TASK LABEL`, written before the first line that a call prints, and once more now and then,
so that whoever has to skip a part of the log finds one. What is printed past Python (by C code, by a child) has the
mark of whatever printed last.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from zmreg.services.seat.running import running

if TYPE_CHECKING:
    from zmreg.services.seat.client import Client

# After so many characters of one call its mark is repeated: less than is searched when a part of the log is skipped.
AGAIN_CHARS: Final = 16 * 1024
# A line that does not end is written in parts of this length.
_PART_CHARS: Final = 8 * 1024
_LABEL_CHARS: Final = 80
QUIET: Final = "\x1f"
"""Before the label in a mark: what follows stays in the log."""
# Quiet calls that are remembered: as many may go on printing from threads or coroutines of theirs.
_HUSHED: Final = 256
_MARK: Final = re.compile(rb"\x1e([0-9a-f]{32}) ([^\n]*)\n")
_CONTROL: Final = re.compile(r"[\s\x00-\x1f\x7f]+")

speaker: ContextVar[tuple[bytes, str] | None] = ContextVar("zmreg_speaker", default=None)
"""(task id, label) of what runs here without being a call."""
captured: ContextVar[list[tuple[str, str]] | None] = ContextVar("zmreg_captured", default=None)
"""Where this thread's or coroutine's output goes instead: ("stdout" or "stderr", text)."""


def mark(task_id: bytes, label: str) -> bytes:
    """The line that says whose the next ones are."""
    return b"\x1e" + task_id.hex().encode() + b" " + label.encode(errors="replace") + b"\n"


def marks(data: bytes) -> Iterator[tuple[bytes, str, bytes]]:
    """(task id, label, what follows it) of each mark in a log, and first, with neither, what is before them all."""
    parts = _MARK.split(data)
    yield b"", "", parts[0]
    for place in range(1, len(parts), 3):
        yield bytes.fromhex(parts[place].decode()), parts[place + 1].decode(errors="replace"), parts[place + 2]


def without_marks(data: bytes) -> bytes:
    """A part of a log for people. A mark that is cut at its end is left out as well."""
    data = _MARK.sub(b"", data)
    last = data.rfind(b"\n") + 1
    return data[:last] if data[last : last + 1] == b"\x1e" else data


def one_line(text: str) -> str:
    """A label: short, and without what would end it."""
    return _CONTROL.sub(" ", text).strip()[:_LABEL_CHARS]


def _nobody() -> None:
    """There are no lodgers."""


class Speech:
    """What both streams of a worker share: the log, the mark in force, and who speaks."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.label = ""
        """Of an actor: how all that it prints is labelled."""
        self.at_rest: tuple[bytes, str] | None = None
        """Who speaks when no call runs: an actor that is made, or goes on by itself."""
        self.quiet = False
        """All that is printed here stays in the log."""
        self._hushed: deque[bytes] = deque(maxlen=_HUSHED)
        self.lock = threading.RLock()
        self.last: tuple[bytes, str] | None = None
        self.since = 0
        self.midline = False
        self.guest: Callable[[], Speech | None] = _nobody
        """The one of the lodger whose thread this is, where a process has some."""

    def hush(self, task_id: bytes) -> None:
        """What this call prints stays in the log."""
        self._hushed.append(task_id)

    def mark_of(self, who: tuple[bytes, str]) -> bytes:
        """The mark for what this one prints."""
        label, mine = one_line(who[1].rpartition(".<locals>.")[2]), self.guest() or self
        return mark(who[0], QUIET + label if mine.quiet or who[0] in mine._hushed else label)

    def who(self) -> tuple[bytes, str] | None:
        """(task id, label) of the code that prints; None between calls: then the last mark goes on."""
        if (known := speaker.get()) is not None:
            return known
        call, mine = running.get(), self.guest() or self
        if call is not None:
            return call[0], mine.label or call[1]
        parent = mine.client.parent  # a thread that the call has started
        if parent is None:
            return mine.at_rest
        same = self.last is not None and self.last[0] == parent
        return self.last if same else (parent, mine.label)


class Voice(io.TextIOWrapper):
    """A worker's stdout or stderr. Lines of several threads never mix."""

    def __init__(self, stream: io.TextIOWrapper, speech: Speech, name: str) -> None:
        super().__init__(stream.buffer, stream.encoding, stream.errors, line_buffering=True)
        self._kept = stream  # it would close what we share with it
        self._speech = speech
        self._called = name
        self._parts: dict[int, tuple[tuple[bytes, str] | None, str]] = {}
        """By thread: the beginning of a line, and whose it is."""

    def write(self, text: str) -> int:
        """Write whole lines; keep the rest until the line ends, or `flush`."""
        if type(text) is not str:
            return super().write(text)
        sink = captured.get()
        if sink is not None:
            sink.append((self._called, text))
            return len(text)
        who = self._speech.who()
        thread = threading.get_ident()
        with self._speech.lock:
            rest = ""
            if thread in self._parts:
                former, rest = self._parts.pop(thread)
                if former != who:
                    self._say(former, rest + "\n")
                    rest = ""
            whole, newline, rest = (rest + text).rpartition("\n")
            if newline:
                self._say(who, whole + newline)
            if len(rest) > _PART_CHARS:
                self._say(who, rest)
            elif rest:
                self._parts[thread] = who, rest
        return len(text)

    def _say(self, who: tuple[bytes, str] | None, text: str) -> None:
        speech = self._speech
        if who is not None and (who != speech.last or speech.since > AGAIN_CHARS):
            if speech.midline:
                super().write("\n")
            super().flush()
            self.buffer.write(speech.mark_of(who))
            speech.last, speech.since = who, 0
        super().write(text)
        super().flush()
        speech.since += len(text)
        speech.midline = not text.endswith("\n")

    def flush(self) -> None:
        """Write beginnings of lines, too."""
        with self._speech.lock:
            for thread in list(self._parts):
                self._say(*self._parts.pop(thread))
            super().flush()


def give_voice(client: Client) -> Speech:
    """Have this worker's streams mark what they write."""
    speech = Speech(client)

    def in_child() -> None:
        speech.lock = threading.RLock()  # the thread that held it is not here
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, Voice):
                stream._parts.clear()

    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            voice = Voice(stream, speech, name)
            setattr(sys, name, voice)
    os.register_at_fork(after_in_child=in_child)
    return speech


@contextlib.contextmanager
def speaking(task_id: bytes, label: str) -> Iterator[None]:
    """What this thread prints meanwhile is said to be of that task."""
    token = speaker.set((task_id, label))
    try:
        yield
    finally:
        speaker.reset(token)
