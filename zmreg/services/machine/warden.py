"""The warden of a job: a small process of its own between the supervisor, which may be killed, and the job's program.

It starts the program as the leader of a session, keeps its log, and sees to it that nothing of it outlives it: what it
starts stays below the warden (PR_SET_CHILD_SUBREAPER) and is ended with it. When the supervisor is gone (end of file on
stdin), the program is ended, too.

supervisor -> warden   one line of JSON: {"command": [...], "directory": of the log, "cwd": ..., "env": {...}};
                       then `stop SECONDS`: SIGTERM to the program's group, and SIGKILL to all of it after so long
warden -> supervisor   `started PID`, or `failed CODE WHY`; then `ended STATUS WHY` (the program's wait
                       status; WHY is `stopped` or `alone`)
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Final

from zmreg.services.machine.job_logs import OVER, JobLog
from zmreg.services.machine.memory import children_of

_PR_SET_CHILD_SUBREAPER: Final = 36
# What a program that ends by itself leaves running has this long to end, and so has the program of a dead supervisor.
LEFT_OVER_S: Final = 1.0
ORPHANED_S: Final = 2.0
# Those that were killed take no longer; one in an uninterruptible wait is left to the kernel.
_KILLED_S: Final = 2.0
_TICK_S: Final = 0.5
_READ_BYTES: Final = 64 * 1024
# As shells count: there is no such command, or it cannot be run.
NOT_FOUND: Final = 127
NOT_RUNNABLE: Final = 126


class Warden:
    """One program, from its start to the end of all that it has started."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._order = order
        self.directory = Path(order["directory"])
        self.log = JobLog(self.directory)
        self._status: int | None = None
        self._deadline: float | None = None
        self._line = b""
        self._leader = 0
        self._output = -1
        self._poller = select.poll()

    def start(self) -> str:
        """Start the program; what to tell the supervisor."""
        read, write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(read, False)
        self._output = read
        try:
            process = subprocess.Popen(
                self._order["command"], cwd=self._order["cwd"], env=self._order["env"], stdin=subprocess.DEVNULL,
                stdout=write, stderr=write, start_new_session=True, preexec_fn=_as_from_a_shell,
            )  # fmt: skip
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            why = f"{self._order['command'][0]}: {'there is no such command' if missing else error.strerror}"
            self.log.write(f"{why}\n".encode(errors="replace"))
            return f"failed {NOT_FOUND if missing else NOT_RUNNABLE} {why}"
        except ValueError as error:  # a NUL in an argument
            return f"failed {NOT_RUNNABLE} {error}"
        finally:
            os.close(write)
        process.returncode = 0  # it is waited for here, and not by Popen
        self._leader = process.pid
        return f"started {process.pid}"

    def run(self) -> str:
        """Serve until nothing of the program is left; what to tell the supervisor."""
        self._poller.register(0, select.POLLIN)
        self._poller.register(self._output, select.POLLIN)
        pidfd = os.pidfd_open(self._leader)
        self._poller.register(pidfd, select.POLLIN)
        while self._status is None:
            self._turn(_TICK_S)
        self._poller.unregister(pidfd)
        os.close(pidfd)
        why = "alone" if self._deadline is None else "stopped"
        if self._deadline is None:
            self._stop(LEFT_OVER_S)
        while self._below() and not self._is_late():
            self._turn(0.02)
        self._kill()
        while self._read():
            pass
        return f"ended {self._status} {why}"

    def _turn(self, seconds: float) -> None:
        if self._deadline is not None:
            seconds = max(0.0, min(seconds, self._deadline - time.monotonic()))
        for fd, _ in self._poller.poll(seconds * 1e3):
            if fd == 0:
                self._hear()
            elif fd == self._output:
                self._read()
        self._reap()
        if self._status is None and self._is_late():
            self._kill()

    def _hear(self) -> None:
        data = os.read(0, 4096)
        if not data:
            self._poller.unregister(0)
            self._stop(ORPHANED_S)
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            if line.startswith(b"stop "):
                self._stop(float(line.split()[1]))

    def _read(self) -> bool:
        """Take what was printed; whether there may be more."""
        try:
            data = os.read(self._output, _READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            self.log.write(data)
        else:
            with contextlib.suppress(KeyError):
                self._poller.unregister(self._output)
        return bool(data)

    def _stop(self, grace_s: float) -> None:
        """Ask the program's group to end. A second wish may shorten the grace, and never lengthens it."""
        deadline = time.monotonic() + grace_s
        if self._deadline is None or deadline < self._deadline:
            self._deadline = deadline
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)  # what is stopped could not hear it

    def _signal(self, number: int) -> None:
        """To the program's group; when its leader is gone, the number may be another's by now, to who came to us."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._status is None:
                os.killpg(self._leader, number)
                return
        for pid in self._below():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def _is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _below(self) -> list[int]:
        self._reap()
        return children_of(os.getpid())

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._leader:
                self._status = status

    def _kill(self) -> None:
        """Everything below, also what has left the group: those that lose their parents come to us."""
        self._signal(signal.SIGKILL)
        deadline = time.monotonic() + _KILLED_S
        while (below := self._below()) and time.monotonic() < deadline:
            for pid in below:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            self._read()
            select.poll().poll(5)

    def close(self) -> None:
        """Say in the directory that it is over."""
        self.log.close()
        with contextlib.suppress(OSError):
            (self.directory / OVER).touch()


def _as_from_a_shell() -> None:
    """The node ignores signals that a program expects to hear: Ctrl-C, for one. What is ignored stays so over exec."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _order() -> dict[str, Any]:
    """The first line, read byte by byte as far as it goes: what follows is for `_hear`."""
    read = bytearray()
    while not read.endswith(b"\n"):
        data = os.read(0, 1)
        if not data:
            raise SystemExit(1)  # the supervisor died before it had said what to start
        read += data
    found: dict[str, Any] = json.loads(read)
    return found


def _tell(word: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, f"{word}\n".encode(errors="replace"))


def main() -> None:
    """The life of the process."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    warden = Warden(_order())
    try:
        word = warden.start()
        _tell(word)
        if word.startswith("started"):
            _tell(warden.run())
    finally:
        warden.close()
