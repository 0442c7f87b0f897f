"""How a node comes into a cluster: it asks any node, is sent on to the head, and is let in or told why not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from zmreg.model.errors import AuthenticationError, ClusterError, ProtocolError, VersionMismatchError
from zmreg.model.messages import Admitted, AskHead, Join, NodeRecord, NotAdmitted
from zmreg.net.curve import DENIED, WRONG_KEY, Happening
from zmreg.net.mesh import Mesh
from zmreg.wire import codec

if TYPE_CHECKING:
    from zmreg.services.network.neighbours import Neighbours
    from zmreg.services.node.node import Node

# The first node we speak to, whose id we do not know yet. A node's id never ends so.
CONTACT = b"contact!"
_JOIN_AGAIN_S = 0.5
JOIN_TIMEOUT_S = 15.0


class Admission:
    """Both sides of it: who asks, and, at the head, who decides."""

    def __init__(
        self,
        neighbours: Neighbours,
        node: Node,
        mesh: Mesh,
        record: Callable[[], NodeRecord],
        contact: tuple[str, int] | None,
    ) -> None:
        self._neighbours = neighbours
        self._node = node
        self._mesh = mesh
        self._record = record
        self._contact = contact
        self.joined = contact is None
        self._asked_at = float("-inf")
        self._began = time.monotonic()
        if contact is not None:
            mesh.connect(CONTACT, *contact)

    def on_link(self, happening: Happening) -> None:
        """What befell the connection to the first contact. AuthenticationError when it does not let us in."""
        if happening.event in (DENIED, WRONG_KEY) and not self.joined:
            raise AuthenticationError(
                f"{happening.endpoint} does not let us in with the key in "
                f"{self._node.config['listening']['key_file']}: {happening.detail}. Copy the cluster's key file from "
                "the head's machine (`zmreg key show` says where it is there), and say with --key where it is"
            )

    def hear(self, sender: bytes, message: Join | Admitted | NotAdmitted | AskHead, now: float) -> None:
        """A word about who comes in. VersionMismatchError, ClusterError when we do not."""
        match message:
            case Join(record):
                self._on_join(sender, record, now)
            case Admitted():
                self._on_admitted(message, now)
            case NotAdmitted(kind, reason):
                if not self.joined:
                    raise (VersionMismatchError if kind in ("version", "python") else ClusterError)(reason)
            case AskHead(host, port):
                if not self.joined:
                    self._mesh.disconnect(CONTACT)
                    self._mesh.connect(CONTACT, host, port)
                    self._asked_at = float("-inf")

    def turn(self, now: float) -> None:
        """Ask to be let in, again and again. ClusterError when nobody answers."""
        if self.joined:
            return
        if now - self._began > JOIN_TIMEOUT_S:
            host, port = self._contact or ("", 0)
            raise ClusterError(
                f"no node answered at {host}:{port} within {JOIN_TIMEOUT_S:.0f} s; is the address right?"
            )
        if now - self._asked_at >= _JOIN_AGAIN_S:
            self._asked_at = now
            self._neighbours.raw(CONTACT, Join(codec.encode(self._record())))

    def _on_join(self, sender: bytes, encoded: bytes, now: float) -> None:
        record = codec.decode(encoded)
        if not isinstance(record, NodeRecord) or record.node != sender:
            raise ProtocolError("a Join without the record of its sender")
        self._neighbours.connect(record)
        if not self._neighbours.is_head:
            head = self._neighbours.members.record(self._neighbours.head)
            if head is not None:
                self._neighbours.raw(sender, AskHead(head.host, head.port))
            return
        problem = self._objection(record)
        if problem is not None:
            self._neighbours.raw(sender, problem)
            return
        known = [each for each in self._neighbours.members.records() if each.node not in (sender, self._node.me)]
        settings = self._node.settings
        gone = {each.record.node: b"" for each in self._neighbours.members.departed()} | self._neighbours.heirs.all()
        self._neighbours.raw(
            sender,
            Admitted(
                self._node.cluster, self._neighbours.members.epoch, settings.inline_limit_bytes, settings.namespace,
                tuple(codec.encode(each) for each in (self._record(), *known)),
                tuple(gone), tuple(gone.values()),
            ),
        )  # fmt: skip
        self._neighbours.learn(record, now)
        for other in self._neighbours.others():
            if other != sender:
                self._node.post(other, record)

    def _objection(self, record: NodeRecord) -> NotAdmitted | None:
        mine = self._record()
        if record.version != mine.version:
            text = f"zmreg {record.version} cannot join a cluster of zmreg {mine.version}: install the same on both"
            return NotAdmitted("version", text)
        if record.python.rpartition(".")[0] != mine.python.rpartition(".")[0]:
            text = (
                f"Python {record.python} cannot join a cluster of Python {mine.python}: functions pickled by one minor "
                "version do not run on another; use the same minor version on both machines"
            )
            return NotAdmitted("python", text)
        return None

    def _on_admitted(self, message: Admitted, now: float) -> None:
        again = self.joined
        if again and (message.epoch < self._neighbours.members.epoch or not self._neighbours.succession.seeks()):
            return
        self.joined = True
        self._mesh.disconnect(CONTACT)
        for node, heir in zip(message.gone, message.heirs, strict=True):
            self._neighbours.heirs.leaves(node, heir)
            # Or a record of the dead, still under way, would bring it back.
            self._neighbours.bury(node, "it died before we came")
        for encoded in message.records:
            record = codec.decode(encoded)
            if isinstance(record, NodeRecord):
                self._neighbours.learn(record, now)
                self._neighbours.succession.named(self._neighbours.head, record.node)
                self._neighbours.raw(record.node, self._record())
        self._neighbours.succession.admitted(self._neighbours.head)
        if not again:
            self._node.admitted(self._neighbours.head)
