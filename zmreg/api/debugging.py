"""Calls that are stopped at a breakpoint: which there are, and pdb on one of them, in this terminal or notebook."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Final

from zmreg.model.arguments import check_seconds
from zmreg.model.debug_messages import DebugOver, DebugText
from zmreg.model.record import Record
from zmreg.services.seat.asking import asker
from zmreg.services.seat.client import Client
from zmreg.services.seat.seats import client
from zmreg.services.seat.stopped import gathered
from zmreg.services.seat.visiting import ANSWER_S, Visit

# How often one looks whether a call has stopped by now.
LOOK_S: Final = 0.2
ROUSE_S: Final = 0.1
LEFT: Final = "left"


class Breakpoint(Record):
    """A call that is stopped."""

    id: str
    """What `zmreg.debug` and `zmreg debug` take."""
    name: str
    """The function, or the actor's method."""
    reason: str
    """`breakpoint`, or the error at which it is held (`post_mortem`)."""
    file: str
    line: int
    function: str
    state: str
    """`open`, or `attached`: a terminal has it."""
    task_id: str
    worker_id: str
    node_id: str
    pid: int
    seconds: float
    """How long it has been stopped."""


def breakpoints() -> list[Breakpoint]:
    """The calls of the whole cluster that are stopped at a breakpoint, or held at an error; the oldest first."""
    return stopped(client())


def stopped(seat: Client) -> list[Breakpoint]:
    """As `breakpoints`, by this seat."""
    nodes = [row["NodeID"] for row in seat.ask("nodes") if row["Alive"]]
    return [
        Breakpoint(
            row["ID"], row["Name"], row["Reason"], row["File"], row["Line"], row["Function"], row["State"],
            row["TaskID"], row["WorkerID"], row["NodeID"], row["Pid"], row["Seconds"],
        )
        for row in gathered(asker(seat, ANSWER_S), nodes)
    ]  # fmt: skip


def debug(id: str | None = None, *, timeout: float = 0.0) -> str:
    """pdb in this terminal, or notebook, on a call that is stopped: the one of that `id`, else the only one.

    `timeout`: how many seconds to wait for a call to stop. Returns how it ended: `goes on` (by `c`), `quit` (by `q`:
    the call fails with bdb.BdbQuit), `ended` (the call returned, raised or was cancelled), or `left`, by Ctrl-D or
    Ctrl-C twice: it stays stopped, for whoever comes next.

    Raises ValueError when no call is stopped, several are, or `id` is none of them; RuntimeError when another terminal
    has it; WorkerDiedError when its process dies; ClusterError.
    """
    check_seconds(timeout, needed=True)
    seat = client()
    return attach(seat, choose(awaited(seat, id, timeout), id))


def awaited(seat: Client, id: str | None, timeout: float) -> list[Breakpoint]:
    """What is stopped, as soon as something is that could be meant; what there is when the time is up."""
    until = time.monotonic() + timeout
    while True:
        found = stopped(seat)
        if meant(found, id) or (left := until - time.monotonic()) <= 0:
            return found
        time.sleep(min(LOOK_S, left))


def meant(found: Sequence[Breakpoint], id: str | None) -> list[Breakpoint]:
    """Those that may be meant: by the id, or by what it ends with."""
    if id is None:
        return list(found)
    return [each for each in found if each.id == id] or [each for each in found if each.id.endswith(f"-{id}")]


def choose(found: Sequence[Breakpoint], id: str | None) -> Breakpoint:
    """The one that is meant. ValueError."""
    some = meant(found, id)
    if len(some) == 1:
        return some[0]
    there = ", ".join(f"{each.id} ({each.function}, pid {each.pid})" for each in some or found)
    if not found:
        raise ValueError("no call is stopped at a breakpoint")
    raise ValueError(f"{'say which' if some else f'no stopped call is {id!r}'}; there are {there}")


# -- the terminal ------------------------------------------------------------------------------------------------------


