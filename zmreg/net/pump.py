"""The caller-runs pump: a thread that waits for a message receives it itself.

A reply handed from an I/O thread to the waiting thread costs two wake-ups (30 to 50 us of a 100 us round trip). So
whoever waits *leads*: it polls the door's descriptor, receives, dispatches. Others who wait meanwhile *follow*, each on
a lock of its own, woken when their result is in or when the leader leaves and they must lead. When nobody waits, the
I/O thread leads; it steps back for any caller, and stays parked until no caller has pumped for 2 ms.

Invariants:
- one leader at a time (`_lead`): only it touches the door, and dispatch is never run twice at once;
- a follower is in `_followers` before it looks for a leader the last time, and a leaver looks into `_followers` after
  it has given up the lead: so nobody waits while nobody leads;
- an interrupt (SIGINT) never lands inside dispatch: it is noted, and raised when the pump is left.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Final

from zmreg.net.doorway import Doorway
from zmreg.net.sockets import Ends
from zmreg.net.waiting import Interrupts, Waiter

# The I/O thread takes over when no caller has used the pump for this long.
TAKE_OVER_S = 0.002
# After so many looks at a pump that callers keep busy, the I/O thread sleeps until the last of them leaves.
_LOOKS_BEFORE_SLEEP = 25

_monotonic = time.monotonic
# Thirty years. More than some hundred no lock can be waited for, and math.inf is no time for any.
_ENDLESS_S: Final = 1e9


class Pump(Doorway):
    """One process's receiving side: who drains the door, who waits, and when the I/O thread works."""

    def __init__(
        self, ends: Ends, dispatch: Callable[[bytes, bytes], None], turn: Callable[[], None], interrupts: Interrupts
    ) -> None:
        """`dispatch(sender, frame)` handles one message, `turn()` ends each round: flush what was collected.

        Both run on whatever thread leads and must not block.
        """
        super().__init__(ends, dispatch, turn)
        self._interrupts = interrupts
        self.main = interrupts.main
        self.shield = partial(interrupts.shield, interrupts)
        """What keeps interrupts out: `with pump.shield():`."""
        self._lead = threading.Lock()
        self._guard = threading.Lock()
        self._followers: deque[Waiter] = deque()
        self._callers: list[None] = []
        """One item for each thread that waits: adding and removing are one step each, without a lock."""
        self._last_used = 0.0
        self._stopped = False
        self._park = threading.Lock()
        self._park.acquire()
        self._asleep = False
        self._thread = threading.Thread(target=self._io_loop, name="zmreg-io", daemon=True)

    def start(self) -> None:
        """Start the I/O thread."""
        self._thread.start()

    # -- for threads that submit ------------------------------------------------------------------------------------

    def touch(self) -> None:
        """A caller is at work that will soon drain by itself: the I/O thread stays parked 2 ms longer."""
        self._last_used = _monotonic()

    def drain_now(self) -> float:
        """Receive what has arrived, without waiting; nothing if somebody else leads. Returns the time before that.

        No turn follows: what this busy caller collects leaves when it is full, or 2 ms after the caller is done.
        """
        now = self._last_used = _monotonic()
        if self.polling:  # the I/O thread sleeps on the descriptor: let it step back for this busy caller
            self.wake()
            return now
        with self.shield():
            if self._lead.acquire(False):
                try:
                    if self.pending():
                        self.receive_all()
                finally:
                    self._leave()
        return now

    # -- for threads that wait --------------------------------------------------------------------------------------

    def wait(self, waiter: Waiter, timeout: float | None = None) -> bool:
        """Pump or follow until `waiter.done`; False when `timeout` seconds went by first.

        KeyboardInterrupt (or what the user's SIGINT handler raises) leaves the pump usable.
        """
        if waiter.done:
            return True
        deadline = None if timeout is None or timeout > _ENDLESS_S else _monotonic() + float(timeout)
        if get_ident() != self.main:
            self._wait_among_callers(waiter, deadline, None)
            return waiter.done
        interrupts = self._interrupts
        mine = interrupts.hold((self, waiter))
        try:
            self._wait_among_callers(waiter, deadline, interrupts)
        finally:
            again = interrupts.let_go() if mine else interrupts.deliver()
        if again and not waiter.done and not self._stopped:  # a handler that did not raise: the wait goes on
            return self.wait(waiter, None if deadline is None else max(0.0, deadline - _monotonic()))
        return waiter.done

    def _wait_among_callers(self, waiter: Waiter, deadline: float | None, interrupts: Interrupts | None) -> None:
        self._callers.append(None)
        try:
            self._wait(waiter, deadline, interrupts)
        finally:
            self._callers.pop()
            self._last_used = _monotonic()
            if self._asleep:
                self._unpark()

    def _wait(self, waiter: Waiter, deadline: float | None, interrupts: Interrupts | None) -> None:
        while True:
            if self._lead.acquire(False):
                self._lead_until(waiter, deadline, interrupts)
            else:
                self._follow(waiter, deadline)
            if waiter.done or self._stopped:
                return
            if interrupts is not None and interrupts.pending():
                return
            if deadline is not None and _monotonic() >= deadline:
                return

    def _lead_until(self, waiter: Waiter, deadline: float | None, interrupts: Interrupts | None) -> None:
        try:
            while not waiter.done and not self._stopped:
                if interrupts is not None and interrupts.pending():
                    return
                left = -1.0
                if deadline is not None:
                    left = deadline - _monotonic()
                    if left <= 0:
                        return
                if not self.poll(left):
                    self.end_round()
                elif self.receive_until(waiter):
                    self.turn_wanted = True
                    return
                else:
                    self.end_round()
        finally:
            self._leave()

    def _follow(self, waiter: Waiter, deadline: float | None) -> None:
        waiter.arm()
        with self._guard:
            self._followers.append(waiter)
        try:
            if self._lead.acquire(False):  # the leader left in between: lead instead
                self._leave(but=waiter)
                return
            if self._io_leads:
                self.wake()
            if waiter.done:
                return
            waiter.follow(-1 if deadline is None else max(0.0, deadline - _monotonic()))
        finally:
            with self._guard:
                if waiter in self._followers:
                    self._followers.remove(waiter)

    _io_leads = False

    def _leave(self, but: Waiter | None = None) -> None:
        """Give up the lead and, if somebody follows, wake one to take it."""
        self._lead.release()
        if self._followers:
            self._wake_follower(but)

    def _wake_follower(self, but: Waiter | None = None) -> None:
        with self._guard:
            for follower in self._followers:
                if not follower.done and follower is not but:
                    follower.nudge()
                    break

    # -- the I/O thread ---------------------------------------------------------------------------------------------

    def _io_loop(self) -> None:
        while not self._stopped:
            self._lead.acquire()
            self._io_leads = True
            try:
                while not self._stopped and not self._callers:
                    if self.poll(-1):
                        self.drain()
                    else:
                        self.end_round()
                    if _monotonic() - self._last_used < TAKE_OVER_S:
                        break
            finally:
                self._io_leads = False
                self._leave()
            self._stay_parked()

    def _stay_parked(self) -> None:
        looks = 0
        while not self._stopped:
            if not self._callers and _monotonic() - self._last_used >= TAKE_OVER_S:
                return
            if self._callers and looks > _LOOKS_BEFORE_SLEEP:
                self._asleep = True
                if self._callers:
                    self._park.acquire()
                self._asleep = False
                looks = 0
            else:
                self._park.acquire(timeout=TAKE_OVER_S)
                looks += 1

    def _unpark(self) -> None:
        with contextlib.suppress(RuntimeError):  # somebody else did it first
            self._park.release()

    def stop(self) -> None:
        """End the I/O thread and let every waiting thread go. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        self._unpark()
        self.wake()
        with self._guard:
            for follower in self._followers:
                follower.nudge()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)
        self.close()
