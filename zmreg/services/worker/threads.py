"""Several workers in one process: which of them a thread belongs to, and how its code is interrupted or ended.

A thread belongs to the worker of the thread that started it. That is known because `threading.Thread.start` is another
one in such a process. A thread of nobody belongs to whoever the process was made for.
"""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING, Any, Final

from zmreg.net.waiting import Shield, Waiter, Wakeable
from zmreg.services.worker.interrupts import WorkerInterrupts

if TYPE_CHECKING:
    from zmreg.services.worker.worker import Worker

# Of zmreg's own making in a worker, where no code of the user's runs.
_OURS: Final = ("zmreg-io", "zmreg-callbacks")
_start = threading.Thread.start
_owners: dict[int, Worker] = {}
_spared: set[int] = set()
"""Threads that end by themselves, and must not be torn out of what they do."""


class Killed(SystemExit):
    """Raised in the threads of a worker that was killed, wherever they are. Nobody is told."""


def worker_here() -> Worker | None:
    """The worker that this thread belongs to; None: it is nobody's."""
    return _owners.get(threading.get_ident())


def belongs(worker: Worker) -> None:
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


def end_all(worker: Worker) -> None:
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


def know_threads(yes: bool) -> None:
    """Whether it is known of each thread that is started from now on whose it is."""
    thread: Any = threading.Thread
    thread.start = _start_thread if yes else _start


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
