"""What a thread waits by, and how an interrupt is kept out of what must not be left half done."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import signal
import threading
from collections.abc import Callable
from threading import get_ident
from types import FrameType
from typing import Protocol

# The functions under the public ones, which turn numbers into enums: 0.3 us instead of 8, twice per blocking get.
_set_handler = _signal.signal
_get_handler = _signal.getsignal
_SIGINT = int(signal.SIGINT)
_MAIN = threading.main_thread().ident or 0


class Wakeable(Protocol):
    """Something that sleeps in a poll: the pump."""

    def wake(self) -> None:
        """End the current poll."""


class Waiter:
    """What one thread waits for. `finish()` may come from any thread, once or more often."""

    __slots__ = ("_lock", "done")

    def __init__(self) -> None:
        self.done = False
        self._lock: threading.Lock | None = None

    def finish(self, _thing: object = None) -> None:
        """The thing is there (or never will be): wake the waiting thread. Fit to be an entry's listener."""
        self.done = True
        if self._lock is not None:
            self.nudge()

    def nudge(self) -> None:
        """Make a follower look again: it may have to lead, or an interrupt is pending."""
        lock = self._lock
        if lock is not None and lock.locked():
            try:
                lock.release()
            except RuntimeError:  # somebody else nudged between the look and the release: it is awake
                return

    def follow(self, timeout: float) -> None:
        """Sleep until nudged, at most `timeout` seconds (-1 = no bound)."""
        assert self._lock is not None
        self._lock.acquire(timeout=timeout)

    def arm(self) -> None:
        """Prepare to follow: from now on `nudge` is remembered."""
        self._lock = threading.Lock()
        self._lock.acquire()


class Interrupts(Protocol):
    """How SIGINT is kept out of what must not be left half done. All of it in the main thread only."""

    main: int
    """The ident of that thread: where users' code is interrupted."""
    shield: type[Shield]
    """What keeps one out."""

    def hold(self, waiting: tuple[Wakeable, Waiter] | None = None) -> bool:
        """From now on note an interrupt instead of raising it; one that comes while `waiting` ends the wait.

        True: whoever called has to let go. False inside another hold, or when no interrupt can raise.
        """

    def pending(self) -> bool:
        """One was noted, or there is another reason to leave a wait."""

    def deliver(self) -> bool:
        """Raise what was noted, here and now, while the hold goes on. True: noted, and nothing was raised."""

    def let_go(self) -> bool:
        """Back to normal, then as `deliver`."""


class HandlerSwap:
    """Interrupts for a program that is not ours: the user's handler is put aside during a hold.

    Whether there is a hold, the interpreter says (whose handler is in place), and no count of ours that an interrupt
    could tear. Nothing is changed before our handler is in place, and nothing is left to change after theirs is back.
    """

    def __init__(self) -> None:
        self.main = _MAIN
        self.shield: type[Shield] = Shield
        self._ours = self._note
        self._theirs: Callable[[int, FrameType | None], object] | None = None
        self._noted: tuple[int, FrameType | None] | None = None
        self._waiting: tuple[Wakeable, Waiter] | None = None

    def hold(self, waiting: tuple[Wakeable, Waiter] | None = None) -> bool:
        """Swap handlers."""
        theirs = _get_handler(_SIGINT)
        if waiting is not None:
            self._waiting = waiting
        if theirs is self._ours or not callable(theirs):
            return False
        self._theirs, self._noted = theirs, None
        _set_handler(_SIGINT, self._ours)
        return True

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = (number, frame)
        if self._waiting is not None:
            pump, waiter = self._waiting
            pump.wake()
            waiter.nudge()

    def pending(self) -> bool:
        """An interrupt arrived since `hold`."""
        return self._noted is not None

    def deliver(self) -> bool:
        """Run the user's handler for a noted interrupt: it may raise."""
        noted, self._noted = self._noted, None
        if noted is None:
            return False
        assert self._theirs is not None
        self._theirs(*noted)
        return True

    def let_go(self) -> bool:
        """Put the user's handler back, unless that very handler has set another one, and deliver."""
        self._waiting = None
        if _get_handler(_SIGINT) is self._ours:
            _set_handler(_SIGINT, self._theirs)
        return self.deliver()


class Shield:
    """`with` it: what happens inside is whole. An interrupt comes at the next wait inside, or at the end.

    It costs 1.3 us in the main thread of a driver, 0.5 elsewhere. No user code inside: that may take its time, and
    could not be interrupted.
    """

    __slots__ = ("_interrupts", "_mine")

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts
        self._mine = False

    def __enter__(self) -> None:
        if get_ident() == _MAIN:
            self._mine = self._interrupts.hold()

    def __exit__(self, *_: object) -> None:
        if self._mine:
            self._interrupts.let_go()
