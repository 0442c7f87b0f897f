"""How a node leaves in peace: nothing that can live elsewhere is lost, and nobody sees an error.

In this order, so that nothing is nowhere at any moment:

1. It takes nothing new: its record says so, leases are called back, the head moves its actors. What runs has a grace to
   finish; what does not is ended, and tried again elsewhere at no charge.
2. Meanwhile the bytes that nobody else keeps are copied: a node with room fetches them and keeps them from then on.
3. The workers have ended, and have left to us what others need of theirs. All of that goes to one heir, and what is
   said to us about it from now on is passed on to it.
4. The owners know the heir. `Leaving` goes to everybody, and is the last: what comes later is not read, and whoever
   sent it redirects it to the heir (heirs.py).

When nobody is left who could take over, as when a whole cluster ends, it just ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from zmreg.core.nodes import NodeState
from zmreg.model.ids import node_of
from zmreg.model.messages import Leaving, NodeDrains, NodeRecord, Replicate, Replicated

if TYPE_CHECKING:
    from zmreg.services.node.node import Node

# Objects under way to others at a time; each node fetches a few of them at once.
_WINDOW: Final = 32
_SCAN_S: Final = 0.1
# Copying ends when nothing has arrived anywhere for so long: 30 s is the time a creator waits for room.
_STUCK_S: Final = 40.0
_ATTEMPTS: Final = 3
# Where the bytes are now comes to all others within milliseconds, by another way than our last word.
_SPREAD_S: Final = 0.25
# As workers do (bequest.py).
_SETTLE_S: Final = 2.0
# For the others to say that they have read our last word.
_HEARD_S: Final = 1.0
# A head that is started anew is there by then. Less than whoever stops a node waits for its end (starting.py, END_S).
_AWAY_S: Final = 8.0
# Whose code is over, and waits for what it has submitted, has so much more: killed, it would leave nothing to anybody.
_OWNERS_S: Final = 20.0
# Workers that were killed are gone in milliseconds.
_KILLED_S: Final = 2.0
TURN_S: Final = 0.02
VISITOR: Final = "(visitor)"
"""The name of a node that joins for one command: it takes over nothing."""

log = logging.getLogger("zmreg.leaving")


class Departure:
    """A node's own leave, and what it knows of others that are about to."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.draining = False
        self.asked: list[float] = []
        """Wishes that this node leaves: what runs may take so many seconds. Seen to by the loop; the second hastens."""
        self.said = False
        """Everybody has had our last word."""
        self._others: set[bytes] = set()
        self._kill_at = 0.0
        self._settle_until = 0.0
        self._away_since = 0.0
        self._end_at = 0.0
        self._copies = Copies(node)
        self._heir = b""

    # -- others -----------------------------------------------------------------------------------------------------

    def heard(self, record: NodeRecord) -> None:
        """A node has told of itself: perhaps that it takes no more work."""
        if record.draining and record.node not in self._others:
            self._others.add(record.node)
            self.spread(record.node)

    def spread(self, node: bytes) -> None:
        """`node`, which may be this one, is about to leave: its actors go elsewhere, and owners ask others."""
        for client in self._node.clients:
            self._node.post(client, NodeDrains(node))
        self._node.head.node_drains(node)
        self._node.placing.room_changed()

    def on_replicated(self, sender: bytes, message: Replicated) -> None:
        """A node has taken a copy, or has not."""
        self._copies.on_replicated(sender, message)

    def order(self, key: str) -> dict[str, object] | None:
        """A user wants a node drained: "NODE GRACE", the grace empty for this node's own. None: it is another node."""
        name, _, grace = key.partition(" ")
        if name != self._node.me.hex():
            return None
        refused = ""
        if self._node.neighbours is None or self._node.neighbours.is_head:
            refused = "this node is the head: without it nothing is placed; `zmreg stop` ends it"
        elif not self._successors():
            refused = "no other node is there that could take over what this one has"
        elif not self.draining:
            self.asked.append(float(grace) if grace else self._node.settings.drain_grace_s)
        return {"refused": refused}

    # -- ourselves --------------------------------------------------------------------------------------------------

    def turn(self, now: float) -> None:
        """See to wishes, and go on with what is under way. In each turn of the loop."""
        while self.asked:
            grace_s = self.asked.pop(0)
            if self.draining or not self._successors():
                self._node.stop()
            else:
                self._begin(grace_s, now)
        if self.draining and not self._node.stopping:
            self._go_on(now)

    def _begin(self, grace_s: float, now: float) -> None:
        node = self._node
        log.warning("this node leaves; what runs has %.1f s to finish", grace_s)
        self.draining = True
        self._kill_at = now + grace_s
        assert node.neighbours is not None
        record = node.neighbours.view()[0]
        for other in node.other_nodes():
            node.post(other, record)
        node.perform(node.leases.drain())
        self.spread(node.me)

    def _successors(self) -> list[NodeRecord]:
        """Those who could take over."""
        neighbours = self._node.neighbours
        if neighbours is None or not neighbours.joined:
            return []
        return [each for each in neighbours.view()[1:] if each.name != VISITOR]

    def _go_on(self, now: float) -> None:
        if self._end_at:
            if now >= self._end_at or self._is_heard(self._node.other_nodes()):
                self._node.stop()
        elif not (successors := self._successors()):
            if self._is_too_long(now):
                log.warning("nobody is left to take over: this node just ends")
                self._node.stop()
        elif self._workers_end(now):
            self._copies.turn(successors, now)
        elif not self._heir:
            if self._copies.turn(successors, now):
                self._heir = self._choose(successors)
                self._node.adoption.bequeath(self._heir, self._copies.places)
                self._settle_until = now + _SETTLE_S
        elif self._heir not in (each.node for each in successors):
            if self._heir not in self._node.other_nodes() or self._is_too_long(now):
                log.warning("node %s, which was to take over, is gone: another one is asked", self._heir.hex())
                self._heir = b""
        elif self._is_heard([self._heir]) and (now >= self._settle_until or self._node.adoption.is_settled()):
            self._say_farewell(now)
        elif now >= self._settle_until + _AWAY_S:
            log.error("node %s, which is to take over, has not read all of it", self._heir.hex())
            self._say_farewell(now)

    def _workers_end(self, now: float) -> bool:
        """Whether there are workers to wait for. Who is late is killed."""
        node = self._node
        patient = any(worker in node.leaving for worker in node.nursery.children)
        for worker in list(node.nursery.children):
            if now >= self._kill_at + _OWNERS_S * (worker in node.leaving):
                node.nursery.kill(worker, "its node was drained, and it did not end in time")
        return bool(node.nursery.children) and now < self._kill_at + _OWNERS_S * patient + _KILLED_S

    def _is_too_long(self, now: float) -> bool:
        """Nobody can take over just now. Is there no use in waiting for one that is silent, as a head that restarts?"""
        neighbours, node = self._node.neighbours, self._node
        assert neighbours is not None
        others = [each for each in neighbours.members.records() if each.node != node.me and not each.draining]
        away = [each for each in others if neighbours.members.state(each.node) is NodeState.SUSPECTED]
        self._away_since = self._away_since or now
        return not away or now - self._away_since >= _AWAY_S or not (len(node.adoption) or self._copies.are_needed())

    def _choose(self, successors: list[NodeRecord]) -> bytes:
        """The head if it can; else whoever has most to compute with, as a program's own node has nothing."""
        best = max(successors, key=lambda each: (each.is_head, dict(each.total).get("CPU", 0), each.node))
        return best.node

    def _say_farewell(self, now: float) -> None:
        node = self._node
        for client, hello in list(node.clients.items()):
            if hello.role == "driver":  # it ends with us, and what it owned was nobody's to give away
                node.mourning.driver_gone(client, goes_on=True)
        for other in node.other_nodes():
            node.post(other, Leaving(self._heir))
        self.said = True
        assert node.neighbours is not None
        node.neighbours.letters.deaf = True
        self._end_at = now + _HEARD_S

    def _is_heard(self, nodes: Iterable[bytes]) -> bool:
        """Whether these nodes have read all that we have said."""
        neighbours = self._node.neighbours
        return neighbours is not None and not any(neighbours.letters.unread(each) for each in nodes)


