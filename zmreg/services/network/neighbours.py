"""A node among nodes: how it joins, whom it knows, and what passes between them.

The head admits; after that nobody is needed between two nodes. Each node says every half second, on its PUB, who it is
and what it has free; silence is judged by core/nodes.py. What is said once and must arrive goes by letter (letters.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, assert_never

from zmreg.core import nodes as fx
from zmreg.core.nodes import PAUSE_S, Members, NodeState
from zmreg.model.errors import ClusterError, ProtocolError
from zmreg.model.ids import node_of
from zmreg.model.messages import (
    Leaving,
    Message,
    NodeGone,
    NodeRecord,
    TakesNothing,
)
from zmreg.model.replica_messages import ReplicaTable
from zmreg.net.curve import LOST, OPEN, UNREACHABLE
from zmreg.net.mesh import Mesh
from zmreg.services.network.admission import CONTACT, Admission
from zmreg.services.network.bulletin import Bulletin
from zmreg.services.network.detours import Detours
from zmreg.services.network.fetcher import Fetcher
from zmreg.services.network.hearing import Hearing
from zmreg.services.network.heirs import Heirs, stand_in
from zmreg.services.network.letters import Letters
from zmreg.services.network.probes import Probes
from zmreg.services.network.registry import Registry
from zmreg.services.network.succession import Succession
from zmreg.services.network.tables import Table
from zmreg.services.network.verdicts import Verdicts
from zmreg.services.node import on_demand
from zmreg.wire import codec

if TYPE_CHECKING:
    from zmreg.services.node.node import Node

# A letter to a node that nobody has told us of waits this long: news of a node and of its processes take two ways.
_UNKNOWN_S = 5.0
# Silences are counted in seconds.
# Between two new connections to a node that acknowledges nothing.
_RENEW_S = 5.0
_JUDGE_S = 0.05

_PORTS = 1 << 16

log = logging.getLogger("zmreg.neighbours")


class Neighbours:
    """The other nodes as one node knows them."""

    def __init__(
        self, node: Node, mesh: Mesh, record: Callable[[], NodeRecord], contact: tuple[str, int] | None
    ) -> None:
        """`record()` describes this node now. `contact` is any node of the cluster to join; None: we are the head."""
        self._node = node
        self._mesh = mesh
        self.gatekeeper = mesh.gatekeeper
        self.link_counts = mesh.link_counts
        self._record = record
        self.is_head = contact is None
        self.members = Members(node.me, self.is_head, node.settings.dead_after_s)
        self.heirs = Heirs(node)
        self.detours = Detours(node.me, mesh, self.members)
        self.letters = Letters(node.me, self.detours, self._deliver)
        self._head = self.members.head or b""
        self._renew_at: dict[bytes, float] = {}
        self._waiting: dict[bytes, tuple[float, list[tuple[bytes, bytes, bytes]]]] = {}
        """Letters to nodes that are not known yet: (until when, letters)."""
        self._bulletin = Bulletin(record, self._publish)
        self._judge_at = float("-inf")
        self._probes = Probes(node, self._refused)
        self.fetcher = node.fetcher = Fetcher(node)
        self.registry = node.registry = Registry(
            node.me, self._publish, self.raw, self.fetcher.learned, node.settings.registry_scope
        )
        functions = node.functions.listen(record().name, self._publish, self.raw)
        topics = on_demand.topics(node).listen(self._publish, self.raw)
        self.tables: dict[int, Table] = dict([(ReplicaTable.LOCATIONS, self.registry), functions, topics])
        node.store.on_offered = self.registry.holds
        node.store.on_gone = self.registry.holds_no_more
        node.ends.far = self.far
        node.ends.pass_on = self._pass_on
        self.letters.deliver_whole = self._deliver_whole
        gate, *others = mesh.fds  # all edge-triggered
        node.watch(gate, self._listen, passing=True)
        for fd in others:
            node.watch(fd, self._attend)
        self.admission = Admission(self, node, mesh, record, contact)
        self.succession = Succession(self, node, mesh)
        self.verdicts = Verdicts(self, node, mesh)
        self._hearing = Hearing(self, node, self.perform)

    # -- in every turn of the node's loop --------------------------------------------------------------------------

    def turn(self, now: float) -> float | None:
        """Receive, judge and say what is due. When to call again at the latest."""
        self._listen()
        self.admission.turn(now)
        if now >= self._judge_at:
            self._judge(now)
        dues = [self.fetcher.turn(now), self.letters.tick(now)]
        if self.joined:
            dues.append(self._bulletin.tick(now, self._node.turn_due))
            dues += [table.tick(now) for table in self.tables.values()]
        return min((due for due in dues if due is not None), default=None)

    def _listen(self) -> None:
        """Take what has come to the gate."""
        receive, hear = self._mesh.receive, self._hearing.hear
        now = time.monotonic()
        while (heard := receive()) is not None:
            hear(*heard, now)

    def _attend(self) -> None:
        """Drain what speaks a few times a second, when it does."""
        now = time.monotonic()
        self._mesh.gatekeeper.serve()
        while (frame := self._mesh.overhear()) is not None:
            self._hearing.overhear(frame, now)
        for node, happening in self._mesh.happenings(now):
            if node != CONTACT:
                self._on_link(node, happening.event)
            else:
                self.admission.on_link(happening)

    def _judge(self, now: float) -> None:
        """What goes by the time alone, and in tenths of seconds: not in each of a thousand turns a second."""
        if now - self._judge_at > PAUSE_S and self.joined and not self.is_head:
            self.raw(self.head, self._record())  # we were stopped: if we were taken for dead meanwhile, it says so
        self._judge_at = now + _JUDGE_S
        self._attend()  # connecting to somebody may have eaten the signal of a message
        self.perform(self.members.tick(now))
        self._probes.tick(now)
        self.succession.tick(now)
        self._give_up_unknown(now)
        stuck = self.letters.stuck()
        for node in self.detours.review(stuck, now):
            self.letters.connected(node)
        self._renew_links([node for node, is_stuck in stuck if is_stuck], now)
        self.verdicts.tick(now)

    def _renew_links(self, stuck: list[bytes], now: float) -> None:
        """Who acknowledges nothing is connected anew now and then: a gate may have let go of a connection that looks
        well from here (two of one name, decision 0010), and then what we say goes nowhere, for good."""
        for node in stuck:
            if now >= self._renew_at.get(node, 0.0):
                self._renew_at[node] = now + _RENEW_S
                self._mesh.redial(node)
                self.letters.connected(node)
        if self._renew_at and not stuck:
            self._renew_at.clear()

    def send_frames(self, node: bytes, frames: tuple[bytes, memoryview]) -> None:
        """A part of an object."""
        self.detours.send(node, frames)

    def raw(self, node: bytes, message: Message) -> bool:
        """Say something that is said again when it gets lost."""
        return self.detours.send(node, (codec.encode(message),))

    def _on_link(self, node: bytes, event: str) -> None:
        if event == OPEN:
            self.letters.connected(node)
            if self.joined:  # whoever was declared dead behind a broken line is told so, however little it has to say
                self.raw(node, self._record())
        elif event in (LOST, UNREACHABLE):
            record = self.members.record(node)
            if record is not None:
                self._probes.ask(node, record.host, record.port)
            elif self.members.is_fenced(node):  # it was told, and has ended: libzmq would go on trying for ever
                self._mesh.disconnect(node)

    def _refused(self, node: bytes) -> None:
        self.perform(self.members.on_refused(node, time.monotonic()))

    @property
    def joined(self) -> bool:
        """Whether we are one of them."""
        return self.admission.joined

    # -- who they are ------------------------------------------------------------------------------------------------

    def learn(self, record: NodeRecord, now: float) -> None:
        """A node's record: its own word, or the head's."""
        if record.node == self._node.me:
            return
        effects = self.members.on_record(record, now)
        known = self.members.record(record.node) is not None  # else it is dead or gone
        if known and record.node not in self.letters.couriers:
            self.connect(record)
            self.letters.open(record.node)
        if known:
            self.succession.learned(record)
        self.perform(effects)
        for letter in self._waiting.pop(record.node, (0.0, []))[1]:
            self.letters.send(record.node, *letter)
        self._node.departure.heard(record)

    def connect(self, record: NodeRecord) -> None:
        """Be able to speak to a node. ProtocolError when its record has no address."""
        if not all(0 < port < _PORTS for port in (record.port, record.pub_port)):  # libzmq takes it modulo 65,536
            raise ProtocolError(f"node {record.node.hex()} has the ports {record.port} and {record.pub_port}")
        try:
            self._mesh.connect(record.node, record.host, record.port, record.pub_port)
        except ClusterError as error:
            raise ProtocolError(f"the record of node {record.node.hex()} is of no use: {error}") from None

    # -- what we have ------------------------------------------------------------------------------------------------

    def _publish(self, message: Message) -> None:
        self._mesh.publish(codec.encode(message))

    # -- letters -----------------------------------------------------------------------------------------------------

    def far(self, destination: bytes, origin: bytes, frame: bytes) -> bool:
        """A letter of a process of ours, or of our own, to a process of another node."""
        node = node_of(destination)
        if node in self.letters.couriers:
            self.letters.send(node, destination, origin, frame)
            return True
        if self.heirs.redirect(destination, origin, frame):
            return True
        if self.members.state(node) in (NodeState.DEAD, NodeState.LEFT) or not self.joined:
            self._tell_unknown(origin, node)
            return False
        self._waiting.setdefault(node, (time.monotonic() + _UNKNOWN_S, []))[1].append((destination, origin, frame))
        return True

    def _pass_on(self, letter: bytes) -> None:
        """A letter of a process of ours in one piece: destination, origin, content."""
        if not self.letters.send_whole(letter):
            self.far(letter[:8], letter[8:16], letter[16:])

    def _give_up_unknown(self, now: float) -> None:
        for node in [node for node, (until, _) in self._waiting.items() if now > until]:
            for _, origin, _ in self._waiting.pop(node)[1]:
                self._tell_unknown(origin, node)

    def _deliver(self, destination: bytes, origin: bytes, frame: bytes) -> None:
        if destination == self._node.me:
            self._node.take(origin, frame)
        elif node_of(destination) != self._node.me or not self._node.ends.hand_in(destination, origin, frame):
            stand_in(self._node, origin, frame)

    def _deliver_whole(self, letter: bytes) -> None:
        destination = letter[:8]
        if destination == self._node.me or not self._node.ends.hand_in_whole(destination, letter):
            self._deliver(destination, letter[8:16], letter[16:])

    # -- who is alive ------------------------------------------------------------------------------------------------

    def perform(self, effects: Iterable[fx.NodeEffect]) -> None:
        """Do what the members table decided."""
        for effect in effects:
            match effect:
                case fx.DeclareDead(node, reason):
                    for other in self.others():
                        if other != node:
                            self._node.post(other, NodeGone(node, reason, False))
                case fx.NodeGone(node, reason, left):
                    self._bury(node, reason, left)
                case fx.Fence(node):
                    self.verdicts.fence(node)
                case fx.Appeal(head, sender):
                    self.verdicts.appeal(head, sender)
                case fx.FormerHead():
                    self.succession.former(effect)
                case fx.Suspected(node, reason) | fx.HeadLost(node, reason):
                    log.warning("%s: node %s, %s", type(effect).__name__, node.hex(), reason)
                    if isinstance(effect, fx.HeadLost):
                        self.succession.lost(reason)
                case fx.Joined(node) | fx.Recovered(node) | fx.HeadBack(node):
                    log.info("%s: node %s", type(effect).__name__, node.hex())
                    if isinstance(effect, fx.Joined):
                        self._node.head.node_came(node)
                        on_demand.tell_plugins(self._node, node, self.is_head or self.members.head == node)
                    elif isinstance(effect, fx.HeadBack):
                        self.succession.back(node)
                        on_demand.tell_plugins(self._node, node, True)
                    self._node.placing.room_changed()
                case _:
                    assert_never(effect)

    def on_word(self, sender: bytes, message: NodeRecord | NodeGone | Leaving | TakesNothing) -> None:
        """What came by letter."""
        now = time.monotonic()
        match message:
            case NodeRecord():
                self.learn(message, now)
                self.succession.named(sender, message.node)
            case NodeGone() | TakesNothing():
                self.verdicts.hear(sender, message)
            case Leaving(heir):
                self.heirs.leaves(sender, heir)
                self.perform(self.members.on_leave(sender))

    def bury(self, node: bytes, reason: str) -> None:
        """It is dead for this node, whatever others think of it."""
        self.perform(self.members.on_declared_dead(node, reason))

    def _bury(self, node: bytes, reason: str, left: bool) -> None:
        if node == self._node.me:
            self.verdicts.end(reason)
            return
        heir = self.heirs.of(node)
        unread = self.letters.close(node)
        self.detours.forget(node)
        self._mesh.disconnect(node)
        for table in self.tables.values():
            table.forget(node)
        waiting = self._waiting.pop(node, None)
        log.warning("node %s is gone: %s", node.hex(), reason)
        for letter in unread if heir else ():
            self.heirs.redirect(*letter)
        # Clients hear of the death before they hear what is lost with it: they may want that made again, elsewhere.
        self._node.mourning.node_gone(NodeGone(node, reason, left, heir))
        self.fetcher.node_gone(node)
        for _, origin, _ in waiting[1] if waiting is not None else ():
            self._tell_unknown(origin, node)

    def _tell_unknown(self, origin: bytes, node: bytes) -> None:
        if node_of(origin) == self._node.me and origin != self._node.me:
            heir = self.heirs.of(node)
            self._node.post(origin, NodeGone(node, "it is not a member of this cluster", bool(heir), heir))

    @property
    def head(self) -> bytes:
        """The head's id; of the last one while there is none."""
        self._head = self.members.head or self._head
        return self._head

    def view(self) -> list[NodeRecord]:
        """Those to whom work may go, we ourselves first and up to date."""
        others = [each for each in self.members.records() if each.node != self._node.me]
        usable = (each for each in others if self.members.usable(each.node) and not each.draining)
        return [self._record(), *usable]

    def others(self) -> list[bytes]:
        """Every other node that lives."""
        return list(self.letters.couriers)

    def close(self, linger_ms: int) -> None:
        """Say that we go, unless we were told to, and close the ports."""
        if self.joined and not self._node.exit_code and not self._node.departure.said:
            for other in self.others():
                self._node.post(other, Leaving(b""))
        self._mesh.close(linger_ms)
