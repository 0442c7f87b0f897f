"""Placement groups: what a node does about them, and what the head decides (core/bundles.py, core/holdings.py).

The head writes nothing down about groups: with it they are gone. A node lets go of all it holds when its head changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, assert_never

from zmreg.core import bundles
from zmreg.core.bundles import Group, GroupBook
from zmreg.model.group_messages import (
    AskGroup,
    BundlesPrepared,
    CommitBundles,
    CreateGroup,
    DropBundles,
    GroupWord,
    PrepareBundles,
    RemoveGroup,
)
from zmreg.model.ids import owner_of
from zmreg.model.mesh_messages import NodeRecord
from zmreg.model.specs import UNIT
from zmreg.services.head import Head
from zmreg.wire import codec

if TYPE_CHECKING:
    from zmreg.services.node import Node


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
            case CreateGroup() | RemoveGroup() | BundlesPrepared() | AskGroup():
                if isinstance(node.head, Head):
                    self._decide(sender, message)
                else:
                    node.ends.far(node.head_node(), sender, codec.encode(message))
            case _:
                assert_never(message)

    def _tell_room(self) -> None:
        """What this node has is another: who waits here for a group may be served elsewhere, or here."""
        self._node.placing.room_changed()

    # -- at the head --------------------------------------------------------------------------------------------------

    def _decide(self, sender: bytes, message: CreateGroup | RemoveGroup | BundlesPrepared | AskGroup) -> None:
        book = self.book
        match message:
            case CreateGroup(group_id, name, wanted, strategy, detached):
                book.create(Group(group_id, owner_of(group_id), name, wanted, strategy, detached))
            case RemoveGroup(group_id):
                self._perform(book.remove(group_id, self._nodes()))
            case BundlesPrepared(group_id, turn, agreed):
                known = group_id in book.groups
                self._perform(book.prepared(sender, group_id, turn, agreed))
                if not agreed or not known:
                    return  # the next look, with what the nodes have said by then
            case AskGroup(group_id):
                if group_id not in book.groups:
                    self._node.tell(sender, DropBundles(group_id, (), True))
        self.look()

    def look(self) -> None:
        """See whether a group that waits finds its place now."""
        if self.book.groups and isinstance(self._node.head, Head):
            self._perform(self.book.look(self._view()))

    def owner_died(self, process: bytes) -> None:
        """Its groups go with it."""
        self._perform(self.book.owner_died(process, self._nodes()))

    def node_gone(self, gone: bytes) -> None:
        """With its bundles; where it was the head, with all groups."""
        self._perform(self.book.node_gone(gone))

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
        return [NodeRecord(node.me, "", "", 0, 0, True, "", "", 0, total, now.available, (), 0, 0, 0, 0,
                devices=node.leases.free_devices())]

    def _perform(self, effects: Iterable[bundles.GroupEffect]) -> None:
        for effect in effects:
            match effect:
                case bundles.Prepare(node, group_id, turn, wanted):
                    self._node.tell(node, PrepareBundles(group_id, turn, wanted))
                case bundles.Commit(node, group_id):
                    self._node.tell(node, CommitBundles(group_id))
                case bundles.Drop(node, group_id, indexes, removed):
                    self._node.tell(node, DropBundles(group_id, indexes, removed))
                case _:
                    assert_never(effect)
