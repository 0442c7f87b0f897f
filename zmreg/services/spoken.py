"""The way of what workers print: from their node to whoever called what has printed, and on to the program behind.

A node reads its workers' logs. What a call has printed goes to that call's owner; when that is a worker, because the
call was made in a task, the worker passes it on to the owner of that task, and so on, until it is a driver, which knows
in which of its own calls all this began. Nobody else gets it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING, Final

from zmreg.model.ids import counter_of, node_of, owner_of
from zmreg.model.messages import LogLines

if TYPE_CHECKING:
    from zmreg.services.node import Node
    from zmreg.services.printed import Output
    from zmreg.services.station import Station

# Changes of the task that makes calls, remembered by a worker: those of the last seconds are asked for.
_CHANGES: Final = 4_096


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


def tell(node: Node, name: str, pid: int, output: Output) -> None:
    """Send what a worker of this node has printed to the owner of the call; what is nobody's, to all drivers here."""
    if not node.settings.log_to_driver or not (output.text or output.skipped):
        return
    owner = owner_of(output.task) if output.task else node.leases.holder(output.worker)
    source = f"{output.label or name} pid={pid}"
    if owner and owner != node.me:
        if node_of(owner) != node.me:
            source += f" node={node.me.hex()[:8]}"
        node.post(owner, LogLines(source, output.text, output.skipped, output.task))
        return
    for client, hello in node.clients.items():
        if hello.role == "driver":
            node.post(client, LogLines(source, output.text, output.skipped, b""))


def pass_on(seat: Station, message: LogLines) -> None:
    """A worker hears what its calls have printed, or calls of theirs: its own task's owner wants to know."""
    parent = seat.ancestry.of(counter_of(message.task) if message.task else 0)
    if parent:
        seat.post(owner_of(parent), LogLines(message.source, message.text, message.skipped, parent))
