"""Actors that have no worker yet, as the head sees it.

Where an actor waits for room it has a place in that node's queue, so it stays there as long as no other node has room
for it at once. When one has, it is placed there instead. What a node has free, the head hears twice a second from that
node itself. An actor that no node is able to host waits a moment for one that joins.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from zmreg.core import placement
from zmreg.model.messages import NodeRecord

if TYPE_CHECKING:
    from zmreg.services.head.head import Head
    from zmreg.services.node.node import Node

# As long as the lease book waits for what no node has (core/leases.py).
INFEASIBLE_S: Final = 2.0
# Within this time a node that has room has started a worker, and its record says what waits there (bulletin.py).
SETTLE_S: Final = 1.0
# A node's word that it has a worker for an actor which has left its queue may be under way for as long: it is not to be
# taken for its answer to the next time it is asked. Who is silent for longer is dead (core/nodes.py).
AWAY_S: Final = 10.0


class WaitingActors:
    """Those that some node was asked to host, and those that none can."""

    def __init__(self, node: Node, head: Head) -> None:
        self._node = node
        self._head = head
        self._asked: dict[bytes, float] = {}
        """When a node was asked, in seconds of time.monotonic(); some of them live by now."""
        self._unable: dict[bytes, float] = {}
        """No node is able to host them; when that is final."""
        self._left: dict[bytes, dict[bytes, float]] = {}
        """{actor: {node whose queue it has left: when}}."""
        self._filled: dict[bytes, NodeRecord] = {}
        """By these records of theirs we have sent them actors: they are to speak again before they get more."""

    def asked(self, actor_id: bytes) -> None:
        """A node was asked just now."""
        self._unable.pop(actor_id, None)
        self._asked[actor_id] = time.monotonic()

    def for_an_able_node(self, actor_id: bytes, until: float) -> None:
        """There is none, which is not final before `until`."""
        self._unable.setdefault(actor_id, max(time.monotonic(), until) + INFEASIBLE_S)

    def forget(self, actor_id: bytes) -> None:
        """It needs no place now."""
        self._unable.pop(actor_id, None)

    def __contains__(self, actor_id: object) -> bool:
        """Whether it waits for a node that is able."""
        return actor_id in self._unable

    def tick(self, now: float) -> None:
        """Have those hosted elsewhere that can be, and forget those that live or have ended."""
        self._try_again(now)
        waiting: list[placement.Waiting] = []
        for actor_id, since in list(self._asked.items()):
            place = self._head.waits_at(actor_id)
            if not place:
                del self._asked[actor_id]
                self._left.pop(actor_id, None)
            elif now - since >= SETTLE_S:
                left = self._left.get(actor_id, {})
                shunned = frozenset(node for node, when in left.items() if now - when < AWAY_S)
                waiting.append((actor_id, place, self._head.shape_of(actor_id), shunned))
        if waiting and self._node.neighbours is not None:
            self._move(waiting, self._node.neighbours.view(), now)

    def _try_again(self, now: float) -> None:
        head = self._head
        for actor_id, until in list(self._unable.items()):
            if actor_id not in head.actors:
                del self._unable[actor_id]
                continue
            head.place(actor_id)
            if actor_id in self._unable:
                place, placing = head.shape_of(actor_id), self._node.placing
                reason = placing.no_place(place) if now > until or placing.is_of_removed(place) else ""
                if reason:
                    del self._unable[actor_id]
                    head.unplaceable(actor_id, reason)

    def _move(self, waiting: list[placement.Waiting], nodes: list[NodeRecord], now: float) -> None:
        self._filled = {each.node: each for each in nodes if self._filled.get(each.node) is each}
        for actor_id, place, node in placement.moves(nodes, self._filled, waiting):
            record = next(each for each in nodes if each.node == node)
            self._filled[node] = record
            self._left.setdefault(actor_id, {})[place] = now
            self._head.move(actor_id, node)
