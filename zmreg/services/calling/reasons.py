"""Why a call of this process is where it is: what it waits for, and whom to ask next."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from zmreg.model.ids import counter_of, node_of, object_id, owner_of, short
from zmreg.model.specs import ENV
from zmreg.services.calling.calls import Task, pending_inputs
from zmreg.services.calling.history import facts_of, info, living, story
from zmreg.services.calling.peers import Peer
from zmreg.services.calling.pools import Pool
from zmreg.services.seat.entries import PENDING, Entry

if TYPE_CHECKING:
    from zmreg.services.seat.station import Station

# Of what a call waits for, so many are named.
_MOST: Final = 8
# Of the calls that live, so many are looked at for those that have not left.
_LOOKED: Final = 10_000


def number_of(seat: Station, key: str) -> int | None:
    """The number of our value or call that `key` means: an id in hex, or its last digits as people are shown them.
    None when it is none of ours. Not under the client's lock: it may take long."""
    if len(key) == 32:
        any_id = bytes.fromhex(key)
        return counter_of(any_id) if owner_of(any_id) == seat.me else None
    with seat.lock:
        live, past = list(seat.tasks.live), seat.past.copy()
    found = _ending(seat, key, live)
    return found if found is not None else _ending(seat, key, facts_of(past).latest)


def _ending(seat: Station, key: str, numbers: Collection[int]) -> int | None:
    """The latest one that is shown so."""
    return next((each for each in reversed(list(numbers)) if object_id(seat.me, each).hex().endswith(key)), None)


def reason(seat: Station, counter: int) -> dict[str, Any] | None:
    """Plain: `Info` as in history.py, `Story`, `Text`, `Next` (ids in hex of what it waits for), `Needs` (amounts that
    no worker was lent for yet). None when there is nothing to be told. May take long: not under the client's lock."""
    found = info(seat, counter)
    if found is None:
        return None
    row: dict[str, Any] = {"Info": found, "Story": story(seat, found), "Next": [], "Needs": {}, "Text": ""}
    if found["Completed"] is not None:
        row["Text"] = f"is {found['State']}" + (f": {found['Error']}" if found["Error"] else "")
        return row
    with seat.lock:
        task = seat.tasks.live.get(int(found["TaskID"][16:], 16))
        if task is not None:
            return row | _waits(seat, task)
    return reason(seat, counter)  # it has ended meanwhile


def queued(seat: Station, most: int) -> dict[str, Any]:
    """Plain: `UnderWay`, how many calls of ours are not over; `Rows`, the `most` oldest of these that no worker was
    sent yet, as `info` in history.py with the `Text` of why; `Sent`, {id (hex): function} of others; `Pending`, {actor
    (hex): how many of our calls it has not answered}; `most` of each. Takes the client's lock for what is short."""
    with seat.lock:
        tasks = list(seat.tasks.live.values())
        backlogs = ((peer.actor_id.hex(), peer.backlog()) for peer in list(seat.tasks.peers.values()))
        pending = dict(islice((each for each in backlogs if each[1]), most))
    rows: list[dict[str, Any]] = []
    sent: dict[str, str] = {}
    for task in tasks[:_LOOKED]:
        lane = task.lane
        if lane is not None and task.counter in lane.outstanding:
            if len(sent) < most:
                sent[object_id(seat.me, task.counter).hex()] = task.template.name
            continue
        with seat.lock:
            if seat.tasks.live.get(task.counter) is task:
                rows.append({**living(seat, task, time.monotonic()), "Text": _waits(seat, task)["Text"]})
        if len(rows) >= most:
            break
    return {"UnderWay": len(tasks), "Rows": rows, "Sent": sent, "Pending": pending}


def _waits(seat: Station, task: Task) -> dict[str, Any]:
    lane, home = task.lane, task.peer
    told = "was cancelled, and " if task.cancelled else ""
    if lane is not None and task.counter in lane.outstanding:
        before = list(lane.outstanding).index(task.counter)
        ahead = f", behind {before} other calls of {short(seat.me)}" if before else ""
        where = f"worker {lane.worker.hex()} of node {node_of(lane.worker).hex()}"
        sent = "is to leave with others for" if any(row[0] == task.counter for row in lane.buffer) else "was sent to"
        return {"Text": f"{told}{sent} {where}{ahead}"}
    if lane is not None:
        first = [entry.object_id.hex() for entry in pending_inputs(task)]
        return {
            "Text": f"{told}waits to be sent behind its inputs to worker {lane.worker.hex()}",
            "Next": first[:_MOST],
        }
    if pending := pending_inputs(task):
        return {"Text": told + _inputs_text(pending), "Next": [entry.object_id.hex() for entry in pending[:_MOST]]}
    if isinstance(home, Peer):
        return _at_actor(home, task, told)
    if isinstance(home, Pool) and task in home.queue:
        return _in_pool(home, task, told)
    return {"Text": f"{told}rests before it is tried again"}


def _inputs_text(pending: Sequence[Entry]) -> str:
    names = []
    for entry in pending[:_MOST]:
        maker = f", made by {entry.task.template.name}" if entry.task is not None else ""
        names.append(f"{short(entry.object_id)} of {entry.owner.hex()}{maker}")
    more = f" and {len(pending) - _MOST} others" if len(pending) > _MOST else ""
    return f"has not begun: it waits for {'; '.join(names)}{more}"


def _in_pool(pool: Pool, task: Task, told: str) -> dict[str, Any]:
    before, shape = pool.queue.index(task), pool.shape
    terms = dict(shape.terms)
    terms.pop(ENV, None)  # of the whole program: nobody has asked for it with this call
    needs = shape.with_strategy("").but(terms=tuple(terms.items()))
    lent = f"{len(pool.lanes)} workers are lent" if pool.lanes else "no worker is lent yet"
    behind = f", and {before} calls like it wait before it" if before else ""
    text = f"{told}has not begun: it needs {needs}, for which {lent}{behind}"
    return {"Text": text, "Needs": shape.to_floats(), "Locs": list(shape.locs)}


def _at_actor(peer: Peer, task: Task, told: str) -> dict[str, Any]:
    who = f"actor {peer.class_name} {peer.actor_id.hex()[-8:]}"
    before = peer.queue.index(task) if task in peer.queue else 0
    first = peer.queue[0] if before else task
    behind = f", behind {before} calls of this process" if before else ""
    held = [entry for entry in first.inputs() if entry.state == PENDING]
    if peer.lane is not None and held:
        return {
            "Text": f"{told}waits for {who}{behind}, of which {_inputs_text(held)}",
            "Next": [held[0].object_id.hex()],
        }
    if peer.lane is not None:
        return {
            "Text": f"{told}waits for {who}{behind}: {peer.backlog()} calls are with it, which is as many as it is sent"
        }
    return {"Text": f"{told}waits for {who}{behind}, which is {peer.state} (restarts so far: {peer.restarts})"}
