"""Calls that are shown in their caller's manner, where they run (services/calling/manners.py).

A function that is called under a name of the caller's is a callee of its own, around the same function object. What
shows it is done around each such call: its name stands on the worker's board and in the title of the process, and
what a quiet one prints is marked in the log. An interrupt may land in between: then a title stays until the next one.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Final

from zmreg.services.calling.manners import DIGEST_BYTES, SHOWN, Manner, read, read_shown, written
from zmreg.services.seat.running import GivenName, running
from zmreg.services.worker.releasing import RESUME
from zmreg.services.worker.worker import Callee

if TYPE_CHECKING:
    from zmreg.services.worker.hosting import Host
    from zmreg.services.worker.worker import Worker

# Of names kept at a time: a program may give each of its calls another one.
_MOST: Final = 128
_COMM: Final = "/proc/self/comm"


def callee_of(worker: Worker, target: bytes) -> Callee:
    """What a call with a manner calls; its function, without one, is among the worker's callees."""
    _make_room(worker, target)
    return _Named(worker, worker.callees[target[:DIGEST_BYTES]], read(target[DIGEST_BYTES:]))


def _make_room(worker: Worker, target: bytes | str) -> None:
    named = worker.named
    while len(named) >= _MOST:
        worker.callees.pop(named.popleft(), None)
    named.append(target)


def method_of(host: Host, target: str, alone: bool) -> Callable[..., Any]:
    """An actor's method with a manner. `alone`: no other call runs beside it, so the whole process is shown as it."""
    name, _, kinds = target.partition(SHOWN)
    text, _, kind = kinds.partition("\0")
    method = host.method(f"{name}\0{kind}" if kind else name)
    if "\0" + kind == RESUME:  # shown since it began
        return method
    worker = host.worker
    manner, actor = read_shown(text), read(worker.board.of_all)
    manner = manner.but(labels=actor.labels, listed=manner.listed and actor.listed)
    called = GivenName(manner.name or name)
    called.function = getattr(method, "__qualname__", name)
    if alone:
        _make_room(worker, target)
        shown = _Shown(worker, method, manner, manner.name)
        shown.__qualname__ = called if manner.name else called.function
        return shown

    def hushed(*args: Any, **kwargs: Any) -> Any:
        call = running.get()
        if call is not None and manner.quiet and worker.speech is not None:
            worker.speech.hush(call[0])
        return method(*args, **kwargs)

    return hushed


class _Named(Callee):
    """Calls are counted with those of the function's other names."""

    __slots__ = ("_plain",)

    def __init__(self, worker: Worker, plain: Callee, manner: Manner) -> None:
        super().__init__(_Shown(worker, plain.function, manner, manner.name or plain.name), "")
        if manner.name:
            given = GivenName(manner.name)
            given.function = plain.name
            self.name = given
        else:
            self.name = plain.name
        self.seconds, self.calls_left = plain.seconds, plain.calls_left
        self._plain = plain

    def was_last(self) -> bool:
        return self._plain.was_last()


class _Shown:
    """A function, and what is done around its calls. On the main thread of a worker's process."""

    def __init__(self, worker: Worker, function: Callable[..., Any], manner: Manner, name: str) -> None:
        self._worker = worker
        self._function = function
        self._title = manner.name
        self._quiet = manner.quiet
        self._note = written(manner.but(name=name))
        self.__qualname__ = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = running.get()
        before = self._begins(call[0] if call is not None else b"")
        lives_on = False
        try:
            result = self._function(*args, **kwargs)
            shown = _AROUND.get(type(result))
            lives_on = shown is not None
            return result if shown is None else shown(result, before)
        finally:
            if not lives_on:
                set_title(before)
            self._worker.board.restore()

    def _begins(self, task_id: bytes) -> str:
        """Returns the title before."""
        if self._quiet and self._worker.speech is not None:
            self._worker.speech.hush(task_id)
        self._worker.board.describe(task_id, self._note)
        return set_title(self._title)


async def _awaited(coroutine: Coroutine[Any, Any, Any], before: str) -> Any:
    try:
        return await coroutine
    finally:
        set_title(before)


def _iterated(generator: Generator[Any, Any, Any], before: str) -> Generator[Any, Any, Any]:
    try:
        return (yield from generator)
    finally:
        set_title(before)


async def _iterated_async(generator: AsyncGenerator[Any, Any], before: str) -> AsyncGenerator[Any, Any]:
    try:
        async with contextlib.aclosing(generator):
            async for item in generator:
                yield item
    finally:
        set_title(before)


_AROUND: Final[dict[type, Callable[[Any, str], Any]]] = {
    CoroutineType: _awaited, GeneratorType: _iterated, AsyncGeneratorType: _iterated_async,
}  # fmt: skip
"""What goes on when the function has returned."""


def of_actor(worker: Worker, manner: Manner) -> None:
    """From now on this process is shown as an actor with that manner."""
    if manner.quiet and worker.speech is not None:
        worker.speech.quiet = True
    worker.board.describe(b"", written(manner.but(name="")))  # that one is its calls'
    if manner.name:
        set_title(manner.name)


# -- the title ---------------------------------------------------------------------------------------------------------


class _Title:
    """As `setproctitle` sets it, where that is installed; else the 15 characters that `top` and `ps -o comm` show."""

    def __init__(self) -> None:
        self._whole: Any = None
        self._fd = -1
        with contextlib.suppress(ImportError):
            self._whole = importlib.import_module("setproctitle")
        if self._whole is not None:
            self.now = str(self._whole.getproctitle())
            return
        self.now = ""
        with contextlib.suppress(OSError):
            self._fd = os.open(_COMM, os.O_RDWR | os.O_CLOEXEC)
            self.now = os.read(self._fd, 64).decode(errors="replace").rstrip("\n")

    def set(self, text: str) -> None:
        if self._whole is not None:
            self._whole.setproctitle(text)
        elif self._fd >= 0:
            with contextlib.suppress(OSError):  # a child that user code has forked
                os.write(self._fd, text.encode(errors="replace")[:15])
        self.now = text


_title: _Title | None = None


def set_title(text: str) -> str:
    """Have the process called that; "" changes nothing. Returns how it was called before.

    Nothing either outside of a process's main thread: where workers are threads of a program, it is that one's title.
    """
    global _title
    if not text or threading.current_thread() is not threading.main_thread():
        return ""
    if _title is None:
        _title = _Title()
    before = _title.now
    _title.set(text)
    return before
