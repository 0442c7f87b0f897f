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

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sized
from threading import get_ident

from zmreg.net.sockets import Ends
from zmreg.net.waiting import Interrupts, Waiter

# The I/O thread takes over when no caller has used the pump for this long.
TAKE_OVER_S = 0.002
# After so many looks at a pump that callers keep busy, the I/O thread sleeps until the last of them leaves.
_LOOKS_BEFORE_SLEEP = 25

_monotonic = time.monotonic


class Pump:
    """One process's receiving side: who drains the door, who waits, and when the I/O thread works."""

    def __init__(
        self, ends: Ends, dispatch: Callable[[bytes, bytes], None], turn: Callable[[], None], interrupts: Interrupts
    ) -> None:
        """`dispatch(sender, frame)` handles one message, `turn()` ends each round: flush what was collected.

        Both run on whatever thread leads and must not block.
        """
        self._ends = ends
        self._dispatch = dispatch
        self._turn = turn
        self._interrupts = interrupts
        self._main = threading.main_thread().ident
        self._lead = threading.Lock()
        self._guard = threading.Lock()
        self._followers: deque[Waiter] = deque()
        self._callers = 0
        self._last_used = 0.0
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poller = select.poll()
        self._door_fd = ends.door_fd
        self._poller.register(ends.door_fd, select.POLLIN)
        self._undrained = True
        """The door may have messages for which its descriptor is silent: at the start, or when dispatch raised."""
        self._poller.register(self._wake_fd, select.POLLIN)
        self._watched: dict[int, Callable[[], None]] = {}
        self._polling = False
        self._turn_wanted = False
        self._stopped = False
        self.timed_out = False
        """The last poll ended by its time."""
        self.tick_s = -1.0
        """Upper bound of one poll, so that `turn` runs now and then; -1 = only when something happens."""
        self._park = threading.Semaphore(0)
        self._asleep = False
        self._thread = threading.Thread(target=self._io_loop, name="zmreg-io", daemon=True)

    def start(self) -> None:
        """Start the I/O thread."""
        self._thread.start()

    def watch(self, fd: int, gone: Callable[[], None]) -> None:
        """Call `gone()` once from the leader when `fd` becomes readable (a pidfd: the process ended)."""
        self._watched[fd] = gone
        self._poller.register(fd, select.POLLIN)
        self.wake()

    # -- for threads that submit ------------------------------------------------------------------------------------

    def wake(self) -> None:
        """End the current poll, if there is one."""
        if self._wake_fd >= 0:
            os.eventfd_write(self._wake_fd, 1)

    def request_turn(self) -> None:
        """`turn()` has work: have it run soon by whoever leads. Cheap when it was asked already.

        Takes no lock, so that finalizers may ask from inside any other code. The wish is noted before it is seen
        whether somebody polls, and a leader says that it polls before it looks for wishes: one of the two notices.
        """
        if not self._turn_wanted:
            self._turn_wanted = True
            if self._polling:
                self.wake()

    def touch(self) -> None:
        """A caller is at work that will soon drain by itself: the I/O thread stays parked 2 ms longer."""
        self._last_used = _monotonic()

    def drain_now(self) -> None:
        """Receive what has arrived, without waiting; nothing if somebody else leads.

        No turn follows: what this busy caller collects leaves when it is full, or 2 ms after the caller is done.
        """
        self._last_used = _monotonic()
        if self._polling:  # the I/O thread sleeps on the descriptor: let it step back for this busy caller
            self.wake()
        elif self._lead.acquire(False):
            try:
                if self._ends.pending():
                    self._receive_all()
            finally:
                self._leave()

    # -- for threads that wait --------------------------------------------------------------------------------------

    def wait(self, waiter: Waiter, timeout: float | None = None) -> bool:
        """Pump or follow until `waiter.done`; False when `timeout` seconds went by first.

        KeyboardInterrupt (or what the user's SIGINT handler raises) leaves the pump usable.
        """
        if waiter.done:
            return True
        deadline = None if timeout is None else _monotonic() + timeout
        interrupts = self._interrupts if get_ident() == self._main else None
        with self._guard:
            self._callers += 1
        try:
            if interrupts is not None:
                interrupts.hold(self, waiter)
            self._wait(waiter, deadline, interrupts)
        finally:
            with self._guard:
                self._callers -= 1
            self._last_used = _monotonic()
            if self._asleep:
                self._park.release()
            if interrupts is not None:
                interrupts.let_go()
        return waiter.done

    def serve(self, inbox: Sized, waiter: Waiter) -> None:
        """`wait` for a process's main loop: pump until `inbox` has something or the waiter is done.

        Interrupts are not held: the caller's handler does nothing outside user code.
        """
        with self._guard:
            self._callers += 1
        try:
            while not inbox and not waiter.done and not self._stopped:
                if not self._lead.acquire(False):
                    self._follow(waiter, None)
                    continue
                try:
                    while not inbox and not waiter.done and not self._stopped:
                        if not self._poll(-1.0):
                            self._end_round()
                        elif self._receive_into(inbox):
                            self._turn_wanted = True
                        else:
                            self._end_round()
                finally:
                    self._leave()
        finally:
            with self._guard:
                self._callers -= 1
            self._last_used = _monotonic()
            if self._asleep:
                self._park.release()

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

    def _receive_into(self, inbox: Sized) -> bool:
        """`_receive_until` for `serve`: at the first message that puts something into the inbox."""
        ends, dispatch = self._ends, self._dispatch
        self._undrained = True
        while True:
            sender, frame = ends.receive()
            if sender:
                dispatch(sender, frame)
            if inbox:
                return True
            if not ends.pending():
                self._undrained = False
                return False

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
                if not self._poll(left):
                    self._end_round()
                elif self._receive_until(waiter):
                    self._turn_wanted = True
                    return
                else:
                    self._end_round()
        finally:
            self._leave()

    def _receive_until(self, waiter: Waiter) -> bool:
        """Receive until the waiter is done (True) or the door is empty.

        Whoever has what it waits for goes on at once: what else has arrived, and the turn, fall to the next poll, which
        the same thread reaches after its next call is sent, or the I/O thread within 2 ms.
        """
        ends, dispatch = self._ends, self._dispatch
        self._undrained = True
        while True:
            sender, frame = ends.receive()
            if sender:
                dispatch(sender, frame)
            if waiter.done:
                return True
            if not ends.pending():
                self._undrained = False
                return False

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

    # -- the leader's work ------------------------------------------------------------------------------------------

    def _poll(self, timeout_s: float) -> bool:
        """Sleep until something happens; True when the door may have messages.

        The door was drained before, and its descriptor stays readable from the next message on until it is drained
        again: so nothing that came meanwhile is slept over.
        """
        if self._undrained:
            self._undrained = False
            if self._ends.pending():
                return True
        self._polling = True
        try:
            if self._turn_wanted:
                return False
            if timeout_s < 0 or 0 < self.tick_s < timeout_s:
                timeout_s = self.tick_s
            ready = self._poller.poll(None if timeout_s < 0 else timeout_s * 1e3)
        finally:
            self._polling = False
        self.timed_out = not ready
        if len(ready) == 1 and ready[0][0] == self._door_fd:
            return True
        return self._other_events(ready)

    def _other_events(self, ready: list[tuple[int, int]]) -> bool:
        door = False
        for fd, _ in ready:
            if fd == self._door_fd:
                door = True
            elif fd == self._wake_fd:
                try:
                    os.eventfd_read(self._wake_fd)
                except BlockingIOError:
                    continue
            elif fd in self._watched:
                self._poller.unregister(fd)
                self._watched.pop(fd)()
        return door

    def _drain(self) -> None:
        self._receive_all()
        self._end_round()

    def _receive_all(self) -> None:
        """Receive until the door is empty."""
        ends, dispatch = self._ends, self._dispatch
        self._undrained = True
        while True:
            sender, frame = ends.receive()
            if sender:
                dispatch(sender, frame)
            if not ends.pending():
                break
        self._undrained = False

    def _end_round(self) -> None:
        self._turn_wanted = False
        self._turn()

    def _io_loop(self) -> None:
        while not self._stopped:
            self._lead.acquire()
            self._io_leads = True
            try:
                while not self._stopped and not self._callers:
                    if self._poll(-1):
                        self._drain()
                    else:
                        self._end_round()
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

    def stop(self) -> None:
        """End the I/O thread and let every waiting thread go. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        self._park.release()
        self.wake()
        with self._guard:
            for follower in self._followers:
                follower.nudge()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)
        fd, self._wake_fd = self._wake_fd, -1
        os.close(fd)
