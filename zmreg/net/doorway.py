"""The leader's work at the door: sleep until something happens, receive, dispatch, end the round.

One thread at a time does this (net/pump.py decides who). `wake`, `request_turn` and `watch` are for all threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from math import ceil
from typing import Any

import zmq
from zmq.backend import zmq_poll

from zmreg.net.sockets import Ends
from zmreg.net.waiting import Waiter

_POLLIN = int(zmq.POLLIN)


class Doorway:
    """A process's door with all that can end a sleep in front of it."""

    def __init__(self, ends: Ends, dispatch: Callable[[bytes, bytes], None], turn: Callable[[], None]) -> None:
        self._ends = ends
        self._dispatch = dispatch
        self._turn = turn
        self.pending = ends.pending
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._door = ends.door
        self._items: list[tuple[Any, int]] = [(ends.door, _POLLIN), (self._wake_fd, _POLLIN)]
        self._watched: dict[int, Callable[[], None]] = {}
        self.polling = False
        self.turn_wanted = False
        self.timed_out = False
        """The last poll ended by its time."""
        self.tick_s = -1.0
        """Upper bound of one poll, so that `turn` runs now and then; -1 = only when something happens."""

    # -- for all threads --------------------------------------------------------------------------------------------

    def watch(self, fd: int, gone: Callable[[], None]) -> None:
        """Call `gone()` once from the leader when `fd` becomes readable (a pidfd: the process ended)."""
        self._watched[fd] = gone
        self._items = [*self._items, (fd, _POLLIN)]
        self.wake()

    def wake(self) -> None:
        """End the current poll, if there is one."""
        if self._wake_fd >= 0:
            os.eventfd_write(self._wake_fd, 1)

    def request_turn(self) -> None:
        """`turn()` has work: have it run soon by whoever leads. Cheap when it was asked already.

        Takes no lock, so that finalizers may ask from inside any other code. The wish is noted before it is seen
        whether somebody polls, and a leader says that it polls before it looks for wishes: one of the two notices.
        """
        if not self.turn_wanted:
            self.turn_wanted = True
            if self.polling:
                self.wake()

    def poll(self, timeout_s: float) -> bool:
        """Sleep until something happens; True when the door has messages."""
        self.polling = True
        try:
            if self.turn_wanted:
                return False
            if timeout_s < 0 or 0 < self.tick_s < timeout_s:
                timeout_s = self.tick_s
            ready = zmq_poll(self._items, -1 if timeout_s < 0 else ceil(timeout_s * 1e3))
        finally:
            self.polling = False
        self.timed_out = not ready
        if len(ready) == 1 and ready[0][0] is self._door:
            return True
        return self._other_events(ready)

    def _other_events(self, ready: list[tuple[Any, int]]) -> bool:
        door = False
        for fd, _ in ready:
            if fd == self._wake_fd:
                try:
                    os.eventfd_read(self._wake_fd)
                except BlockingIOError:
                    continue
            elif fd in self._watched:
                self._items = [item for item in self._items if item[0] != fd]
                self._watched.pop(fd)()
            else:
                door = True
        return door

    def drain(self) -> None:
        self.receive_all()
        self.end_round()

    def receive_all(self) -> None:
        """Receive until the door is empty."""
        ends, dispatch = self._ends, self._dispatch
        while True:
            sender, frame = ends.receive()
            if sender:
                dispatch(sender, frame)
            if not ends.pending():
                break

    def end_round(self) -> None:
        self.turn_wanted = False
        self._turn()

    def receive_until(self, waiter: Waiter) -> bool:
        """Receive until the waiter is done (True) or the door is empty.

        Whoever has what it waits for goes on at once: what else has arrived, and the turn, fall to the next poll, which
        the same thread reaches after its next call is sent, or the I/O thread within 2 ms.
        """
        ends, dispatch = self._ends, self._dispatch
        while True:
            sender, frame = ends.receive()
            if sender:
                dispatch(sender, frame)
            if waiter.done:
                return True
            if not ends.pending():
                return False

    def close(self) -> None:
        """Close what is ours. Nobody polls any more."""
        fd, self._wake_fd = self._wake_fd, -1
        os.close(fd)
