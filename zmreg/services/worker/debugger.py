"""pdb in a worker: the standard library's, on a stop (services/worker/stopping.py) in place of a terminal.

What differs: it sees the user's frames only, and none of this package's nor of asyncio's below them; it ends with the
outermost of them, so that the worker's next call is not traced; breakpoints that were set in a session end with it; and
signals stay the worker's.
"""

from __future__ import annotations

import bdb
import code
import contextlib
import opcode
import pdb
import sys
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import IO, TYPE_CHECKING, Any, Final, cast

from zmreg.model.errors import TaskCancelledError, ZmregError
from zmreg.services.worker import breaking
from zmreg.services.worker.stopping import RUNS, Stop, Stops, Unwind

if TYPE_CHECKING:
    from zmreg.services.worker.worker import Worker

# What is passed over in stepping, and below the user's first frame.
PASSED_OVER: Final = ("zmreg.*", "asyncio.*", "concurrent.futures.*", "contextvars", "selectors", "threading", "zmq.*")
_OURS: Final = "zmreg.services.worker."
_YIELD: Final = opcode.opmap["YIELD_VALUE"]
_REASON_CHARS: Final = 200


def stops_of(worker: Worker) -> Stops:
    """This process's stops."""
    with worker.shield(), worker.lock:
        return breaking.stops.get(worker) or breaking.stops.setdefault(worker, Stops(worker))


def stop_at(worker: Worker, frame: FrameType, *, header: str | None = None) -> None:
    """`breakpoint()` was called in this frame. In a session that is stepping, that session stops here."""
    stops = stops_of(worker)
    stop = stops.of_this_thread()
    if stop is not None and stop.state != RUNS:
        stop.write("a breakpoint() inside of a command is passed over\n")
        return
    if stop is None:
        stop = stops.begin("", "breakpoint")
        stop.debugger = Debugger(stop)
    debugger = stop.debugger
    assert debugger is not None
    if header is not None:
        debugger.message(header)
    debugger.set_trace(frame)


def hold_at(worker: Worker, error: Exception, name: str, seconds: float) -> None:
    """Stand at an error of a call that is over otherwise. Never raises: whatever happens, the call has its error."""
    trace = error.__traceback__
    while trace is not None and _passed_over(trace.tb_frame):
        trace = trace.tb_next
    stops = stops_of(worker)
    if trace is None or isinstance(error, bdb.BdbQuit) or stops.of_this_thread() is not None:
        return
    try:
        reason = f"{type(error).__name__}: {error}"[:_REASON_CHARS]
    except Exception as raised:  # noqa: BLE001  a foreign __str__ may raise anything
        reason = f"{type(error).__name__} (its __str__ raised {type(raised).__name__})"
    stop = stops.begin(name, " ".join(reason.split()), seconds)
    stop.debugger = Debugger(stop)
    signals, on_main = worker.signals, stop.thread == worker.pump.main
    executing = signals.executing
    try:
        try:
            if on_main:
                signals.executing = stop.task_id  # from now on Ctrl-C reaches a command, and a cancellation the wait
            stop.debugger.look_at(trace)
        finally:
            if on_main:
                signals.executing = executing
    except (KeyboardInterrupt, Unwind, ZmregError):
        with contextlib.suppress(Unwind, ZmregError):  # whoever is there may not read any more
            stop.write("the call is not held any longer\n")
    finally:
        stop.debugger.finish("ended", f"{stop.name} goes on to its end, with that error")


