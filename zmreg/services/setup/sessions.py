"""Which nodes of this user run on this machine: the word each leaves in its session directory, and whether it holds.

A session lives while somebody has its directory locked and its node's process is the one that wrote the word: a pid
alone proves nothing, since the kernel gives it out again, so the word has the process's start time as well.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import time
from pathlib import Path
from typing import Any, Final

from zmreg.model.errors import ClusterError
from zmreg.model.record import Record
from zmreg.services.machine.directories import remove, runtime_root

NODE_FILE: Final = "node.json"
# A node that was killed leaves its workers to the zygote, and the directory to whoever looks next.
_KILLED_S: Final = 5.0
_START_TIME: Final = 19
"""Place of the start time in /proc/PID/stat, counted from behind the process's name."""


class Word(Record):
    """What a node says of itself to programs and commands on this machine. Ids are hex digits."""

    session: str
    node: str
    pid: int
    started: int
    """Start time of the process, in clock ticks since the machine's."""
    name: str
    is_head: bool
    attachable: bool
    """False for a node that a program has started for itself alone."""
    cluster: str = ""
    address: str = ""
    """HOST:PORT, empty for a node without ports."""
    port: int = 0
    pub_port: int = 0
    contact: str = ""
    """The address that it joined by; empty for a head."""
    key_file: str = ""

    @property
    def node_id(self) -> bytes:
        """The id as messages have it."""
        return bytes.fromhex(self.node)

    def lives(self) -> bool:
        """Whether the process that wrote this still runs."""
        return start_time(self.pid) == self.started

    def title(self) -> str:
        """`A (1f3a2b4c) at 127.0.0.1:7550`: how messages name it."""
        return f"{self.name} ({self.node[:8]})" + (f" at {self.address}" if self.address else "")


def start_time(pid: int) -> int | None:
    """When a process began, in clock ticks since the machine's start; None when there is none of that id."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[_START_TIME])


def leave_word(word: Word) -> None:
    """Whole or not at all: others may be reading. The directory is 0700, the file what the umask makes of it."""
    path = Path(word.session) / NODE_FILE
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({name: getattr(word, name) for name in Word.__match_args__}))
    fresh.rename(path)


def read_word(session: Path) -> Word:
    """The word left in a session directory. ClusterError when there is none, or none of ours."""
    try:
        read: dict[str, Any] = json.loads((session / NODE_FILE).read_text())
        return Word(**{name: read[name] for name in Word.__match_args__})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClusterError(f"no node is up in {session}: {error}") from None


def running() -> list[Word]:
    """The nodes of this user that are up on this machine: heads first, then the oldest."""
    found = []
    for session in _directories():
        if is_held(session):
            with contextlib.suppress(ClusterError):  # it starts or ends just now
                found.append(read_word(session))
    found = [word for word in found if word.lives()]
    return sorted(found, key=lambda word: (not word.is_head, word.started, word.node))


def leftovers() -> list[Path]:
    """Session directories that nobody holds: of processes that were all killed at once. The next start removes them."""
    return [session for session in _directories() if not is_held(session)]


def _directories() -> list[Path]:
    root = runtime_root()
    try:
        if root.lstat().st_uid != os.getuid():
            return []
        return [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []


def is_held(session: Path) -> bool:
    """Whether somebody has the directory locked. Several may ask at once."""
    try:
        fd = os.open(session, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def end(words: list[Word], grace_s: float) -> dict[str, str]:
    """End these nodes in peace, all at once; kill those that are not gone after `grace_s` seconds (0: at once).

    {node id: "ended", "killed" or "gone already"}. Nothing of their sessions is left. Raises PermissionError for a
    process that became another user's.
    """
    fates: dict[str, str] = {}
    poller = select.poll()
    open_fds: dict[int, Word] = {}
    with contextlib.ExitStack() as cleanup:
        for word in words:
            fd = _hold(word)
            if fd is None:
                fates[word.node] = "gone already"
                continue
            cleanup.callback(os.close, fd)
            open_fds[fd] = word
            poller.register(fd, select.POLLIN)
            if grace_s > 0:
                _signal(fd, signal.SIGTERM)
        for word in _gone_within(poller, open_fds, grace_s) if grace_s > 0 else ():
            fates[word.node] = "ended"
        for fd in open_fds:
            _signal(fd, signal.SIGKILL)
        for word in _gone_within(poller, open_fds, _KILLED_S):
            fates[word.node] = "killed"
            remove_when_free(Path(word.session))
    return fates


def _hold(word: Word) -> int | None:
    """A descriptor of the very process that wrote the word."""
    try:
        fd = os.pidfd_open(word.pid)
    except ProcessLookupError:
        return None
    if not word.lives():  # asked with the descriptor in hand: from now on the pid cannot become another's
        os.close(fd)
        return None
    return fd


def _signal(fd: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(fd, number)


def _gone_within(poller: select.poll, waiting: dict[int, Word], seconds: float) -> list[Word]:
    """Wait for the ends of processes; those that ended leave `waiting`."""
    gone, deadline = [], time.monotonic() + seconds
    while waiting and (left := deadline - time.monotonic()) > 0:
        for fd, _ in poller.poll(left * 1e3):
            poller.unregister(fd)
            gone.append(waiting.pop(fd))
    return gone


def remove_when_free(session: Path) -> None:
    """Remove what a killed node left, when its zygote has ended the workers and let go of the lock (or did so itself).

    Harmless when it is gone already; what is still held after that is left to the next start.
    """
    try:
        fd = os.open(session, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    pause, left = select.poll(), int(_KILLED_S / 0.02)
    try:
        while left:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                left -= 1
                pause.poll(20)
            else:
                remove(session)
                return
    finally:
        os.close(fd)