def attach(seat: Client, which: Breakpoint) -> str:
    """As `debug`, for this one."""
    number = int(which.id.rpartition("-")[2])
    with Visit(seat, bytes.fromhex(which.worker_id), number) as visit:
        return Terminal(visit).run()


class Terminal:
    """input() and stdout on one side, a visit on the other.

    Ctrl-C is noted by a handler of ours, and raised only while we wait: it may come at any time, also twice, and
    nothing that was received is to get lost with it.
    """

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._prompt: str | None = None
        """The other side waits for a line."""
        self._answered = False
        self._pressed = False
        """Ctrl-C was."""
        self._interrupted = False
        """And passed on, and nothing has come since."""
        self._waits = self._reads = False
        self._has_read = threading.Condition()
        """With `_reads`: nobody is roused who does not read any more."""
        visit.when_over = self._ends_read

    def run(self) -> str:
        """Until it is over, or left; how."""
        if threading.current_thread() is not threading.main_thread():
            return self._run()
        before = signal.signal(signal.SIGINT, self._on_signal)
        try:
            return self._run()
        finally:
            self._stop_reading()
            signal.signal(signal.SIGINT, before)

    def _run(self) -> str:
        while True:
            try:
                if self._pressed:
                    outcome = self._on_interrupt()
                else:
                    outcome = self._hear() if self._prompt is None else self._read(self._prompt)
            except KeyboardInterrupt:
                continue
            if outcome:
                return outcome

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._pressed = True
        if self._waits:
            self._waits = False
            raise KeyboardInterrupt

    def _begin_wait(self) -> None:
        self._waits = True
        if self._pressed:
            self._waits = False
            raise KeyboardInterrupt

    def _hear(self) -> str:
        found = self._visit.poll()
        if found is None:
            try:
                self._begin_wait()
                self._visit.wait(None if self._answered else ANSWER_S)
            finally:
                self._waits = False
        elif isinstance(found, DebugOver):
            if found.how == "refused":
                raise RuntimeError(f"it cannot be attached to: {found.text}")
            _show(f"{found.text}\n")
            return found.how
        else:
            self._on_text(found)
        return ""

    def _on_text(self, found: DebugText) -> None:
        self._answered, self._interrupted = True, False
        if found.asks:
            self._prompt = found.text
        else:
            _show(found.text)
            self._visit.took(found.text)

    def _read(self, prompt: str) -> str:
        if self._visit.is_over:
            self._prompt = None
            return ""
        try:
            self._reads = threading.current_thread() is threading.main_thread()
            self._begin_wait()
            line = input(prompt)
        except EOFError:
            _show("\nit stays stopped\n")
            return LEFT
        finally:
            self._waits = False
            self._stop_reading()
        try:
            self._visit.answer(line)
        except ValueError as error:
            _show(f"*** {error}\n")
        else:
            self._prompt = None
        return ""

    def _on_interrupt(self) -> str:
        """At the prompt as pdb does it; else it is for the command that runs, and the second one for us."""
        self._pressed = False
        if self._visit.is_over:
            self._prompt = None
        elif self._prompt is not None:
            _show("\n--KeyboardInterrupt--\n")
        elif self._interrupted:
            _show("\nit was left\n")
            return LEFT
        else:
            self._interrupted = True
            self._visit.interrupt()
            _show("\ninterrupting it; Ctrl-C once more leaves\n")
        return ""

    def _stop_reading(self) -> None:
        with self._has_read:
            self._reads = False
            self._has_read.notify_all()

    def _ends_read(self) -> None:
        """It is over while somebody thinks about the next line: they are told at once, and need not end it."""
        if self._reads:
            threading.Thread(target=self._rouse, name="zmreg-debug", daemon=True).start()

    def _rouse(self) -> None:
        """A signal that comes between the prompt and the read behind it is seen only when that ends: so once more."""
        with self._has_read:
            while self._reads:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                self._has_read.wait(ROUSE_S)


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
