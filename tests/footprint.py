"""What a test leaves behind: processes, threads, shared memory, session directories.

`Footprint.now()` before, `footprint.leaks()` after. Everything is compared with the state *before* the test, so that
what a wider fixture holds (a module's cluster) is not blamed on one test.
"""

from __future__ import annotations

import fcntl
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")

# Every process a test starts, and every process that one starts, inherits this through its environment. So orphans are
# found too, and the processes of another test run on the same machine are not mistaken for ours.
MARK = "ZMREG_TEST_RUN"
GRACE_S = 5.0
SHARED_MEMORY = Path("/dev/shm")  # absent outside Linux: then there is nothing to list
SESSION_NAME = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Footprint:
    """The state before: pids with start times, threads, names in shared memory, session directories."""

    processes: frozenset[psutil.Process]
    threads: frozenset[threading.Thread]
    segments: frozenset[str]
    sessions: frozenset[Path]
    pure: bool

    @classmethod
    def now(cls, *, pure: bool = False) -> Footprint:
        """Take stock. `pure` leaves out processes and sessions: for rooms whose tests start none (2 ms a test)."""
        return cls(
            processes=frozenset() if pure else frozenset(our_processes()),
            threads=frozenset(threading.enumerate()),
            segments=frozenset(segment_names()),
            sessions=frozenset() if pure else frozenset(session_directories()),
            pure=pure,
        )

    def leaks(self, grace_s: float = GRACE_S) -> list[str]:
        """One line for each thing that is new and still there after `grace_s` seconds; kills the processes among them,
        so that the next test is not blamed as well."""
        deadline = time.monotonic() + grace_s
        found = self._process_leaks(grace_s)
        found += [f"thread {thread.name!r} is still running" for thread in self._threads_after(deadline)]
        segments = settled(lambda: sorted(name for name in segment_names() - self.segments if is_ours(name)), deadline)
        found += [f"shared memory {SHARED_MEMORY / name} was not removed" for name in segments]
        if not self.pure:
            sessions = settled(lambda: sorted(session_directories() - self.sessions), deadline)
            found += [f"session directory {path} was not removed" for path in sessions]
        return found

    def _process_leaks(self, grace_s: float) -> list[str]:
        if self.pure:
            return []
        _, alive = psutil.wait_procs(self._new_processes(), timeout=grace_s)
        found = []
        for process in alive:
            found.append(f"process {describe(process)} is still running")
            try:
                process.kill()
            except psutil.NoSuchProcess:
                found[-1] += " (it ended just after the grace time)"
        psutil.wait_procs(alive, timeout=1.0)
        return found

    def _new_processes(self) -> list[psutil.Process]:
        """New ones, without those that live below a process of a wider fixture: that fixture answers for them."""
        return [process for process in our_processes() - self.processes if not self._is_below_ours(process)]

    def _is_below_ours(self, process: psutil.Process) -> bool:
        try:
            return not self.processes.isdisjoint(process.parents())
        except psutil.Error:
            return False

    def _threads_after(self, deadline: float) -> list[threading.Thread]:
        fresh = [thread for thread in threading.enumerate() if thread not in self.threads and self._must_end(thread)]
        for thread in fresh:
            thread.join(max(0.0, deadline - time.monotonic()))
        return [thread for thread in fresh if thread.is_alive()]

    def _must_end(self, thread: threading.Thread) -> bool:
        """Non-daemon threads always; zmreg's daemons too, unless a wider fixture's cluster may start them late."""
        wider_cluster = any(known.name.startswith("zmreg") for known in self.threads)
        return not thread.daemon or (thread.name.startswith("zmreg") and not wider_cluster)


def our_processes() -> set[psutil.Process]:
    """Live processes started by this test run: its children, and whoever carries its mark (orphans do)."""
    return _census.taken()


