"""What a process answers when its node asks it to sample its stacks for a program (profiling.py is that program)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from zmreg.model.look_messages import Look, Looked
from zmreg.services.machine.sampling import sampled
from zmreg.wire import batches

if TYPE_CHECKING:
    from zmreg.services.seat.station import Station


def tell(seat: Station, message: Look) -> None:
    """Answer our node, on a thread: a tree of calls takes some milliseconds to pack."""
    threading.Thread(target=_answer, args=(seat, message), name="zmreg-look", daemon=True).start()


def _answer(seat: Station, message: Look) -> None:
    from zmreg.services.worker.intake import Intake  # late: programs run no calls

    _, token, interval_us, asker = message.what.split(" ")
    # Of programs the one that asks: what the others do is nobody's business.
    found = sampled(token, int(interval_us)) if isinstance(seat, Intake) or seat.me.hex() == asker else None
    body = batches.pack_plain(found or {})
    with seat.lock:
        if seat.closed is None:
            seat.tell_node(Looked(message.request, body))
