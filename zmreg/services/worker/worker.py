"""A worker process: takes calls from its door, runs them on the main thread, answers in batches.

Hot path, so straight code (design.md section 4). The main thread pumps while it has nothing to run, so a call is
received, run and answered by one thread; the I/O thread takes over while user code runs, and then handles steals,
cancellations and late answers. Rules:
- answers leave when nothing is left to run, when 64 have collected, before a call that is not known to be short, and
  0.5 ms after the first one was ready at the latest (checked between calls; by the I/O thread after 2 ms otherwise);
- an interrupt is raised in user code only, and only for the task that it was meant for.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any

from zmreg.model.errors import ClusterError, SerializationError, ZmregError
from zmreg.model.ids import ProcessId
from zmreg.model.messages import (
    Blocked,
    GaveBack,
    LeaseGranted,
    NeedDefinition,
    WorkersAtCap,
)
from zmreg.net.waiting import Waiter
from zmreg.services.calling.limits import Limited
from zmreg.services.calling.manners import DIGEST_BYTES
from zmreg.services.seat import arrivals
from zmreg.services.seat.bequest import bequeath
from zmreg.services.seat.client import set_current
from zmreg.services.seat.running import running
from zmreg.services.worker import breaking, execute
from zmreg.services.worker.beside import Beside
from zmreg.services.worker.execute import ActorExit, InputMissing, Recent, Unserved
from zmreg.services.worker.helping import Helping
from zmreg.services.worker.hosting import make_host
from zmreg.services.worker.intake import ANSWER_ROWS, Intake, Item
from zmreg.services.worker.looping import Looping
from zmreg.services.worker.releasing import RESUME, Released, park
from zmreg.services.worker.voice import Speech, give_voice
from zmreg.services.worker.yielding import returns_of
from zmreg.store.board import Board
from zmreg.wire import batches, payload

if TYPE_CHECKING:
    import asyncio

ANSWER_S = 0.0005
# Definitions kept unpickled; an evicted one is asked for again.
KEEP_FUNCTIONS = 1_000

_perf = time.perf_counter


class Callee:
    """A function or method as this worker calls it. `seconds`: what it took lately; None before the first call.

    `calls_left`: after so many more this worker ends; -1 = no limit.
    """

    __slots__ = ("calls_left", "function", "name", "seconds")

    def __init__(self, function: Any, name: str) -> None:
        self.calls_left = -1
        if isinstance(function, Limited):
            self.calls_left, function = function.max_calls, function.function
        self.function = function
        self.name: str = getattr(function, "__qualname__", None) or name
        self.seconds: float | None = None

    def was_last(self) -> bool:
        """Count a call of a limited function; True when no more are allowed."""
        self.calls_left -= 1
        return not self.calls_left


class Worker(Intake):
    """A client that is sent calls, and runs them on its main thread."""

    def __init__(self, session: Path, me: ProcessId, node: ProcessId) -> None:
        super().__init__(session, me, node)
        self.board = Board(session / f"{me.hex()}.now")
        self.shelf.note_stored = self.board.stored
        self.recent = Recent()
        self.callees: dict[bytes | str, Callee] = {}
        self.named: deque[bytes | str] = deque()
        """Those among them that are called in a manner of their caller's (services/worker/manners.py)."""
        self.retired = False
        self._waits = 0
        self.on_wait = self.waits
        self.helping = Helping(self)
        self.beside = Beside(self)
        self.handlers[WorkersAtCap] = lambda _, m: self.helping.on_cap(m)
        self.on_await = self._on_await
        self.looping = Looping()
        self.speech: Speech | None = None

    # -- the main thread --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until told to end."""
        inbox = self.inbox
        arrivals.take()
        while not self.retired:
            if not inbox:
                if self.construct is not None:
                    self._become_actor()
                elif self.ending:
                    return
                else:
                    self._wait_for_work()
                continue
            try:
                item = inbox.popleft()
            except IndexError:  # stolen in between
                continue
            try:
                self._call(*item)
            except ActorExit:
                if self.host is None:
                    raise
                self.moving = False
                return

    def _wait_for_work(self) -> None:
        self.answer_now()
        if self.host is None:  # an actor's last call stays to be seen: its answer may get lost with the process
            self.board.clear()
            self.signals.renew()
            if self.tasks.pools:  # what was leased for its tasks' own calls is of no use to a worker that has none
                with self.lock:
                    self.tasks.tick(self.now(), idle_s=0.0)
        self.idle.done = False
        if not self.inbox and self.construct is None and not self.ending:
            self.pump.wait(self.idle)

    def _call(self, caller: bytes, row: batches.Row) -> None:
        target = row[1]
        callee = self.callees.get(target)
        if callee is None:
            if not self._find(caller, row):
                return
            callee = self.callees[target]
        estimate = callee.seconds
        if self.out and (estimate is None or estimate > ANSWER_S or _perf() - self._first_ready > ANSWER_S):
            self.answer_now()
            self.pump.drain_now()
        task_id = caller + row[0].to_bytes(8, "big")
        if self.cancelled and task_id in self.cancelled:
            self.cancelled.discard(task_id)
            self._answer(caller, [row[0], 0, [execute.CANCELLED_ROW], ()])
            return
        self.board.show(task_id)
        took, returns = self._run(callee, caller, row, task_id)
        if returns is None:
            return
        if isinstance(returns, bytes):
            answer = [row[0], int(took * 1e6), returns]
        else:
            answer = execute.result_row(self, caller, row[0], int(took * 1e6), returns)
        out = self.out
        if not out:
            self._first_ready = _perf()
        out.append((caller, answer))
        if not self.inbox or len(out) >= ANSWER_ROWS:
            self.answer_now()  # the owner waits; what else there is to note is noted behind its back
        callee.seconds = took if estimate is None else 0.75 * estimate + 0.25 * took
        if isinstance(returns, bytes):
            self.recent.keep(task_id, returns)
        elif len(returns) == 1 and returns[0][0] != batches.INPUT_LOST:  # that one will come again
            self.recent.keep(task_id, [*returns[0][:4], tuple(returns[0][4])])  # without what is handed out
        if callee.calls_left > 0 and callee.was_last():
            self._retire()

    def _retire(self) -> None:
        """End in peace after a function's last allowed call: what was not started goes back, what comes does too."""
        with self.lock:
            self.answer_now()
            self.retired = self.blocked = True
            self.give_back_unstarted()

    def run_own(self, item: Item) -> None:
        """Run a call inside the wait of another. The board goes on to show that one: its owner is not us."""
        caller, row = item
        if row[1] not in self.callees and not self._find(caller, row):
            return
        _run_aside(self, self.callees[row[1]], item)

    def _run(
        self, callee: Callee, caller: bytes, row: batches.Row, task_id: bytes
    ) -> tuple[float, execute.Returns | bytes | None]:
        """(seconds, result) of one call: a payload, or result rows; None when the owner must send it again."""
        name, signals = callee.name, self.signals
        long = len(row) > 3
        self.depth = row[5] + 1 if long else 1
        self.parent = task_id
        token = running.set((task_id, name, row[4] if long else 0))
        start = _perf()
        try:
            args, kwargs = execute.load_arguments(self, self.recent, caller, row)
            start = _perf()
            signals.executing = task_id
            try:
                if self.cancelled and task_id in self.cancelled:
                    raise execute.NotBegun
                result = callee.function(*args, **kwargs)
                if type(result) is CoroutineType:
                    result = self.looping.complete(result)
            finally:
                signals.executing = b""
            if self.cancelled and self.graces.obeyed(task_id):
                raise KeyboardInterrupt
            took = _perf() - start
            args = kwargs = None  # type: ignore[assignment]
            if not long:
                refs: list[Any] = []
                packed = payload.pack(result, refs, what="the result of " + name)
                if type(packed) is bytes and not refs and not arrivals.any():
                    return took, packed
                return took, [execute.row_of(self, caller, task_id, packed, refs, type(result).__name__)]
            returns = returns_of(self, caller, row, result, name, partial(self.graces.advance, task_id))
            return _perf() - start if type(result) is GeneratorType else took, returns
        except InputMissing:
            self.post(caller, GaveBack((row[0],), False))
            return 0.0, None
        except Released as released:
            return 0.0, park(self, caller, row, task_id, released)
        except (SystemExit, ActorExit):
            raise
        except BaseException as error:  # noqa: BLE001  the user's code may raise anything; it all goes to the owner
            why = self.graces.row(task_id, error) if self.cancelled else None
            return _perf() - start, self._failed(error, name, row, why)
        finally:
            running.reset(token)
            self.parent = None
            self.depth = 0
            if self.cancelled:
                self.graces.over(task_id)

    def _failed(
        self, error: BaseException, name: str, row: batches.Row, why: batches.Row | None = None
    ) -> execute.Returns:
        nreturns = row[3] if len(row) > 3 else 1
        return execute.failed_rows(error, name, self, nreturns) if why is None else [why] * max(1, nreturns)

    def _find(self, caller: bytes, row: batches.Row) -> bool:
        """Unpickle the function of a call; False when the call waits for it or has failed with it."""
        if self.host is not None:
            return self._find_method(caller, row)
        target: bytes = row[1]
        if (digest := target[:DIGEST_BYTES]) not in self.callees and not self._unpickle(caller, row, digest):
            return False
        if digest != target:
            from zmreg.services.worker.manners import callee_of  # late: few calls have a manner

            self.callees[target] = callee_of(self, target)
        return True

    def _unpickle(self, caller: bytes, row: batches.Row, digest: bytes) -> bool:
        blob = self.blobs.get(digest)
        if blob is None:
            waiting = self.unknown.setdefault(digest, [])
            waiting.append((caller, row))
            if len(waiting) == 1:
                self.post(caller, NeedDefinition(digest))
            return False
        try:
            if not blob:
                raise SerializationError("the function's definition is gone: its owner no longer has it")
            function = payload.unpack_definition(blob)
        except ZmregError as error:
            self._answer(caller, [row[0], 0, self._failed(error, "a remote function", row), ()])
            return False
        _make_room(self)
        self.callees[digest] = Callee(function, "function")
        return True

    def _find_method(self, caller: bytes, row: batches.Row) -> bool:
        assert self.host is not None
        if row[1].endswith(RESUME):  # never among the callees: it would be shown on the board
            _run_aside(self, Callee(self.host.method(row[1]), row[1]), (caller, row))
            return False
        try:
            self.callees[row[1]] = Callee(self.host.method(row[1]), row[1])
        except (AttributeError, Unserved) as error:
            self._answer(caller, [row[0], 0, self._failed(error, str(row[1]), row), ()])
            return False
        return True

    # -- turns and waits --------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        self.answer_now()
        if self.helping.waits:
            with self.lock:
                self.helping.look()
        super()._turn()
        if self.deadlocks.waiting:
            with self.lock:
                self.deadlocks.look_again()

    def _on_grant(self, message: LeaseGranted) -> None:
        self.helping.on_grant(message)
        super()._on_grant(message)

    def wait_blocked(self, waiter: Waiter, timeout: float | None) -> bool:
        """The main thread waits, and runs calls of its own if nobody else can."""
        return self.helping.wait(waiter, timeout)

    def waits(self, begins: bool) -> None:
        """User code blocks: answers leave, unstarted calls go back, the CPU is free; or it goes on."""
        with self.lock:
            self._waits += 1 if begins else -1
            if self._waits == (1 if begins else 0):  # a task's coroutines wait side by side
                self._blocks(begins)

    def goes_on(self) -> Callable[[], None]:
        """User code runs again, while all waits stay as they are. Returns what makes it block as before."""
        count, self._waits = self._waits, 0
        self._blocks(False)

        def waits_again() -> None:
            with self.lock:
                self._waits = count
                self._blocks(True)

        return waits_again

    def _blocks(self, begins: bool) -> None:
        self.blocked = begins
        if begins:
            self.answer_now()
            if self.host is None:
                self.give_back_unstarted()
            else:
                self.host.blocks()
            if self.needed:
                self.deadlocks.begins(self.needed)
        else:
            self.deadlocks.ends()
        self.tell_node(Blocked(begins))

    def _on_await(self, loop: asyncio.AbstractEventLoop, begins: bool) -> None:
        """A coroutine waits: a task's, as if it called get(); an async actor goes on with its other calls."""
        if self.host is None:
            with self.shield():
                self.waits(begins)
                if begins or not self._waits:
                    self.helping.awaits(loop if begins else None)

    # -- actors and the end -----------------------------------------------------------------------------------------

    def _become_actor(self) -> None:
        construct, self.construct = self.construct, None
        assert construct is not None
        host = make_host(self, construct)
        if host is not None:
            host.serve()

    def leave(self) -> None:
        """End in peace: atexit functions run, answers go out, objects that others still hold go to the node."""
        if self.host is not None:
            self.host.finish()
        atexit._run_exitfuncs()
        if not self.heirless:
            with contextlib.suppress(ClusterError):  # the node is gone: nobody inherits
                bequeath(self)
        self.close(None)

    def crash(self) -> None:
        """End as a crash does for everybody else, but with the answers out."""
        if self.forked:  # sys.exit in a child that user code forked: the worker lives, and answers for itself
            return
        self.answer_now()
        self.pump.stop()
        self.ends.close(clean=True)


