"""Whose word counts when a node is said to be dead, and what is said to whom about it.

The head decides, and whoever is declared dead has to hear it, or its work would be done twice. So any member that has
heard it from the head answers such a node with `Fenced`. But everybody with the cluster's key can say that, one that
follows another head, too: a node believes the head that it follows, and asks that one about anybody else's word
(core/nodes.py, on_fenced). A node that takes nothing while more waits for it than may is reported to the head, which
ends it: each who waits for it hears so by the same way as of any death.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

from zmreg.core.nodes import NodeState
from zmreg.model.errors import ProtocolError
from zmreg.model.messages import Fenced, Join, KnownDead, NodeGone, NodeRecord, TakesNothing
from zmreg.net.mesh import Mesh
from zmreg.services.head.head import Head
from zmreg.services.network.succession import EXIT_FORMER_HEAD
from zmreg.wire import codec

if TYPE_CHECKING:
    from zmreg.services.network.neighbours import Neighbours
    from zmreg.services.node.node import Node

EXIT_FENCED = 75
"""Exit code (EX_TEMPFAIL) of a node that was declared dead: start it anew."""
_TELL_S: Final = 0.5
_TOLD_BY_S: Final = 30.0
_DEAD = "this node was declared dead by the head, and its work was given to others"
_GONE_BEFORE: Final = "it was declared dead, or had left, before this head came"

log = logging.getLogger("zmreg.verdicts")


class Verdicts:
    """What one node says and hears about who is dead."""

    def __init__(self, neighbours: Neighbours, node: Node, mesh: Mesh) -> None:
        self._neighbours = neighbours
        self._node = node
        self._mesh = mesh
        self._untold: dict[bytes, float] = {}
        """Nodes that were ended although they speak to us: until when they are told so."""
        self._tell_at = float("-inf")

    def tick(self, now: float) -> None:
        """What goes by the time."""
        for node, reason in self._neighbours.letters.overfull(now):
            self.gave_up(node, reason)
        if self._untold and now >= self._tell_at:
            self._tell_at = now + _TELL_S
            self._untold = {node: until for node, until in self._untold.items() if now < until}
            for node in self._untold:
                self.fence(node)

    # -- fencing ----------------------------------------------------------------------------------------------------

    def fence(self, node: bytes) -> None:
        """Tell a node that it was declared dead. Its connection went when it was."""
        gone = self._neighbours.members.departed()
        record = next((each.record for each in gone if each.record.node == node), None)
        if record is not None:
            self._tell(record)

    def hear_fenced(self, frames: list[Any]) -> None:
        """What a node says that was declared dead. One that a head declares dead which has never met it, as it did not
        come back after that head's start, has no record here: it is told when it asks to be let in.
        """
        first = bytes(frames[0]) if frames else b""
        if first[:2] != codec.MAGIC or len(frames) != 1 or not self._neighbours.is_head:
            return
        message = codec.decode(first)
        record = codec.decode(message.record) if isinstance(message, Join) else None
        if isinstance(record, NodeRecord) and self._neighbours.members.is_fenced(record.node):
            self._tell(record)

    def _tell(self, record: NodeRecord) -> None:
        self._mesh.connect(record.node, record.host, record.port)
        self._neighbours.raw(record.node, Fenced(_DEAD, record.node, self._neighbours.members.epoch))

    def on_fenced(self, sender: bytes, message: Fenced) -> None:
        """Somebody says so of us. ProtocolError when it is meant for another, who had this address before."""
        if message.node != self._node.me:
            raise ProtocolError(f"node {sender.hex()} says of {message.node.hex()} that it is dead, and said it to us")
        self._neighbours.perform(self._neighbours.members.on_fenced(sender, message.reason, message.epoch))

    def appeal(self, head: bytes, sender: bytes) -> None:
        """Have the head say whether it is so: it hears of us, and answers whom it has declared dead."""
        log.warning("node %s says that this one was declared dead: the head is asked", sender.hex())
        self._neighbours.raw(head, self._neighbours.view()[0])

    def end(self, reason: str) -> None:
        """We are not one of them any more: end, and let whoever started us start us anew, under another id."""
        log.error("fenced: %s", reason)
        self._node.exit_code = EXIT_FORMER_HEAD if self._neighbours.is_head else EXIT_FENCED
        self._node.stop()

    # -- after a time without a head --------------------------------------------------------------------------------

    def tell_head(self, head: bytes) -> None:
        """Tell the head that we follow from now on, or again, who is dead: the last one may have said so in its last
        moment, or we had to decide. Whoever is dead for one of us has to be dead for all."""
        gone = self._neighbours.members.departed()
        dead = [each for each in gone if each.state is NodeState.DEAD and not each.record.is_head]
        if dead:
            word = KnownDead(tuple(each.record.node for each in dead), tuple(each.reason for each in dead))
            self._node.post(head, word)

    def on_known_dead(self, sender: bytes, message: KnownDead) -> None:
        """A member says so to us, the head."""
        members, head = self._neighbours.members, self._node.head
        if members.record(sender) is None or not isinstance(head, Head):
            return
        for node, reason in zip(message.nodes, message.reasons, strict=False):
            if node in (self._node.me, sender) or members.state(node) in (NodeState.DEAD, NodeState.LEFT):
                continue
            if members.record(node) is not None:
                self.sentence(node, reason)
            else:
                head.homecoming.bury(node, reason)

    def on_named(self, sender: bytes, node: bytes) -> None:
        """A member tells us, the head, of a node that we have not named. If that one is gone, our word, or that of the
        head before us, has not come there."""
        if self._neighbours.members.state(node) in (NodeState.DEAD, NodeState.LEFT):
            self._node.post(sender, NodeGone(node, _GONE_BEFORE, False))

    # -- who takes nothing ------------------------------------------------------------------------------------------

    def gave_up(self, node: bytes, reason: str) -> None:
        """Too much waits for a node. The head ends it; when that is the head itself, it is we who have to go."""
        neighbours = self._neighbours
        log.error("node %s %s", node.hex(), reason)
        if neighbours.is_head or neighbours.members.head_lost:  # nobody else can say so now
            self.sentence(node, f"it {reason}")
        elif node == neighbours.head:
            self.end(f"the head {reason}: a node that cannot speak to it is none of its cluster")
        else:
            self._node.post(neighbours.head, TakesNothing(node, reason))

    def hear(self, sender: bytes, message: NodeGone | TakesNothing) -> None:
        """What came by letter. The head says who is dead; to the head, members say for whom too much waits."""
        if isinstance(message, NodeGone):
            if sender == self._neighbours.head:
                self._neighbours.bury(message.node, message.reason)
            else:
                self._node.protocol_errors += 1
            return
        known = self._neighbours.members.record(sender) is not None
        if known and self._neighbours.is_head and message.node not in (self._node.me, sender):
            self.sentence(message.node, f"it {message.reason} (says node {sender.hex()})")

    def sentence(self, node: bytes, reason: str) -> None:
        """It is not silent, and may have nothing to say to us for which it would be told: so we go on telling it. Its
        connection has to come about first, and what is sent before that is dropped."""
        self._neighbours.bury(node, reason)
        self._untold[node] = time.monotonic() + _TOLD_BY_S