class Debugger(pdb.Pdb):
    """One session. All of it on the thread that is stopped, but for `break_in`."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stdin=cast(IO[str], stop), stdout=cast(IO[str], stop), skip=PASSED_OVER, nosigint=True)
        self.breaks = {}  # not those of sessions on other threads
        self.stop = stop
        self.bottom: FrameType | None = None
        """The outermost frame of the user's."""
        self._set: list[tuple[str, int]] = []
        self._over = False
        self._raising = False

    # -- where it begins and ends -------------------------------------------------------------------------------------

    def set_trace(self, frame: FrameType | None = None, **keywords: Any) -> None:
        """Stop at the next line of this frame."""
        assert frame is not None
        if _passed_over(frame):  # code of this package itself
            self.skip = None
        self.bottom = _outermost(frame)
        super().set_trace(frame, **keywords)
        self.botframe = self.bottom
        below = self.bottom.f_back
        while below is not None:
            below.f_trace = None
            below = below.f_back

    def look_at(self, trace: TracebackType) -> None:
        """Post mortem."""
        self.reset()
        self.interaction(None, trace)

    def break_in(self) -> None:
        """From any thread: stop as soon as the stepped call is in the user's code again."""
        if self._over:
            return
        cast(Any, self)._set_stopinfo(None, None)
        frame = sys._current_frames().get(self.stop.thread)
        while frame is not None:
            frame.f_trace = self.trace_dispatch
            if frame is self.bottom:
                return
            frame = frame.f_back

    def finish(self, how: str, text: str) -> None:
        """The session is over. Idempotent."""
        if self._over:
            return
        self._over = True
        sys.settrace(None)
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            frame.f_trace = None
            frame = frame.f_back
        for place in self._set:
            self.clear_break(*place)
        self.bottom = self.botframe = None
        self.stop.close(how, text)

    # -- of bdb -------------------------------------------------------------------------------------------------------

    def trace_dispatch(self, frame: FrameType, event: str, arg: Any) -> Any:
        """A coroutine may still have us when the session is over."""
        if self._over:
            return None
        if frame is self.bottom and event in ("line", "exception"):
            self._raising = event == "exception"
        traced = super().trace_dispatch(frame, event, arg)
        if event == "return" and frame is self.bottom and not self._is_parked(frame):
            self.finish("ended", "the call has returned, or raised")
            return None
        return traced

    def _is_parked(self, frame: FrameType) -> bool:
        """Whether a generator or coroutine goes on later: the return event is that of a yield."""
        return not self._raising and frame.f_lasti >= 0 and frame.f_code.co_code[frame.f_lasti] == _YIELD

    def get_stack(self, f: FrameType | None, t: TracebackType | None) -> tuple[list[tuple[FrameType, int]], int]:
        """From the user's outermost frame on."""
        stack, index = super().get_stack(f, t)
        cut = next((place for place, (frame, _) in enumerate(stack) if frame is self.bottom), 0)
        return stack[cut:], max(0, index - cut)

    def set_break(self, filename: str, lineno: int, *args: Any, **keywords: Any) -> Any:
        """Remembered, to be taken back at the end."""
        self._set.append((self.canonic(filename), lineno))
        return super().set_break(filename, lineno, *args, **keywords)

    def set_continue(self) -> None:
        """Without breakpoints the session is over."""
        super().set_continue()
        if not self.breaks:
            self.finish("goes on", "the call goes on")

    def set_quit(self) -> None:
        """The call fails with bdb.BdbQuit."""
        super().set_quit()
        self.finish("quit", "the call fails with bdb.BdbQuit, and is not tried again" if self.bottom else "left")

    # -- of pdb -------------------------------------------------------------------------------------------------------

    def _cmdloop(self) -> None:
        """A Ctrl-C ends a command, and a cancellation the call."""
        frame, line = self.stack[self.curindex]
        try:
            self.stop.stands((frame.f_code.co_filename, line, frame.f_code.co_name))
            self._commands()
        except Unwind:
            if self.bottom is None:
                raise
            raise self._cancelled() from None
        except BaseException:
            self.finish("ended", "the call was cancelled")
            raise
        finally:
            self.stop.has_gone_on()

    def _commands(self) -> None:
        while True:
            try:
                self.cmdloop()
                self.stop.goes_on()
                return
            except KeyboardInterrupt:
                if self.stop.is_cancelled():
                    raise Unwind from None
                self.message("--KeyboardInterrupt--")

    def _cancelled(self) -> BaseException:
        """What ends a cancelled call of this kind."""
        host = self.stop.worker.host
        name = self.stop.name
        self.finish("ended", "the call was cancelled")
        if host is not None and getattr(host, "is_async", False):
            import asyncio  # late: it is there already

            return asyncio.CancelledError()
        if self.stop.thread == self.stop.worker.pump.main:
            return KeyboardInterrupt()
        return TaskCancelledError(f"{name} was cancelled while it was stopped at a breakpoint")

    def do_interact(self, arg: str) -> None:
        """As pdb's, at this session's terminal; `exit()` leads back."""
        assert self.curframe is not None
        console = code.InteractiveConsole({**self.curframe.f_globals, **self.curframe.f_locals})
        console.raw_input = self._ask  # type: ignore[method-assign]
        console.write = self.stop.write  # type: ignore[assignment,method-assign]
        with contextlib.redirect_stdout(cast(IO[str], self.stop)), contextlib.suppress(SystemExit):
            console.interact(banner="*interactive*; exit() leads back", exitmsg="")

    def _ask(self, prompt: object = "") -> str:
        self.stop.write(str(prompt))
        return self.stop.readline().rstrip("\n")


def _passed_over(frame: FrameType) -> bool:
    name = str(frame.f_globals.get("__name__", ""))
    return any(name == each or (each.endswith("*") and name.startswith(each[:-1])) for each in PASSED_OVER)


def _outermost(frame: FrameType) -> FrameType:
    """The user's outermost frame that this one is in: below the worker's loop there is none of theirs."""
    found = frame
    for each in _below(frame):
        if not _passed_over(each):
            found = each
        if each.f_code.co_name in ("run", "_work", "main") and str(each.f_globals.get("__name__")).startswith(_OURS):
            break
    return found


def _below(frame: FrameType) -> Iterator[FrameType]:
    inner: FrameType | None = frame.f_back
    while inner is not None:
        yield inner
        inner = inner.f_back