def main(session: str, me: bytes, node: bytes) -> None:
    """The life of a worker process, right after the fork."""
    worker = Worker(Path(session), ProcessId(me), ProcessId(node))
    set_current(worker)
    worker.speech = give_voice(worker)
    breaking.set_up()
    code = 0
    try:
        if plugins := worker.connect("worker", timeout=30).plugins:
            from zmreg.services.worker.plugged import begin  # late: few clusters have any

            begin(plugins)
        worker.run()
    except SystemExit as error:
        worker.crash()
        code = exit_code_of(error)
    else:
        if worker.lodgers is not None:
            worker.lodgers.wait()
        worker.leave()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def exit_code_of(error: SystemExit) -> int:
    """The exit code Python would use."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def _make_room(worker: Worker) -> None:
    """For one more function."""
    if len(worker.callees) >= KEEP_FUNCTIONS:
        oldest = next(iter(worker.callees))
        del worker.callees[oldest]
        if isinstance(oldest, bytes):
            worker.blobs.pop(oldest, None)


def _run_aside(worker: Worker, callee: Callee, item: Item) -> None:
    """Run a call and answer it, while the board goes on to show what it shows."""
    caller, row = item
    took, returns = worker._run(callee, caller, row, caller + row[0].to_bytes(8, "big"))
    if returns is not None:
        answer = [row[0], int(took * 1e6), returns]
        if not isinstance(returns, bytes):
            answer = execute.result_row(worker, caller, row[0], int(took * 1e6), returns)
        worker._answer(caller, answer)
        worker.answer_now()
