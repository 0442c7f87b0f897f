"""One head after the other, as the other nodes see it.

A head that is started anew has another id, a later epoch, and the address of the one before. While there is none, a
node asks at that address every second to be let in; then it says anew what only a head keeps
(services/network/far_head.py), and its clients do the same. Calls, tasks and objects need no head and go on.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from zmreg.core.nodes import FormerHead, return_s
from zmreg.core.unnamed import Unnamed
from zmreg.model.messages import Fenced, HeadChanged, Join, NodeRecord
from zmreg.net.mesh import Mesh
from zmreg.services.network.admission import CONTACT
from zmreg.services.network.far_head import FarHead
from zmreg.wire import codec

if TYPE_CHECKING:
    from zmreg.services.network.neighbours import Neighbours
    from zmreg.services.node.node import Node

REJOIN_S: Final = 1.0
# Beside the time that a head gives its nodes to come back: until then it may name them yet.
_UNNAMED_S: Final = 2.0
# libzmq waits up to 5 s between two attempts to connect (net/factory.py); a fresh connection does not.
_REDIAL_S: Final = 2.0
EXIT_FORMER_HEAD: Final = 3
"""Exit code of a head whose state is an old copy, as of one whose state another has."""

log = logging.getLogger("zmreg.succession")


class Succession:
    """Who the head is, whether it is there, and how to find the next."""

    def __init__(self, neighbours: Neighbours, node: Node, mesh: Mesh) -> None:
        self._neighbours = neighbours
        self._node = node
        self._mesh = mesh
        self._at: tuple[str, int] | None = None
        """Where the last head was."""
        self._admitted_by = b""
        self._lost_at: float | None = None
        self._refused = False
        self._asked_at = self._redialled_at = float("-inf")
        self._unnamed = Unnamed(return_s(node.settings.dead_after_s) + _UNNAMED_S)
        self.headless = ""
        """Since when there has been no head, for people; empty as long as there may be one soon."""

    # -- what is heard ----------------------------------------------------------------------------------------------

    def learned(self, record: NodeRecord) -> None:
        """A member's record."""
        if record.is_head:
            self._at = record.host, record.port

    def seeks(self) -> bool:
        """Whether we have no head, or one that has not let us in."""
        members = self._neighbours.members
        return not self._neighbours.is_head and (members.head_lost or members.head != self._admitted_by)

    def admitted(self, head: bytes) -> None:
        """This head has let us in."""
        self._admitted_by = head

    def named(self, by: bytes, node: bytes) -> None:
        """By letter: this node is one of us. The head says so, or a member to the head that has not named it."""
        if by == self._neighbours.head:
            self._unnamed.named(node)
        elif self._neighbours.is_head:
            self._neighbours.verdicts.on_named(by, node)

    def lost(self, reason: str) -> None:
        """There is no head now."""
        if self._lost_at is None:
            self._lost_at = time.monotonic()
        self._refused = "refuses" in reason

    def back(self, head: bytes) -> None:
        """There is one again, perhaps another."""
        self._lost_at = None
        told, self.headless = self.headless, ""
        far = self._node.head
        if isinstance(far, FarHead) and far.head != head:
            self._unnamed.crowned([each for each in self._neighbours.others() if each != head], time.monotonic())
            self._ask_in()  # first: before it knows us it takes no letters
            self._neighbours.verdicts.tell_head(head)
            far.crowned(head)
        else:
            self._neighbours.verdicts.tell_head(head)
            if not told:
                return
        self._tell_clients(head, "")

    def former(self, effect: FormerHead) -> None:
        """Somebody has started a head from an old copy of the state."""
        record, epoch = effect.record, effect.epoch
        log.error(
            "ALARM: %s:%d is a head of epoch %d, and this cluster is in epoch %d: an old copy of its state was started",
            record.host, record.port, record.epoch, epoch,
        )  # fmt: skip
        self._neighbours.connect(record)
        reason = f"this cluster has seen a head of epoch {epoch}, and this one is of epoch {record.epoch}"
        self._neighbours.raw(record.node, Fenced(f"{reason}: its state is an old copy", record.node, epoch))

    # -- what is done -----------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Look for a head as long as there is none; tell it of those that it may not know."""
        for node in () if self.seeks() else self._unnamed.due(now):
            record = self._neighbours.members.record(node)
            if record is not None:
                log.warning("the head has not named node %s: it is told", node.hex())
                self._node.post(self._neighbours.head, record)
        if not self._neighbours.joined or not self.seeks():
            return
        if now - self._asked_at >= REJOIN_S:
            self._ask_in()
        limit = self._node.settings.head_timeout_s
        if self._lost_at is not None and not self.headless and now - self._lost_at >= limit:
            host, port = self._at or ("?", 0)
            self.headless = (
                f"the cluster has had no head for {limit:g} s (it was at {host}:{port}); start it there again, with "
                "the same state directory. Calls and tasks go on, names and new actors wait for it"
            )
            log.error("%s", self.headless)
            self._tell_clients(b"", self.headless)
            head = self._neighbours.members.head
            if self._refused and head is not None:  # what ran on its machine has ended with it
                self._neighbours.bury(head, "its process is gone, and no head has taken its place")

    def _ask_in(self) -> None:
        now = time.monotonic()
        self._asked_at = now
        if self._at is None:
            return
        self._mesh.connect(CONTACT, *self._at)
        if self._lost_at is not None and now - self._redialled_at >= _REDIAL_S:
            self._redialled_at = now
            self._mesh.redial(CONTACT)
        self._neighbours.raw(CONTACT, Join(codec.encode(self._neighbours.view()[0])))

    def greet(self, client: bytes) -> None:
        """A client has come: what the others were told."""
        if self.headless:
            self._node.post(client, HeadChanged(b"", self.headless))

    def _tell_clients(self, head: bytes, reason: str) -> None:
        for client in self._node.clients:
            self._node.post(client, HeadChanged(head, reason))
