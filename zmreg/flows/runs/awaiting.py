"""A run that an event loop waits for: a thread of its own drives it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zmreg.flows.runs.phase_drive import PhaseDrive
    from zmreg.flows.runs.phases import RunResult


async def driven_aside(drive: PhaseDrive, go: Callable[[PhaseDrive], RunResult]) -> RunResult:
    """What `go(drive)` returns or raises. Cancelled, it has the drive stop and waits for that; once more, and it does
    not wait."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[RunResult] = loop.create_future()

    def settle(result: RunResult | None, error: BaseException | None) -> None:
        if done.done():  # the loop is being closed
            return
        if error is not None:
            done.set_exception(error)
        elif result is not None:
            done.set_result(result)

    def work() -> None:
        result, error = None, None
        try:
            result = go(drive)
        except BaseException as raised:  # noqa: BLE001  it is raised where the run is awaited
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    # Not the loop's own pool: as many runs as there are threads in it would keep everybody else from one.
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name=f"zmreg-run-{drive.run_id}", daemon=True).start()
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        drive.stop("whoever awaited the run was cancelled")
        done.add_done_callback(lambda done: done.cancelled() or done.exception())  # looked at: nobody else will
        await asyncio.wait([done])
        raise
