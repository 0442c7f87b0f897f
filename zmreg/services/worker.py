"""A worker process: takes calls from its door, runs them on the main thread, answers in batches.

Hot path, so straight code (design.md section 4). The main thread pumps while it has nothing to run, so a call is
received, run and answered by one thread; the I/O thread takes over while user code runs, and then handles steals,
cancellations and late answers. Rules:
- answers leave when nothing is left to run, when 64 have collected, before a call that is not known to be short, and
  0.5 ms after the first one was ready at the latest (checked between calls; by the I/O thread after 2 ms otherwise);
- an interrupt is raised in user code only, and only for the task that it was meant for.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import CoroutineType, FrameType
from typing import Any

from zmreg.model.errors import SerializationError, ZmregError
from zmreg.model.ids import ProcessId, object_id
from zmreg.model.messages import (
    Adopt,
    Blocked,
    CancelCall,
    Construct,
    Definition,
    Exit,
    GaveBack,
    NeedDefinition,
    RetireActor,
    Steal,
)
from zmreg.net.pump import Pump, Waiter
from zmreg.services import arrivals, execute
from zmreg.services.client import Client, set_current
from zmreg.services.entries import FAILED, INLINE, STORED, Stored
from zmreg.services.execute import ActorExit, InputMissing, Recent
from zmreg.services.hosting import Host, make_host
from zmreg.services.running import running
from zmreg.store.board import Board
from zmreg.wire import batches, payload

ANSWER_ROWS = 64
ANSWER_S = 0.0005
# Definitions kept unpickled; an evicted one is asked for again.
KEEP_FUNCTIONS = 1_000

Item = tuple[bytes, batches.Row]
_perf = time.perf_counter

class WorkerInterrupts:
    """SIGINT on a worker is a cancellation: it interrupts user code, and never anything else."""

    def __init__(self) -> None:
        self.target = b""
        self.executing = b""
        self._held = False
        self._noted = False
        self._waiting: tuple[Pump, Waiter] | None = None
        signal.signal(signal.SIGINT, self._on_signal)

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

    def hold(self, pump: Pump, waiter: Waiter) -> None:
        """The main thread pumps."""
        self._held, self._waiting = True, (pump, waiter)

    def pending(self) -> bool:
        """A cancellation arrived meanwhile."""
        return self._noted

    def let_go(self) -> None:
        """Back in user code, if it was called from there."""
        self._held = False
        if self._noted:
            self._noted = False
            if self.executing and self.executing == self.target:
                self.target = b""
                raise KeyboardInterrupt


class Worker(Client):
    """A client that is also sent calls."""

    def __init__(self, session: Path, me: ProcessId, node: ProcessId) -> None:
        self.inbox: deque[Item] = deque()
        self.out: deque[Item] = deque()
        self.idle = Waiter()
        self.signals = WorkerInterrupts()
        super().__init__(session, me, node, self.signals)
        self.board = Board(session / f"{me.hex()}.now")
        self.recent = Recent()
        self.functions: dict[bytes, Any] = {}
        self.blobs: dict[bytes, bytes] = {}
        self.unknown: dict[bytes, list[Item]] = {}
        self.cancelled: set[bytes] = set()
        self.estimates: dict[object, float] = {}
        self.host: Host | None = None
        self.construct: Construct | None = None
        self.ending = False
        self.blocked = False
        self.on_wait = self._on_wait
        self._first_ready = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._answering = threading.Lock()
        self.handlers |= {
            Definition: self._on_definition,
            Steal: self._on_steal,
            CancelCall: self._on_cancel,
            Construct: self._on_construct,
            RetireActor: lambda _, m: self._end_when_idle(),
            Exit: lambda _, m: self._on_exit(m.if_idle),
        }

    # -- what arrives (on whatever thread pumps) ----------------------------------------------------------------------

    def on_calls(self, sender: bytes, rows: list[batches.Row]) -> None:
        """Queue calls; on a worker that waits inside a task, give back what could run elsewhere."""
        host = self.host
        if host is not None and host.takes(sender, rows):
            return
        inbox = self.inbox
        for row in rows:
            inbox.append((sender, row))
        if self.blocked and host is None:
            self._give_back_unstarted()
        elif self.idle.following:
            self.idle.finish()

    def _on_definition(self, sender: bytes, message: Definition) -> None:
        self.blobs[message.digest] = message.blob
        waiting = self.unknown.pop(message.digest, None)
        if waiting:
            self.inbox.extendleft(reversed(waiting))
            self.idle.finish()

    def _on_steal(self, sender: bytes, message: Steal) -> None:
        self.post(sender, GaveBack(self._take_back(sender, message.count), False))

    def _take_back(self, sender: bytes, count: int) -> tuple[int, ...]:
        """Unstarted calls of `sender`, newest first; those that ride on an input of this worker stay."""
        stay: list[Item] = []
        taken: list[int] = []
        inbox = self.inbox
        while len(taken) < count:
            try:
                item = inbox.pop()
            except IndexError:
                break
            if item[0] != sender or rides(item[1]):
                stay.append(item)
            else:
                taken.append(item[1][0])
        inbox.extend(reversed(stay))
        return tuple(reversed(taken))

    def _give_back_unstarted(self) -> None:
        for sender in {item[0] for item in list(self.inbox)}:
            counters = self._take_back(sender, len(self.inbox))
            self.post(sender, GaveBack(counters, True))

    def _on_cancel(self, sender: bytes, message: CancelCall) -> None:
        task_id = object_id(sender, message.counter)
        if message.recursive:
            for task in list(self.tasks.live.values()):
                if task.parent == task_id and task.entries:
                    self.tasks.cancel(task.entries[0], False, True)
        if self.host is not None and self.host.cancel(task_id):
            return
        if self.signals.executing == task_id:
            if message.force:
                self.answer_now()
                os._exit(130)
            self.cancelled.add(task_id)
            if self.host is None:
                self.signals.target = task_id
                main = threading.main_thread().ident
                assert main is not None
                signal.pthread_kill(main, signal.SIGINT)
            return
        for item in list(self.inbox):
            if item[0] == sender and item[1][0] == message.counter:
                try:
                    self.inbox.remove(item)
                except ValueError:  # the main thread took it in between
                    self.cancelled.add(task_id)
                    return
                self._answer(sender, [message.counter, 0, [execute.CANCELLED_ROW], ()])
                self.answer_now()
                return

    def _on_construct(self, _sender: bytes, message: Construct) -> None:
        self.construct = message
        self.idle.finish()

    def _end_when_idle(self) -> None:
        self.ending = True
        self.idle.finish()
        if self.host is not None:
            self.host.end_when_idle()

    def _on_exit(self, if_idle: bool) -> None:
        if if_idle and (self.inbox or self.signals.executing or len(self.sharing.lent_entries()) or self.tasks.live):
            return
        self._end_when_idle()

    # -- the main thread --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until told to end."""
        inbox = self.inbox
        arrivals.take()
        while True:
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
                caller, row = item
                failed = execute.failed_row(self.host.exited(str(row[1])))
                self._answer(caller, [row[0], 0, [failed] * max(1, row[3] if len(row) > 3 else 1), ()])
                return

    def _wait_for_work(self) -> None:
        self.answer_now()
        self.board.clear()
        waiter = self.idle
        if waiter.done:
            self.idle = waiter = Waiter()
        if not self.inbox and self.construct is None and not self.ending:
            self.pump.serve(self.inbox, waiter)

    def _call(self, caller: bytes, row: batches.Row) -> None:
        target = row[1]
        function = self.functions.get(target)
        if function is None:
            if not self._find(caller, row):
                return
            function = self.functions[target]
        estimate = self.estimates.get(target)
        if self.out and (estimate is None or estimate > ANSWER_S or _perf() - self._first_ready > ANSWER_S):
            self.answer_now()
            self.pump.drain_now()
        task_id = caller + row[0].to_bytes(8, "big")
        if self.cancelled and task_id in self.cancelled:
            self.cancelled.discard(task_id)
            self._answer(caller, [row[0], 0, [execute.CANCELLED_ROW], ()])
            return
        self.board.show(task_id)
        took, returns = self._run(function, caller, row, task_id)
        if returns is None:
            return
        self.estimates[target] = took if estimate is None else 0.75 * estimate + 0.25 * took
        if type(returns) is bytes:
            self.recent.keep(task_id, returns)
            answer = [row[0], int(took * 1e6), returns]
        else:
            answer = execute.result_row(self, caller, row[0], int(took * 1e6), returns)
            if len(returns) == 1:
                self.recent.keep(task_id, returns[0])
        out = self.out
        if not out:
            self._first_ready = _perf()
        out.append((caller, answer))
        if len(out) >= ANSWER_ROWS:
            self.answer_now()

    def _run(
        self, function: Any, caller: bytes, row: batches.Row, task_id: bytes
    ) -> tuple[float, execute.Returns | bytes | None]:
        """(seconds, result) of one call: a payload, or result rows; None when the owner must send it again."""
        name = getattr(function, "__qualname__", row[1])
        signals = self.signals
        long = len(row) > 3
        self.depth = row[5] + 1 if long else 1
        self.parent = task_id
        token = running.set((task_id, name))
        start = _perf()
        try:
            args, kwargs = execute.load_arguments(self, self.recent, caller, row)
            start = _perf()
            signals.executing = task_id
            try:
                result = function(*args, **kwargs)
                if type(result) is CoroutineType:
                    result = self.run_async(result)
            finally:
                signals.executing = b""
            took = _perf() - start
            args = kwargs = None  # type: ignore[assignment]
            if not long:
                refs: list[Any] = []
                packed = payload.pack(result, refs, what="the result of " + name)
                if type(packed) is bytes and not refs and not arrivals.any():
                    return took, packed
                row_of = execute.row_of(self, caller, task_id, packed, refs, type(result).__name__)
                return took, [row_of]
            return took, execute.pack_returns(self, caller, task_id, result, row[3] if long else 1, name)
        except InputMissing:
            self.post(caller, GaveBack((row[0],), False))
            return 0.0, None
        except KeyboardInterrupt as error:
            if task_id in self.cancelled:
                return _perf() - start, [execute.CANCELLED_ROW] * max(1, row[3] if long else 1)
            return _perf() - start, self._failed(error, name, row)
        except (SystemExit, ActorExit):
            raise
        except BaseException as error:  # noqa: BLE001  the user's code may raise anything; it all goes to the owner
            return _perf() - start, self._failed(error, name, row)
        finally:
            running.reset(token)
            self.parent = None
            self.depth = 0
            if self.cancelled:
                self.cancelled.discard(task_id)

    def _failed(self, error: BaseException, name: str, row: batches.Row) -> execute.Returns:
        failure = execute.failure_of(error, name, self)
        return [execute.failed_row(failure)] * max(1, row[3] if len(row) > 3 else 1)

    def event_loop(self) -> asyncio.AbstractEventLoop:
        """The main thread's loop, made on first use."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop

    def run_async(self, awaitable: Any) -> Any:
        """Complete a coroutine on the main thread's loop."""
        return self.event_loop().run_until_complete(awaitable)


    def _find(self, caller: bytes, row: batches.Row) -> bool:
        """Unpickle the function of a call; False when the call waits for it or has failed with it."""
        digest = row[1]
        if self.host is not None:
            return self._find_method(caller, row)
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
        if len(self.functions) >= KEEP_FUNCTIONS:
            oldest = next(iter(self.functions))
            del self.functions[oldest]
            self.blobs.pop(oldest, None)
        self.functions[digest] = function
        return True

    def _find_method(self, caller: bytes, row: batches.Row) -> bool:
        assert self.host is not None
        try:
            self.functions[row[1]] = self.host.method(row[1])
        except AttributeError as error:
            self._answer(caller, [row[0], 0, self._failed(error, str(row[1]), row), ()])
            return False
        return True

    # -- answers ----------------------------------------------------------------------------------------------------

    def _answer(self, caller: bytes, row: batches.Row) -> None:
        if not self.out:
            self._first_ready = _perf()
        self.out.append((caller, row))

    def answer(self, caller: bytes, row: batches.Row) -> None:
        """For hosts: collect an answer; it leaves at the next turn."""
        self.out.append((caller, row))

    def answer_now(self) -> None:
        """Send the answers that have collected, in order."""
        out = self.out
        if not out:
            return
        with self._answering:
            batch: list[batches.Row] = []
            to = b""
            while out:
                try:
                    caller, row = out.popleft()
                except IndexError:
                    break
                if caller != to and batch:
                    self.send(to, batches.encode_results(batch))
                    batch = []
                to = caller
                batch.append(row)
            if batch:
                self.send(to, batches.encode_results(batch))
        self.pump.touch()

    def _turn(self) -> None:
        self.answer_now()
        super()._turn()

    def _on_wait(self, begins: bool) -> None:
        """User code blocks: answers leave, unstarted calls go back, the CPU is free; or it goes on."""
        with self.lock:
            self.blocked = begins
            if begins:
                self.answer_now()
                if self.host is None:
                    self._give_back_unstarted()
            self.tell_node(Blocked(begins))

    # -- actors and the end -----------------------------------------------------------------------------------------

    def _become_actor(self) -> None:
        construct, self.construct = self.construct, None
        assert construct is not None
        host = make_host(self, construct)
        if host is not None:
            host.serve()

    def leave(self) -> None:
        """End in peace: answers out, objects that others still hold go to the node."""
        if self.host is not None:
            self.host.finish()
        with self.lock:
            self.answer_now()
            for entry, borrowers in self.sharing.lent_entries():
                value = entry.value
                state = {INLINE: "inline", STORED: "stored", FAILED: "failed"}.get(entry.state)
                if state is None:
                    continue
                data = value if isinstance(value, bytes) else b""
                if isinstance(value, Stored):
                    value.outbox = None
                self.post(self.node, Adopt(entry.object_id, state, data, entry.nbytes, borrowers))
        self.close(None)


def rides(row: batches.Row) -> bool:
    """The call takes an input from an earlier call on this worker."""
    return len(row) > 3 and any(dep[1] == batches.CHAINED for dep in row[6])


def main(session: str, me: bytes, node: bytes) -> None:
    """The life of a worker process, right after the fork."""
    worker = Worker(Path(session), ProcessId(me), ProcessId(node))
    set_current(worker)
    code = 0
    try:
        worker.connect("worker", timeout=30)
        worker.run()
    except SystemExit as error:
        worker.answer_now()
        code = exit_code_of(error)
    else:
        atexit._run_exitfuncs()
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
