"""Placement groups: what a node does about them, and what the head decides (core/bundles.py, core/holdings.py).

The head writes groups down as they were ordered, and not where their bundles are: the nodes that hold them know, and
say it to the next head. That one asks nobody for anything before all nodes are back (services/head/homecoming.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, assert_never, cast

from zmreg.core import bundles
from zmreg.core.bundles import Group, GroupBook
from zmreg.model.group_messages import (
    AskGroup,
    BundlesPrepared,
    CommitBundles,
    CreateGroup,
    DropBundles,
    GroupWord,
    HeldBundles,
    HoldBack,
    PrepareBundles,
    RemoveGroup,
)
from zmreg.model.ids import owner_of
from zmreg.model.mesh_messages import NodeRecord
from zmreg.model.specs import UNIT
from zmreg.services.head.head import Head
from zmreg.wire import codec

if TYPE_CHECKING:
    from zmreg.services.head.keeping import Keeping
    from zmreg.services.node.node import Node


class Groups:
    """One node's part; the head's has the book."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.book = GroupBook()

    def hear(self, sender: bytes, message: GroupWord) -> None:
        """Act on what is said about groups; what is for the head goes on to it."""
        node = self._node
        match message:
            case PrepareBundles(group_id, turn, wanted):
                agreed = not node.departure.draining and node.leases.prepare(group_id, wanted)
                node.tell(sender, BundlesPrepared(group_id, turn, agreed))
            case CommitBundles(group_id):
                node.perform(node.leases.commit(group_id))
                self._tell_room()
            case DropBundles(group_id, indexes, removed):
                node.perform(node.leases.drop(group_id, indexes, removed))
                self._tell_room()
            case HoldBack(group_id, amounts, seconds):
                node.perform(node.leases.hold_back(group_id, amounts, time.monotonic() + seconds))
            case CreateGroup() | RemoveGroup() | BundlesPrepared() | AskGroup() | HeldBundles():
                if isinstance(node.head, Head):
                    self._decide(sender, message, node.head)
                else:
                    node.head.hears(sender, message)
            case _:
                assert_never(message)

    def _tell_room(self) -> None:
        """What this node has is another: who waits here for a group may be served elsewhere, or here."""
        self._node.placing.room_changed()

    # -- at the head --------------------------------------------------------------------------------------------------

    def _decide(
        self, sender: bytes, message: CreateGroup | RemoveGroup | BundlesPrepared | AskGroup | HeldBundles, head: Head
    ) -> None:
        book = self.book
        match message:
            case CreateGroup():
                self._create(message, head.keeping)
            case RemoveGroup(group_id):
                self._perform(book.remove(group_id, self._nodes()))
            case BundlesPrepared(group_id, turn, agreed):
                known = group_id in book.groups
                self._perform(book.prepared(sender, group_id, turn, agreed))
                if not agreed or not known:
                    return  # the next look, with what the nodes have said by then
            case AskGroup(group_id):
                if group_id not in book.groups and head.homecoming.over:  # before that its order may be under way
                    self._node.tell(sender, DropBundles(group_id, (), True))
            case HeldBundles(group_id, standing, prepared):
                book.claim(sender, group_id, standing, prepared)
                if head.homecoming.over:
                    self.all_home()
        self.look()

    def _create(self, message: CreateGroup, keeping: Keeping | None) -> None:
        book = self.book
        group = _group(message)
        known = message.group_id in book.groups
        if known or not book.create(group) or keeping is None:
            return
        keeping.ledger.group(message.group_id, codec.encode(message))
        if message.detached:  # nobody else would say it again
            group.kept = False
            keeping.promise(partial(self._kept, group))

    def _kept(self, group: Group, why: str) -> None:
        """It is on the disk, or will be when there is room for it again: that is no reason to keep it waiting."""
        group.kept = True
        self.look()

    def restore(self, frames: Iterable[bytes]) -> None:
        """Know the groups that the former head knew."""
        for frame in frames:
            self.book.create(_group(cast(CreateGroup, codec.decode(frame))))

    def all_home(self) -> None:
        """The nodes have told what they hold."""
        self._perform(self.book.all_home())
        self.look()

    def look(self) -> None:
        """See whether a group that waits finds its place now."""
        head = self._node.head
        if self.book.groups and isinstance(head, Head) and head.homecoming.over:
            self._perform(self.book.look(self._view(), time.monotonic()))

    def owner_died(self, process: bytes) -> None:
        """Its groups go with it."""
        self._perform(self.book.owner_died(process, self._nodes()))

    def node_gone(self, gone: bytes) -> None:
        """With its bundles, and the groups of its programs."""
        self._perform(self.book.node_gone(gone, self._nodes()))

    def rows(self) -> list[dict[str, Any]]:
        """What is told about groups, as the table of Ray has it."""
        return [
            {
                "placement_group_id": group.group_id.hex(), "name": group.name, "strategy": group.strategy,
                "state": str(group.state), "detached": group.detached,
                "bundles": [{name: units / UNIT for name, units in each} for each in group.bundles],
                "bundles_to_node_id": {str(index): node.hex() for index, node in sorted(group.places.items())},
            }
            for group in self.book.groups.values()
        ]  # fmt: skip

    def _nodes(self) -> list[bytes]:
        return [self._node.me, *self._node.other_nodes()]

    def _view(self) -> list[NodeRecord]:
        node = self._node
        if node.neighbours is not None:
            return node.neighbours.view()
        now, total = node.leases.statistics(), node.leases.total()
        return [
            NodeRecord(
                node.me,
                "",
                "",
                0,
                0,
                True,
                "",
                "",
                0,
                total,
                now.available,
                (),
                0,
                0,
                0,
                0,
                devices=node.leases.free_devices(),
            )
        ]

    def _perform(self, effects: Iterable[bundles.GroupEffect]) -> None:
        keeping = self._node.head.keeping if isinstance(self._node.head, Head) else None
        for effect in effects:
            if keeping is not None and isinstance(effect, bundles.Drop) and effect.removed:
                keeping.ledger.group(effect.group_id, b"")
            match effect:
                case bundles.Prepare(node, group_id, turn, wanted):
                    self._node.tell(node, PrepareBundles(group_id, turn, wanted))
                case bundles.Commit(node, group_id):
                    self._node.tell(node, CommitBundles(group_id))
                case bundles.Drop(node, group_id, indexes, removed):
                    self._node.tell(node, DropBundles(group_id, indexes, removed))
                case bundles.HoldBack(node, group_id, amounts, seconds):
                    self._node.tell(node, HoldBack(group_id, amounts, seconds))
                case _:
                    assert_never(effect)


def _group(message: CreateGroup) -> Group:
    group_id, name, wanted, strategy, detached = (
        message.group_id, message.name, message.bundles, message.strategy, message.detached
    )  # fmt: skip
    return Group(group_id, owner_of(group_id), name, wanted, strategy, detached)
