"""SIGINT on a worker."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import signal
from types import FrameType

from zmreg.net.waiting import Waiter, Wakeable

# The C function: signal.getsignal wraps each answer in an enum, for 0.5 us.
_get_handler = _signal.getsignal


class WorkerInterrupts:
    """SIGINT on a worker is a cancellation: it interrupts user code, and never anything else."""

    def __init__(self) -> None:
        self.target = b""
        self.executing = b""
        self._held = False
        self._noted = False
        self._waiting: tuple[Wakeable, Waiter] | None = None
        self._handler = self._on_signal
        signal.signal(signal.SIGINT, self._handler)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if not self.executing or self.executing != self.target:
            return
        if self._held:
            self._noted = True
            if self._waiting is not None:
                pump, waiter = self._waiting
                pump.wake()
                waiter.nudge()
        else:
            self.target = b""
            raise KeyboardInterrupt

    def hold(self, pump: Wakeable, waiter: Waiter) -> None:
        """The main thread pumps."""
        self._held, self._waiting = True, (pump, waiter)

    def pending(self) -> bool:
        """A cancellation arrived meanwhile."""
        return self._noted

    def let_go(self) -> bool:
        """Back in user code, if it was called from there. True when what was noted was not meant for it."""
        self._held = False
        if not self._noted:
            return False
        self._noted = False
        if self.executing and self.executing == self.target:
            self.target = b""
            raise KeyboardInterrupt
        return True

    def renew(self) -> None:
        """Between calls: user code may have set another handler, and later calls could not be cancelled."""
        if _get_handler(signal.SIGINT) is not self._handler:
            signal.signal(signal.SIGINT, self._handler)
