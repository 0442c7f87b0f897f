"""Nodes that have left in peace, and who answers for what they owned.

What a process says to an owner that has left reaches the heir by its own node, which redirects it: words that come too
late for the one who left, and words to processes that somebody hears of for the first time. So nobody else has to keep
account of who inherited from whom. When an heir dies, those for whom it answered are as good as dead themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zmreg.core.nodes import NodeState
from zmreg.model.ask_messages import WhoseCalls
from zmreg.model.errors import ProtocolError
from zmreg.model.ids import node_of
from zmreg.model.messages import Adopt, Passed
from zmreg.services.node.adoption import OwnersMail
from zmreg.services.node.spoken import answer_for_dead
from zmreg.wire import codec

if TYPE_CHECKING:
    from zmreg.services.node.node import Node

# 16 bytes each. Refs of a node that left so many nodes ago are lost.
_KEPT: Final = 10_000


class Heirs:
    """As one node knows them."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._of: dict[bytes, bytes] = {}

    def leaves(self, gone: bytes, heir: bytes) -> None:
        """`gone` has left in peace, and has left what it owned to `heir`."""
        if heir:
            self._of[gone] = heir
            if len(self._of) > _KEPT:
                del self._of[next(iter(self._of))]

    def of(self, gone: bytes) -> bytes:
        """Who answers for it now; empty for nobody: it died, or its heir did."""
        heir = self._of.get(gone, b"")
        while heir in self._of:  # has left as well
            heir = self._of[heir]
        neighbours = self._node.neighbours
        if not heir or neighbours is None or neighbours.members.state(heir) is NodeState.DEAD:
            return b""
        return heir

    def orphaned(self, heir: bytes) -> list[bytes]:
        """`heir` is dead: the nodes for which it answered, at first or second hand."""
        found = []
        for gone, last in self._of.items():
            while last in self._of:
                last = self._of[last]
            if last == heir:
                found.append(gone)
        return found

    def all(self) -> dict[bytes, bytes]:
        """{node that has left: who answers for it}, for a node that comes later."""
        return {gone: self.of(gone) for gone in self._of}

    def redirect(self, destination: bytes, origin: bytes, frame: bytes) -> bool:
        """What `origin`, a process of ours, says to an owner on a node that has left: to its heir. False: no such."""
        heir = self.of(node_of(destination))
        if not heir:
            return False
        try:
            message = codec.decode(frame)
        except ProtocolError:  # calls and results
            return False
        if not isinstance(message, OwnersMail | Adopt | Passed):
            return False
        if heir == self._node.me:
            self._node.take(origin, frame)
        else:
            self._node.ends.far(heir, origin, frame)
        return True


def stand_in(node: Node, origin: bytes, frame: bytes) -> None:
    """`origin` has said this to a process of ours, or of a node that left, that is gone: what was for an owner, we
    answer. Calls and results are dropped, as their senders are told of the death."""
    try:
        message = codec.decode(frame)
    except ProtocolError:
        return
    if isinstance(message, OwnersMail):
        node.adoption.on_message(origin, message)
    elif isinstance(message, Adopt):
        node.adoption.adopt(origin, message)
    elif isinstance(message, WhoseCalls):
        answer_for_dead(node, origin, message)
