"""What a worker knows about the call that runs; the api's runtime context reads it here."""

from __future__ import annotations

import threading
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from zmreg.services.machine import accelerators
from zmreg.services.seat.client import current
from zmreg.services.seat.running import running

if TYPE_CHECKING:
    from zmreg.services.worker.hosting import SyncHost
    from zmreg.services.worker.intake import Intake

T = TypeVar("T")


def running_task() -> tuple[bytes, str, int] | None:
    """(task id, name, attempt) of the call that this thread or coroutine runs."""
    return running.get()


def hosted() -> SyncHost | None:
    """The actor that this process is."""
    host: SyncHost | None = getattr(current(), "host", None)  # a driver's seat has none
    return host


def devices() -> list[str]:
    """Ids of the GPUs of what runs here: a worker was told; elsewhere what the environment names."""
    told: tuple[str, ...] | None = getattr(current(), "devices", None)
    return list(accelerators.visible() or () if told is None else told)


def is_cancelled() -> bool:
    """Whether the running call was cancelled. RuntimeError in a driver and in an async actor."""
    task = running.get()
    task_id = task[0] if task is not None else getattr(current(), "parent", None)  # a thread that the task started
    if task_id is None:
        raise RuntimeError("only a running task or actor call can be cancelled; this is neither")
    host = hosted()
    if host is not None and host.is_async:
        raise RuntimeError("an async actor's calls are cancelled by asyncio.CancelledError; there is nothing to ask")
    seat = current()
    if seat is not None and seat.desk is not None:
        return task_id in seat.desk.cancelled
    worker: Intake = seat  # type: ignore[assignment]  # who runs a call is a worker
    if task_id not in worker.cancelled:
        return False
    worker.graces.saw(task_id)
    return True


def interrupt_own_call() -> None:
    """From any thread of a worker: KeyboardInterrupt for the call on its main thread, also in an actor."""
    worker: Intake = current()  # type: ignore[assignment]  # who runs a call is a worker
    with worker.lock:
        worker.signals.interrupt()


def end_actor() -> None:
    """Unwind out of the running method and end the actor. RuntimeError when this is none."""
    host = hosted()
    if host is None:
        raise RuntimeError("exit_actor() works only inside an actor's method")
    host.end_now()
    if running.get() is None and threading.get_ident() != host.worker.pump.main:
        raise SystemExit  # a thread of the user's own: it ends without a word, and the actor behind it
    from zmreg.services.worker.execute import ActorExit  # late: a driver never gets here

    raise ActorExit


async def without_place(awaitable: Awaitable[T]) -> T:
    """Await, and let other calls of this async actor have the running one's place meanwhile."""
    host = hosted()
    if host is None or not host.is_async:
        return await awaitable
    from zmreg.services.worker.letting_go import released  # late: asyncio is only for those who use it

    return await released(host, awaitable)  # type: ignore[arg-type]  # an AsyncHost
