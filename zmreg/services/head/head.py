"""The head: owner of actors, their names and what they are made of. Never unpickles: classes and arguments are opaque.

A part of one node's process. It hears what is said about actors, asks the actor book, and performs what that decides
through the nodes that have the workers, its own or another. What the others have in its place is in far_head.py.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Container, Iterable
from functools import partial
from typing import TYPE_CHECKING, assert_never

from zmreg.core import effects as fx
from zmreg.core.actor_roll import Stand
from zmreg.core.actors import ActorBook
from zmreg.model.errors import ProtocolError
from zmreg.model.ids import NODE_BYTES, PROCESS_ID_BYTES, node_of, owner_of
from zmreg.model.messages import (
    ActorExiting,
    ActorHosted,
    ActorInputs,
    ActorRefused,
    ActorState,
    ActorUnplaceable,
    Construct,
    Constructed,
    CreateActor,
    ForHead,
    HeadKept,
    Inventory,
    JobNoted,
    JobStarted,
    KillActor,
    KillProcess,
    KnownDead,
    Message,
    PlaceActor,
    ProcessDied,
    ReleaseActor,
    RetireActor,
    UnplaceActor,
    WatchActor,
)
from zmreg.model.specs import ActorEntry, Shape
from zmreg.services.head.homecoming import Homecoming
from zmreg.services.head.jobs import Jobs
from zmreg.services.head.waiting_actors import WaitingActors
from zmreg.services.node import on_demand
from zmreg.services.node.mourning import EVERYTHING
from zmreg.wire import codec

if TYPE_CHECKING:
    from zmreg.services.head.keeping import Keeping
    from zmreg.services.head.ledger import Ledger
    from zmreg.services.node.node import Node


# An owner's message takes a millisecond; whoever uses a handle of an actor that was refused hears so after this.
EARLY_S = 5.0
UNWRITTEN = "unwritten"
"""Kind of a refusal: the head's disk is at fault, not the order."""


