"""What the head writes into its ledger, and what waits until it is on the disk.

A registration that somebody relies on (a name, a detached actor) is carried out and acknowledged after its commit.
What other nodes say about actors is confirmed to them after its commit, too: until then they keep it for the next head.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from zmreg.model.ids import node_of
from zmreg.model.messages import ActorState, CreateActor, HeadKept
from zmreg.services.head.jobs import Job
from zmreg.services.head.ledger import Ledger, Order
from zmreg.services.head.submissions import Submission
from zmreg.wire import codec

if TYPE_CHECKING:
    from zmreg.services.head.head import Head
    from zmreg.services.node.node import Node

log = logging.getLogger("zmreg.keeping")


class Keeping:
    """The head's pen."""

    def __init__(self, node: Node, head: Head, ledger: Ledger) -> None:
        self._node = node
        self._head = head
        self.ledger = ledger
        self._promises = 0
        self._heard: dict[bytes, int] = {}
        """Of each node the last number heard, if it was not confirmed."""
        self._confirming = False
        self._refused = ""
        head.actors.watch_changes()
        node.watch(ledger.fd, ledger.settle)

    def order(self, owner: bytes, creation: CreateActor) -> None:
        """An actor was accepted, or its inputs have come."""
        self.ledger.order(
            Order(
                creation.actor_id, owner, creation.name, creation.namespace, creation.detached, codec.encode(creation)
            )
        )

    def note(self) -> None:
        """Write down how those actors stand that have changed."""
        stands, ends = self._head.actors.changes()
        for stand in stands:
            self.ledger.stand(stand)
        for actor_id, reason in ends:
            self.ledger.end(actor_id, reason)

    def job(self, job: Job) -> None:
        """A driver has come or gone."""
        self.ledger.job(job)

    def submission(self, submission: Submission) -> None:
        """A submitted job has come or changed. Who asks for it after that is answered when it is on the disk."""
        self.ledger.submission(submission)
        self.promise(lambda why: None)

    def member(self, node: bytes, there: bool) -> None:
        """A node has joined or is gone."""
        self.ledger.node(node, there)

    def promise(self, kept: Callable[[str], None]) -> None:
        """Call back when what was noted so far is on the disk, with "", or with the reason why it is not."""
        self._promises += 1

        def told(why: str) -> None:
            self._promises -= 1
            kept(why)

        self.ledger.after(told)

    def when_kept(self, call: Callable[[], None]) -> None:
        """Call when every promise made so far was kept or refused: at once, if there is none."""
        if self._promises:
            self.ledger.after(lambda _: call())
        else:
            call()

    def tell(self, process: bytes, word: ActorState) -> None:
        """Say how an actor stands. One on this machine dies with us, and the next head must know that it had lived, or
        it makes it anew, without its state and with nobody told: who outlives us hears of it when it is written down.
        """
        me = self._node.me

        def say(_: str = "") -> None:
            self._node.post(process, word)

        if node_of(process) == me:
            say()
        elif word.state == "alive" and node_of(word.worker) == me:
            self.promise(say)
        else:
            self.when_kept(say)  # not before an earlier word

    def heard(self, node: bytes, number: int) -> None:
        """A node's word of that number was acted on."""
        self._heard[node] = number
        self._confirm()

    def _confirm(self) -> None:
        if self._heard and not self._confirming:
            self._confirming = True
            heard, self._heard = self._heard, {}
            self.ledger.after(partial(self._confirmed, heard), urgent=False)

    def _confirmed(self, heard: dict[bytes, int], why: str) -> None:
        self._confirming = False
        if why:
            self._heard = {**heard, **self._heard}  # again with the next tick
            return
        for node, number in heard.items():
            self._node.post(node, HeadKept(number))
        self._confirm()

    def tick(self) -> None:
        """Say when the disk is full and when it is not any more."""
        self._confirm()
        refused = self.ledger.refused
        if refused and not self._refused:
            log.error("the head's state cannot be written (%s): named and detached actors are refused", refused)
        elif self._refused and not refused:
            log.warning("the head's state can be written again")
        self._refused = refused
