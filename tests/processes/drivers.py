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
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0

PRELUDE = '''
import ctypes, json, os, signal, sys, threading, time
import zmreg
from zmreg.services.client import current

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
        self.process = subprocess.Popen(
            [*wrapper, sys.executable, str(script)],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
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


def gone(pids: Sequence[int], timeout: float) -> list[int]:
    """Wait for processes to be gone; returns those that are still there after `timeout` seconds."""
    alive = []
    for pid in pids:
        try:
            alive.append(psutil.Process(pid))
        except psutil.NoSuchProcess:
            continue
    return [process.pid for process in psutil.wait_procs(alive, timeout=timeout)[1] if not is_zombie(process)]


def is_zombie(process: psutil.Process) -> bool:
    """Dead, only its parent has not looked: in a container nobody may ever."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def session_paths(session: str) -> list[Path]:
    """What a session has on disk and in shared memory, as far as it exists."""
    name = Path(session).name
    return [path for path in (Path(session), Path(f"/dev/shm/zmreg-{os.getuid()}-{name}")) if path.exists()]
