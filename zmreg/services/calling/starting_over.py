"""One call to a clean cluster, as its driver sees it: nothing that was under way goes on, and then nobody is left of
those who did it."""

from __future__ import annotations

from zmreg.model.errors import TaskCancelledError
from zmreg.model.ids import node_of, object_id
from zmreg.model.messages import FreeObjects
from zmreg.services.calling.calls import describe
from zmreg.services.calling.pools import Pool
from zmreg.services.calling.tasks import Tasks
from zmreg.services.seat.client import Client
from zmreg.services.seat.entries import PENDING
from zmreg.services.worker.intake import Intake

_REASON = "the cluster was restarted"
# Of 17 bytes each in one message.
_FREED_AT_ONCE = 10_000


def restart(seat: Client, timeout: float) -> None:
    """End every actor and every worker of the cluster; returns when they are gone. See `zmreg.restart`."""
    if isinstance(seat, Intake):
        raise RuntimeError("zmreg.restart() works only in a driver: it would end the very task that calls it")
    with seat.shield(), seat.lock:
        seat.check()
        unclaimed = sent(seat.tasks)
        abandon(seat.tasks)
    seat.ask("restart", timeout=timeout)
    with seat.shield(), seat.lock:
        for node, ids in unclaimed.items():
            for start in range(0, len(ids), _FREED_AT_ONCE):
                seat.post(node, FreeObjects(tuple(ids[start : start + _FREED_AT_ONCE])))


def sent(tasks: Tasks) -> dict[bytes, list[bytes]]:
    """By node, what the workers there may store before they end, and nobody will ever ask for. Under the lock."""
    found: dict[bytes, list[bytes]] = {}
    for worker, lane in tasks.lanes.items():
        entries = [entry for task in lane.outstanding.values() for entry in task.entries if entry.state == PENDING]
        if entries:
            found.setdefault(node_of(worker), []).extend(entry.object_id for entry in entries)
    return found


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
