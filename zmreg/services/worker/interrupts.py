"""SIGINT on a worker."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import signal
import threading
from types import FrameType

from zmreg.net.waiting import Shield, Waiter, Wakeable

# The C function: signal.getsignal wraps each answer in an enum, for 0.5 us.
_get_handler = _signal.getsignal


class WorkerInterrupts:
    """SIGINT on a worker is a cancellation: it interrupts user code, and never anything else."""

    def __init__(self) -> None:
        self.target = b""
        self.executing = b""
        self.own_work = False
        """A call of our own came to be run by the thread that waits (services/worker/helping.py)."""
        self.may_help = False
        """The wait is one of user code, which may go on a little later."""
        self._held = False
        self._noted = False
        self._waiting: tuple[Wakeable, Waiter] | None = None
        self._handler = self._on_signal
        self.take_over()

    def take_over(self) -> None:
        """This thread is the one where users' code runs; interrupts come to us."""
        main = threading.main_thread().ident
        assert main is not None
        self.main = main
        self.shield: type[Shield] = Shield
        signal.signal(signal.SIGINT, self._handler)

    def send(self) -> None:
        """From any thread, under the worker's lock: interrupt the call that is `target`, which runs."""
        signal.pthread_kill(self.main, signal.SIGINT)

    def interrupt(self) -> None:
        """From any thread, under the worker's lock: interrupt whatever call runs on the main thread."""
        self.target = self.executing
        if self.target:
            self.send()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if not self.executing or self.executing != self.target:
            return
        if self._held:
            self._noted = True
            self._end_wait()
        else:
            self.target = b""
            raise KeyboardInterrupt

    def offer_work(self) -> None:
        """From any thread: have the main thread leave its wait to run a call of our own."""
        self.own_work = True
        self._end_wait()

    def _end_wait(self) -> None:
        waiting = self._waiting
        if waiting is not None:
            pump, waiter = waiting
            pump.wake()
            waiter.nudge()

    def hold(self, waiting: tuple[Wakeable, Waiter] | None = None) -> bool:
        """Our own code runs, or waits, on behalf of user code. False when it did already."""
        if waiting is not None:
            self._waiting = waiting
        if self._held:
            return False
        self._held = True
        return True

    def lift(self) -> bool:
        """User code is about to run inside a wait: interrupts may hit it. Returns what `restore` takes afterwards."""
        held, self._held = self._held, False
        return held

    def restore(self, held: bool) -> None:
        """The wait goes on, held as it was. Before `executing` names the waiting call again."""
        self._held = held

    def pending(self) -> bool:
        """A cancellation arrived meanwhile, or there is something to run inside the wait."""
        return self._noted or (self.own_work and self.may_help)

    def let_go(self) -> bool:
        """Back in user code, if it was called from there."""
        self._held = False
        return self.deliver()

    def deliver(self) -> bool:
        """Cancel the call that runs, if that was noted. True when what was noted was not meant for it."""
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
