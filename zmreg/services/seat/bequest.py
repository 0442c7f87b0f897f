"""How a worker or a driver leaves in peace: what others need of it goes to the node, and all hear its last word.

The order keeps every object alive at every moment: first what is under way ends; then the node has all of it, and has
told the owners of what the values contain; then the holds for others are settled; and only then comes the goodbye, by
which others know that nothing of ours is on its way to them any more.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from zmreg.model.errors import TaskCancelledError
from zmreg.model.messages import Adopt, Borrow, Goodbye, KillActor, Resolve, Unborrow
from zmreg.net.waiting import Waiter
from zmreg.services.calling.calls import describe
from zmreg.services.seat.entries import FAILED, INLINE, PENDING, STORED, Entry, Stored

if TYPE_CHECKING:
    from zmreg.services.seat.client import Client
    from zmreg.services.worker.intake import Intake

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
    _give_all(worker)
    worker.ask("ping")  # the node must have read all of it before it sees us end
    _await_settled(worker, time.monotonic() + SETTLE_S)
    for peer in worker.ends.peers():
        worker.post(peer, Goodbye())


def bequeath_as_driver(driver: Client) -> None:
    """The same for a program that ends, or leaves the cluster: nothing is waited for but the node and owners of what is
    handed on, for `SETTLE_S` in all. What others wait for, and is not there, fails for them.

    Raises ClusterError when the node is gone. Its own goodbye, which is the last word, is not said here.
    """
    deadline = time.monotonic() + SETTLE_S
    with driver.shield(), driver.lock:
        driver.check()
        heritage = driver.sharing.heritage()
        for entry, _ in heritage:
            if entry.state == PENDING and entry.task is not None:
                text = f"{describe(entry.task, driver.me)} was cancelled: the program that had submitted it left"
                driver.tasks.fail(entry.task, TaskCancelledError(text, task_id=entry.object_id.hex()))
        _give_all(driver)
        if not heritage and not len(driver.sharing.custody):
            return
    driver.ask("ping", timeout=SETTLE_S)
    _await_settled(driver, deadline)
    for peer in driver.ends.peers():
        if peer != driver.node:
            driver.post(peer, Goodbye())


def _give_all(client: Client) -> None:
    with client.lock:
        for kind in (Borrow, Unborrow, Resolve):  # too late for us: they will say it again, to the node
            client.handlers[kind] = lambda _sender, _message: None
        heritage = client.sharing.heritage()
        for entry, loans in heritage:
            _leave_to_node(client, entry, loans)
        needed = {entry.object_id for entry, _ in heritage} | {entry.object_id for entry in client.detached}
        for lifeline in client.sharing.lifelines():
            if lifeline.object_id not in needed:  # the head cannot know that nobody else has a handle
                client.tell_node(KillActor(lifeline.object_id, True))
        client.sharing.turn()


def _leave_to_node(worker: Client, entry: Entry, loans: dict[bytes, int]) -> None:
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


def _await_settled(worker: Client, deadline: float) -> None:
    custody = worker.sharing.custody
    while True:
        changed = Waiter()
        with worker.lock:
            custody.on_change = changed.finish
            left = deadline - time.monotonic()
            if not len(custody) or left <= 0:
                return
        worker.wait(changed, left)
