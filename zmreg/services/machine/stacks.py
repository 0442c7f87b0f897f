"""Where the threads of a process are: told by itself, or had by a signal when it does not come to telling.

A process that holds Python's lock inside C code, or whose lock is contended, answers nobody. For that case a handler
of `faulthandler` is there from the start: it runs in C, and appends to one file of the session. Nobody is signalled
who has no handler for it (the signal would end that process): the kernel says who has.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, Final

# Of the signals nobody has a meaning for; C libraries take the first ones.
SIGNAL: Final = signal.SIGRTMAX - 2
# As much of one process as is told: more is a runaway recursion, or a pool of threads that all do the same.
MOST_FRAMES: Final = 100
MOST_THREADS: Final = 100
_FILE_BYTES: Final = 4 << 20
_LOOK_S: Final = 0.01
_THREAD: Final = r"(?:Current thread|Thread) (0x[0-9a-f]+)"
_FRAME: Final = r'  File "(.*)", line (\d+|\?\?\?) in (.*)$'

# What was called to find out where a thread is, the outermost last, is not where it is.
_ASKING: Final = ("of_this_process", "_stacks", "_answer", "asked_how_it_is")
_HERE: Final = os.path.dirname(__file__)

# [name, [[file, line, function], ...]], the innermost frame first.
Thread = list[Any]


def listen(session: str | Path) -> None:
    """From now on this process, and what it forks, shows its stacks on `SIGNAL`, in a file of the session."""
    fd = os.open(_file(session), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    faulthandler.register(SIGNAL, file=fd, all_threads=True, chain=False)


def _file(session: str | Path) -> Path:
    return Path(session) / "stacks"


# -- asked -------------------------------------------------------------------------------------------------------------


def of_this_process() -> list[Thread]:
    """Where our threads are, the main thread first. What only serves to find that out is left away."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found = sys._current_frames()
    main, me = threading.main_thread().ident, threading.get_ident()
    if me != main:
        del found[me]
    order = sorted(found, key=lambda ident: (ident != main, ident))[:MOST_THREADS]
    return [[names.get(ident, hex(ident)), _frames(found[ident])] for ident in order]


def _frames(frame: FrameType | None) -> list[list[Any]]:
    rows: list[list[Any]] = []
    while frame is not None and len(rows) < MOST_FRAMES:
        code = frame.f_code
        if code.co_name in _ASKING and code.co_filename.startswith(_HERE):
            rows.clear()
        else:
            rows.append([code.co_filename, frame.f_lineno or 0, code.co_name])
        frame = frame.f_back
    return rows


# -- by the signal -----------------------------------------------------------------------------------------------------


def by_signal(pid: int, session: str | Path, patience_s: float) -> tuple[list[Thread], str]:
    """(the stacks of a process of this session, or none and why not). One at a time: they share the file."""
    path, deadline = _file(session), time.monotonic() + patience_s
    before = _status(f"/proc/{pid}/status")
    if not before:
        return [], "it has ended"
    if before["State"][:1] == "T":
        return [], "it is stopped (SIGSTOP, or a debugger)"
    if not _has(before["SigCgt"]):
        return [], "it does not answer in time, and has no handler for the signal that shows stacks"
    blocked = _who_blocks(pid)
    try:
        if path.stat().st_size > _FILE_BYTES:
            os.truncate(path, 0)
        start = path.stat().st_size
        os.kill(pid, SIGNAL)
    except OSError as error:
        return [], f"it cannot be asked: {error}"
    while True:
        # The handler's thread blocks the signal while the handler runs: once it has begun to write, that shows its end.
        if path.stat().st_size > start and _who_blocks(pid) == blocked:
            break
        if time.monotonic() > deadline:
            break
        if not (now := _status(f"/proc/{pid}/status")):
            return [], "it has ended"
        time.sleep(_LOOK_S)
    with path.open("rb") as file:
        file.seek(start)
        threads = parse(file.read().decode(errors="replace"))
    if threads:
        return threads, ""
    state = now.get("State", "?")
    return [], f"it has not taken the signal within {patience_s:g} s; the kernel says it is in state {state}"


def parse(text: str) -> list[Thread]:
    """What `faulthandler` has written; the main thread, which is told last, comes first."""
    threads: list[Thread] = []
    for line in text.splitlines():
        if found := re.match(_THREAD, line):
            threads.append([found[1], []])
        elif threads and (found := re.match(_FRAME, line)):
            threads[-1][1].append([found[1], int(found[2]) if found[2].isdigit() else 0, found[3]])
    threads.reverse()
    if threads:
        threads[0][0] = "MainThread"
    return threads[:MOST_THREADS]


def _status(path: str) -> dict[str, str]:
    with contextlib.suppress(OSError):
        lines = (line.partition(":") for line in Path(path).read_text().splitlines())
        return {name: rest.strip() for name, _, rest in lines}
    return {}


def _has(mask: str) -> bool:
    return bool(int(mask, 16) >> (SIGNAL - 1) & 1)


def _who_blocks(pid: int) -> set[str]:
    """The threads that do not take the signal now; `pending` among them when none has taken it yet."""
    found = set()
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            status = _status(f"/proc/{pid}/task/{thread}/status")
            if status and _has(status["SigBlk"]):
                found.add(thread)
            if status and _has(status["ShdPnd"]):
                found.add("pending")
    return found
