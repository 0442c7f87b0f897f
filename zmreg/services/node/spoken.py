"""The way of what workers print: from their node to whoever called what has printed, and on to the program behind.

A node reads its workers' logs. What a call has printed goes to that call's owner; when that is a worker, because the
call was made in a task, the worker passes it on to the owner of that task, and so on, until it is a driver, which knows
in which of its own calls all this began. Nobody else gets it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING, Final

from zmreg.model.ids import counter_of, is_driver, node_of, owner_of
from zmreg.model.messages import LogLines

if TYPE_CHECKING:
    from zmreg.services.node.node import Node
    from zmreg.services.node.printed import Output
    from zmreg.services.seat.station import Station

# Changes of the task that makes calls, remembered by a worker: those of the last seconds are asked for.
_CHANGES: Final = 4_096
# Dead workers whose calls may still have something to say: logs are read five times a second.
_FORMER: Final = 1_000


class Ancestry:
    """In which tasks a worker has made its calls: numbers only grow, so the changes are enough."""

    __slots__ = ("_first", "_parents", "latest")

    def __init__(self) -> None:
        self._first: deque[int] = deque(maxlen=_CHANGES)
        self._parents: deque[bytes] = deque(maxlen=_CHANGES)
        self.latest: bytes | None = None

    def note(self, counter: int, parent: bytes | None) -> None:
        """From this call on, `parent` makes them."""
        self.latest = parent
        if parent is not None:
            self._first.append(counter)
            self._parents.append(parent)

    def of(self, counter: int) -> bytes:
        """The task that has made this call; the latest one for 0; empty when that is not known any more."""
        if not self._first:
            return b""
        place = bisect_right(self._first, counter) if counter else len(self._first)
        return self._parents[place - 1] if place else b""


def tell(node: Node, name: str, pid: int, output: Output) -> bool:
    """Send what a worker of this node has printed to the owner of the call; what is nobody's, to all drivers here.

    Returns whether that is a worker, which passes it on.
    """
    if not node.settings.log_to_driver or not (output.text or output.skipped):
        return False
    owner = owner_of(output.task) if output.task else node.leases.holder(output.worker)
    source = f"{output.label or name} pid={pid}"
    task = output.task
    if owner in node.nursery.former:
        owner, task = node.nursery.former[owner], b""
        if not owner:
            return False
    if owner and owner != node.me:
        if node_of(owner) != node.me:
            source += f" node={node.me.hex()[:8]}"
        node.post(owner, LogLines(source, output.text, output.skipped, task))
        return not is_driver(owner)
    for client, hello in node.clients.items():
        if hello.role == "driver":
            node.post(client, LogLines(source, output.text, output.skipped, b""))
    return False


def remember(node: Node, worker: bytes) -> None:
    """It is dead, and its lease about to end. A worker serves one program for life, so its holder is that, or serves
    it, too."""
    former = node.nursery.former
    former[worker] = node.leases.holder(worker)
    if len(former) > _FORMER:
        del former[next(iter(former))]


def pass_on_for_dead(node: Node, message: LogLines) -> None:
    """What a call of a dead worker of ours has printed on another node."""
    holder = node.nursery.former.get(owner_of(message.task)) if message.task else None
    if holder:
        node.post(holder, LogLines(message.source, message.text, message.skipped, b""))


def pass_on(seat: Station, _sender: bytes, message: LogLines) -> None:
    """A worker hears what its calls have printed, or calls of theirs: its own task's owner wants to know."""
    parent = seat.ancestry.of(counter_of(message.task) if message.task else 0)
    if parent:
        seat.post(owner_of(parent), LogLines(message.source, message.text, message.skipped, parent))
