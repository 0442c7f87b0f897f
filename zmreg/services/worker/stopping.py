"""Calls of a worker that are stopped at a breakpoint, and the terminals that come to them.

A stop is what its pdb reads from and writes to. The thread that is stopped waits as `get` does, in the pump, so the
worker goes on receiving: lines for this stop, and cancellations. What is printed while nobody is there is dropped; who
comes is shown where the call stands. Nothing collects: one line is asked for at a time, and output has a window.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from zmreg.core.wicket import Visitor, Wicket, pieces
from zmreg.model.debug_messages import (
    LINE_CHARS,
    TEXT_CHARS,
    WINDOW_CHARS,
    DebugAttach,
    DebugLine,
    DebugOver,
    DebugSign,
    DebugTaken,
    DebugText,
)
from zmreg.model.ids import NODE_BYTES, node_of, object_id
from zmreg.model.messages import Blocked, CancelCall
from zmreg.net.waiting import Waiter
from zmreg.services.seat.running import running
from zmreg.services.seat.stopped import OPEN, TAKEN
from zmreg.services.seat.watching import when_gone
from zmreg.services.worker.voice import captured

if TYPE_CHECKING:
    from zmreg.services.worker.debugger import Debugger
    from zmreg.services.worker.worker import Worker

# Between two commands the call runs; else it stands at a prompt, or a command of the session runs.
RUNS: Final = "runs"
PROMPT: Final = "prompt"
COMMAND: Final = "command"
# What a command prints is shown at the latest so long afterwards, if it prints more.
SHOWN_S: Final = 0.1
_INTRO_CHARS: Final = 16 * 1024
_LOOK_S: Final = 1.0


class Unwind(BaseException):
    """The stop ends, and nobody at a terminal has said so: its call was cancelled, or nobody came in time."""


class Stops:
    """One worker's."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.open: dict[int, Stop] = {}
        self._count = 0
        with worker.shield(), worker.lock:
            self._hear_cancel = worker.handlers[CancelCall]
            worker.handlers |= {
                DebugAttach: self._on_attach,
                DebugLine: self._on_line,
                DebugTaken: self._on_taken,
                DebugSign: self._on_sign,
                CancelCall: self._on_cancel,
            }
        when_gone(worker, self._gone)

    def of_this_thread(self) -> Stop | None:
        """The stop in which this thread is."""
        me = threading.get_ident()
        return next((stop for stop in list(self.open.values()) if stop.thread == me), None)

    def begin(self, name: str, reason: str, limit_s: float | None = None) -> Stop:
        """This thread stops."""
        worker = self.worker
        call = running.get()
        task_id = call[0] if call is not None else worker.parent or b""
        with worker.shield(), worker.lock:
            self._count += 1
            stop = self.open[self._count] = Stop(self, self._count, task_id, name or (call[1] if call else ""))
            stop.reason, stop.limit_s = reason, limit_s
        return stop

    # -- on the thread that pumps, under the lock ---------------------------------------------------------------------

    def _on_attach(self, sender: bytes, message: DebugAttach) -> None:
        stop = self.open.get(message.number)
        if stop is None:
            text = "that call is not stopped any more"
        elif not stop.wicket.comes((sender, message.visit)):
            text = "another terminal has it"
        else:
            text = "the call runs to its next stop; Ctrl-C stops it where it is\n" if stop.state == RUNS else ""
            stop.wicket.sent(len(text))
            self.worker.post(sender, DebugText(message.number, message.visit, text, False))
            stop.wake()
            return
        self.worker.post(sender, DebugOver(message.number, message.visit, "refused", text))

    def _on_line(self, sender: bytes, message: DebugLine) -> None:
        stop = self.open.get(message.number)
        fits = len(message.text) <= LINE_CHARS
        if stop is not None and fits and stop.wicket.says((sender, message.visit), message.text):
            stop.wake()

    def _on_taken(self, sender: bytes, message: DebugTaken) -> None:
        stop = self.open.get(message.number)
        if stop is not None and stop.wicket.took((sender, message.visit), message.chars):
            stop.wake()

    def _on_sign(self, sender: bytes, message: DebugSign) -> None:
        stop, visitor = self.open.get(message.number), (sender, message.visit)
        if stop is None:
            return
        if not message.interrupts:
            if stop.wicket.leaves(visitor):
                stop.wake()
        elif stop.wicket.visitor == visitor:
            stop.interrupt()

    def _on_cancel(self, sender: bytes, message: CancelCall) -> None:
        """A task's main thread is interrupted by whoever cancels; all others here look by themselves."""
        self._hear_cancel(sender, message)
        task_id = object_id(sender, message.counter)
        for stop in self.open.values():
            if stop.task_id == task_id:
                stop.cancelled |= self.worker.host is not None or self.worker.signals.executing != task_id
                stop.wake()

    def _gone(self, who: str) -> None:
        for stop in self.open.values():
            if stop.wicket.gone(bytes.fromhex(who)):
                stop.wake()


