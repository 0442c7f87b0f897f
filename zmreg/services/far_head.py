"""What a node that is not the head has in its place: it passes on what is said about actors, and hosts them."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

from zmreg.model.messages import (
    ActorExiting,
    ActorInputs,
    Ask,
    Constructed,
    CreateActor,
    KillActor,
    Message,
    ReleaseActor,
    WatchActor,
)
from zmreg.wire import codec

if TYPE_CHECKING:
    from zmreg.services.node import Node

_FOR_THE_HEAD = (
    CreateActor, ActorInputs, Constructed, WatchActor, KillActor, ReleaseActor, ActorExiting, Ask
)  # fmt: skip


class FarHead:
    """Has the methods of `Head` that a node calls."""

    def __init__(self, node: Node, head: bytes) -> None:
        self._node = node
        self.head = head

    def hears(self, sender: bytes, message: Message) -> bool:
        """Pass on what is for the head, in the name of whoever said it; False when it is something else."""
        if not isinstance(message, _FOR_THE_HEAD):
            return False
        self._node.ends.far(self.head, sender, codec.encode(message))
        return True

    def release(self, object_id: bytes) -> None:
        """Nobody holds this object any more; if it was the lifeline of an actor, the head knows."""
        self._node.post(self.head, ReleaseActor(object_id))

    def process_died(self, process: bytes, reason: str, adopted: Container[bytes]) -> None:
        """The head hears it from the node of that process."""

    def node_gone(self, node: bytes, reason: str) -> None:
        """The head has said so itself."""

    def tick(self, now: float) -> None:
        """Nothing is kept here."""