class _Census:
    """The processes of this machine, each looked at when it is new: twice for each of thousands of tests."""

    def __init__(self) -> None:
        self._mark = b""
        self._began = psutil.Process().create_time()
        self._ours: dict[int, psutil.Process] = {}
        self._others: set[int] = set()
        """Carry other marks or none, for good: what we start has our mark at first, whatever it becomes."""

    def taken(self) -> set[psutil.Process]:
        me = os.getpid()
        mark = f"{MARK}={os.environ.get(MARK, me)}".encode()
        if mark != self._mark:
            self._mark, self._ours, self._others = mark, {}, {me}
        pids = set(psutil.pids())
        self._others &= pids
        self._ours = {pid: each for pid, each in self._ours.items() if pid in pids and each.is_running()}
        unmarked = {}
        for pid in pids - self._others - self._ours.keys():
            environment = environment_of(pid)
            if mark in environment.split(b"\0"):
                self._take(pid)
            else:
                unmarked[pid] = environment
        while below := [pid for pid in unmarked if origin_of(pid)[0] in {me, *self._ours}]:
            for pid in below:
                self._take(pid)
                del unmarked[pid]
        # Nothing is said of itself by who has ended, or is about to run another program, or is the kernel's.
        self._others |= {pid for pid, said in unmarked.items() if said or origin_of(pid)[1] < self._began}
        return set(self._ours.values())

    def _take(self, pid: int) -> None:
        try:
            self._ours[pid] = psutil.Process(pid)
        except psutil.NoSuchProcess:
            self._others.add(pid)  # until its number is not in use


_census = _Census()


def environment_of(pid: int) -> bytes:
    """As it was when the process began to run its program; empty when it is gone, or another user's."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def origin_of(pid: int) -> tuple[int, float]:
    """(its parent's pid, when it began); (0, inf) when it is gone."""
    try:
        process = psutil.Process(pid)
        return process.ppid(), process.create_time()
    except psutil.Error:
        return 0, math.inf


def segment_names() -> set[str]:
    """Names of zmreg's files in shared memory, whoever made them."""
    return {path.name for path in SHARED_MEMORY.glob("zmreg*")}


def is_ours(segment: str) -> bool:
    """False if it is another test run's on the same machine: a live process outside ours has it locked or mapped."""
    path = SHARED_MEMORY / segment
    if not has_session(segment) and is_locked(path):
        return False
    ours = {process.pid for process in our_processes()} | {os.getpid()}
    return not any(str(path) in maps_of(pid) for pid in psutil.pids() if pid not in ours)


def has_session(segment: str) -> bool:
    """Whether the session it belongs to has its directory among this run's, where it is removed last."""
    return segment.rpartition("-")[2] in {path.name for path in session_directories()}


def is_locked(path: Path) -> bool:
    """Whether a live process holds the lock of a session's directory."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return False  # just removed
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def maps_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except (OSError, UnicodeDecodeError):
        return ""  # gone meanwhile, or another user's, who cannot map our 0600 files


def session_directories() -> set[Path]:
    """Directories of live (or forgotten) sessions; empty while the package cannot start processes at all."""
    try:
        from zmreg.services.machine.directories import runtime_root
    except ImportError:
        return set()
    root = runtime_root()
    return {path for path in root.glob("*") if SESSION_NAME.fullmatch(path.name)} if root.is_dir() else set()


def describe(process: psutil.Process) -> str:
    """pid, command line and parent, as far as the process still tells."""
    try:
        return f"{process.pid} ({' '.join(process.cmdline())[:200]!r}, parent {process.ppid()}, {process.status()})"
    except psutil.Error:
        return str(process.pid)


def settled(remaining: Callable[[], list[T]], deadline: float) -> list[T]:
    """Ask until the list is empty or the deadline has passed. Files have no event to wait for, hence a bounded poll."""
    for _ in ticks(deadline):
        if not (left := remaining()):
            return []
    return left


def ticks(deadline: float) -> Iterator[None]:
    yield
    pause = threading.Event()
    while time.monotonic() < deadline:
        pause.wait(0.02)
        yield