class Stop:
    """One stopped call: a file to its pdb, and a door to one visitor at a time."""

    encoding: Final = "utf-8"

    def __init__(self, stops: Stops, number: int, task_id: bytes, name: str) -> None:
        self.number = number
        self.task_id = task_id
        self.name = name
        self.reason = "breakpoint"
        self.limit_s: float | None = None
        """Seconds after which the call goes on when nobody is there; None: it waits."""
        self.place: tuple[str, int, str] = ("", 0, "")
        """File, line, function."""
        self.state = RUNS
        self.wicket = Wicket(WINDOW_CHARS)
        self.thread = threading.get_ident()
        self.since = time.monotonic()
        self.cancelled = False
        self.debugger: Debugger | None = None
        self._stops = stops
        self.worker = stops.worker
        self._waiter = Waiter()
        self._aside = sys.stdout
        self._text: list[str] = []
        self._chars = 0
        self._sent_at = 0.0
        self._intro = ""
        self._stands = self._blocked = False

    @property
    def name_of_it(self) -> str:
        """Of all stops of the cluster this one has that name: node, worker, number."""
        me = self.worker.me
        return f"{me[:NODE_BYTES].hex()}-{int.from_bytes(me[NODE_BYTES:], 'big')}-{self.number}"

    def row(self) -> dict[str, Any]:
        """For lists; plain values."""
        file, line, function = self.place
        return {
            "ID": self.name_of_it, "Number": self.number, "Name": self.name or function, "Reason": self.reason,
            "File": file, "Line": line, "Function": function, "State": OPEN if self.wicket.visitor is None else TAKEN,
            "TaskID": self.task_id.hex(), "Seconds": time.monotonic() - self.since,
        }  # fmt: skip

    # -- on the thread that pumps, under the lock ---------------------------------------------------------------------

    def wake(self) -> None:
        """Have the stopped thread look again."""
        self._waiter.finish()

    def interrupt(self) -> None:
        """Ctrl-C at the terminal: of a command of the session, or of a call that goes on between two stops."""
        if self.state == RUNS and self.debugger is not None:
            self.debugger.break_in()
        elif self.state == COMMAND and self.thread == self.worker.pump.main:
            self.worker.signals.interrupt()

    # -- what pdb sees: on the thread that is stopped -----------------------------------------------------------------

    def write(self, text: str) -> int:
        """Collected up to a message, or for a tenth of a second. What other threads print is none of the session."""
        if threading.get_ident() != self.thread:
            return self._aside.write(text)
        self._text.append(text)
        self._chars += len(text)
        if not self._stands and len(self._intro) < _INTRO_CHARS:
            self._intro += text[:_INTRO_CHARS]
        if self._chars >= TEXT_CHARS or time.monotonic() - self._sent_at > SHOWN_S:
            self._send(self._taken(whole_lines=True)[0])
        return len(text)

    def flush(self) -> None:
        """What is left leaves with the next prompt, as a part of it."""

    def isatty(self) -> bool:
        """For code that asks."""
        return False

    def readline(self) -> str:
        """The next line, with its end. Raises Unwind; KeyboardInterrupt for a cancelled task."""
        lines, prompt = self._taken(whole_lines=False)
        self._send(lines)
        if not self._stands:
            self._stands, self._intro = True, self._intro.removesuffix(prompt)
        worker, wicket = self.worker, self.wicket
        until = self._until()
        while True:
            greets = False
            with worker.shield(), worker.lock:
                if self.is_cancelled():
                    raise Unwind
                line = wicket.line()
                if line is not None:
                    self.state = COMMAND
                    return line + "\n"
                self.state = PROMPT
                if wicket.visitor is None:
                    if until is not None and time.monotonic() >= until:
                        raise Unwind
                elif not wicket.greeted:
                    greets = wicket.greeted = True
                elif not wicket.asked:
                    wicket.asked = True
                    worker.post(wicket.visitor[0], DebugText(self.number, wicket.visitor[1], prompt, True))
                    until = None
                self._waiter = Waiter()
            if greets:
                self._send(self._intro)
            else:
                self._wait(until)
                if wicket.visitor is None and until is None:
                    until = self._until()

    def _until(self) -> float | None:
        return None if self.limit_s is None else time.monotonic() + self.limit_s

    def is_cancelled(self) -> bool:
        """Whether the call is not to go on."""
        worker = self.worker
        return self.cancelled or (worker.host is None and worker.graces.is_due(self.task_id))

    def _wait(self, until: float | None) -> None:
        """Until `wake`, or `until`; now and then one looks whether the worker is still there."""
        worker, waiter = self.worker, self._waiter
        while not waiter.done:
            left = _LOOK_S if until is None else min(_LOOK_S, until - time.monotonic())
            if left <= 0:
                return
            worker.wait(waiter, left)
            if worker.closed is not None:
                raise worker.closed

    def _taken(self, whole_lines: bool) -> tuple[str, str]:
        """(what is printed in whole lines, the rest). With `whole_lines` the rest stays."""
        text = "".join(self._text)
        lines, newline, rest = text.rpartition("\n")
        if len(rest) > TEXT_CHARS:
            lines, newline, rest = text, "", ""
        self._text = [rest] if whole_lines and rest else []
        self._chars = len(rest) if whole_lines else 0
        self._sent_at = time.monotonic()
        return lines + newline, rest

    def _send(self, text: str) -> None:
        """To the visitor, as far as there is room; waits for it. Dropped when nobody is there, or leaves meanwhile."""
        worker, wicket = self.worker, self.wicket
        for piece in pieces(text, TEXT_CHARS):
            while True:
                with worker.shield(), worker.lock:
                    visitor = wicket.visitor
                    if visitor is None or not wicket.greeted:
                        return
                    if wicket.fits(len(piece)):
                        wicket.sent(len(piece))
                        worker.post(visitor[0], DebugText(self.number, visitor[1], piece, False))
                        break
                    if self.is_cancelled():
                        raise Unwind
                    self._waiter = Waiter()
                self._wait(None)

    # -- standing and going on ----------------------------------------------------------------------------------------

    def stands(self, place: tuple[str, int, str]) -> None:
        """The call stands here from now on: its CPU is free."""
        self.place = place
        if self.wicket.visitor is None:
            self._announce()
        self._blocks(True)
        self.state = COMMAND

    def goes_on(self) -> None:
        """A Ctrl-C that was meant for the last command comes in here at the latest."""
        with self.worker.shield(), self.worker.lock:
            self.state = RUNS

    def has_gone_on(self) -> None:
        """After `goes_on`, whatever came in between."""
        self.state, self._stands, self._intro = RUNS, False, ""
        self._blocks(False)

    def _blocks(self, begins: bool) -> None:
        worker = self.worker
        if self.thread != worker.pump.main or begins == self._blocked:
            return
        self._blocked = begins
        with worker.shield():
            if worker.host is not None and getattr(worker.host, "is_async", False):
                worker.tell_node(Blocked(begins))
            else:
                # A call that runs inside the wait of another waits for nothing of that one's.
                needed, worker.needed = worker.needed, ()
                worker.waits(begins)
                worker.needed = needed

    def _announce(self) -> None:
        """One line on our stderr, which the program shows whose call it is; also when the call collects its output."""
        file, line, function = self.place
        what = "breakpoint" if self.reason == "breakpoint" else f"held at {self.reason}"
        where = f"node {node_of(self.worker.me).hex()[:8]}, pid {os.getpid()}"
        token = captured.set(None)
        try:
            print(f"{what}: {function} at {file}:{line}, {where}: zmreg debug {self.name_of_it}", file=sys.stderr)
        finally:
            captured.reset(token)

    def close(self, how: str, text: str) -> None:
        """The session is over; whoever is there is told."""
        lines, rest = self._taken(whole_lines=False)
        worker = self.worker
        try:
            with contextlib.suppress(Unwind):
                self._send(lines + rest)
        finally:
            with worker.shield(), worker.lock:
                self._stops.open.pop(self.number, None)
                visitor: Visitor | None = self.wicket.visitor
                if visitor is not None and worker.closed is None:
                    self.wicket.leaves(visitor)
                    worker.post(visitor[0], DebugOver(self.number, visitor[1], how, text))
