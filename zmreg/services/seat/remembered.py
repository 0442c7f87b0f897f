"""What a process tells about calls: those that it has made, and those that it runs; asking.py asks for it.

On a thread of its own, like all that a process tells about itself.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from zmreg.model.ids import counter_of, owner_of
from zmreg.model.look_messages import Look, Looked
from zmreg.services.calling.history import latest_facts
from zmreg.services.calling.reasons import number_of, queued, reason
from zmreg.services.machine import stacks
from zmreg.services.seat.asking import CALLS, QUEUED, WHY
from zmreg.services.seat.entries import PENDING
from zmreg.telemetry.facts import told
from zmreg.wire import batches

if TYPE_CHECKING:
    from zmreg.services.seat.station import Station

_PACKAGE: Final = str(Path(__file__).parents[2])


def tell(seat: Station, message: Look) -> bool:
    """Answer our node, if it asks for calls; False when it asks for something else."""
    topic, _, key = message.what.partition(" ")
    if topic not in (CALLS, WHY, QUEUED):
        return False
    args = (seat, message.request, topic, key)
    threading.Thread(target=_answer, args=args, name="zmreg-look", daemon=True).start()
    return True


def _answer(seat: Station, request: int, topic: str, key: str) -> None:
    with seat.lock:
        if seat.closed is not None:
            return
        past = seat.past.copy()
        runs = _runs(seat, bytes.fromhex(key)) if topic == WHY and len(key) == 32 else None
    found: Any
    if topic == CALLS:
        found = told(latest_facts(past, int(key)).each, time.monotonic(), int(key))
    elif topic == QUEUED:
        found = queued(seat, int(key))
    else:
        number = number_of(seat, key)
        found = {"Made": None if number is None else reason(seat, number), "Runs": runs}
    body = batches.pack_plain(found)
    with seat.lock:
        if seat.closed is None:
            seat.tell_node(Looked(request, body))


def _runs(seat: Station, task_id: bytes) -> dict[str, Any] | None:
    """How a call of another process is with us; None when it is not here. Under the lock."""
    from zmreg.services.worker.intake import Intake  # late: programs run no calls

    if not isinstance(seat, Intake):
        return None
    executing, caller, counter = seat.signals.executing, owner_of(task_id), counter_of(task_id)
    queued = [item for item in list(seat.inbox) if item[0] == caller and item[1][0] == counter]
    if executing == task_id:
        pending = [entry for entry in seat.needed if entry.state == PENDING]
        if pending:
            text = f"runs there, and waits for {len(pending)} objects, the first of them {pending[0].object_id.hex()}"
            return {"Text": text, "Next": [entry.object_id.hex() for entry in pending[:8]], "Frames": _frames()}
        frames = _frames()
        waits = "waits there in get() or wait(), with a timeout" if seat.blocked else "runs there"
        place = f", at {frames[0][2]} {frames[0][0]}:{frames[0][1]}" if frames else ""
        return {"Text": waits + place, "Next": [], "Frames": frames}
    if queued:
        before = list(seat.inbox).index(queued[0])
        running = f"; the worker is in task {executing.hex()}" if executing else ""
        return {"Text": f"is queued there, behind {before}{running}", "Next": [executing.hex()] if executing else []}
    if seat.host is not None and seat.host.holds(task_id):
        return {"Text": "is with the actor, which runs several calls at a time", "Next": []}
    return None


def _frames() -> list[list[Any]]:
    """Where the main thread is: the frames outside of this package, the innermost first."""
    _, frames = stacks.of_this_process()[0]
    return [frame for frame in frames if not frame[0].startswith(_PACKAGE)]
