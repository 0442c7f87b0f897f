"""A user's program in a process of its own, to be killed, interrupted and watched by a test.

The program gets a short prelude: `say(word, ...)` prints one line that the test can wait for, `pids()` tells which
processes its cluster consists of, `typed(call)` runs a call and names the error it ends with.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import psutil

from tests.footprint import describe, settled, ticks
from zmreg.services.machine.directories import elsewhere

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0
# Inherited by whatever the program starts, so that its orphans are found. Beside the mark of the whole test run.
MARK = "ZMREG_TEST_PROGRAM"

PRELUDE = '''
import ctypes, json, os, signal, sys, threading, time
import zmreg
from zmreg.services.seat.client import current

def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")
    sys.stdout.flush()

def pids():
    """{"driver": pid, "node": pid, "zygote": pid, "workers": [pids]} as one line of JSON."""
    seat = current()
    workers = [row["Pid"] for row in seat.ask("workers") if row["Ready"]]
    found = {"driver": os.getpid(), "node": zmreg.nodes()[0]["Pid"], "zygote": zmreg.stats()["zygote_pid"],
             "workers": workers}
    return json.dumps(found)

def typed(call):
    """The value, or the name of the zmreg error it ended with. Anything else is not typed, and ends the program."""
    try:
        return call()
    except zmreg.errors.ZmregError as error:
        return type(error).__name__
'''


class Driver:
    """One program under test. Use as a context manager: it is killed at the end if it still runs."""

    def __init__(self, source: str, *, env: Mapping[str, str] | None = None, wrapper: Sequence[str] = ()) -> None:
        """`wrapper` is a command line to run python under, e.g. `unshare -m`."""
        self._directory = tempfile.TemporaryDirectory(prefix="zd-")
        script = Path(self._directory.name) / "program.py"
        script.write_text(PRELUDE + source)
        self._errors = (script.parent / "stderr").open("wb+")
        self._buffer = b""
        self._seen: set[psutil.Process] = set()
        self._mark = f"{MARK}={script.parent.name}"
        self.process = subprocess.Popen(
            [*wrapper, sys.executable, str(script)],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": str(ROOT), MARK: script.parent.name, **(env or {})},
        )

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            error.add_note(f"the program printed on stderr:\n{self.stderr()}")
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._errors.close()
        self._directory.cleanup()

    def processes(self) -> list[psutil.Process]:
        """Every live process of the program: itself, and whatever inherited its environment, orphans included."""
        found = []
        for process in psutil.process_iter():
            try:
                marked = self._mark.encode() in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            except OSError:
                continue  # gone meanwhile, or another user's
            if marked and not is_zombie(process):
                found.append(process)
        self._seen.update(found)
        return found

    def member(self, role: str, timeout: float = PATIENCE_S) -> list[psutil.Process]:
        """Those that are driver, node, zygote or worker, as soon as there is one."""
        return eventually(lambda: self._members(role), timeout, f"there is no {role}")

    def _members(self, role: str) -> list[psutil.Process]:
        found = [psutil.Process(self.process.pid)]
        for _ in range(("driver", "node", "zygote", "worker").index(role)):
            try:
                found = [child for process in found for child in process.children()]
            except psutil.NoSuchProcess:
                return []
        return [process for process in found if not is_zombie(process)]

    def left(self, timeout: float) -> list[str]:
        """What is still there of the program after `timeout` seconds: its processes, described.

        One that is ending has no environment any more and may still hold locks: so those seen before are looked at too.
        """

        def alive() -> list[str]:
            self.processes()
            return [describe(process) for process in self._seen if process.is_running() and not is_zombie(process)]

        return settled(alive, time.monotonic() + timeout)

    def line(self, timeout: float = PATIENCE_S) -> str:
        """The next line it says. AssertionError when it ends or stays silent instead."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([self.process.stdout], [], [], left)[0]
            assert ready, f"the program said nothing for {timeout} s; so far {self._buffer!r}"
            data = os.read(self.process.stdout.fileno(), 65_536)
            assert data, f"the program ended early, code {self.process.wait()}"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def after(self, word: str, timeout: float = PATIENCE_S) -> str:
        """Skip lines up to one that starts with `word`; returns the rest of that line."""
        deadline = time.monotonic() + timeout
        while True:
            line = self.line(max(0.1, deadline - time.monotonic()))
            if line.split(" ", 1)[0] == word:
                return line[len(word) + 1 :]

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def end(self, timeout: float = PATIENCE_S) -> int:
        """Wait for its end; returns the exit code, negative for a signal."""
        return self.process.wait(timeout)

    def stderr(self) -> str:
        """What it printed on stderr so far."""
        self._errors.flush()
        return Path(self._errors.name).read_text(errors="replace")


def eventually(look: Callable[[], T], timeout: float, complaint: str) -> T:
    """What `look` finds, as soon as it is something. Processes and files have no event to wait for: a bounded poll."""
    for _ in ticks(time.monotonic() + timeout):
        if found := look():
            return found
    raise AssertionError(f"{complaint} after {timeout} s")


def is_zombie(process: psutil.Process) -> bool:
    """Dead, only its parent has not looked: in a container nobody may ever."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def session_paths(session: str) -> list[Path]:
    """What a session has on disk and in shared memory, as far as it exists."""
    return [path for path in (Path(session), *elsewhere(Path(session))) if path.exists()]
