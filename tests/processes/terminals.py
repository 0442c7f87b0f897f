"""`zmreg debug` as somebody uses it: a process with pipes, or on a terminal, that is asked and answers."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import zmreg

T = TypeVar("T")

PATIENCE_S = 30.0
PROMPT = "(Pdb) "
# Ctrl-C is for those whose terminal it is.
_ON_A_TERMINAL = "import os, sys; os.login_tty(0); os.execv(sys.argv[1], sys.argv[1:])"


def until(fact: Callable[[], T], what: str = "") -> T:
    """What it gives once that is true. Whatever it asks takes its time; nothing sleeps here."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := fact()):
        assert time.monotonic() < deadline, what or fact
    return found


def stopped(count: int = 1) -> list[zmreg.Breakpoint]:
    """That many calls, once they are stopped."""
    return until(lambda: found if len(found := zmreg.breakpoints()) == count else [], f"{count} stopped calls")


class Terminal:
    """One run of the command. `with` it: killed at the end if it still runs."""

    def __init__(self, *arguments: str, tty: bool = False) -> None:
        command = [sys.executable, "-m", "zmreg", "debug", *arguments]
        variables: Any = {**os.environ, "TERM": "dumb"}
        if tty:
            self._out, theirs = pty.openpty()
            self._in = self._out
            command = [sys.executable, "-c", _ON_A_TERMINAL, *command]
            self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=variables)
            os.close(theirs)
        else:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=variables
            )
            assert self.process.stdin is not None and self.process.stdout is not None
            self._in, self._out = self.process.stdin.fileno(), self.process.stdout.fileno()
        self._tty = tty
        self._seen = b""

    def reads(self, end: str = PROMPT) -> str:
        """What it shows up to there."""
        deadline = time.monotonic() + PATIENCE_S
        while end.encode() not in self._seen:
            ready, _, _ = select.select([self._out], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._out, 1 << 20) if ready else b""
            assert data, f"no {end!r} in {self._seen.decode()[-2_000:]!r}"
            self._seen += data
        found, _, self._seen = self._seen.partition(end.encode())
        return found.decode().replace("\r\n", "\n")

    def types(self, line: str) -> None:
        """A line, and Enter."""
        os.write(self._in, line.encode() + b"\n")

    def does(self, line: str, end: str = PROMPT) -> str:
        """Type it; what is shown up to the next prompt."""
        self.types(line)
        return self.reads(end)

    def presses(self, key: bytes) -> None:
        """Ctrl-C and the like, on a terminal."""
        os.write(self._in, key)

    def presses_until_seen(self, key: bytes, end: str) -> None:
        """A signal between the prompt and the read behind it waits for that read, in any program of Python's."""
        for _ in range(int(PATIENCE_S)):
            self.presses(key)
            if select.select([self._out], [], [], 1.0)[0]:
                self._seen += os.read(self._out, 1 << 20)
                if end.encode() in self._seen:
                    self.reads(end)
                    return
        raise AssertionError(f"no {end!r} in {self._seen.decode()!r}")

    def interrupts(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def ends_input(self) -> None:
        """No more lines come."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def rest(self) -> tuple[int, str]:
        """(exit code, what it has shown up to its end)."""
        found = b""
        while select.select([self._out], [], [], PATIENCE_S)[0]:
            try:
                data = os.read(self._out, 1 << 20)
            except OSError:  # a terminal that nobody has any more
                data = b""
            if not data:
                break
            found += data
        return self.process.wait(timeout=PATIENCE_S), (self._seen + found).decode()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        if self._tty:
            os.close(self._out)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None and not stream.closed:
                stream.close()
