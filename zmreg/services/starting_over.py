"""One call to a clean cluster, as its driver sees it: nothing that was under way goes on, and then nobody is left of
those who did it."""

from __future__ import annotations

from zmreg.model.errors import TaskCancelledError
from zmreg.model.ids import object_id
from zmreg.services.calls import describe
from zmreg.services.client import Client
from zmreg.services.intake import Intake
from zmreg.services.pools import Pool
from zmreg.services.tasks import Tasks

_REASON = "the cluster was restarted"


def restart(seat: Client, timeout: float) -> None:
    """End every actor and every worker of the cluster; returns when they are gone. See `zmreg.restart`."""
    if isinstance(seat, Intake):
        raise RuntimeError("zmreg.restart() works only in a driver: it would end the very task that calls it")
    with seat.shield(), seat.lock:
        seat.check()
        abandon(seat.tasks)
    seat.ask("restart", timeout=timeout)


def abandon(tasks: Tasks) -> None:
    """Every call under way is cancelled; nothing is wanted, sent or expected any more. Under the lock.

    What has been sent comes to nothing with its worker, and what is answered before that, is answered too late.
    """
    for pool in tasks.pools.values():
        pool.abandon()
    for peer in tasks.peers.values():
        peer.abandon()
    for worker in [worker for worker, lane in tasks.lanes.items() if isinstance(lane.home, Pool)]:
        del tasks.lanes[worker]
    me = tasks.wires.me
    for task in list(tasks.live.values()):
        text = f"{describe(task, me)} was cancelled: {_REASON}"
        tasks.fail(task, TaskCancelledError(text, task_id=object_id(me, task.counter).hex()))
