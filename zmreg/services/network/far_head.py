"""What a node that is not the head has in its place: it passes on what is said about actors, and hosts them.

What has to survive the head goes in numbered words (`ForHead`), which are kept here until the head has them on its
disk (one that keeps nothing: until it has heard them), and said again to the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from typing import TYPE_CHECKING

from zmreg.model.group_messages import AskGroup, BundlesPrepared, CreateGroup, RemoveGroup
from zmreg.model.ids import node_of
from zmreg.model.messages import (
    ActorExiting,
    ActorHosted,
    ActorInputs,
    Ask,
    Constructed,
    CreateActor,
    ForHead,
    HeadKept,
    Inventory,
    JobNoted,
    JobStarted,
    KillActor,
    Message,
    ProcessDied,
    ReleaseActor,
    UnplaceActor,
    WatchActor,
)
from zmreg.wire import codec

if TYPE_CHECKING:
    from zmreg.services.node.node import Node

_TO_KEEP = (
    CreateActor, ActorInputs, ActorHosted, Constructed, KillActor, ReleaseActor, ActorExiting, JobStarted,
    JobNoted, CreateGroup, RemoveGroup,
)  # fmt: skip
# Asked again by the client when the head has changed.
_TO_PASS_ON = (WatchActor, Ask, BundlesPrepared, AskGroup)


class FarHead:
    """Has the methods of `Head` that a node calls."""

    def __init__(self, node: Node, head: bytes) -> None:
        self._node = node
        self.head = head
        self._kept: deque[ForHead] = deque()
        """Words that are not on the head's disk yet, as far as we know."""
        self._number = 0
        self._constructed: set[bytes] = set()
        """Actors here whose constructors have returned."""

    def hears(self, sender: bytes, message: Message) -> bool:
        """Pass on what is for the head, in the name of whoever said it; False when it is something else."""
        if isinstance(message, HeadKept):
            self._forget(sender, message.number)
            return True
        if isinstance(message, Constructed) and not message.failure:
            self._constructed.add(message.actor_id)
        if isinstance(message, _TO_KEEP):
            self._entrust(sender, message)
        elif isinstance(message, _TO_PASS_ON):
            self._node.ends.far(self.head, sender, codec.encode(message))
        else:
            return False
        return True

    def _entrust(self, origin: bytes, message: Message) -> None:
        self._number += 1
        word = ForHead(self._number, origin, codec.encode(message))
        self._kept.append(word)
        self._node.post(self.head, word)

    def _forget(self, head: bytes, number: int) -> None:
        if head == self.head:
            while self._kept and self._kept[0].number <= number:
                self._kept.popleft()

    def crowned(self, head: bytes) -> None:
        """There is another head: it is told what the one before may not have kept, then what we host.

        Actors that wait for a worker here are given up: it finds them a place anew.
        """
        node, self.head = self._node, head
        hosted = node.leases.hosts()
        for actor_id in [each for each, worker in hosted.items() if not worker]:
            del hosted[actor_id]
            node.placing.for_the_head(UnplaceActor(actor_id))
        for word in self._kept:
            node.post(head, word)
        node.placing.crowned(head)
        self._constructed &= hosted.keys()
        constructed = tuple(actor_id in self._constructed for actor_id in hosted)
        node.post(head, Inventory(tuple(hosted), tuple(hosted.values()), constructed))

    def release(self, object_id: bytes) -> None:
        """Nobody holds this object any more; if it was the lifeline of an actor, the head knows."""
        self._entrust(self._node.me, ReleaseActor(object_id))

    def process_died(self, process: bytes, reason: str, adopted: Container[bytes]) -> None:
        """The head hears it from the node of that process; should there be none just now, the next one does."""
        if node_of(process) == self._node.me:
            in_peace = adopted is self._node.adoption
            self._entrust(self._node.me, ProcessDied(process, None, None, b"", reason, "", in_peace))

    def node_came(self, node: bytes) -> None:
        """The head lets nodes in."""

    def node_drains(self, node: bytes) -> None:
        """The head hears it, too."""

    def node_gone(self, node: bytes, reason: str, adopted: Container[bytes] = ()) -> None:
        """The head has said so itself."""

    def close(self) -> None:
        """Nothing is on a disk here."""

    def tick(self, now: float) -> None:
        """Actors that have left are forgotten."""
        if len(self._constructed) > 2 * len(self._node.nursery.children) + 100:
            self._constructed &= self._node.leases.hosts().keys()
