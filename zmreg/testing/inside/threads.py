"""What would end or stop a process, done to one worker's threads alone: in a cluster within the process.

While it is up, four functions of the standard library ask first whose thread it is: `threading.Thread.start`
(services/worker/threads.py), `time.sleep` (so that a cancelled or killed task does not sleep on), `os._exit` and
`os.kill` of one's own process (which end a worker, and not the program). In threads that belong to no worker they do
what they always did.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any, Protocol

from zmreg.services.worker import threads
from zmreg.services.worker.threads import Killed
from zmreg.testing.inside.workers import ThreadWorker

# A sleeping thread looks so often whether it was interrupted.
_NAP_S = 0.01

_sleep, _exit, _kill = time.sleep, os._exit, os.kill


def worker_here() -> ThreadWorker | None:
    """The worker that this thread belongs to; None: the driver, or another thread of the program."""
    worker = threads.worker_here()
    return worker if isinstance(worker, ThreadWorker) else None


def _sleep_in_naps(seconds: Any) -> None:
    if worker_here() is None or not seconds > _NAP_S:
        _sleep(seconds)
        return
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        _sleep(min(left, _NAP_S))


def _leave_process(code: int) -> Any:
    worker = worker_here()
    if worker is None:
        _exit(code)
    else:
        worker.die((code & 0xFF) << 8)
        raise Killed


def _signal_process(pid: int, number: int) -> None:
    worker = worker_here()
    if pid != os.getpid() or number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGABRT):
        _kill(pid, number)
        return
    if worker is None:
        raise RuntimeError(
            f"os.kill({pid}, {number}) would hit this very program: in a cluster within one process (InProcess) "
            "workers have its pid. Use zmreg.kill for an actor, or a cluster of processes"
        )
    worker.die(int(number))
    raise Killed


class Library(Protocol):
    """The modules as they are written to here; type checkers hold their functions to be constant."""

    sleep: Any
    _exit: Any
    kill: Any


def take_over(yes: bool) -> None:
    """Whether the four functions ask first. In this process there is one cluster at a time."""
    threads.know_threads(yes)
    clock, system = _open(time), _open(os)
    clock.sleep = _sleep_in_naps if yes else _sleep
    system._exit = _leave_process if yes else _exit
    system.kill = _signal_process if yes else _kill


def _open(thing: Any) -> Library:
    opened: Library = thing
    return opened
