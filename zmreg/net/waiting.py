"""What a thread waits by, and how an interrupt is kept out of the receiving code meanwhile."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Protocol

# The functions under the public ones, which turn numbers into enums: 0.3 us instead of 8, twice per blocking get.
_set_handler = _signal.signal
_get_handler = _signal.getsignal
_SIGINT = int(signal.SIGINT)


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
    """How SIGINT is kept out of dispatch while the main thread pumps."""

    def hold(self, pump: Wakeable, waiter: Waiter) -> None:
        """From now on note an interrupt, and wake the pump and the waiter, instead of raising."""

    def pending(self) -> bool:
        """One was noted."""

    def let_go(self) -> bool:
        """Back to normal; raises what was noted. True when something was noted and nothing raised."""


class HandlerSwap:
    """Interrupts for a program that is not ours: the user's handler is put aside while the main thread pumps."""

    def __init__(self) -> None:
        self._theirs: Callable[[int, FrameType | None], object] | None = None
        self._noted: tuple[int, FrameType | None] | None = None
        self._waiting: tuple[Wakeable, Waiter] | None = None

    def hold(self, pump: Wakeable, waiter: Waiter) -> None:
        """Swap handlers; only in the main thread."""
        theirs = _get_handler(_SIGINT)
        if callable(theirs) and theirs != self._note:
            self._theirs, self._waiting = theirs, (pump, waiter)
            _set_handler(_SIGINT, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = (number, frame)
        if self._waiting is not None:
            pump, waiter = self._waiting
            pump.wake()
            waiter.nudge()

    def pending(self) -> bool:
        """An interrupt arrived since `hold`."""
        return self._noted is not None

    def let_go(self) -> bool:
        """Put the user's handler back and run it for a noted interrupt: it may raise. True when it did not."""
        theirs, self._theirs = self._theirs, None
        if theirs is None:
            return False
        _set_handler(_SIGINT, theirs)
        noted, self._noted = self._noted, None
        if noted is not None:
            theirs(*noted)
        return noted is not None
