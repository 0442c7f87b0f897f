"""A worker that is a thread of a process that has others: the real one, but for how it is born, interrupted, killed."""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zmreg.model.errors import ClusterError
from zmreg.model.ids import ProcessId
from zmreg.services.seat.bequest import bequeath
from zmreg.services.worker import threads
from zmreg.services.worker.execute import CANCELLED_ROW, Returns
from zmreg.services.worker.hosting_threads import ThreadHost
from zmreg.services.worker.threads import Killed, ThreadInterrupts
from zmreg.services.worker.worker import Callee, Worker, exit_code_of
from zmreg.wire import batches

CONNECT_S = 30.0
COROUTINES_S = 1.0
_stubborn: list[Any] = []
"""Coroutines that did not let themselves be cancelled: not even finalizers are to run in them."""


class ThreadWorker(Worker):
    """One worker. `gone(status)` is called once, when it has ended, with what waitpid would say. Its `ends_kind` can be
    `cut`: nothing goes out any more then."""

    signals_kind = ThreadInterrupts

    def __init__(self, session: Path, me: ProcessId, node: ProcessId, gone: Callable[[int], None]) -> None:
        super().__init__(session, me, node)
        assert isinstance(self.signals, ThreadInterrupts)
        self.signals.loop = lambda: self.looping._loop
        self._gone = gone
        self._guard = threading.Lock()
        self.dead = False

    def live(self) -> None:
        """From its birth to its end, on this thread."""
        status = 0
        try:
            self.connect("worker", CONNECT_S)
            self.run()
            if not self.dead:
                self.leave()
        except Killed:
            pass
        except SystemExit as error:
            if not self.dead:
                status = exit_code_of(error) << 8
                self.answer_now()
        except ClusterError:  # the node ended before this had begun
            status = 1 << 8
        except Exception:  # noqa: BLE001  a process would end by it
            traceback.print_exc()
            status = 1 << 8
        for _ in range(3):  # it may be hit once more, on its way out
            with contextlib.suppress(Killed, KeyboardInterrupt):
                threads.spare()
                break
        self._end(status)

    def run(self) -> None:
        """Work until told to end. An interrupt that came too late for its call is for nobody."""
        while True:
            try:
                super().run()
            except KeyboardInterrupt:
                continue
            return

    def _run(
        self, callee: Callee, caller: bytes, row: batches.Row, task_id: bytes
    ) -> tuple[float, Returns | bytes | None]:
        try:
            return super()._run(callee, caller, row, task_id)
        except KeyboardInterrupt:  # it hit what follows the call, which has no result then
            return 0.0, [CANCELLED_ROW] * max(1, row[3] if len(row) > 3 else 1)
        finally:
            self.signals.executing = b""

    def leave(self) -> None:
        """End in peace. What users' code has registered with atexit is the process's, and runs at its end."""
        if self.host is not None:
            self.host.finish()
        if not self.heirless:
            with contextlib.suppress(ClusterError):
                bequeath(self)
        self.close(None)

    def die(self, status: int) -> None:
        """As by a signal, or by os._exit: from any thread, its own too, whose caller then raises Killed."""
        with self._guard:
            if self.dead:
                return
            self.dead = self.retired = self.ending = True
        self.ends.cut()  # type: ignore[attr-defined]
        self._gone(status)
        with self.lock:
            self._end_waits(ClusterError("this worker was killed"))
        self.pump.stop()
        if self.host is not None:
            with contextlib.suppress(RuntimeError):  # its event loop is closed
                self.host.end_now()
        self.idle.finish()
        threads.end_all(self)

    def _end(self, status: int) -> None:
        with self._guard:
            dead, self.dead = self.dead, True
        threads.end_all(self)
        if isinstance(self.host, ThreadHost):
            self.host.end_threads()
        _close(self.looping._loop)
        if not self._left:
            self._left = True
            with self.lock:
                self._end_waits(self.closed or ClusterError("this worker has ended"))
            if self.desk is not None:
                self.desk.close()
            self.pump.stop()
            self.callbacks.close()
            self.ends.close(not dead)
            self.shelf.close()
        if not dead:
            self._gone(status)


def _close(loop: Any) -> None:
    """A process would take its coroutines along; here they are cancelled, and may take a second for it."""
    if loop is None:
        return
    import asyncio  # late: there is a loop, and so it is there

    if left := asyncio.all_tasks(loop):
        for task in left:
            task.cancel()
        _, stubborn = loop.run_until_complete(asyncio.wait(left, timeout=COROUTINES_S))
        for task in stubborn:
            task._log_destroy_pending = False
        _stubborn.extend(stubborn)
    loop.close()
    asyncio.set_event_loop(None)
