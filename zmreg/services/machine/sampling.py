"""A statistical profiler of this process: a thread that looks every few milliseconds where the others are.

Only while somebody wants it, and says so again and again: without that it ends by itself. What it has seen is told
whole each time, so that an answer which is lost loses nothing.

Of a stack the users' frames are kept, and the standard library's between and below them. What zmreg does in between is
one frame, named by what was called; a thread in which no user's code runs is not counted.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

from zmreg.telemetry.profile import CallTree

LEAST_S: Final = 0.001
MOST_S: Final = 1.0
# Who wants it says so every second (services/seat/profiling.py).
LEASE_S: Final = 15.0
# Of different programs, at once, in one process.
MOST_SAMPLERS: Final = 4
# At most this part of the time is spent with looking, which others cannot run in.
_SHARE: Final = 0.05
# Deeper ones are read as far as this: from the innermost frame, which is where the time goes.
_MOST_READ: Final = 400
_MOST_KNOWN: Final = 5_000
_JOIN_S: Final = 1.0

_USER: Final = 0
_LIBRARY: Final = 1
_OURS: Final = 2
_BASE: Final = 3
_ROOM: Final = str(Path(__file__).parents[2]) + os.sep
# What stands below these in a stack has started the process, and is nobody's; users' code never calls through them.
_BASES: Final = str(Path(__file__).parents[1] / "node") + os.sep
_LIBRARIES: Final = (os.path.dirname(os.__file__) + os.sep, "<frozen ")
_PACKAGES: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
# Sockets are waited at through this one.
_SOCKETS: Final = f"{os.sep}zmq{os.sep}"


def kind_of(file: str) -> int:
    """Whose a frame of this file is."""
    if file.startswith(_ROOM):
        return _BASE if file.startswith(_BASES) else _OURS
    if any(place in file for place in _PACKAGES):
        return _LIBRARY if _SOCKETS in file else _USER
    return _LIBRARY if file.startswith(_LIBRARIES) else _USER


class Reader:
    """Makes paths of a tree of stacks."""

    def __init__(self, tree: CallTree) -> None:
        self._tree = tree
        self._known: dict[int, tuple[CodeType, tuple[int, int]]] = {}
        """By `id`, which is a code's for as long as it is held here: equality of codes compares all that is in them."""

    def path(self, frame: FrameType | None) -> list[int]:
        """The outermost first; empty when no user's code is in there."""
        found: list[tuple[int, int]] = []
        while frame is not None and len(found) < _MOST_READ:
            code = frame.f_code
            known = self._known.get(id(code))
            found.append(known[1] if known is not None else self._read(code))
            frame = frame.f_back
        path: list[int] = []
        held: list[tuple[int, int]] = []
        for each in reversed(found):
            if each[0] == _USER:
                path += [*_shown(held), each[1]] if path else [each[1]]
                held.clear()
            elif each[0] == _BASE:
                path.clear()
                held.clear()
            elif path:
                held.append(each)
        return path + _shown(held)

    def _read(self, code: CodeType) -> tuple[int, int]:
        file = code.co_filename
        kind = kind_of(file)
        name = f"{code.co_name} (zmreg)" if kind >= _OURS else code.co_qualname
        read = kind, self._tree.number((name, file, code.co_firstlineno))
        if len(self._known) < _MOST_KNOWN:
            self._known[id(code)] = code, read
        return read


def _shown(held: list[tuple[int, int]]) -> list[int]:
    """Of what a user's function has called, up to the next user's: the library's frames, and at zmreg's first the
    name of that, since what is behind it is zmreg's own waiting."""
    shown = []
    for kind, number in held:
        shown.append(number)
        if kind == _OURS:
            break
    return shown


class Sampler:
    """One of a process, for one program."""

    def __init__(self, interval_s: float) -> None:
        self.id = os.urandom(8).hex()
        self.until = time.monotonic() + LEASE_S
        self._interval_s = interval_s
        self._tree = CallTree()
        self._reader = Reader(self._tree)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="zmreg-sampler", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._over.is_set()

    def end(self) -> None:
        """No more samples from now on."""
        self._over.set()
        self._thread.join(_JOIN_S)

    def plain(self) -> dict[str, Any]:
        """What was seen so far."""
        with self._lock:
            return {"Sampler": self.id, **self._tree.plain()}

    def _run(self) -> None:
        before, pause = time.monotonic(), self._interval_s
        while not self._over.wait(pause):
            now = time.monotonic()
            if now > self.until:
                break
            self.look(round((now - before) * 1e6))
            before = now
            pause = max(self._interval_s, (time.monotonic() - now) / _SHARE)
        self._over.set()

    def look(self, us: int) -> None:
        """Count where all threads are but this one."""
        me = threading.get_ident()
        stacks = sys._current_frames()
        stacks.pop(me, None)
        with self._lock:
            for stack in stacks.values():
                path = self._reader.path(stack)
                if path:
                    self._tree.add(path, us)


_samplers: dict[str, Sampler] = {}
_one = threading.Lock()


def sampled(token: str, interval_us: int) -> dict[str, Any] | None:
    """Go on sampling for whoever has this token, or begin; what was seen so far. None when too many others do.

    `interval_us` 0: end, and tell the last of it.
    """
    with _one:
        for each in [each for each, sampler in _samplers.items() if sampler.is_over and each != token]:
            del _samplers[each]
        known = _samplers.get(token)
        if interval_us <= 0:
            _samplers.pop(token, None)
            if known is not None:
                known.end()
        elif known is None or known.is_over:
            if known is None and len(_samplers) >= MOST_SAMPLERS:
                return None
            known = _samplers[token] = Sampler(min(MOST_S, max(LEAST_S, interval_us * 1e-6)))
        else:
            known.until = time.monotonic() + LEASE_S
    return None if known is None else known.plain()


def _forked() -> None:
    """A child has none of our threads, and maybe a lock that nobody opens."""
    global _one
    _one = threading.Lock()
    _samplers.clear()


os.register_at_fork(after_in_child=_forked)
