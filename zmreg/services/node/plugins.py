"""What each worker of the cluster is to have set up before its first call: a node's copy of the table.

Plugins are bytes here. They go to workers with their welcome; those that work already are told by who registers them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmreg.model.messages import Answer, SetPlugin
from zmreg.wire import batches

if TYPE_CHECKING:
    from zmreg.services.node.node import Node


class Plugins:
    """The latest word on each name, also on those that are gone."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._rows: dict[str, SetPlugin] = {}

    def hear(self, sender: bytes, message: SetPlugin) -> None:
        """A client, or another node, has news."""
        node = self._node
        known = self._rows.get(message.name)
        row = message.but(request=0)
        if known is None or known.stamp < row.stamp:
            self._rows[row.name] = row
            # The head tells it once more: whoever joins at this moment is known to it first.
            if message.request or (node.neighbours is not None and node.neighbours.is_head):
                for other in node.other_nodes():
                    if other != sender:
                        node.post(other, row)
        if message.request:
            node.post(sender, Answer(message.request, True, batches.pack_plain(True)))

    def tell(self, node: bytes) -> None:
        """Another node may know nothing yet."""
        for row in self._rows.values():
            self._node.post(node, row)

    def living(self) -> tuple[bytes, ...]:
        """What a worker gets, in the order of registration."""
        rows = sorted(self._rows.values(), key=lambda row: row.stamp)
        return tuple(row.plugin for row in rows if row.plugin)
