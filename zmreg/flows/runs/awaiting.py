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

    def work() -> None:
        try:
            tell, what = done.set_result, go(drive)
        except BaseException as error:  # noqa: BLE001  it is raised where the run is awaited
            tell, what = done.set_exception, error  # type: ignore[assignment]
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, done, tell, what)

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


def _settle(done: asyncio.Future[RunResult], tell: Callable[[object], None], what: object) -> None:
    if not done.done():  # else the loop was being closed
        tell(what)
