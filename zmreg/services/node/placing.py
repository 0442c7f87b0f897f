"""Which worker for whom, at one node: what owners and the head ask for, what the lease book says, who else has room."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, assert_never

from zmreg.core import effects as fx
from zmreg.core import placement
from zmreg.core.claims import Totals
from zmreg.core.labels import has_wishes
from zmreg.model.group_messages import AskGroup, HeldBundles
from zmreg.model.ids import node_of
from zmreg.model.messages import (
    ActorHosted,
    ActorUnplaceable,
    Exit,
    KillProcess,
    LeaseGranted,
    LeaseRecalled,
    PlaceActor,
    TryNodes,
    UnplaceActor,
    Unschedulable,
    UseDevices,
    WantLeases,
    WorkersAtCap,
)
from zmreg.model.specs import GROUP, ON, Shape, node_named_in
from zmreg.services.worker.tidying import Tidying

if TYPE_CHECKING:
    from zmreg.services.node.groups import Groups
    from zmreg.services.node.node import Node


class Placing:
    """The lease book's hands, and the node's view of the others' room."""

    def __init__(self, node: Node) -> None:
        self._node = node
        node.leases.labels = node.settings.labels
        self._hosting: dict[bytes, tuple[str, bool]] = {}
        """Actors that wait for a worker here: their classes' names, and whether they may be restarted."""
        self._tidying = Tidying(node.post)
        self.groups: Groups | None = None
        """Placement groups, with the first word about one."""

    def tick(self, now: float) -> None:
        """Time passes for the lease book, and for groups that wait."""
        self.perform(self._node.leases.tick(now))
        self._tidying.tick(now, self._node.leases.idle_after_work())
        if self.groups is not None:
            self.groups.look()

    def process_died(self, process: bytes) -> None:
        """Groups of its own are gone."""
        if self.groups is not None:
            self.groups.owner_died(process)

    def crowned(self, head: bytes) -> None:
        """Another head: it is told what is held here for groups."""
        for group_id, standing, prepared in self._node.leases.groups():
            self._node.post(head, HeldBundles(group_id, standing, prepared))

    def all_home(self) -> None:
        """At a head that goes on for another: all nodes have told it what they have."""
        if self.groups is not None:
            self.groups.all_home()

    def no_place(self, place: Shape) -> str:
        """At the head: why an actor of this shape has no place for good; empty while its group may come to its own."""
        group = place.term(GROUP)
        if group and self.groups is not None and bytes.fromhex(group) in self.groups.book.groups:
            return ""
        gone = f"its placement group {group} was removed: " if group else ""
        return f"{gone}asked for [{place}], and no node of the cluster has that in total"

    def is_of_removed(self, place: Shape) -> bool:
        """At the head: whether the shape is one of a placement group that was removed."""
        group = place.term(GROUP)
        return bool(group) and self.groups is not None and bytes.fromhex(group) in self.groups.book.removed

    def node_gone(self, gone: bytes) -> None:
        """Bundles there are lost."""
        if self.groups is not None:
            self.groups.node_gone(gone)

    def room_changed(self) -> None:
        """Another node came, went, or has told what it has free: who waits here may be served there."""
        if self._node.neighbours is not None:
            # The suspected ones too: no work goes there now, but what only they can run is not refused for that.
            others = (each for each in self._node.neighbours.members.records() if each.node != self._node.me)
            totals: list[Totals] = [(dict(each.total), frozenset(each.locs), dict(each.labels)) for each in others]
            self._node.leases.others = totals
            self._offer_elsewhere()

    def on_want(self, owner: bytes, message: WantLeases) -> None:
        shape = Shape(message.resources, message.locs, message.strategy, message.terms)
        preferred = self._preferred(shape)
        if preferred:
            counts = tuple(message.count for _ in preferred)
            self._node.post(
                owner, TryNodes(shape.resources, shape.locs, shape.strategy, preferred, counts, shape.terms)
            )
        elif message.book:
            self.perform(self._node.leases.want(owner, shape, message.count, message.depth))
            self._offer_elsewhere()
        else:
            self._spread(owner, shape, message)

    def _preferred(self, shape: Shape) -> tuple[bytes, ...]:
        """Nodes that meet more wishes than ours: who can be served there is sent there, also if that means to wait."""
        if not has_wishes(shape) or shape.strategy or self._node.neighbours is None:
            return ()
        return placement.preferred(self._node.neighbours.view(), shape)

    def _spread(self, owner: bytes, shape: Shape, message: WantLeases) -> None:
        nodes = placement.everywhere(self._node.neighbours.view(), shape) if self._node.neighbours is not None else ()
        counts = tuple(message.count for _ in nodes)
        if nodes:
            self._node.post(owner, TryNodes(shape.resources, shape.locs, shape.strategy, nodes, counts, shape.terms))
        else:  # our own book says why not
            self.perform(self._node.leases.want(owner, shape, message.count, message.depth))

    def _offer_elsewhere(self) -> None:
        """Owners on this node who wait are told which nodes have room for them."""
        if self._node.neighbours is None:
            return
        unserved = [each for each in self._node.leases.unserved() if node_of(each[0]) == self._node.me]
        if unserved:
            others = self._node.neighbours.view()[1:]
            for owner, shape, missing in unserved:
                offers = placement.elsewhere(others, shape, missing, self._node.leases.fits_node(shape))
                if offers:
                    nodes, counts = zip(*offers, strict=True)
                    self._node.post(
                        owner, TryNodes(shape.resources, shape.locs, shape.strategy, nodes, counts, shape.terms)
                    )

    def choose_for_actor(self, place: Shape, placed: Mapping[bytes, int]) -> bytes | None:
        """The node that is to host an actor of this shape; None when no node can. `placed`: actors on each node."""
        if self._node.neighbours is None:
            bound_elsewhere = place.strategy.startswith(ON) and node_named_in(place.strategy) != self._node.me
            return None if bound_elsewhere else self._node.me
        return placement.choose(self._node.neighbours.view(), place, placed)

    def for_the_head(self, message: PlaceActor | UnplaceActor | KillProcess) -> None:
        """What the head, which may be us, wants of us as the node of an actor."""
        match message:
            case PlaceActor(actor_id, class_name, place, hold, locs, restarts, terms):
                self._hosting[actor_id] = class_name, restarts
                self.perform(self._node.leases.host(actor_id, Shape(place, locs, terms=terms), Shape(hold, locs)))
            case UnplaceActor(actor_id):
                self._hosting.pop(actor_id, None)
                self.perform(self._node.leases.unhost(actor_id))
            case KillProcess(worker, reason):
                if worker not in self._node.leaving:  # an actor that has ended in peace: see `_on_goodbye`
                    self._node.nursery.kill(worker, reason)

    def _hosted(self, actor_id: bytes, worker: bytes) -> None:
        child = self._node.nursery.children.get(worker)
        if child is not None:
            child.name, child.restarts = self._hosting.pop(actor_id, (child.name, False))
            child.is_actor = True
        self._node.head.hears(self._node.me, ActorHosted(actor_id, worker))

    def perform(self, effects: Iterable[fx.LeaseEffect]) -> None:
        """Do what the lease book decided."""
        for effect in effects:
            match effect:
                case fx.StartWorker():
                    if not self._node.stopping:
                        self._node.nursery.start()
                case fx.StartLodger(worker, house):
                    self._node.nursery.lodge(worker, house)
                case fx.StopWorker(worker, reason):
                    if reason:
                        self._node.nursery.kill(worker, reason)
                    else:
                        self._node.nursery.end(worker, time.monotonic(), self._ask_to_exit)
                case fx.Granted(owner, shape, worker, devices):
                    word = LeaseGranted(shape.resources, shape.locs, shape.strategy, worker, devices, shape.terms)
                    self._node.post(owner, word)
                case fx.Recall(owner, worker):
                    self._node.post(owner, LeaseRecalled(worker))
                case fx.Hosted(actor_id, worker, devices):
                    if devices is not None:  # by our own link, as what the head says next: the constructor comes later
                        self._node.post(worker, UseDevices(devices))
                    self._hosted(actor_id, worker)
                case fx.Infeasible(owner, actor_id, shape, reason) | fx.CannotStart(owner, actor_id, shape, reason):
                    if owner is not None:
                        none_now = isinstance(effect, fx.CannotStart)
                        if not none_now and self._node.neighbours is not None and not shape.term(GROUP):
                            reason = placement.why_not(self._node.neighbours.view(), shape)
                        refusal = Unschedulable(
                            shape.resources, shape.locs, shape.strategy, reason, none_now, shape.terms
                        )
                        self._node.post(owner, refusal)
                    if actor_id is not None:
                        self._node.tell(self._node.head_node(), ActorUnplaceable(actor_id, reason))
                case fx.GroupUnknown(group_id):
                    self._node.tell(self._node.head_node(), AskGroup(group_id))
                case fx.AtCap(owner, shape):
                    self._node.post(owner, WorkersAtCap(shape.resources, shape.locs, shape.strategy, shape.terms))
                case _:
                    assert_never(effect)

    def _ask_to_exit(self, worker: bytes) -> None:
        self._node.post(worker, Exit(False))
