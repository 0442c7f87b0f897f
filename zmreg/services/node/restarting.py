"""One call to a clean cluster, as its nodes see it: all actors end, then all workers, and who asked hears when.

The head ends the actors first, so that no death of a worker is a reason to restart one. Everything on the nodes' side
follows from the deaths, as with any other: leases and pins are free, other owners try their tasks again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zmreg.model.messages import Answer, EndWorkers, Message, WorkersEnded
from zmreg.services.head.head import Head
from zmreg.wire import batches

if TYPE_CHECKING:
    from zmreg.services.node.node import Node

RESTART: Final = "restart"
_REASON: Final = "the cluster was restarted"


@dataclass(slots=True)
class _Round:
    """At the head: who asked, and which nodes have not answered."""

    asker: bytes
    request: int
    nodes: set[bytes]


class Restarting:
    """The restarts that a node is in, and those that it leads as head."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._rounds: dict[int, _Round] = {}
        self._number = 0
        self._ending: list[tuple[bytes, int, set[bytes]]] = []
        """(the head that asked, its number, the workers that live still)."""

    def hears(self, sender: bytes, message: Message) -> bool:
        """Act on what head and nodes say about it; False when the message is about something else."""
        match message:
            case EndWorkers(number):
                self._on_end(sender, number)
            case WorkersEnded(number):
                self._on_ended(sender, number)
            case _:
                return False
        return True

    # -- at the head ------------------------------------------------------------------------------------------------

    def begin(self, asker: bytes, request: int) -> None:
        """Somebody asks for a clean cluster."""
        node = self._node
        assert isinstance(node.head, Head)
        node.head.end_all()
        self._number += 1
        nodes = [node.me, *node.other_nodes()]
        self._rounds[self._number] = _Round(asker, request, set(nodes))
        for each in nodes:
            node.tell(each, EndWorkers(self._number))

    def _on_ended(self, node: bytes, number: int) -> None:
        """A node has no old workers any more."""
        led = self._rounds.get(number)
        if led is not None:
            led.nodes.discard(node)
            if not led.nodes:
                del self._rounds[number]
                self._node.post(led.asker, Answer(led.request, True, batches.pack_plain(True)))

    def node_gone(self, node: bytes) -> None:
        """And its workers with it. Who asked for a restart and is gone asks no more."""
        for number in list(self._rounds):
            self._on_ended(node, number)
        self._ending = [each for each in self._ending if each[0] != node]

    # -- at every node ----------------------------------------------------------------------------------------------

    def _on_end(self, head: bytes, number: int) -> None:
        """Those that have not said hello have run nothing yet: they are as new as any."""
        nursery = self._node.nursery
        workers = {worker for worker, child in nursery.children.items() if child.ready}
        for worker in workers:
            nursery.kill(worker, _REASON)
        self._ending.append((head, number, workers))
        self._look()

    def worker_died(self, worker: bytes) -> None:
        """One less; everybody has been told of it."""
        for _, _, workers in self._ending:
            workers.discard(worker)
        self._look()

    def _look(self) -> None:
        over = [each for each in self._ending if not each[2]]
        self._ending = [each for each in self._ending if each[2]]
        for head, number, _ in over:
            self._node.tell(head, WorkersEnded(number))