class Head:
    """Actors as the cluster knows them."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.actors = ActorBook()
        self.creations: dict[bytes, CreateActor] = {}
        """How each living actor was ordered: what a restart, and a handle by name, is made from."""
        self._places: dict[bytes, bytes] = {}
        """The node that was asked to host an actor, or does."""
        self._early: dict[bytes, tuple[float, list[tuple[bytes, Message]]]] = {}
        """What was said of actors that are not known yet: (until when to keep it, senders and messages)."""
        self._waiting = WaitingActors(node, self)
        self.jobs = Jobs(self.actors)
        self.homecoming = Homecoming(node, self)
        self.keeping: Keeping | None = None
        """What survives us is written by this; None: nothing does."""

    def take_over(self, ledger: Ledger) -> None:
        """Go on where the former head has stopped, and write down what changes from now on."""
        from zmreg.services.head.keeping import Keeping  # late, here and wherever a ledger is opened: sqlite

        self.homecoming.restore(ledger)
        self.jobs.restore(ledger.jobs, ledger.submissions)
        self.keeping = Keeping(self._node, self, ledger)
        self.jobs.write_down(self.keeping.job, self.keeping.submission)

    def know(self, owner: bytes, creation: CreateActor, stand: Stand) -> None:
        """An actor of the former head's."""
        self.creations[stand.actor_id] = creation
        self.actors.restore(_entry(owner, creation), stand, creation.waiting)
        if stand.worker:
            self._places[stand.actor_id] = node_of(stand.worker)

    def claimed(self, actor_id: bytes, node: bytes, worker: bytes, constructed: bool) -> None:
        """A node has the worker of an actor of the former head's."""
        self._places[actor_id] = node
        self.perform(self.actors.claim(actor_id, worker, constructed))

    def has_place(self, actor_id: bytes) -> bool:
        """Whether a node hosts the actor or was asked to."""
        return actor_id in self._places or actor_id in self._waiting

    def waits_at(self, actor_id: bytes) -> bytes:
        """The node that was asked to host the actor and has no worker for it yet; empty when there is none."""
        return b"" if actor_id not in self.actors or self.actors.worker(actor_id) else self._places.get(actor_id, b"")

    def move(self, actor_id: bytes, node: bytes) -> None:
        """An actor that waits is to be hosted by that node, and not by the one where it waits."""
        self._unplace(actor_id)
        self._place_at(actor_id, node)

    def shape_of(self, actor_id: bytes) -> Shape:
        """What an actor needs of the node that is to host it."""
        creation = self.creations[actor_id]
        return Shape(creation.place, creation.locs, creation.strategy, creation.terms)

    # -- what is heard ----------------------------------------------------------------------------------------------

    def hears(self, sender: bytes, message: Message) -> bool:
        """Act on what is said about actors; False when the message is about something else."""
        match message:
            case CreateActor():
                self._on_create(sender, message)
            case ActorInputs(actor_id, deps):
                creation = self.creations.get(actor_id)
                if creation is not None:
                    self.creations[actor_id] = creation.but(deps=deps, waiting=False)
                    self._write(sender, self.creations[actor_id])
                    self.perform(self.actors.ready(actor_id))
            case Constructed(actor_id, failure):
                self.perform(self.actors.constructed(actor_id, sender, failure or None))
            case WatchActor(actor_id) | KillActor(actor_id, _):
                if isinstance(message, WatchActor) and self.homecoming.holds(sender, actor_id, message):
                    return True
                if self._comes_early(sender, actor_id):
                    self._early.setdefault(actor_id, (time.monotonic() + EARLY_S, []))[1].append((sender, message))
                else:
                    self._on_wish(sender, message)
            case ReleaseActor(actor_id):
                self.perform(self.actors.release(actor_id))
            case ActorExiting(actor_id):
                self.perform(self.actors.exiting(actor_id, sender))
            case ActorHosted(actor_id, worker):
                if self.homecoming.hosted(sender, actor_id, worker):
                    return True
                if self._places.get(actor_id) == sender:
                    self.hosted(actor_id, worker)
            case ActorUnplaceable(actor_id, reason):
                if self._places.get(actor_id) == sender:
                    self.unplaceable(actor_id, reason)
            case ForHead():
                self._on_entrusted(sender, message)
            case Inventory() | KnownDead():
                self.homecoming.hears(sender, message)
            case JobStarted() | JobNoted():
                self.jobs.hears(message)
            case _:
                return False
        return True

    def _comes_early(self, sender: bytes, actor_id: bytes) -> bool:
        """The order of an actor comes from its owner, and a handle may be used by others before that is here."""
        there = actor_id[:8] in self._node.clients or node_of(actor_id) in self._node.other_nodes()
        return sender != actor_id[:8] and there and self.actors.state(actor_id) is None

    def _on_wish(self, sender: bytes, message: Message) -> None:
        match message:
            case WatchActor(actor_id):
                self.perform(self.actors.subscribe(actor_id, sender))
            case KillActor(actor_id, no_restart):
                self.perform(self.actors.kill(actor_id, no_restart))

    def _on_entrusted(self, node: bytes, word: ForHead) -> None:
        """What another node keeps until we have it on the disk. Perhaps it was said to the former head already."""
        message = codec.decode(word.payload)
        if node_of(word.origin) != node or isinstance(message, ForHead):
            raise ProtocolError(f"node {node.hex()} brought a word of {word.origin.hex()}, which is not its own")
        if isinstance(message, ProcessDied):
            self.process_died(message.process, message.reason, EVERYTHING if message.adopted else ())
            self._node.placing.process_died(message.process)
        elif not self.hears(word.origin, message):
            on_demand.hears(self._node, word.origin, message)
        if self.keeping is not None:
            self.keeping.heard(node, word.number)
        else:
            self._node.post(node, HeadKept(word.number))

    def _on_create(self, sender: bytes, message: CreateActor) -> None:
        known = message.actor_id in self.actors
        if not known:
            self.creations[message.actor_id] = message
        effects = self.actors.create(_entry(sender, message), time.monotonic(), message.waiting)
        accepted = not known and message.actor_id in self.actors
        if accepted:
            self._write(sender, message)
        if accepted and self.keeping is not None and (message.name or message.detached):
            self.keeping.note()
            self.keeping.promise(partial(self._kept, message.actor_id, effects))
        else:
            self.perform(effects)
        self.homecoming.ordered(message.actor_id)
        self._early_is_over(message.actor_id)

    def _write(self, owner: bytes, creation: CreateActor) -> None:
        if self.keeping is not None:
            self.keeping.order(owner_of(creation.actor_id), creation)

    def _kept(self, actor_id: bytes, effects: list[fx.ActorEffect], why: str) -> None:
        """A registration is on the disk, or (`why`) is not and never was."""
        if why and actor_id in self.actors:
            text = f"the head cannot write its state: {why}. Make room on its disk, then try again"
            self.perform(self.actors.unplaceable(actor_id, text.encode()))
            self._node.post(owner_of(actor_id), ActorRefused(actor_id, text, UNWRITTEN))
        elif actor_id in self.actors:
            self.perform(effects)

    def _early_is_over(self, actor_id: bytes) -> None:
        for sender, wish in self._early.pop(actor_id, (0.0, []))[1]:
            self._on_wish(sender, wish)

    def end_all(self) -> None:
        """Every actor is killed, detached ones, too, and none comes back."""
        for actor_id in list(self.creations):
            self.perform(self.actors.kill(actor_id, no_restart=True))

    def hosted(self, actor_id: bytes, worker: bytes) -> None:
        """The node has a worker for the actor."""
        self.perform(self.actors.hosted(actor_id, worker))

    def unplaceable(self, actor_id: bytes, reason: str) -> None:
        """It never will have one."""
        self.perform(self.actors.unplaceable(actor_id, reason.encode()))

    def release(self, actor_id: bytes) -> None:
        """Nobody holds a strong handle any more; nothing for what is no actor."""
        self.perform(self.actors.release(actor_id))

    def process_died(self, process: bytes, reason: str, adopted: Container[bytes]) -> None:
        """As an actor's worker, as a listener, and as the owner of actors; of these the `adopted` ones stay."""
        self.jobs.process_died(process, reason)
        self.perform(self.actors.worker_died(process, reason.encode()))
        self.perform(self.actors.process_died(process))
        self.perform(self.actors.owner_died(process, adopted))
        for actor_id in [each for each in self._early if each[:8] == process]:
            self._early_is_over(actor_id)

    def node_drains(self, node: bytes) -> None:
        """It is about to leave: its actors go elsewhere, those with a worker when they have answered their calls."""
        for actor_id in [each for each, place in self._places.items() if place == node]:
            if self.actors.worker(actor_id):
                self.perform(self.actors.leave_node(actor_id))
            elif actor_id in self.actors:
                self._unplace(actor_id)
                self.perform(self.actors.host_lost(actor_id))

    def node_gone(self, node: bytes, reason: str, adopted: Container[bytes] = ()) -> None:
        """With every process on it. Actors that waited for a place there are placed anew; `adopted`: see above."""
        others = {each[:PROCESS_ID_BYTES] for each in self._early} | self.jobs.drivers()
        for process in [each for each in self.actors.processes() | others if each.startswith(node[:NODE_BYTES])]:
            self.process_died(process, reason, adopted)
        for actor_id in [each for each, place in self._places.items() if place == node]:
            self.perform(self.actors.host_lost(actor_id))
        if self.keeping is not None:
            self.keeping.member(node, False)

    def node_came(self, node: bytes) -> None:
        """A node has joined."""
        if self.keeping is not None:
            self.keeping.member(node, True)

    def tick(self, now: float) -> None:
        """Restarts that had to wait; and nothing is kept for the dead."""
        self.homecoming.tick(now)
        if self.keeping is not None:
            self.keeping.tick()
        self.perform(self.actors.tick(now))
        self._waiting.tick(now)
        self.jobs.tick()
        for actor_id in [each for each, (until, _) in self._early.items() if now > until]:
            self._early_is_over(actor_id)
        if len(self.creations) > len(self.actors):
            self.creations = {each: creation for each, creation in self.creations.items() if each in self.actors}
            self._places = {each: place for each, place in self._places.items() if each in self.actors}

    def close(self) -> None:
        """Have on the disk what is left, and let the next head have it."""
        keeping, self.keeping = self.keeping, None
        if keeping is not None:
            self._node.unwatch(keeping.ledger.fd)
            self.jobs.write_down(lambda job: None, lambda submission: None)
            keeping.ledger.close()

    # -- what is done -----------------------------------------------------------------------------------------------

    def perform(self, effects: Iterable[fx.ActorEffect]) -> None:
        """Do what the actor book decided."""
        words: list[tuple[bytes, ActorState]] = []
        for effect in effects:
            match effect:
                case fx.HostActor(actor_id, _, _):
                    if self.homecoming.postpones(actor_id):
                        self._places.pop(actor_id, None)
                    else:
                        self.place(actor_id)
                case fx.UnhostActor(actor_id):
                    self._unplace(actor_id)
                case fx.Construct(actor_id, worker, incarnation):
                    self._construct(actor_id, worker, incarnation)
                case fx.RetireActor(actor_id, worker, moves):
                    self._node.post(worker, RetireActor(actor_id, moves))
                case fx.KillWorker(worker):
                    self._node.tell(node_of(worker), KillProcess(worker, "it was killed on request"))
                case fx.TellActor(process, actor_id, state, worker, incarnation, failure, restarts, init_failed):
                    word = ActorState(actor_id, state.lower(), worker, incarnation, failure, init_failed, restarts)
                    words.append((process, word))
                case fx.ActorCreated():
                    continue
                case fx.ActorRefused(actor_id, owner, reason):
                    self.creations.pop(actor_id, None)
                    self._node.post(owner, ActorRefused(actor_id, reason))
                    if self.keeping is not None:  # should it be said again, to the next head
                        self.keeping.ledger.end(actor_id, reason.encode())
                case _:
                    assert_never(effect)
        if self.keeping is not None:
            self.keeping.note()
        tell = self._node.post if self.keeping is None else self.keeping.tell
        for process, word in words:
            tell(process, word)

    def place(self, actor_id: bytes) -> None:
        """Have the best node host the actor."""
        chosen = self._node.placing.choose_for_actor(self.shape_of(actor_id), Counter(self._places.values()))
        if chosen is None:
            self._waiting.for_an_able_node(actor_id, self.homecoming.until)  # not all are back yet
        else:
            self._place_at(actor_id, chosen)

    def _place_at(self, actor_id: bytes, chosen: bytes) -> None:
        self._places[actor_id] = chosen
        self._waiting.asked(actor_id)
        creation = self.creations[actor_id]
        what = creation.place, creation.hold, creation.locs, creation.max_restarts != 0, creation.terms
        self._node.tell(chosen, PlaceActor(actor_id, creation.class_name, *what))

    def _unplace(self, actor_id: bytes) -> None:
        self._waiting.forget(actor_id)
        if (place := self._places.pop(actor_id, None)) is not None:
            self._node.tell(place, UnplaceActor(actor_id))

    def _construct(self, actor_id: bytes, worker: bytes, incarnation: int) -> None:
        creation = self.creations[actor_id]
        self._node.post(
            worker,
            Construct(
                actor_id, incarnation, creation.max_concurrency, creation.blob, creation.payload, creation.deps,
                creation.handle, creation.name,
            ),
        )  # fmt: skip


def _entry(owner: bytes, creation: CreateActor) -> ActorEntry:
    return ActorEntry(
        creation.actor_id, owner, creation.name, creation.namespace, creation.class_name,
        Shape(creation.place, creation.locs), Shape(creation.hold, creation.locs), creation.max_restarts,
        creation.detached,
    )  # fmt: skip
