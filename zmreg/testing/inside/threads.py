"""Which process of the cluster a thread belongs to, and what would end or stop a process, done to its threads alone.

A thread belongs to the process of the thread that started it. While a cluster within the process is up, four functions
of the standard library ask that first: `threading.Thread.start` (so that it is known), `time.sleep` (so that a
cancelled or killed task does not sleep on), `os._exit` and `os.kill` of one's own process (which end a worker, and not
the program). In threads that belong to no worker they do what they always did.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from zmreg.net.waiting import Shield, Waiter, Wakeable
from zmreg.services.worker.interrupts import WorkerInterrupts

if TYPE_CHECKING:
    from zmreg.testing.inside.workers import ThreadWorker

# A sleeping thread looks so often whether it was interrupted.
_NAP_S = 0.01

_start, _sleep, _exit, _kill = threading.Thread.start, time.sleep, os._exit, os.kill
_owners: dict[int, ThreadWorker] = {}
_spared: set[int] = set()
"""Threads that end by themselves, and must not be torn out of what they do."""
# Of zmreg's own making in a worker, where no code of the user's runs.
_OURS = ("zmreg-io", "zmreg-callbacks")


class Killed(SystemExit):
    """Raised in the threads of a worker that was killed, wherever they are. Nobody is told."""


def worker_here() -> ThreadWorker | None:
    """The worker that this thread belongs to; None: the driver, or another thread of the program."""
    return _owners.get(threading.get_ident())


def belongs(worker: ThreadWorker) -> None:
    """This thread is that worker's."""
    _owners[threading.get_ident()] = worker


def leaves() -> None:
    """This thread is nobody's any more."""
    _owners.pop(threading.get_ident(), None)
    _spared.discard(threading.get_ident())


def raise_in(ident: int, error: type[BaseException] | None) -> None:
    """Have an exception raised in a thread at its next step of Python code; None takes it back if it is not too late.

    Nothing can be raised in a thread while it waits in C: for a lock, or in a system call."""
    what = ctypes.py_object(error) if error is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), what)


def end_all(worker: ThreadWorker) -> None:
    """Have every other thread of a worker end."""
    me = threading.get_ident()
    for ident, owner in list(_owners.items()):
        if owner is worker and ident != me and ident not in _spared:
            raise_in(ident, Killed)


def spare() -> None:
    """Nothing is thrown at this thread from now on. What was thrown already may still hit, here or before."""
    me = threading.get_ident()
    _spared.add(me)
    raise_in(me, None)


# -- what the standard library does meanwhile --------------------------------------------------------------------------


def _start_thread(thread: threading.Thread) -> None:
    owner = worker_here()
    if owner is not None:
        run = thread.run

        def owned() -> None:
            belongs(owner)
            if thread.name in _OURS:
                _spared.add(threading.get_ident())
            try:
                run()
            except SystemExit:  # as every thread ends by it, silently
                return
            finally:
                leaves()

        thread.run = owned  # type: ignore[method-assign]
    _start(thread)


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

    start: Any
    sleep: Any
    _exit: Any
    kill: Any


def take_over(yes: bool) -> None:
    """Whether the four functions ask first. In this process there is one cluster at a time."""
    thread, clock, system = _open(threading.Thread), _open(time), _open(os)
    thread.start = _start_thread if yes else _start
    clock.sleep = _sleep_in_naps if yes else _sleep
    system._exit = _leave_process if yes else _exit
    system.kill = _signal_process if yes else _kill


def _open(thing: Any) -> Library:
    opened: Library = thing
    return opened


# -- cancellation ------------------------------------------------------------------------------------------------------


class ThreadShield(Shield):
    """A `Shield` of the thread that runs a worker's calls."""

    __slots__ = ()

    def __enter__(self) -> None:
        if threading.get_ident() == self._interrupts.main:
            self._mine = self._interrupts.hold()


class ThreadInterrupts(WorkerInterrupts):
    """As on a worker process, but that a thread gets KeyboardInterrupt by the interpreter, and not by SIGINT."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._thrown = False
        self._runs = b""
        self.loop: Any = None
        """The worker's event loop, which has to be woken."""
        super().__init__()

    def take_over(self) -> None:
        """This thread runs the calls."""
        self.main = threading.get_ident()
        self.shield = ThreadShield

    def renew(self) -> None:
        """Nobody can have taken it from us."""

    @property
    def executing(self) -> bytes:
        """The task whose code runs. Once it is another, nothing that was thrown at this one arrives."""
        return self._runs

    @executing.setter
    def executing(self, task_id: bytes) -> None:
        with self._mutex:
            self._take_back()
            self._runs = task_id

    def send(self) -> None:
        """From any thread: interrupt the call that is `target`, which runs."""
        with self._mutex:
            if not self._runs or self._runs != self.target:
                return
            if self._held:
                self._noted = True
                self._end_wait()
                return
            self._thrown = True
            self.target = b""
            raise_in(self.main, KeyboardInterrupt)
        loop = self.loop() if self.loop is not None else None
        if loop is not None and loop.is_running():
            loop.call_soon_threadsafe(int)

    def hold(self, waiting: tuple[Wakeable, Waiter] | None = None) -> bool:
        """Our own code runs; what was thrown and has not arrived is noted instead."""
        with self._mutex:
            if self._take_back():
                self._noted = True
                self.target = self._runs
            return super().hold(waiting)

    def _take_back(self) -> bool:
        thrown, self._thrown = self._thrown, False
        if thrown:
            raise_in(self.main, None)
        return thrown
