"""How a worker leaves in peace: what others need of it goes to the node, and everybody hears its last word.

The order keeps every object alive at every moment: first what is under way ends; then the node has all of it, and has
told the owners of what the values contain; then the holds for others are settled; and only then comes the goodbye, by
which others know that nothing of ours is on its way to them any more.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from zmreg.model.messages import Adopt, Borrow, Goodbye, Resolve, Unborrow
from zmreg.net.waiting import Waiter
from zmreg.services.entries import FAILED, INLINE, PENDING, STORED, Entry, Stored

if TYPE_CHECKING:
    from zmreg.services.intake import Intake

# Owners answer a `Borrow` in a millisecond. One that is stopped is not waited for: what we hold for others goes then.
SETTLE_S = 2.0

_STATES = {INLINE: "inline", STORED: "stored", FAILED: "failed"}


def bequeath(worker: Intake) -> None:
    """Leave to the node what others need of ours. What is still under way is waited for: they wait for it too.

    Raises ClusterError when the node is gone.
    """
    sharing = worker.sharing
    with worker.lock:
        worker.answer_now()
        heritage = sharing.heritage()
    worker.on_wait = None
    worker.tell_node(Goodbye())  # users' code is over: from now on the node lets us take our time
    while pending := [entry for entry, _ in heritage if entry.state == PENDING]:
        worker.wait_for(pending, len(pending), False, None)
        with worker.lock:
            heritage = sharing.heritage()
    with worker.lock:
        for kind in (Borrow, Unborrow, Resolve):  # too late for us: they will say it again, to the node
            worker.handlers[kind] = lambda _sender, _message: None
        for entry, loans in sharing.heritage():
            _leave_to_node(worker, entry, loans)
        sharing.turn()
    worker.ask("ping")  # the node must have read all of it before it sees us end
    _await_settled(worker)
    for peer in worker.ends.peers():
        worker.post(peer, Goodbye())


def _leave_to_node(worker: Intake, entry: Entry, loans: dict[bytes, int]) -> None:
    value, state = entry.value, _STATES.get(entry.state)
    if state is None:  # freed already
        return
    data = entry.failure or (value if isinstance(value, bytes) else b"")
    if isinstance(value, Stored):
        value.outbox = None
    for inner in entry.contained:
        if inner.owner != worker.me:
            worker.sharing.hold_for(inner, worker.node)
    contained = tuple(inner.object_id for inner in entry.contained)
    worker.tell_node(
        Adopt(
            entry.object_id, state, data, entry.nbytes, entry.type_name, entry.took_us, contained,
            tuple(loans), tuple(loans.values()), value.holder if isinstance(value, Stored) else b"",
        )
    )  # fmt: skip


def _await_settled(worker: Intake) -> None:
    custody = worker.sharing.custody
    deadline = time.monotonic() + SETTLE_S
    while True:
        changed = Waiter()
        with worker.lock:
            custody.on_change = changed.finish
            left = deadline - time.monotonic()
            if not len(custody) or left <= 0:
                return
        worker.wait(changed, left)