class Copies:
    """What a node that leaves has in its store, and how others come to keep it."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.places: dict[bytes, bytes] = {}
        """Objects that were ours to keep: who keeps them now."""
        self._asked: dict[bytes, tuple[bytes, int]] = {}
        """Object -> the node that is to take it, and how large it is."""
        self._refused: dict[bytes, list[bytes]] = {}
        self._scan_at = float("-inf")
        self._moved_at = 0.0
        self._left = 0

    def on_replicated(self, node: bytes, message: Replicated) -> None:
        """A node has a copy that it keeps, or cannot have one."""
        object_id = message.object_id
        if self._asked.get(object_id, (b"", 0))[0] != node:
            return
        del self._asked[object_id]
        self._moved_at = time.monotonic()
        self._scan_at = min(self._scan_at, self._moved_at)
        if message.reason:
            self._refused.setdefault(object_id, []).append(node)
            log.warning("node %s cannot take object %s: %s", node.hex(), object_id.hex(), message.reason)
        else:
            self.places[object_id] = node

    def turn(self, successors: list[NodeRecord], now: float) -> bool:
        """Ask for more copies. True when all are somewhere else, and everybody has had the time to hear where."""
        self._moved_at = self._moved_at or now
        if now >= self._scan_at or not self._asked:
            self._scan_at = now + _SCAN_S
            self._scan(successors)
        if now - self._moved_at >= _STUCK_S:
            log.error("%d objects could not be copied anywhere: they are lost with this node", self._left)
            return True
        return not self._left and (not self.places or now - self._moved_at >= _SPREAD_S)

    def _scan(self, successors: list[NodeRecord]) -> None:
        node, registry = self._node, self._node.registry
        there = {each.node for each in successors}
        self._asked = {each: order for each, order in self._asked.items() if order[0] in there}
        held = registry.index.objects_of(node.me)
        self._asked = {each: order for each, order in self._asked.items() if each in registry.index}
        self._left = len(self._asked)
        for object_id in held:
            if object_id in self._asked or self.places.get(object_id) in there or self._is_nobodys(object_id):
                continue
            holders = {holder: (nbytes, primary) for holder, nbytes, primary in registry.holders(object_id)}
            nbytes, ours = holders.pop(node.me)
            others = [holder for holder in holders if holder in there]
            if any(holders[holder][1] for holder in others) or not (ours or node.settings.registry_scope == "all"):
                continue
            refused = self._refused.get(object_id, [])
            target = self._target([each for each in successors if each.node not in refused], others, nbytes)
            if not target or len(refused) >= _ATTEMPTS:
                continue
            self._left += 1
            if len(self._asked) < _WINDOW:
                self._asked[object_id] = (target, nbytes)
                node.post(target, Replicate(object_id, nbytes, node.me))

    def are_needed(self) -> bool:
        """Whether the store has anything that somebody may still ask for."""
        held = self._node.registry.index.objects_of(self._node.me)
        return any(not self._is_nobodys(object_id) for object_id in held)

    def _is_nobodys(self, object_id: bytes) -> bool:
        """A process of ours owns it, and has not left it to us (yet)."""
        return node_of(object_id) == self._node.me and object_id not in self._node.adoption

    def _target(self, successors: list[NodeRecord], others: list[bytes], nbytes: int) -> bytes:
        """Who has a copy already, else who has most room; empty when everybody has refused."""
        if not successors:
            return b""
        coming: dict[bytes, int] = {}
        for node, size in self._asked.values():
            coming[node] = coming.get(node, 0) + size

        def room(each: NodeRecord) -> int:
            return each.store_bytes - each.store_used_bytes - coming.get(each.node, 0)

        best = max(successors, key=lambda each: (each.node in others, room(each) >= nbytes, room(each)))
        return best.node
