"""The inputs of an actor's constructor, on the worker that is to be the actor: one that is lost is asked for again.

A task whose input is lost goes back to its owner, unbegun. An actor was placed by the head and stays: so its worker
says to the owner of that input what any borrower says (`Lost`), waits while it is made again, and goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zmreg.model.messages import Construct
from zmreg.services.seat.entries import FAILED, INLINE, PENDING, STORED, Entry, Stored
from zmreg.services.worker import execute
from zmreg.wire import batches, payload

if TYPE_CHECKING:
    from zmreg.services.worker.worker import Worker


def constructor_arguments(
    worker: Worker, construct: Construct, name: str, deps: list[Any]
) -> tuple[Sequence[Any], dict[str, Any]]:
    """(args, kwargs). Raises the error of an input that failed, or is lost and cannot be made again."""
    owner = construct.actor_id[:8]
    again: dict[bytes, Entry] = {}
    while True:
        try:
            return execute.load_arguments(worker, worker.recent, owner, [0, name, construct.payload, 1, 0, 0, deps])
        except execute.InputLost as lost:
            deps = [_once_more(worker, dep, lost, again) if dep[2] == lost.object_id else dep for dep in deps]


def _once_more(worker: Worker, dep: Any, lost: execute.InputLost, again: dict[bytes, Entry]) -> list[Any]:
    """The row of an input when its owner has answered. `again` holds the entries while they are asked for, and with
    them how often an owner has contradicted. Raises ObjectLostError, or whatever has kept it from being made."""
    where, _, object_id, nbytes, holder = dep
    with worker.lock:
        entry = again.setdefault(object_id, worker.sharing.entry_for(object_id))
        if entry.state == PENDING and not getattr(entry, "asked", True):
            entry.state, entry.value = STORED, Stored(object_id, nbytes, holder, None)
        if isinstance(stored := entry.value, Stored):
            worker.recovery.missed(entry, stored, lost.error)
    worker.settled(entry, None)
    if entry.state == INLINE:
        return [where, batches.INLINE, entry.value, 0]
    if entry.state == STORED and isinstance(stored := entry.value, Stored):
        return [where, batches.STORED, object_id, stored.nbytes, stored.holder]
    if entry.state >= FAILED and entry.failure is not None:
        raise payload.unpack_failure(entry.failure)
    if entry.state == PENDING:  # lost once more
        return list(dep)
    raise lost.error
