"""Named functions that a process serves in itself, next to the data it holds: on threads or in a loop.

Only a driver's seat needs this: an actor is sent calls of its named functions as it is sent calls of its methods.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from zmreg.core.binding import filled
from zmreg.model.ids import object_id, short
from zmreg.net.waiting import Waiter
from zmreg.services.calling.hosts import CODE_TARGET, targets_of
from zmreg.services.calling.kinds import CARRIES
from zmreg.services.calling.sources import code_of
from zmreg.services.seat import arrivals
from zmreg.services.seat.client import Client
from zmreg.services.seat.running import running
from zmreg.services.worker import execute
from zmreg.services.worker.crew import QUICK_S, Call, Crew
from zmreg.services.worker.hosting import attempt, nreturns
from zmreg.store.begun import Begun, begun_file
from zmreg.wire import batches

_perf = time.perf_counter
# For who receives to leave the pump; it may be in a call that it took for quick.
_LEAVE_S = 5.0


class Desk:
    """What this process serves, and the calls it was sent."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._functions: dict[str, Callable[..., Any]] = {CODE_TARGET: self._code}
        self._recent = execute.Recent()
        self._begun = Begun(begun_file(client.session, client.me))
        self._crew = Crew(lambda call: self._on_thread(*call))
        self._quick: set[str] = set()
        """What took so short the last time that a switch of threads is not worth it."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._unfinished: set[bytes] = set()
        self._emptied: Waiter | None = None
        self.cancelled: set[bytes] = set()
        self.served = 0

    def serve(self, target: str, function: Callable[..., Any]) -> None:
        """Run calls of `target` by this function from now on."""
        self._functions[target] = function

    def get(self, target: str) -> Callable[..., Any] | None:
        """What serves `target`."""
        return self._functions.get(target)

    def withdraw(self, target: str) -> None:
        """Refuse calls of `target`; those that have begun are finished."""
        self._functions.pop(target, None)

    def withdraw_all(self, name: str, version: str | None) -> None:
        """The same, in that version or in any."""
        for target in targets_of(self._functions, name, version):
            self.withdraw(target)

    def names(self) -> list[str]:
        """What is served."""
        return sorted({target.partition("\0")[0] for target in self._functions if target != CODE_TARGET})

    def _code(self, target: str) -> bytes:
        return code_of(self._functions[target])

    def attend(self, on: bool) -> None:
        """Whether this process does nothing but serve now: an idle thread receives calls, and runs the quick ones."""
        left = self._crew.attend(self._client.pump.wait if on else None)
        if left is not None:  # it has to be gone before the pump's sockets are
            self._client.pump.wake()
            left.wait(_LEAVE_S)

    def drain(self, timeout: float) -> bool:
        """Wait until what has come is answered; False when that takes longer than `timeout` seconds."""
        waiter = self._emptied = Waiter()
        if self._unfinished:
            self._client.wait(waiter, timeout)
        self._emptied = None
        return not self._unfinished

    # -- calls (on whatever thread pumps) -----------------------------------------------------------------------------

    def takes(self, caller: bytes, rows: list[batches.Row]) -> None:
        """Hand each call to a thread or to the loop."""
        for row in rows:
            call = (caller, row, object_id(caller, row[0]))
            function = self._functions.get(row[1])
            if function is None:
                function = self._functions.get(row[1].replace(CARRIES, "", 1))
            if function is None:
                self._answer(caller, row, self._refusal(row), 0.0)
                continue
            self._unfinished.add(call[2])
            if inspect.iscoroutinefunction(function):
                loop = self._running_loop()
                loop.call_soon_threadsafe(self._spawn, loop, call)
            else:
                self._crew.put(call, row[1] in self._quick)

    def cancel(self, task_id: bytes) -> None:
        """A coroutine is cancelled; a call that waits is dropped; one on a thread can ask `zmreg.cancelled()`."""
        if task_id in self._unfinished:
            self.cancelled.add(task_id)
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._cancel, task_id)

    def _cancel(self, task_id: bytes) -> None:
        task = self._tasks.get(task_id)
        if task is not None:
            task.cancel()

    def _refusal(self, row: batches.Row) -> execute.Returns:
        return execute.failed_rows(self._unserved(row), "", self._client, nreturns(row))

    def _unserved(self, row: batches.Row) -> execute.Unserved:
        name = str(row[1]).partition("\0")[0]
        return execute.Unserved(f"process {short(self._client.me)} does not serve {name!r} any more")

    def _function(self, row: batches.Row) -> Callable[..., Any]:
        function = self._functions.get(row[1])
        if function is not None:
            return function
        plain = self._functions.get(row[1].replace(CARRIES, "", 1))
        if plain is None:
            raise self._unserved(row)
        from zmreg.services.worker.carrying import NAMED, method_of  # late: few calls carry anything

        def named(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = filled(args, kwargs)  # type: ignore[assignment]
            return plain(*args, **kwargs)

        return method_of(named, NAMED, plain)

    # -- running them -------------------------------------------------------------------------------------------------

    def _on_thread(self, caller: bytes, row: batches.Row, task_id: bytes) -> None:
        arrivals.take()
        start = _perf()
        returns = self._result(caller, row, task_id)
        took = _perf() - start
        (self._quick.add if took < QUICK_S else self._quick.discard)(row[1])
        self._finish(caller, row, task_id, returns, took)

    def _result(self, caller: bytes, row: batches.Row, task_id: bytes) -> execute.Returns:
        client, name = self._client, str(row[1]).partition("\0")[0]
        if task_id in self.cancelled:
            return [execute.CANCELLED_ROW] * max(1, nreturns(row))
        token = running.set((task_id, name, attempt(row)))
        place = -1
        try:
            args, kwargs = filled(*execute.load_arguments(client, self._recent, caller, row))
            place = self._begun.begin(task_id)  # before the look that `stop` may have made the last one
            result = self._function(row)(*args, **kwargs)
            del args, kwargs
            return execute.pack_returns(client, caller, task_id, result, nreturns(row), name)
        except BaseException as error:  # noqa: BLE001  whatever the user's function raised goes to the caller
            return execute.failed_rows(error, name, client, nreturns(row))
        finally:
            self._begun.end(place)
            running.reset(token)

    def _spawn(self, loop: asyncio.AbstractEventLoop, call: Call) -> None:
        caller, row, task_id = call
        # A context of its own: `running` is set for this call alone.
        task = loop.create_task(self._in_loop(*call), context=contextvars.copy_context())
        self._tasks[task_id] = task

        def ended(done: asyncio.Task[None]) -> None:
            del self._tasks[task_id]
            if done.cancelled():  # perhaps before it began
                self._finish(caller, row, task_id, [execute.CANCELLED_ROW] * max(1, nreturns(row)), 0.0)

        task.add_done_callback(ended)

    async def _in_loop(self, caller: bytes, row: batches.Row, task_id: bytes) -> None:
        client, name, start = self._client, str(row[1]).partition("\0")[0], _perf()
        arrivals.take()  # before the first await: meanwhile other calls unpickle refs of theirs on this thread
        refs: execute.Refs = []
        running.set((task_id, name, attempt(row)))
        place = -1
        try:
            args, kwargs = filled(*execute.load_arguments(client, self._recent, caller, row))
            refs = arrivals.take()
            place = self._begun.begin(task_id)  # as above
            result = self._function(row)(*args, **kwargs)
            if isinstance(result, Awaitable):
                result = await result
            del args, kwargs
            returns = execute.pack_returns(client, caller, task_id, result, nreturns(row), name)
            del result
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  as above
            returns = execute.failed_rows(error, name, client, nreturns(row))
        finally:
            self._begun.end(place)
        self._finish(caller, row, task_id, returns, _perf() - start, refs)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="zmreg-serve-loop", daemon=True)
            self._thread.start()
        return self._loop

    # -- answers ------------------------------------------------------------------------------------------------------

    def _finish(
        self, caller: bytes, row: batches.Row, task_id: bytes, returns: execute.Returns, took: float,
        refs: execute.Refs | None = None,
    ) -> None:  # fmt: skip
        self._unfinished.discard(task_id)
        self.cancelled.discard(task_id)
        self._answer(caller, row, returns, took, refs)
        emptied = self._emptied
        if emptied is not None and not self._unfinished:
            emptied.finish()

    def _answer(
        self, caller: bytes, row: batches.Row, returns: execute.Returns, took: float, refs: execute.Refs | None = None
    ) -> None:
        answer = execute.result_row(self._client, caller, row[0], int(took * 1e6), returns, refs)
        if self._client.closed is None:
            self.served += 1
            self._client.send(caller, batches.encode_results([answer]))

    def stop(self) -> None:
        """Begin no more."""
        self._functions.clear()

    def close(self) -> None:
        """Take no more; coroutines are cancelled, threads that run are left to end by themselves."""
        self.stop()
        self.attend(False)
        self._crew.close()
        loop, self._loop = self._loop, None
        if loop is not None and self._thread is not None:

            async def drain() -> None:
                for task in list(self._tasks.values()):
                    task.cancel()
                if self._tasks:
                    await asyncio.wait(list(self._tasks.values()))
                loop.stop()

            loop.call_soon_threadsafe(lambda: loop.create_task(drain()))
            self._thread.join(timeout=2)
            if not self._thread.is_alive():
                loop.close()
