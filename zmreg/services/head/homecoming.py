"""A head's first seconds: what the one before had written down is compared with what the nodes really host.

Names are taken from the first moment on. Actors on other nodes run on; each node that was a member says what it hosts
(`Inventory`). When all have, or after as long as any silent node has (`dead_after_s`, but no less than a healthy one
may need), what nobody has claimed is made again or is dead, by the rules for workers that die. The machine of the
former head is gone for certain: we have its lock.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, cast

from zmreg.core.nodes import PAUSE_S, SUSPECT_S, NodeState, return_s
from zmreg.model.ids import PROCESS_ID_BYTES, node_of
from zmreg.model.messages import CreateActor, Inventory, KillProcess, KnownDead, Message, NodeGone
from zmreg.services.node import on_demand
from zmreg.wire import codec

if TYPE_CHECKING:
    from zmreg.services.head.head import Head
    from zmreg.services.head.ledger import Ledger
    from zmreg.services.node.node import Node

_AWAY: Final = "it did not come back after the head had restarted"
_FORMER: Final = b"the machine of the head went down"


class Homecoming:
    """From a head's start until it knows who is still there."""

    def __init__(self, node: Node, head: Head) -> None:
        self._node = node
        self._head = head
        self._former = b""
        self._awaited: set[bytes] = set()
        self._unclaimed: dict[bytes, bytes] = {}
        """Actors whose place is not certain: the worker that is expected to claim it, empty if none is."""
        self._strays: dict[bytes, tuple[bytes, bytes, bool]] = {}
        """Claimed but unknown: (node, worker, constructed). Their orders may still be said again."""
        self._wishes: list[tuple[bytes, bytes, Message]] = []
        self._until: float | None = None
        self._ticked = 0.0
        self._prolonged = False
        self.over = True

    def restore(self, ledger: Ledger) -> None:
        """Know what the former head knew."""
        head, me = self._head, self._node.me
        self._former = ledger.former
        self._awaited = set(ledger.nodes)
        for order, stand in ledger.actors:
            creation = cast(CreateActor, codec.decode(order.frame))
            head.know(order.owner, creation, stand)
            self._unclaimed[order.actor_id] = stand.worker
            self._awaited |= {node_of(each) for each in (order.owner, stand.worker) if each}
        for actor_id, reason in ledger.ends.items():
            head.actors.restore_end(actor_id, reason)
        if ledger.groups:
            on_demand.groups(self._node).restore(ledger.groups)
        self._awaited -= {self._former, me}
        self.over = False

    def tick(self, now: float) -> None:
        """First: bury what was on the former head's machine. Last: decide what nobody has claimed. While we were
        stopped nobody could come: then their time begins anew."""
        if self.over:
            return
        begins, paused = self._until is None, now - self._ticked > PAUSE_S
        self._ticked = now
        if self._until is None or paused:
            self._until = now + return_s(self._node.settings.dead_after_s)
        if begins and self._former:
            self._give_up(self._former, _FORMER)
            self._gone(self._former, _FORMER.decode())
        if now >= self._until and not self._prolonged and self._hears_of_some():
            self._prolonged = True
            self._until = now + SUSPECT_S
        if not self._awaited or now >= self._until:
            self._finish()

    def _hears_of_some(self) -> bool:
        """Whether one that is awaited is there, and what it hosts is on its way."""
        neighbours = self._node.neighbours
        return neighbours is not None and any(
            neighbours.members.state(node) is NodeState.ALIVE for node in self._awaited
        )

    @property
    def until(self) -> float:
        """When it is over at the latest; 0 when it is."""
        if self.over:
            return 0.0
        return self._until if self._until is not None else time.monotonic() + return_s(self._node.settings.dead_after_s)

    def hears(self, node: bytes, message: Inventory | KnownDead) -> None:
        """What a member tells a head that is new to it, or was away."""
        if isinstance(message, Inventory):
            self._on_inventory(node, message)
        elif self._node.neighbours is not None:
            self._node.neighbours.verdicts.on_known_dead(node, message)

    def _on_inventory(self, node: bytes, message: Inventory) -> None:
        """What a node hosts."""
        actors = self._head.actors
        for actor_id, worker, constructed in zip(message.actor_ids, message.workers, message.constructed, strict=False):
            if actor_id in self._unclaimed:
                del self._unclaimed[actor_id]
                self._head.claimed(actor_id, node, worker, constructed)
            elif actors.worker(actor_id) == worker:
                continue
            elif actors.state(actor_id) is None and not self.over:
                self._strays[actor_id] = (node, worker, constructed)
            else:
                self._refuse(node, worker)
        self._give_up(node, b"it died while there was no head")
        self._awaited.discard(node)

    def ordered(self, actor_id: bytes) -> None:
        """An actor was ordered, perhaps once more: a worker that was claimed for it is its own."""
        stray = self._strays.pop(actor_id, None)
        if stray is not None:
            self._unclaimed.pop(actor_id, None)
            self._head.claimed(actor_id, *stray)

    def hosted(self, node: bytes, actor_id: bytes, worker: bytes) -> bool:
        """A node says once more what it said to the former head, which may have not written it down."""
        if actor_id not in self._unclaimed:
            return False
        if self._unclaimed[actor_id] != worker:
            del self._unclaimed[actor_id]
            self._head.claimed(actor_id, node, worker, False)
        return True

    def postpones(self, actor_id: bytes) -> bool:
        """Whether an actor that needs a place has to wait: it may have one, and not all nodes are back."""
        if self.over:
            return False
        self._unclaimed[actor_id] = b""
        return True

    def holds(self, sender: bytes, actor_id: bytes, wish: Message) -> bool:
        """Whether the answer has to wait: callers who know where the actor is must not hear that it is nowhere."""
        if self.over or actor_id not in self._unclaimed:
            return False
        self._wishes.append((sender, actor_id, wish))
        return True

    def bury(self, node: bytes, reason: str) -> None:
        """A node that has not come back is dead, with all that it had of the former head's. Everybody is told."""
        self._awaited.discard(node)
        self._give_up(node, reason.encode())
        neighbours = self._node.neighbours
        if neighbours is not None and neighbours.members.record(node) is not None:  # it has said nothing of what it has
            neighbours.verdicts.sentence(node, reason)
            return
        self._gone(node, reason)
        if neighbours is not None:
            neighbours.members.on_declared_dead(node, reason)  # should it come, it comes as another
        for other in self._node.other_nodes():
            self._node.post(other, NodeGone(node, reason, False))

    def _gone(self, node: bytes, reason: str) -> None:
        self._head.node_gone(node, reason)
        self._node.placing.node_gone(node)

    def _give_up(self, node: bytes, reason: bytes) -> None:
        """Workers of that node that it has not claimed are dead."""
        for actor_id in [each for each, worker in self._unclaimed.items() if worker and node_of(worker) == node]:
            worker = self._unclaimed.pop(actor_id)
            if self._head.actors.worker(actor_id) == worker:
                self._head.perform(self._head.actors.missing(actor_id, reason))

    def _finish(self) -> None:
        self.over = True
        for node in list(self._awaited):
            self.bury(node, _AWAY)
        for actor_id in list(self._unclaimed):
            if not self._head.has_place(actor_id):
                self._head.perform(self._head.actors.missing(actor_id, b""))
        self._unclaimed.clear()
        self._node.placing.all_home()
        for node, worker, _ in self._strays.values():
            self._refuse(node, worker)
        self._strays.clear()
        wishes, self._wishes = self._wishes, []
        for sender, _, wish in wishes:
            self._head.hears(sender, wish)

    def _refuse(self, node: bytes, worker: bytes) -> None:
        self._node.tell(node, KillProcess(worker, "its actor is not one that the head knows"))

    def forget_owner(self, owner: bytes) -> None:
        """Its wishes are nobody's any more."""
        self._wishes = [each for each in self._wishes if each[0][:PROCESS_ID_BYTES] != owner]
